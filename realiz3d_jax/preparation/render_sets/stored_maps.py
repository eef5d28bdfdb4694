"""Normals and positions of the sets of ``transforms_json``: from the mesh beside the views, or otherwise from 8-bit maps.

The mesh gives exact maps, but the files state neither its up axis (TRELLIS writes Z, Hunyuan3D Y) nor whether it is in the
views' world or in the file's own; the placement that agrees with all views is taken. Without a mesh, a position map gives the
depth, rounded to 1/255; the position is set on the ray of its pixel, so that only the depth is rounded.

Position maps hold p + 0.5 or p / 1.15 + 0.5, in the order x, y, z or, where OpenCV wrote a Y-up vector, glTF's z, y, x:
-y, z, x of the world. Normal maps hold n / 2 + 0.5 of the world. The encoding of a map is determined from its own pixels, or
from the mesh.
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
"""Tolerance of a position map in steps of 1/255: where positions are read from it, and, looser because JPEG suffices, where
it only identifies the mesh."""

_TIE = 0.02


@dataclasses.dataclass(frozen=True, eq=False)
class Placement:
    """Transforms from the views' world and the file's own world to the canonical one.

    Attributes:
      middle, side: float64[3] and float, centre and side of the box that becomes the canonical cube, in the views' world.
      scale, offset: float and float64[3]; the views' world is the file's times ``scale`` plus ``offset``.
    """

    middle: np.ndarray
    side: float
    scale: float
    offset: np.ndarray

    def canonical(self, points: np.ndarray) -> np.ndarray:
        """Maps points float[..., 3] from the views' world to the canonical one."""
        return (points - self.middle) / self.side


@dataclasses.dataclass(frozen=True, eq=False)
class _Shown:
    """Geometry as stored in the views.

    Attributes:
      size: pixels along a side of a view.
      outline: bool[V, H, W], from alpha; None if the views have none.
      normal: float64[V, H, W, 3], unit; None without normal maps.
      position: float64[V, H, W, 3], values of the position maps in [-0.5, 0.5]; None without position maps.
    """

    size: int
    outline: np.ndarray | None
    normal: np.ndarray | None
    position: np.ndarray | None

    def sampled(self, size: int) -> "_Shown":
        """Samples the maps at the pixel centres of smaller views."""
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
    """Reads mask bool[V, H, W], normals and positions float[V, H, W, 3] or None, in the canonical world.

    Args:
      paths: images of the views; maps and mesh are searched beside them.
      size: pixels along a side of a view.
      cameras: cameras of the views, in the canonical world.
      outline: bool[V, H, W], from alpha; None if the views have none.
      placement: placement of the views' world.

    Raises:
      UserError: nothing shows the outline, or mesh, maps and outline disagree.
    """
    normal, position = _map(paths, size, "normal"), _map(paths, size, "pos")
    shown = _Shown(size, outline, None if normal is None else evidence.unit(2 * normal)[0], position)
    mesh_path = _mesh_path(paths[0].parent)
    if mesh_path is not None:
        return _from_mesh(mesh_path, cameras, shown, placement)
    if outline is None:
        raise UserError(
            f"{paths[0]}: neither this image nor its albedo has alpha, and there is no mesh.ply; expected one of them, to show "
            "the object's outline: a background colour does not. Put the object's mesh beside the views as mesh.ply."
        )
    if position is None:  # then the encoding of normals cannot be determined
        return outline, None, None
    if not (map_path := paths[0].with_name(f"{paths[0].stem}_pos.png")).is_file():
        raise UserError(
            f"{map_path}: is missing, and JPEG is too coarse for positions; expected PNG. Put the object's mesh beside the "
            "views as mesh.ply, or render the maps again."
        )
    return _from_maps(paths[0].parent, cameras, shown, placement)


def _map(paths: Sequence[pathlib.Path], size: int, kind: str) -> np.ndarray | None:
    """Reads the maps of a kind, float64[V, H, W, 3] in [-0.5, 0.5]; None if no view has one."""
    names = [(f"{path.stem}_{kind}.png", f"{path.stem}_{kind}.jpg") for path in paths]
    if not any((path.parent / name).is_file() for path, both in zip(paths, names, strict=True) for name in both):
        return None
    found = [fields.find(path.parent, *both) for path, both in zip(paths, names, strict=True)]
    images = [fields.read_image(path)[0] for path in found]
    fields.check_sizes(found, images, size)
    return (np.stack(images) + 0.5) / 255 - 0.5  # the writers truncate to whole bytes


def _mesh_path(folder: pathlib.Path) -> pathlib.Path | None:
    """Returns the path of an object's mesh: beside the views, above them or in another folder of the object."""
    places = [folder / "mesh.ply"]
    if folder.name == "render_tex":
        places += [folder.parent / "mesh.ply", *sorted(folder.parent.glob("*/mesh.ply"))]
    return next((place for place in places if place.is_file()), None)


def _from_mesh(
    path: pathlib.Path, cameras: Sequence[Camera], shown: _Shown, placement: Placement
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Renders mask, normals and positions from the mesh, in the placement that agrees with the views."""
    if shown.outline is None and shown.normal is None and shown.position is None:
        raise UserError(
            f"{path}: the views have neither alpha nor normal or position maps; expected one, to place the mesh by."
        )
    trials = []
    for name, mesh in _placed(path, placement):
        position, score = _trial(mesh, cameras, shown.sampled(min(_TRIAL_SIZE, shown.size)), placement)
        trials.append((score, name, mesh, position))
    trials.sort(key=lambda trial: -trial[0])
    found = ", ".join(f"{score:.2f} with {name}" for score, name, *_ in trials)
    best, _, mesh, position = trials[0]
    if best < evidence.AGREEMENT:
        raise UserError(
            f"{path}: agrees with the views by {found}; expected {evidence.AGREEMENT} or more in one placement. It belongs to "
            f"another object, or the maps have other axes or channels than the format's. {fields.AGAIN}"
        )
    for score, _, _, other in trials[1:]:
        if score > best - _TIE and np.abs(other - position).mean() > _TIE * np.abs(position).mean():
            raise UserError(
                f"{path}: agrees with the views by {found}; expected one placement that fits best. Leave this object out."
            )
    maps = render_maps(mesh, shown.size, cameras)
    return maps.mask if shown.outline is None else maps.mask & shown.outline, maps.normal, maps.position


def _placed(path: pathlib.Path, placement: Placement) -> list[tuple[str, Mesh]]:
    """Returns (description, mesh in the canonical world) for every placement that the format's writers use."""
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
    """Returns a placed mesh's positions float32[V, H, W, 3] and its least agreement with outline, normals and positions."""
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
    """Returns each reading of a position map: (float64[V, H, W, 3] in the canonical world, the length there of 1/255)."""
    return [
        (placement.canonical(span * order(shown.position)), span / 255 / placement.side)
        for order in _ORDERS.values()
        for span in _SPANS
    ]


def _from_maps(
    folder: pathlib.Path, cameras: Sequence[Camera], shown: _Shown, placement: Placement
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Reads mask, normals and positions from 8-bit maps; positions must lie on their pixels' rays, normals agree with them."""
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
    evidence.check_overlap(mask, shown.outline, f"{folder}: lacks normals where the object is visible")
    return mask, shown.normal, position
