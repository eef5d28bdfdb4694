"""Sampling of a view at surface points: exact visibility, margins beside edges, and bicubic samples.

A pixel of a view is trusted only at a distance from every *edge*: the silhouette, and discontinuities in the depth of the
visible surface. Generated images mix two surfaces there, or misplace the edge by a pixel. Edges are found in the exact
geometry. Between two neighbouring pixels whose faces have the depth slopes S and S' (depth in pixels, per pixel), the depth of
a connected surface changes by a value between S and S', whatever the crease between them, so

    edge  <=>  depth change outside [min(S, S') - tolerance, max(S, S') + tolerance].

A strip too narrow to contain any trusted pixel, such as the leg of a chair, would never be seen. The pixels on its *ridge*,
which are as far from the edges as any nearby pixel, are therefore used as well, individually and without interpolation, unless
they touch an edge.

Colours are linear light: a pixel is an average of light, and so is a blend of pixels, and glTF decodes textures before
filtering. sRGB is decoded once, on input of a view, and encoded once, on output of the texture.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from realiz3d_jax.geometry.cameras import Camera
from realiz3d_jax.geometry.mesh import Mesh, srgb_to_linear
from realiz3d_jax.geometry.render import RayScene
from realiz3d_jax.geometry.texturing.chunks import table

_STEP_TOLERANCE = 1.0
"""Tolerance of the change of depth between two pixels, in pixels, beyond the slopes of their faces; it admits small faces with
other slopes between the two."""

_OPEN = 1e-3
"""Share of back faces in the foreground of a view above which the mesh is open; rays that slip through edges cause fewer."""

RIDGE = 0.5
"""Offset of the margin that marks the ridge of a narrow strip from the largest untrusted margin."""

_LINEAR = srgb_to_linear(np.arange(256) / 255.0).astype(np.float32)


def view_with_margins(
    mesh: Mesh,
    scene: RayScene,
    view: np.ndarray,
    camera: Camera,
    erosion: int,
    reach: int,
    steepest: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Prepares a view for ``sample``, and finds the faces that it may see from behind.

    Args:
      mesh: mesh that the view shows.
      scene: its ray scene.
      view: uint8[H, W, 3 or 4], sRGB, H = W; pixels with an alpha below 128 are background.
      camera: orthographic camera of the view.
      erosion: width of the untrusted margin beside edges, pixels.
      reach: largest distance to edges that is computed, pixels; more than ``erosion``.
      steepest: limit that slopes of depth, in pixels per pixel, are clipped to.

    Returns:
      image: float32[H, W, 4]: linear light, and the distance to the nearest edge in pixels along rows, columns or diagonals: 0
        in the background, 1 beside an edge, at most ``reach``, and ``erosion + RIDGE`` on the ridge of a narrow strip.
      back: bool[F], the faces seen from behind; all faces if the mesh is open or has the opposite winding, because rays do not
        hit every face smaller than a pixel.
    """
    size = view.shape[0]
    origins, direction = camera.rays(size)
    face = scene.first_faces(origins.reshape(-1, 3), direction).reshape(size, size)
    if view.shape[2] == 4:
        face = np.where(view[..., 3] < 128, -1, face)
    planes, facing = _planes(mesh, scene, size, camera, steepest)
    margin = _margin(jnp.asarray(face), jnp.asarray(table(planes)), erosion, reach)
    back = np.zeros(len(mesh.faces), bool)
    hit = face[face >= 0]
    back[hit] = facing[hit] < 0
    if len(hit) and back[hit].mean() > _OPEN:
        back[:] = True
    return np.concatenate([_LINEAR[view[..., :3]], np.asarray(margin)[..., None]], axis=-1), back


def _planes(mesh: Mesh, scene: RayScene, size: int, camera: Camera, steepest: float) -> tuple[np.ndarray, np.ndarray]:
    """Depth of each face as a plane over the view, in pixels, and the cosine between its normal and the direction to the
    camera.

    Returns:
      planes: float32[F, 7]: column and row of the face's centre, its depth, slopes along columns and along rows, smallest and
        largest depth of the corners.
      facing: float64[F], the cosines.
    """
    pixels, depth = camera.project(mesh.vertices, size)
    pixels, depth = pixels[mesh.faces], depth[mesh.faces] * size / camera.width
    right, up, backward = camera.axes
    facing = scene.face_normals @ backward
    safe = np.where(np.abs(facing) < 1e-6, 1e-6, facing)
    slopes = np.stack([scene.face_normals @ right / safe, -(scene.face_normals @ up) / safe], axis=-1)
    columns = [pixels.mean(axis=1), depth.mean(axis=1)[:, None], np.clip(slopes, -steepest, steepest)]
    columns += [depth.min(axis=1)[:, None], depth.max(axis=1)[:, None]]
    return np.concatenate(columns, axis=-1).astype(np.float32), facing


@functools.partial(jax.jit, static_argnames=("erosion", "reach"))
def _margin(face: jax.Array, planes: jax.Array, erosion: int, reach: int) -> jax.Array:
    """Distance to the nearest edge, float32[H, W], as in ``view_with_margins``, from int32[H, W] and float32[F, 7]."""
    height, width = face.shape
    here = planes[face]
    column, row = jnp.arange(width)[None, :] + 0.5, jnp.arange(height)[:, None] + 0.5
    depth = here[..., 2] + here[..., 3] * (column - here[..., 0]) + here[..., 4] * (row - here[..., 1])
    depth = jnp.clip(depth, here[..., 5], here[..., 6])
    mask = face >= 0
    beside = _beside_edge(depth, here[..., 3], mask) | _beside_edge(depth.T, here[..., 4].T, mask.T).T
    distance = jnp.where(mask, jnp.where(beside, 1.0, float(reach)), 0.0)

    def grow(_: int, distance: jax.Array) -> jax.Array:
        return jnp.minimum(distance, _pool(distance, 1, jax.lax.min, reach) + 1.0)

    distance = jax.lax.fori_loop(1, reach, grow, distance)
    ridge = (distance > 1) & (distance <= erosion) & (distance == _pool(distance, erosion, jax.lax.max, 0.0))
    return jnp.where(ridge, erosion + RIDGE, distance)


def _pool(
    image: jax.Array, radius: int, choose: Callable[[jax.Array, jax.Array], jax.Array], outside: float
) -> jax.Array:
    """Minimum or maximum of the (2 radius + 1)² pixels around each pixel: float32[H, W]."""
    for window in ((2 * radius + 1, 1), (1, 2 * radius + 1)):
        padding = tuple((side // 2, side // 2) for side in window)
        image = jax.lax.reduce_window(image, jnp.float32(outside), choose, window, (1, 1), padding)
    return image


def _beside_edge(depth: jax.Array, slope: jax.Array, mask: jax.Array) -> jax.Array:
    """Whether an edge lies between a pixel and the next or previous one in its row: bool[H, W]; ``slope`` is along rows."""
    change = depth[:, 1:] - depth[:, :-1]
    low = jnp.minimum(slope[:, 1:], slope[:, :-1]) - _STEP_TOLERANCE
    high = jnp.maximum(slope[:, 1:], slope[:, :-1]) + _STEP_TOLERANCE
    edge = (change < low) | (change > high) | (mask[:, 1:] != mask[:, :-1])
    return jnp.pad(edge, ((0, 0), (0, 1))) | jnp.pad(edge, ((0, 0), (1, 0)))


@jax.jit
def look(
    position: jax.Array,
    normal: jax.Array,
    facet: jax.Array,
    either: jax.Array,
    axes: jax.Array,
    width: float,
    image: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Projects surface points into a view, ignoring occlusion.

    Args:
      position: float32[n, 3], world.
      normal: float32[n, 3], interpolated unit normals.
      facet: float32[n, 3], geometric unit normals on the same side.
      either: bool[n], whether the surface may be seen from behind.
      axes: float32[3, 3], axes of the camera, which looks at the origin.
      width: width of the view, world units.
      image: float32[H, W, 4], from ``view_with_margins``.

    Returns:
      pixels: float32[n, 2], (column, row).
      cosine: float32[n], between ``normal``, on the side of the camera, and the direction to the camera; 0 at invisible backs.
        The facet decides the side; its normal differs from the smooth one on coarse meshes.
      margin: float32[n], distance to the nearest edge of the pixel that contains the point; 0 outside the view.
    """
    size = image.shape[0]
    right, up, backward = axes
    high = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    column = (high(position, right) / width + 0.5) * size
    row = (0.5 - high(position, up) / width) * size
    pixels = jnp.stack([column, row], axis=-1)
    inside = ((pixels >= 0) & (pixels < size)).all(axis=-1)
    pixel = jnp.clip(jnp.floor(pixels).astype(jnp.int32), 0, size - 1)
    margin = jnp.where(inside, image[pixel[:, 1], pixel[:, 0], 3], 0.0)
    shaded, flat = high(normal, backward), high(facet, backward)
    cosine = jnp.where(flat > 0, shaded, jnp.where(either & (flat < 0), -shaded, 0.0))
    return pixels, jnp.maximum(cosine, 0.0), margin


@jax.jit
def sample(image: jax.Array, pixels: jax.Array, alone: jax.Array) -> jax.Array:
    """Samples a view: colours by bicubic interpolation (Catmull-Rom, negative light clipped), margins by bilinear
    interpolation.

    Args:
      image: float32[H, W, 4], from ``view_with_margins``.
      pixels: float32[n, 2], (column, row).
      alone: bool[n], whether to take the pixel that contains the point, without interpolation.

    Returns:
      float32[n, 4], colour and margin.
    """
    height, width, channels = image.shape
    flat = image.reshape(-1, channels)
    place = pixels - 0.5
    corner = jnp.floor(place)
    fraction = place - corner
    corner = corner.astype(jnp.int32)
    cubic, linear = _catmull_rom(fraction), jnp.stack([0 * fraction, 1 - fraction, fraction, 0 * fraction], axis=-1)
    total = jnp.zeros((len(pixels), channels))
    for down in range(4):
        row = jnp.clip(corner[:, 1] + (down - 1), 0, height - 1)
        for right in range(4):
            column = jnp.clip(corner[:, 0] + (right - 1), 0, width - 1)
            tap = flat[row * width + column]
            weight = cubic[:, 1, down] * cubic[:, 0, right]
            margin = linear[:, 1, down] * linear[:, 0, right]
            total += tap * jnp.stack([weight, weight, weight, margin], axis=-1)
    own = jnp.clip(jnp.floor(pixels).astype(jnp.int32), 0, jnp.array([width - 1, height - 1]))
    return jnp.where(alone[:, None], flat[own[:, 1] * width + own[:, 0]], jnp.maximum(total, 0.0))


def _catmull_rom(t: jax.Array) -> jax.Array:
    """Weights of four consecutive pixels, [..., 4], at the fraction t past the second (Keys 1981, a = -1/2)."""
    return jnp.stack(
        [
            ((-0.5 * t + 1.0) * t - 0.5) * t,
            (1.5 * t - 2.5) * t * t + 1.0,
            ((-1.5 * t + 2.0) * t + 0.5) * t,
            (0.5 * t - 0.5) * t * t,
        ],
        axis=-1,
    )
