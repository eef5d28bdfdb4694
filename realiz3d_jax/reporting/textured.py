"""A textured mesh as shown on a page: its file, its texture, and the frames of a turntable."""

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
"""Degrees, of the turntable and of the viewer's initial view."""

_LARGEST_FILE = 64_000_000
"""Bytes of the largest file that is embedded in a page."""

_TEXTURE = 768
"""Maximum number of pixels along a side of a texture's picture."""


@dataclasses.dataclass(frozen=True)
class Rendering:
    """Render settings of a page's pictures.

    Attributes:
      frames: frames of a turntable.
      frame_size: pixels along a side of a frame.
      still_size: pixels along a side of other pictures.
    """

    frames: int = 30
    frame_size: int = 320
    still_size: int = 256


@dataclasses.dataclass(frozen=True, eq=False)
class TexturedMesh:
    """A textured mesh and its pictures.

    Attributes:
      content: bytes of the GLB.
      faces: number of faces.
      frames: uint8[N, H, W, 4], a turn in equal steps, starting at the front, counter-clockwise seen from above.
      texture: uint8[h, w, 3], reduced if it is large; None if the mesh has no texture.
      texels: (width, height) of the texture.
      target: float64[3], point in the file's world at which the viewer looks.
      distance: distance of the viewer from ``target``, in the file's units, so that it starts with the first frame.
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
      rendering: render settings of the pictures.

    Raises:
      UserError: the file is missing, damaged, or too large for a page.
    """
    asset = load_asset(path)
    content = path.read_bytes()
    if len(content) > _LARGEST_FILE:
        raise UserError(
            f"{path}: found {len(content) / 1e6:.0f} MB; a page holds at most {_LARGEST_FILE / 1e6:.0f} MB. Bake a smaller "
            "texture by realiz3d_jax.bake --texture-size, or open the file in a separate viewer."
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
    """Reads the mesh for which an item was made.

    If the item's own file is missing or has changed, its textured mesh, which has the same shape, is read instead.

    Returns:
      (the mesh or None, the problem to report or "").
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
    """Renders the shape from each camera: uint8[V, size, size, 4]."""
    pictures = Pictures(asset)
    return np.stack([pictures.clay(camera, size) for camera in views])


def _reduced(pixels: np.ndarray) -> np.ndarray:
    """Reduces pixels uint8[H, W, 3] to at most ``_TEXTURE`` along a side."""
    height, width = pixels.shape[:2]
    factor = min(1.0, _TEXTURE / max(height, width))
    if factor == 1.0:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((round(width * factor), round(height * factor)), Image.LANCZOS))
