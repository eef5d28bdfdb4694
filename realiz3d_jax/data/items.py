"""The folder of a sampled item: its views, the maps that controlled them, its textured mesh, and ``item.json``."""

import dataclasses
import io
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import einops
import numpy as np
from PIL import Image

from realiz3d_jax import files
from realiz3d_jax.data.geometry_maps import Geometry
from realiz3d_jax.errors import UserError

DESCRIPTION = "item.json"
TEXTURED = "textured.glb"

BAKED = "baked"
"""Where ``item.json`` says what came of baking; all else in it says how the item is made."""


def find(folder: pathlib.Path, description: dict[str, Any]) -> dict[str, Any] | None:
    """What ``item.json`` of a folder says if the item is there already, made as ``description`` says; None without a folder.

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
            f"{folder}: is there already and is not an item of this command; choose another --output."
        ) from error
    if names:
        raise UserError(
            f"{folder}: is there already, made with another {', '.join(names)}; it was left as it is. Choose another --output."
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
      names: of their files, ``view_name``.
      geometry: the maps that controlled them.
      textured: the GLB that they were baked into.
    """
    with files.new_directory(folder) as new:
        for name, view in zip(names, views, strict=True):
            Image.fromarray(view).save(new / name)
        Image.fromarray(_grid(views)).save(new / "grid.png")
        if geometry is not None:
            exact = io.BytesIO()
            np.savez_compressed(exact, **dataclasses.asdict(geometry))
            (new / "control.npz").write_bytes(exact.getvalue())
            Image.fromarray(_grid((geometry.normal >> 8).astype(np.uint8))).save(new / "normal.png")
            Image.fromarray(_grid((geometry.position >> 8).astype(np.uint8))).save(new / "position.png")
            Image.fromarray(_grid(geometry.mask[..., None] * np.uint8(255))[..., 0]).save(new / "mask.png")
        if textured is not None:
            (new / TEXTURED).write_bytes(textured)
        (new / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")


def _grid(views: np.ndarray) -> np.ndarray:
    """The 2x2 grid [H, W, C] of four views [V, H, W, C], row-major."""
    return einops.rearrange(views, "(a b) h w c -> (a h) (b w) c", a=2)
