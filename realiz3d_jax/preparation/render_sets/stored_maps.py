"""Normals and positions of the sets of ``transforms_json``: from the mesh beside the views, else from the maps of 8 bits.

The mesh gives exact maps, but nothing says which of its axes is up (TRELLIS writes Z, Hunyuan3D Y) and whether it lies in the
views' world or in the file's own; the placement is taken that agrees with everything the views show. Without a mesh, a
position map gives the depth, rounded to 1/255; the place is set on the ray of its pixel, so that only the depth is rounded.

Position maps hold p + 0.5 or p / 1.15 + 0.5, in the order x, y, z or, where OpenCV wrote a Y-up vector, z, y, x of glTF's:
-y, z, x of the world. Normal maps hold n / 2 + 0.5 of the world. What a map means is found by what its own pixels, or the
mesh, say of it.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.assets.asset import load_asset
from realiz3d_jax.geometry.cameras import Camera
from realiz3d_jax.geometry.mesh import Mesh
from realiz3d_jax.geometry.render import render_maps
from realiz3d_jax.preparation.render_sets import evidence, fields

_TRIAL_SIZE = 64
_ORDERS = {
    "x, y, z": lambda values: values,
    "-y, z, x": lambda values: np.stack([values[..., 2], -values[..., 0], values[..., 1]], axis=-1),
}
_SPANS = (1.0, 1.15)
_STEPS = 2.5
_LOOSE_STEPS = 8.0
"""By how many steps of 1/255 a position map may miss: where places are taken from it, and where it only says whose mesh it is,
which JPEG can say as well."""

_TIE = 0.02


@dataclasses.dataclass(frozen=True, eq=False)
class Placement:
    """How the views' world and the file's own lie in the canonical one.

    Attributes:
      middle, side: float64[3] and float, of the box that becomes the canonical cube, in the views' world.
      scale, offset: float and float64[3]: the views' world is the file's times ``scale`` plus ``offset``.
    """

    middle: np.ndarray
    side: float
    scale: float
    offset: np.ndarray

    def canonical(self, points: np.ndarray) -> np.ndarray:
        """float[..., 3] of the views' world in the canonical one."""
        return (points - self.middle) / self.side


@dataclasses.dataclass(frozen=True, eq=False)
class _Shown:
    """What the views show of the geometry.

    Attributes:
      size: pixels along a side of a view.
      outline: bool[V, H, W], by alpha; None where the views have none.
      normal: float64[V, H, W, 3], unit; None where there are no normal maps.
      position: float64[V, H, W, 3], the values of the position maps in [-0.5, 0.5]; None where there are none.
    """

    size: int
    outline: np.ndarray | None
    normal: np.ndarray | None
    position: np.ndarray | None

    def sampled(self, size: int) -> "_Shown":
        """The same at the pixel centres of smaller views."""
        index = ((np.arange(size) + 0.5) * self.size / size).astype(int)
        maps = (self.outline, self.normal, self.position)
        return _Shown(size, *(None if one is None else one[:, index[:, None], index] for one in maps))


def read_maps(
    paths: Sequence[pathlib.Path],
    size: int,
    cameras: Sequence[Camera],
    outline: np.ndarray | None,
    placement: Placement,
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Mask bool[V, H, W], normals and positions float[V, H, W, 3] or None, in the canonical world.

    Args:
      paths: the views' images; maps and mesh lie beside them.
      size: pixels along a side of a view.
      cameras: of the views, canonical.
      outline: bool[V, H, W] by alpha, or None.
      placement: of the views' world.

    Raises:
      UserError: nothing shows the outline; or mesh, maps and outline don't fit each other.
    """
    normal, position = _map(paths, size, "normal"), _map(paths, size, "pos")
    shown = _Shown(size, outline, None if normal is None else evidence.unit(2 * normal)[0], position)
    mesh_path = _mesh_path(paths[0].parent)
    if mesh_path is not None:
        return _from_mesh(mesh_path, cameras, shown, placement)
    if outline is None:
        raise UserError(
            f"{paths[0]}: neither this image nor its albedo has alpha, and there is no mesh.ply; expected one that shows the "
            "object's outline: a background colour doesn't. Put the object's mesh beside the views as mesh.ply."
        )
    if position is None:  # then nothing tells what normals mean
        return outline, None, None
    if not (map_path := paths[0].with_name(f"{paths[0].stem}_pos.png")).is_file():
        raise UserError(
            f"{map_path}: is missing, and JPEG is too coarse for positions; expected PNG. Put the object's mesh beside the "
            "views as mesh.ply, or render the maps again."
        )
    return _from_maps(paths[0].parent, cameras, shown, placement)


def _map(paths: Sequence[pathlib.Path], size: int, kind: str) -> np.ndarray | None:
    """float64[V, H, W, 3] in [-0.5, 0.5] of the maps of a kind; None if no view has one."""
    names = [(f"{path.stem}_{kind}.png", f"{path.stem}_{kind}.jpg") for path in paths]
    if not any((path.parent / name).is_file() for path, both in zip(paths, names, strict=True) for name in both):
        return None
    found = [fields.find(path.parent, *both) for path, both in zip(paths, names, strict=True)]
    images = [fields.read_image(path)[0] for path in found]
    fields.check_sizes(found, images, size)
    return (np.stack(images) + 0.5) / 255 - 0.5  # the writers cut fractions of a byte off


def _mesh_path(folder: pathlib.Path) -> pathlib.Path | None:
    """The mesh of an object: beside the views, above them or in another folder of the object."""
    places = [folder / "mesh.ply"]
    if folder.name == "render_tex":
        places += [folder.parent / "mesh.ply", *sorted(folder.parent.glob("*/mesh.ply"))]
    return next((place for place in places if place.is_file()), None)


def _from_mesh(
    path: pathlib.Path, cameras: Sequence[Camera], shown: _Shown, placement: Placement
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maps of the mesh, placed as the views show it."""
    if shown.outline is None and shown.normal is None and shown.position is None:
        raise UserError(
            f"{path}: the views have neither alpha nor normal or position maps; expected one, to place it by."
        )
    trials = []
    for name, mesh in _placed(path, placement):
        position, score = _trial(mesh, cameras, shown.sampled(min(_TRIAL_SIZE, shown.size)), placement)
        trials.append((score, name, mesh, position))
    trials.sort(key=lambda trial: -trial[0])
    told = ", ".join(f"{score:.2f} with {name}" for score, name, *_ in trials)
    best, _, mesh, position = trials[0]
    if best < evidence.AGREEMENT:
        raise UserError(
            f"{path}: agrees with the views by {told}; expected {evidence.AGREEMENT} or more in one placement. It is another "
            f"object's, or the maps have other axes or channels than the format's. {fields.AGAIN}"
        )
    for score, _, _, other in trials[1:]:
        if score > best - _TIE and np.abs(other - position).mean() > _TIE * np.abs(position).mean():
            raise UserError(
                f"{path}: agrees with the views by {told}; expected one that fits best. Leave this object out."
            )
    maps = render_maps(mesh, shown.size, cameras)
    return maps.mask if shown.outline is None else maps.mask & shown.outline, maps.normal, maps.position


def _placed(path: pathlib.Path, placement: Placement) -> list[tuple[str, Mesh]]:
    """The mesh in the canonical world by all that the format's writers do: (in words, mesh)."""
    result = []
    for up in ("z", "y"):
        mesh = load_asset(path, up).mesh
        own = mesh.vertices.astype(np.float64) / mesh.scale + mesh.offset
        for name, vertices in (("as it lies", own), ("scaled", own * placement.scale + placement.offset)):
            placed = placement.canonical(vertices).astype(np.float32)
            result.append((f"{up.upper()} up, {name}", dataclasses.replace(mesh, vertices=placed)))
        if placement.scale == 1 and not placement.offset.any():
            result.pop()
    return result


def _trial(mesh: Mesh, cameras: Sequence[Camera], shown: _Shown, placement: Placement) -> tuple[np.ndarray, float]:
    """Positions of a placed mesh float32[V, H, W, 3], and the least share by which anything that is shown agrees with it."""
    maps = render_maps(mesh, shown.size, cameras)
    seen, shares = maps.mask, []
    if shown.outline is not None:
        shares.append((seen & shown.outline).sum() / max((seen | shown.outline).sum(), 1))
        seen = seen & shown.outline
    if not seen.any():
        return maps.position, 0.0
    if shown.normal is not None:
        shares.append((np.sum(shown.normal[seen] * maps.normal[seen], axis=-1) > 0.5).mean())
    if shown.position is not None:
        apart = [
            (np.abs(read[seen] - maps.position[seen]).max(axis=-1), step) for read, step in _readings(shown, placement)
        ]
        shares.append(max((error < _LOOSE_STEPS * step).mean() for error, step in apart))
    return maps.position, float(min(shares))


def _readings(shown: _Shown, placement: Placement) -> list[tuple[np.ndarray, float]]:
    """What a position map can mean: (float64[V, H, W, 3] in the canonical world, what a step of 1/255 is there)."""
    return [
        (placement.canonical(span * order(shown.position)), span / 255 / placement.side)
        for order in _ORDERS.values()
        for span in _SPANS
    ]


def _from_maps(
    folder: pathlib.Path, cameras: Sequence[Camera], shown: _Shown, placement: Placement
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Maps from the files of 8 bits: positions that lie on the rays of their pixels, normals that agree with them."""
    centres = np.arange(shown.size) + 0.5
    results = []
    for read, step in _readings(shown, placement):
        on_rays, near = [], []
        for camera, places, seen in zip(cameras, read, shown.outline, strict=True):
            pixels, depth = camera.project(places, shown.size)
            unit = camera.width * (np.maximum(depth, 1e-9) if camera.perspective else 1.0) / shown.size
            aside = np.hypot(pixels[..., 0] - centres, pixels[..., 1] - centres[:, None]) * unit
            near.append((aside < _STEPS * step)[seen])
            on_rays.append(evidence.positions_from_depth(camera, depth))
        results.append((float(np.concatenate(near).mean()), step, np.stack(on_rays)))
    share, step, position = max(results, key=lambda result: result[0])
    if not share >= evidence.AGREEMENT:
        raise UserError(
            f"{folder}: {share:.2f} of the position maps lie on the rays of their own pixels, in the best of the readings "
            f"{', '.join(_ORDERS)} and spans {_SPANS}; expected {evidence.AGREEMENT} or more. {fields.AGAIN}"
        )
    evidence.check_free_space(cameras, position, shown.outline, str(folder))
    if shown.normal is None:
        return shown.outline, None, position
    for view, camera in enumerate(cameras):
        stride = int(np.ceil(8 * step / (camera.width / shown.size)))
        surface = evidence.seen_normals(camera, position[view], shown.outline[view], stride)
        score = evidence.agreement(shown.normal[view], *surface)
        if score < evidence.AGREEMENT:
            raise UserError(
                f"{folder}: {score:.2f} of the normals of view {view} agree with the positions, read as the world's x, y, z; "
                f"expected {evidence.AGREEMENT} or more. {fields.AGAIN}"
            )
    mask = shown.outline & shown.normal.any(axis=-1)
    evidence.check_overlap(mask, shown.outline, f"{folder}: has no normals where the object is seen")
    return mask, shown.normal, position
