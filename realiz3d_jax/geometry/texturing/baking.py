"""Baking of views into the texture of a mesh.

Each texel represents a surface point x (``texels.py``); the gutter of a chart represents the surface beyond its seams
(``seams.py``). View v sees x if the cosine c_v(x) between the normal and the direction to the camera is at least
``minimum_cosine``, an exact shadow ray to the camera is free, and x appears more than ``edge_erosion`` pixels away from every
edge in the view, or in the middle of a narrow strip (``view_sampling.py``). With d_v(x) the distance to the edge in pixels, the
colour of a seen texel is, in linear light,

    sum_v w_v g_v I_v(x) / sum_v w_v,    w_v = c_v^cosine_power min((d_v - edge_erosion) / (edge_feather + 1), 1),    (1)

where I_v(x) is the bicubic sample of the view and g_v its gain. Gains are 1, or with ``harmonise`` align the views where they
overlap: for each channel,

    min_g  sum_{v < u} n_vu (log g_v - log g_u + m_vu)² + harmonise_prior sum_v (log g_v)²,                            (2)

with m_vu the mean of log I_v - log I_u over the texels that both see, weighted by the smaller of their weights, and n_vu the
share of these texels in all overlaps. Logarithms are necessary: squared differences of the colours themselves would be smallest
at gains of 0.

Unseen surface is filled by diffusion over the surface, and texels without surface by push-pull (``surface_fill.py``).
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.cameras import STANDARD, Camera
from realiz3d_jax.geometry.mesh import Mesh
from realiz3d_jax.geometry.render import RayScene
from realiz3d_jax.geometry.texturing import seams, surface_fill, view_sampling
from realiz3d_jax.geometry.texturing.chunks import chunks, padded, table
from realiz3d_jax.geometry.texturing.texels import Texels, rasterise

_RIDGE_WEIGHT = 1e-3
"""Feather of the ridges of narrow strips, which count where no other view sees the surface better."""

_DARKEST = 0.01
"""Linear light; texels darker than this in either of two views do not count for the ratio of the views."""


@dataclasses.dataclass(frozen=True)
class BakeOptions:
    """Settings of a bake.

    Attributes:
      size: T, texels along a side of the texture.
      gutter: width of the margin of each chart, texels; it shows the surface beyond the border of the chart.
      minimum_cosine: smallest cosine of the angle at which a view sees the surface, in (0, 1).
      cosine_power: exponent of the preference for frontal views.
      edge_erosion: width of the unused margin of a view beside silhouettes and jumps of depth, pixels. Three pixels keep the
        outermost pixel of a surface, which is mixed with the background, out of every bicubic sample. A strip too narrow to
        have other pixels uses the middle ones.
      edge_feather: pixels beyond this margin over which the weight of the view rises to its full value.
      harmonise: whether gains align the views.
      harmonise_prior: pull of the gains towards 1, relative to all overlap.
    """

    size: int = 2048
    gutter: float = 4.0
    minimum_cosine: float = 0.2
    cosine_power: float = 4.0
    edge_erosion: int = 3
    edge_feather: int = 4
    harmonise: bool = False
    harmonise_prior: float = 0.01


@dataclasses.dataclass(frozen=True, eq=False)
class Baked:
    """A texture and the origin of its colours.

    Attributes:
      texture: uint8[T, T, 3], sRGB.
      seen: bool[T, T], texels inside faces with a colour from the views.
      filled: bool[T, T], texels inside faces with a colour diffused over the surface.
      gains: float64[V, 3], gains of the views in linear light; 1 without ``harmonise``.
      coverage: fraction of the surface area that at least one view sees.
      overlap: fraction of the surface area that at least two views see.
    """

    texture: np.ndarray
    seen: np.ndarray
    filled: np.ndarray
    gains: np.ndarray
    coverage: float
    overlap: float


@dataclasses.dataclass(frozen=True, eq=False)
class _Look:
    """Contribution of one view: ``texel`` int32[m], increasing indices into the texels; ``weight`` float32[m]; ``color``
    float32[m, 3], linear light."""

    texel: np.ndarray
    weight: np.ndarray
    color: np.ndarray


def bake(
    mesh: Mesh,
    uv: np.ndarray,
    views: np.ndarray,
    cameras: Sequence[Camera] = STANDARD,
    options: BakeOptions | None = None,
) -> Baked:
    """Bakes views into a texture.

    Where faces overlap in the UV plane, the first of them determines the colour of the texel.

    Args:
      mesh: in the canonical frame.
      uv: float[F, 3, 2], texture coordinates of the faces' corners in glTF's convention: u to the right, v down, in [0, 1].
      views: uint8[V, H, W, 3 or 4], sRGB, H = W; pixels with a straight alpha below one half are ignored.
      cameras: V orthographic cameras that look at the origin, one per view.
      options: settings; None takes the defaults.

    Raises:
      UserError: the shapes do not match, a camera is perspective, or ``uv`` is not in [0, 1].
    """
    options = BakeOptions() if options is None else options
    views = np.asarray(views)
    _check(mesh, uv, views, cameras)
    texels = seams.continued(mesh, uv, rasterise(uv, options.size, options.gutter))
    scene = RayScene(mesh)
    places = _Places(mesh, scene, texels)
    looks = [
        _look(mesh, scene, texels, places, view, camera, options) for view, camera in zip(views, cameras, strict=True)
    ]
    gains = _gains(looks, len(texels.index), options.harmonise_prior) if options.harmonise else np.ones((len(views), 3))
    color, count = _blend(looks, gains, len(texels.index))
    seen = count > 0
    color[~seen] = surface_fill.diffuse(mesh, texels, color, seen)
    area = _areas(mesh, texels)
    total = max(area.sum(), 1e-30)
    return Baked(
        texture=_compose(texels, color),
        seen=_spread(texels, seen & texels.inside),
        filled=_spread(texels, ~seen & texels.inside),
        gains=gains,
        coverage=float(area[seen].sum() / total),
        overlap=float(area[count > 1].sum() / total),
    )


def _check(mesh: Mesh, uv: np.ndarray, views: np.ndarray, cameras: Sequence[Camera]) -> None:
    if len(uv) != len(mesh.faces):
        raise UserError(f"uv: found coordinates of {len(uv)} faces; expected {len(mesh.faces)}, the faces of the mesh.")
    if views.dtype != np.uint8 or views.ndim != 4 or views.shape[3] not in (3, 4) or views.shape[1] != views.shape[2]:
        raise UserError(
            f"views: found {views.dtype}{list(views.shape)}; expected square images, uint8[V, H, W, 3 or 4]."
        )
    if len(views) != len(cameras):
        raise UserError(f"views: found {len(views)} views and {len(cameras)} cameras; expected one camera per view.")
    if any(camera.perspective for camera in cameras):
        raise UserError("cameras: found a perspective camera; expected orthographic cameras.")


class _Places:
    """Surface points of the texels: ``position``, ``normal`` (interpolated) and ``facet`` (geometric), float32[n, 3] each."""

    def __init__(self, mesh: Mesh, scene: RayScene, texels: Texels):
        shape = (len(texels.index), 3)
        self.position, self.normal, self.facet = (np.empty(shape, np.float32) for _ in range(3))
        geometry = mesh.vertices[mesh.faces], mesh.corner_normals, scene.face_normals.astype(np.float32)
        corners, normals, facets = (jnp.asarray(table(array)) for array in geometry)
        for part in chunks(len(texels.index)):
            face, barycentric = padded(texels.face[part]), padded(texels.barycentric[part])
            found = _interpolate(corners, normals, facets, face, barycentric)
            for whole, chunk in zip((self.position, self.normal, self.facet), found, strict=True):
                whole[part] = np.asarray(chunk)[: part.stop - part.start]


@jax.jit
def _interpolate(
    corners: jax.Array, normals: jax.Array, facets: jax.Array, face: jax.Array, barycentric: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    weights = barycentric[..., None]
    facet = facets[face]
    normal = (normals[face] * weights).sum(axis=1)
    # The winding decides the side, as in ``render.surface_normals``, because the normals of some files contradict it.
    normal = jnp.where((normal * facet).sum(axis=-1, keepdims=True) < 0, -normal, normal)
    length = jnp.linalg.norm(normal, axis=-1, keepdims=True)
    normal = jnp.where(length > 1e-6, normal / jnp.maximum(length, 1e-6), facet)
    return (corners[face] * weights).sum(axis=1), normal, facet


def _look(
    mesh: Mesh,
    scene: RayScene,
    texels: Texels,
    places: _Places,
    view: np.ndarray,
    camera: Camera,
    options: BakeOptions,
) -> _Look:
    """Colours and weights of the texels that a view, uint8[H, W, 3 or 4], sees."""
    reach = options.edge_erosion + options.edge_feather + 1
    steepest = np.sqrt(1 - options.minimum_cosine**2) / options.minimum_cosine
    image, back = view_sampling.view_with_margins(mesh, scene, view, camera, options.edge_erosion, reach, steepest)
    image = jnp.asarray(image)
    axes = camera.axes
    found = []
    for part in chunks(len(texels.index)):
        # Faces are seen from behind only where the mesh is open, so only there do their backs need a ray.
        either = padded(back[texels.face[part]])
        geometry = (padded(array[part]) for array in (places.position, places.normal, places.facet))
        pixels, cosine, margin = view_sampling.look(
            *geometry, either, jnp.asarray(axes, jnp.float32), camera.width, image
        )
        candidate = (cosine >= options.minimum_cosine) & (margin > options.edge_erosion)
        candidate = np.flatnonzero(np.asarray(candidate)[: part.stop - part.start])
        texel = (candidate + part.start).astype(np.int32)
        facet = places.facet[texel]
        side = np.where((facet @ axes[2] > 0)[:, None], facet, -facet)
        clear = ~scene.occluded(places.position[texel], side, axes[2])
        found.append((texel[clear], *(np.asarray(array)[candidate[clear]] for array in (cosine, margin, pixels))))
    texel, cosine, margin, pixels = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    ridge = margin == options.edge_erosion + view_sampling.RIDGE
    sampled = np.empty((len(texel), 4), np.float32)
    for part in chunks(len(texel)):
        of_part = view_sampling.sample(image, padded(pixels[part]), padded(ridge[part]))
        sampled[part] = np.asarray(of_part)[: part.stop - part.start]
    feather = (sampled[:, 3] - options.edge_erosion) / (options.edge_feather + 1)
    # The interpolated distance may be slightly smaller than that of the texel's own pixel, which is sufficient.
    feather = np.where(ridge, _RIDGE_WEIGHT, np.clip(feather, 0.1 / (options.edge_feather + 1), 1))
    weight = cosine**options.cosine_power * feather
    return _Look(texel, weight.astype(np.float32), sampled[:, :3])


def _gains(looks: list[_Look], count: int, prior: float) -> np.ndarray:
    """Gains of (2), float64[V, 3]."""
    views = len(looks)
    amount, difference = np.zeros((views, views, 3)), np.zeros((views, views, 3))
    place = np.empty(count, np.int64)
    for one, first in enumerate(looks):
        place[:] = -1
        place[first.texel] = np.arange(len(first.texel))
        for two, second in enumerate(looks[one + 1 :], one + 1):
            both = np.flatnonzero(place[second.texel] >= 0)
            match = place[second.texel[both]]
            a, b = first.color[match], second.color[both]
            weight = np.minimum(first.weight[match], second.weight[both])[:, None]
            weight = weight * (np.minimum(a, b) > _DARKEST)
            ratio = np.log(np.maximum(a, _DARKEST)) - np.log(np.maximum(b, _DARKEST))
            amount[one, two] = weight.sum(axis=0, dtype=np.float64)
            difference[one, two] = (weight * ratio).sum(axis=0, dtype=np.float64)
    logarithms = np.zeros((views, 3))
    for channel in range(3):
        total = max(amount[..., channel].sum(), 1e-12)
        part, mean = amount[..., channel] / total, difference[..., channel] / total
        system = np.diag(part.sum(axis=0) + part.sum(axis=1) + prior) - part - part.T
        logarithms[:, channel] = np.linalg.solve(system, mean.sum(axis=0) - mean.sum(axis=1))
    return np.exp(logarithms)


def _blend(looks: list[_Look], gains: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Colours of (1), float32[n, 3], 0 for unseen texels, and the number of views that see each texel, int32[n]."""
    views = np.zeros(count, np.int32)
    total = jnp.asarray(table(np.zeros((count, 4), np.float32)))
    for look, gain in zip(looks, gains, strict=True):
        views[look.texel] += 1
        for part in chunks(len(look.texel)):
            place, color, weight = (
                padded(look.texel[part], len(total)),
                padded(look.color[part]),
                padded(look.weight[part]),
            )
            total = _add(total, place, color * gain.astype(np.float32), weight)
    total = np.asarray(total)[:count]
    return total[:, :3] / np.maximum(total[:, 3:], 1e-20), views


@functools.partial(jax.jit, donate_argnums=0)
def _add(total: jax.Array, place: jax.Array, color: jax.Array, weight: jax.Array) -> jax.Array:
    """Adds weighted colours and weights at ``place``; indices past the end, the padding of a chunk, are dropped."""
    values = jnp.concatenate([color * weight[:, None], weight[:, None]], axis=-1)
    return total.at[place].add(values, mode="drop", indices_are_sorted=True)


@jax.jit
def _to_srgb(linear: jax.Array) -> jax.Array:
    """``mesh.linear_to_srgb`` with 8 bits: float32[...] to uint8[...]."""
    linear = jnp.clip(linear, 0.0, 1.0)
    curve = 1.055 * jnp.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055
    return jnp.round(255 * jnp.where(linear <= 0.0031308, 12.92 * linear, curve)).astype(jnp.uint8)


def _compose(texels: Texels, color: np.ndarray) -> np.ndarray:
    """Texture uint8[T, T, 3], sRGB, from the colours of the texels, float32[n, 3], linear light."""
    image = np.zeros((texels.size * texels.size, 3), np.float32)
    image[texels.index] = color
    known = _spread(texels, np.ones(len(texels.index), bool))
    image = surface_fill.push_pull(jnp.asarray(image.reshape(texels.size, texels.size, 3)), jnp.asarray(known))
    return np.asarray(_to_srgb(image))


def _areas(mesh: Mesh, texels: Texels) -> np.ndarray:
    """Surface area that each texel represents, float64[n]: its share of its face; 0 in the gutter."""
    corners = mesh.vertices[mesh.faces].astype(np.float64)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1) / 2
    share = np.bincount(texels.face[texels.inside], minlength=len(area))
    return np.where(texels.inside, area[texels.face] / np.maximum(share[texels.face], 1), 0.0)


def _spread(texels: Texels, values: np.ndarray) -> np.ndarray:
    """Image bool[T, T] of values bool[n] at the texels."""
    image = np.zeros(texels.size * texels.size, bool)
    image[texels.index] = values
    return image.reshape(texels.size, texels.size)
