"""The folder of a sampled item: its views, the maps that controlled them, its textured mesh, and ``item.json``.

Items are written and read here alone. The files of the views and their cameras follow from the rig and from the chosen views of
it, which ``item.json`` states; items from before it did so have the standard rig.
"""

import dataclasses
import io
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from realiz3d_jax import files
from realiz3d_jax.data import records
from realiz3d_jax.data.geometry_maps import Geometry
from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.assets.asset import checksum
from realiz3d_jax.geometry.cameras import STANDARD_RIG, Camera
from realiz3d_jax.metrics import metric
from realiz3d_jax.views import VIEWS, to_grid

DESCRIPTION = "item.json"
TEXTURED = "textured.glb"

BAKED = "baked"
"""Key of ``item.json`` for the outcome of baking; all other keys state how the item is made."""


@dataclasses.dataclass(frozen=True, eq=False)
class Item:
    """A sampled item, as its folder describes it; ``read_views`` reads the pictures.

    Attributes:
      folder: the item's folder.
      uid: its name.
      caption: its prompt.
      task: "texture" or "text_to_multiview".
      domain: the requested look; None for a model that knows no domains.
      mesh: file of the mesh that controlled the views, as it was named at the time; None if there was none.
      up: up axis of that file, "y" or "z"; None for the default of its format.
      sha256: SHA-256 of that file, in hexadecimal.
      cameras: one for each of the four views.
      names: the files of the views, in the same order.
      description: all that ``item.json`` says.
    """

    folder: pathlib.Path
    uid: str
    caption: str
    task: str
    domain: str | None
    mesh: pathlib.Path | None
    up: str | None
    sha256: str | None
    cameras: tuple[Camera, ...]
    names: tuple[str, ...]
    description: dict[str, Any]


def read_all(folder: str | os.PathLike[str]) -> list[Item]:
    """The items that ``sample`` wrote below ``folder``, in order of name.

    Raises:
      UserError: there are none, or one is damaged.
    """
    places = sorted(place.parent for place in pathlib.Path(folder).glob(f"*/{DESCRIPTION}"))
    if not places:
        raise UserError(
            f"{folder}: no items (folders with an {DESCRIPTION}) in it; expected what this writes:\n"
            f"  python -m realiz3d_jax.sample --output {folder}"
        )
    return [read(place) for place in places]


def read(folder: pathlib.Path) -> Item:
    """The item of a folder.

    Raises:
      UserError: ``item.json`` is missing, damaged, or states no cameras.
    """
    path, fix = folder / DESCRIPTION, "Remove the folder and sample it again."
    try:
        found = json.loads(path.read_text())
        uid, caption, task, mesh = (found[key] for key in ("uid", "caption", "task", "mesh"))
        source: tuple[pathlib.Path | None, str | None, str | None] = (None, None, None)
        if mesh and task == "texture":
            source = pathlib.Path(mesh["path"]), mesh.get("up"), mesh["sha256"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: cannot be read ({type(error).__name__}: {error}); expected what realiz3d_jax.sample writes. {fix}"
        ) from error
    for key, value in (("uid", uid), ("caption", caption), ("task", task)):
        if not isinstance(value, str):
            raise UserError(f"{path}: {key} is {value!r}; expected a text. {fix}")
    cameras, names = _views_of(found, path, fix)
    return Item(folder, uid, caption, task, found.get("domain"), *source, cameras, names, found)


def _views_of(description: dict[str, Any], path: pathlib.Path, fix: str) -> tuple[tuple[Camera, ...], tuple[str, ...]]:
    """The cameras of the views and the files of these."""
    try:
        rig = records.rig_of(description) if "rig" in description else STANDARD_RIG
        if rig is None:
            raise ValueError("it states none")
        cameras = rig.cameras()
    except (ValueError, LookupError, TypeError, AttributeError, UserError) as error:
        raise UserError(
            f"{path}: its rig cannot be used ({error}); expected azimuths, elevations, projection, width, fov and "
            f"distance. {fix}"
        ) from error
    views = description.get("views", list(range(VIEWS)))
    counted = isinstance(views, list) and all(type(view) is int and 0 <= view < len(cameras) for view in views)
    if not counted or len(views) != VIEWS:
        raise UserError(f"{path}: views are {views!r}; expected four of the rig's {len(cameras)}, from 0. {fix}")
    return tuple(cameras[view] for view in views), rig.names(views)


def check_mesh(item: Item) -> None:
    """Raises UserError unless the mesh that controlled the views, if any, still exists and has not changed."""
    if item.mesh is not None and not item.mesh.is_file():
        raise UserError(f"{item.folder / DESCRIPTION}: its mesh {item.mesh} is missing; put it back or sample again.")
    if item.mesh is not None and checksum(item.mesh) != item.sha256:
        raise UserError(
            f"{item.mesh}: is not the mesh that {item.folder} was made with; put that back or sample again."
        )


def read_views(item: Item, size: int | None = None) -> np.ndarray:
    """The views of an item, uint8[V, H, W, 3], in the order of its cameras.

    Args:
      item: whose they are.
      size: the pixels that each side has to have; None takes any squares of one size.

    Raises:
      UserError: one is missing, damaged or of another size.
    """
    views = [read_image(item.folder / name) for name in item.names]
    side = size or views[0].shape[0]
    if any(view.shape[:2] != (side, side) for view in views):
        found = ", ".join(f"{view.shape[1]} x {view.shape[0]}" for view in views)
        expected = f"{size} x {size}, as the metrics were made from" if size else "squares of one size"
        raise UserError(f"{item.folder}: found views of {found} pixels, expected {expected}. Sample it again.")
    return np.stack(views)


def to_evaluate(item: Item) -> metric.Item:
    """The item with its views, as the metrics take it.

    Raises:
      UserError: a view is damaged, or the mesh is gone or another one.
    """
    check_mesh(item)
    return metric.Item(item.uid, item.caption, read_views(item), item.cameras, item.mesh, item.up)


def read_pictures(folder: str | os.PathLike[str], size: int) -> np.ndarray:
    """The views of the items below a folder, or the PNGs in it: uint8[n, size, size, 3].

    Raises:
      UserError: there are fewer than two, or one is damaged or of another size.
    """
    folder = pathlib.Path(folder)
    paths = sorted(folder.glob("*/view_*.png")) or sorted(folder.glob("*.png"))
    if len(paths) < 2:
        raise UserError(f"{folder}: found {len(paths)} PNGs, expected two or more, or sampled items.")
    images = [read_image(path) for path in paths]
    for path, image in zip(paths, images, strict=True):
        if image.shape[:2] != (size, size):
            raise UserError(
                f"{path}: found {image.shape[1]} x {image.shape[0]} pixels, expected {size} x {size}, "
                "as the samples have. Take images of one size."
            )
    return np.stack(images)


def read_image(path: pathlib.Path, mode: str = "RGB") -> np.ndarray:
    """An image of 8 bits: uint8[H, W, C] of ``mode``, "RGB" or "RGBA".

    Raises:
      UserError: it is missing, damaged or of 16 bits.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):
                raise ValueError(f"16 bits a pixel, mode {image.mode}; expected 8, in colour")
            return np.asarray(image.convert(mode))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be read as an image ({error}); expected a PNG. Make it again.") from error


def find(folder: pathlib.Path, description: dict[str, Any]) -> dict[str, Any] | None:
    """The description of an existing item that was made as ``description`` says; None if the folder does not exist.

    Raises:
      UserError: the folder holds something else.
    """
    if not folder.exists():
        return None
    try:
        found = json.loads((folder / DESCRIPTION).read_text())
        description = json.loads(json.dumps(description))
        names = [name for name in description | found if name != BAKED and found.get(name) != description.get(name)]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(
            f"{folder}: already exists and is not an item of this command; choose another --output."
        ) from error
    if names:
        raise UserError(
            f"{folder}: already exists, made with another {', '.join(names)}; it was left as it is. Choose another --output."
        )
    return found


def write(
    folder: pathlib.Path,
    description: dict[str, Any],
    views: np.ndarray,
    names: Sequence[str],
    geometry: Geometry | None = None,
    textured: bytes | None = None,
) -> None:
    """Writes an item's folder, in one step.

    Args:
      folder: must not hold anything.
      description: JSON values, for ``item.json``.
      views: uint8[4, H, W, 3].
      names: names of their files, as ``view_name`` makes them.
      geometry: the maps that controlled them.
      textured: the GLB that the views were baked into.
    """
    with files.new_directory(folder) as new:
        for name, view in zip(names, views, strict=True):
            Image.fromarray(view).save(new / name)
        Image.fromarray(to_grid(views)).save(new / "grid.png")
        if geometry is not None:
            exact = io.BytesIO()
            np.savez_compressed(exact, **dataclasses.asdict(geometry))
            (new / "control.npz").write_bytes(exact.getvalue())
            Image.fromarray(to_grid((geometry.normal >> 8).astype(np.uint8))).save(new / "normal.png")
            Image.fromarray(to_grid((geometry.position >> 8).astype(np.uint8))).save(new / "position.png")
            Image.fromarray(to_grid(geometry.mask[..., None] * np.uint8(255))[..., 0]).save(new / "mask.png")
        if textured is not None:
            (new / TEXTURED).write_bytes(textured)
        (new / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")
