"""Folders of views to bake, of this or another generator: the pictures, and the cameras that they were seen by."""

import pathlib

import numpy as np

from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.assets.asset import checksum
from realiz3d_jax.geometry.cameras import ORTHO_WIDTH, Camera, orbit, parse_view_name
from realiz3d_jax.sampling import items


def read(folder: pathlib.Path, width: float | None = None) -> tuple[np.ndarray, list[Camera]]:
    """The views of a folder, and their cameras.

    Args:
      folder: ``view_AZIMUTH.png`` or ``view_AZIMUTH_ELEVATION.png``, and maybe the ``item.json`` of a sampled item.
      width: what a view shows from side to side, in units of the asset's largest extent: then the names alone say where the
        views are from. None takes the cameras that ``item.json`` states, and ``ORTHO_WIDTH`` without one.

    Returns:
      uint8[V, H, W, 4], and a camera for each view.

    Raises:
      UserError: there are no views, or they are damaged, perspective, of several sizes or of the same camera.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; expected one with view_000.png and so on.")
    pictures = sorted(path for path in folder.glob("*.png") if parse_view_name(path.name))
    if not pictures:
        raise UserError(
            f"{folder}: found no views; expected view_000.png, view_090.png and so on, as realiz3d_jax.sample makes."
        )
    stated = (folder / items.DESCRIPTION).is_file() and width is None
    cameras = _stated(folder, pictures) if stated else _named(pictures, width or ORTHO_WIDTH)
    images = [items.read_image(path, "RGBA") for path in cameras]
    shapes = {image.shape for image in images}
    if len(shapes) > 1 or any(height != width for height, width, _ in shapes):
        named = zip(cameras, images, strict=True)
        found = ", ".join(f"{path.name} {image.shape[1]} x {image.shape[0]}" for path, image in named)
        raise UserError(f"{folder}: found {found}; expected square views of one size.")
    return np.stack(images), list(cameras.values())


def caution(folder: pathlib.Path, mesh: str, up: str | None) -> str | None:
    """A warning where the views of a sampled item are to be baked onto another mesh than the one they were drawn for.

    Args:
      folder: of the views.
      mesh: the file that is textured.
      up: up axis of that file, "y" or "z"; None for the default of its format.

    Raises:
      UserError: ``item.json`` is damaged, or the mesh cannot be read.
    """
    if not (folder / items.DESCRIPTION).is_file():
        return None
    item = items.read(folder)
    if item.mesh is None or item.sha256 is None:
        return None
    if checksum(mesh) != item.sha256:
        return (
            f"{mesh}: is not the mesh that the views of {folder} were drawn for (found SHA-256 {checksum(mesh)[:16]}..., "
            f"expected {item.sha256[:16]}...), so they may not fit its surface. Give --mesh={item.mesh}, or sample again."
        )
    if up != item.up:
        return (
            f"{mesh}: the views of {folder} were drawn with {_spelled(item.up)}, found {_spelled(up)}, so they may not fit its "
            "surface. Bake with what the views were drawn with."
        )
    return None


def _spelled(up: str | None) -> str:
    return f"--up={up}" if up else "no --up"


def _stated(folder: pathlib.Path, pictures: list[pathlib.Path]) -> dict[pathlib.Path, Camera]:
    """The cameras of views of a sampled item, as its description states them; some of its views may be gone."""
    item = items.read(folder)
    if any(camera.perspective for camera in item.cameras):
        raise UserError(f"{folder / items.DESCRIPTION}: these views are perspective; only orthographic ones are baked.")
    if strange := [path for path in pictures if path.name not in item.names]:
        raise UserError(
            f"{strange[0]}: is no view of the item that {items.DESCRIPTION} beside it describes; expected "
            f"{', '.join(item.names)}. Move it, or give --view-width: then names alone say where views are from."
        )
    known = zip(item.names, item.cameras, strict=True)
    return {folder / name: camera for name, camera in known if folder / name in pictures}


def _named(pictures: list[pathlib.Path], width: float) -> dict[pathlib.Path, Camera]:
    """The cameras of views as the names of their files state them, all of one width."""
    names = {path: angles for path in pictures if (angles := parse_view_name(path.name))}
    for path, (_, elevation) in names.items():
        if abs(elevation) > 90:
            raise UserError(f"{path}: found an elevation of {elevation:g} degrees in its name; expected -90 to 90.")
    same = {}
    for path, (azimuth, elevation) in names.items():
        other = same.setdefault((azimuth % 360, elevation), path)
        if other != path:
            raise UserError(f"{path}: is a view of the same camera as {other.name}; expected one of them.")
    return {path: orbit(*angles, width=width) for path, angles in names.items()}
