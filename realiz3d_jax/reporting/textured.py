"""A textured mesh as a page shows it: its file, its texture, and the frames of a turntable."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry import cameras
from realiz3d_jax.geometry.assets.asset import Asset, load_asset
from realiz3d_jax.geometry.cameras import Camera
from realiz3d_jax.geometry.mesh import world_to_gltf
from realiz3d_jax.reporting.turntable import Pictures, turntable_distance
from realiz3d_jax.sampling import items
from realiz3d_jax.sampling.items import Item

FIELD_OF_VIEW, ELEVATION = 30.0, 12.0
"""Degrees, of the turntable and of the viewer that starts where it does."""

_LARGEST_FILE = 64_000_000
"""Bytes; a larger file is not put into a page."""

_TEXTURE = 768
"""Most pixels along a side of the picture of a texture."""


@dataclasses.dataclass(frozen=True)
class Rendering:
    """How a page's pictures are rendered: the frames of a turntable, and pixels along a side of each and of other pictures."""

    frames: int = 30
    frame_size: int = 320
    still_size: int = 256


@dataclasses.dataclass(frozen=True, eq=False)
class TexturedMesh:
    """What a page shows of it.

    Attributes:
      content: the GLB.
      faces: how many it has.
      frames: uint8[N, H, W, 4], a turn in equal steps, the front first, counter-clockwise seen from above.
      texture: uint8[h, w, 3], made smaller where it is large; None if there is none.
      texels: (width, height) of the texture.
      target: float64[3], in the file's world: what the viewer looks at.
      distance: of the viewer from there, in the file's units, so that it starts with the first frame.
    """

    content: bytes
    faces: int
    frames: np.ndarray
    texture: np.ndarray | None
    texels: tuple[int, int]
    target: np.ndarray
    distance: float


def read_textured(path: pathlib.Path, rendering: Rendering) -> TexturedMesh:
    """Reads a textured mesh and renders its turntable.

    Args:
      path: the GLB.
      rendering: how its pictures are rendered.

    Raises:
      UserError: it is missing, damaged, or too large for a page.
    """
    asset = load_asset(path)
    content = path.read_bytes()
    if len(content) > _LARGEST_FILE:
        raise UserError(
            f"{path}: found {len(content) / 1e6:.0f} MB; a page holds at most {_LARGEST_FILE / 1e6:.0f} MB. Bake a smaller "
            "texture by realiz3d_jax.bake --texture-size, or open the file in a viewer of its own."
        )
    mesh, pictures = asset.mesh, Pictures(asset)
    distance = turntable_distance(mesh, ELEVATION, FIELD_OF_VIEW)
    views = [
        cameras.orbit(360 * number / rendering.frames, ELEVATION, distance=distance, fov=FIELD_OF_VIEW)
        for number in range(rendering.frames)
    ]
    pixels = next((part.material.texture.pixels for part in asset.parts if part.material.texture is not None), None)
    return TexturedMesh(
        content,
        len(mesh.faces),
        np.stack([pictures.colors(camera, rendering.frame_size) for camera in views]),
        None if pixels is None else _reduced(pixels[..., :3]),
        (0, 0) if pixels is None else pixels.shape[1::-1],
        world_to_gltf(mesh.offset),
        distance / mesh.scale,
    )


def read_shape(item: Item) -> tuple[Asset | None, str]:
    """The mesh that an item was made for, and what is to be said of it.

    Its textured mesh, which has the same shape, is taken if the item's own file is gone or another one by now.
    """
    if item.mesh is None:
        return None, ""
    try:
        items.check_mesh(item)
        return load_asset(item.mesh, item.up), ""
    except UserError as error:
        problem = str(error)
    try:
        return load_asset(item.folder / items.TEXTURED), ""
    except UserError:
        return None, problem


def clay_views(asset: Asset, views: Sequence[Camera], size: int) -> np.ndarray:
    """The shape as each camera sees it: uint8[V, size, size, 4]."""
    pictures = Pictures(asset)
    return np.stack([pictures.clay(camera, size) for camera in views])


def _reduced(pixels: np.ndarray) -> np.ndarray:
    """uint8[H, W, 3] as a picture of at most ``_TEXTURE`` pixels along a side."""
    height, width = pixels.shape[:2]
    factor = min(1.0, _TEXTURE / max(height, width))
    if factor == 1.0:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((round(width * factor), round(height * factor)), Image.LANCZOS))
