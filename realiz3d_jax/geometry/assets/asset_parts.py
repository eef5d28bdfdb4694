"""What a file of any format is read into: parts (one mesh with one material each) under a tree of nodes, as in glTF.

Everything here is in the file's own numbers. Positions stay ``float32`` in the frame of their node; the nodes' transforms, in
double precision, lead to the file's world, which has Y up as in glTF (a format with Z up gets a root node that turns it).
"""

import dataclasses
import io
import pathlib
import urllib.parse

import numpy as np
from PIL import Image

from realiz3d_jax.geometry.mesh import linear_to_srgb, srgb_to_linear

REPEAT, CLAMP, MIRROR = 10497, 33071, 33648
"""glTF's numbers for what a texture shows outside [0, 1]."""

LARGEST_COORDINATE = 1e15
"""In a file's world and in its transforms."""

MOST_FACES = 5_000_000
"""What a file may place in all, so that a small file of many instances can't fill the memory."""

MOST_VERTICES = 3 * MOST_FACES

MOST_BYTES = 2**32
"""What a file may read from the files beside it."""

MOST_PIXELS = 2**28
"""What the textures of a file may hold in all: 1 GiB once decoded."""

DEFAULT_COLOR = (0.8, 0.8, 0.8, 1.0)
"""Displayed colour of a surface without material, texture and vertex colours: light grey, as in the benchmark's meshes."""

_LINEAR = srgb_to_linear(np.arange(256) / 255.0)


class BrokenAsset(Exception):
    """What is wrong in a file; ``load_asset`` puts the file's name before it and raises a ``UserError``."""


class MissingFile(BrokenAsset):
    """A file that an asset names is not in its folder."""


@dataclasses.dataclass(frozen=True, eq=False)
class Texture:
    """An image with how it is looked up.

    Attributes:
      pixels: uint8[H, W, 4], sRGB and alpha, row 0 at v = 0.
      wrap: for u and for v, one of ``REPEAT``, ``CLAMP``, ``MIRROR``.
      nearest: whether texels are shown as squares; else bilinear.
    """

    pixels: np.ndarray
    wrap: tuple[int, int] = (REPEAT, REPEAT)
    nearest: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Material:
    """The base colour of a material.

    Attributes:
      name: "" without one.
      factor: linear red, green, blue and alpha in [0, 1]; None where the file says none.
      texture: or None.
      alpha_mode: "OPAQUE", "MASK" or "BLEND".
      alpha_cutoff: for "MASK".
      double_sided: whether it is seen from behind.
    """

    name: str = ""
    factor: tuple[float, float, float, float] | None = None
    texture: Texture | None = None
    alpha_mode: str = "OPAQUE"
    alpha_cutoff: float = 0.5
    double_sided: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class AssetPart:
    """Faces of one material under one node, as the file has them.

    Attributes:
      name: of its mesh.
      node: index of its node; parts of the same node are one mesh.
      vertices: float32[P, 3], in the node's frame.
      faces: int32[T, 3], all of them, those of no area too, in the file's order.
      normals: float32[P, 3] as in the file, or None.
      uv: float32[P, 2], v down; NaN at vertices that have none; None without any.
      texture_uv: float32[P, 2], where the material's texture is looked up (texture transforms applied), or None.
      colors: float32[P, 4], linear vertex colours in [0, 1], or None.
      material: its material.
    """

    name: str
    node: int
    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray | None = None
    uv: np.ndarray | None = None
    texture_uv: np.ndarray | None = None
    colors: np.ndarray | None = None
    material: Material = dataclasses.field(default_factory=Material)


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """A node of the scene.

    Attributes:
      name: "" without one.
      placement: glTF's "matrix", or its "translation", "rotation" and "scale", those that the file gives.
      children: indices of nodes.
    """

    name: str = ""
    placement: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    children: tuple[int, ...] = ()

    def matrix(self) -> np.ndarray:
        """float64[4, 4], from the node's frame to its parent's."""
        if "matrix" in self.placement:
            return np.array(self.placement["matrix"], np.float64).reshape(4, 4).T
        x, y, z, w = np.array(self.placement.get("rotation", [0, 0, 0, 1]), np.float64)
        turn = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
                [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
                [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
            ]
        )
        result = np.eye(4)
        result[:3, :3] = turn * np.array(self.placement.get("scale", [1, 1, 1]), np.float64)
        result[:3, 3] = self.placement.get("translation", [0, 0, 0])
        return result


@dataclasses.dataclass(frozen=True, eq=False)
class Contents:
    """A file: its parts, all nodes of its scene, and which of them are roots."""

    parts: tuple[AssetPart, ...]
    nodes: tuple[Node, ...]
    roots: tuple[int, ...]


def world_transforms(contents: Contents) -> list[np.ndarray]:
    """float64[4, 4] for each node, from its frame to the file's world (Y up); nodes are a forest.

    Raises:
      BrokenAsset: one puts things beyond what coordinates may be.
    """
    result = [np.eye(4)] * len(contents.nodes)
    pending = [(root, np.eye(4)) for root in contents.roots]
    while pending:
        index, parent = pending.pop()
        with np.errstate(over="ignore", invalid="ignore"):
            result[index] = parent @ contents.nodes[index].matrix()
        if not np.abs(result[index]).max() <= LARGEST_COORDINATE:  # nor is NaN
            raise BrokenAsset(f"node {index} has a transform beyond {LARGEST_COORDINATE:g}; expected smaller numbers")
        pending += [(child, result[index]) for child in contents.nodes[index].children]
    return result


def check_size(faces: int, vertices: int) -> None:
    """Raises ``BrokenAsset`` if a file places more than is taken."""
    if faces > MOST_FACES or vertices > MOST_VERTICES:
        raise BrokenAsset(
            f"{faces:,} faces and {vertices:,} vertices or more; expected at most {MOST_FACES:,} and {MOST_VERTICES:,}; "
            "reduce the mesh first"
        )


def decode_image(content: bytes, where: str, budget: int) -> np.ndarray:
    """An image file as uint8[H, W, 4].

    Args:
      content: the file.
      where: names it in errors.
      budget: the most pixels that it may have.

    Raises:
      BrokenAsset: it is no image, or has too many pixels.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > budget:
                raise BrokenAsset(
                    f"{where}: {image.width} x {image.height} pixels; expected at most {MOST_PIXELS:,} in all textures"
                )
            if image.mode.startswith("I"):  # 16 bits, which Pillow would clip to 8 instead of scaling
                image = Image.fromarray((np.asarray(image).astype(np.int64) // 257).clip(0, 255).astype(np.uint8))
            return np.array(image.convert("RGBA"))
    except BrokenAsset:
        raise
    except Exception as error:  # Pillow lets whatever goes wrong in its decoders pass
        raise BrokenAsset(
            f"{where}: {len(content)} bytes that cannot be read as an image ({type(error).__name__}: {error})"
        ) from error


def read_beside(folder: pathlib.Path | None, reference: str) -> bytes:
    """A file that an asset names, by a relative path in the asset's own folder or below.

    Raises:
      BrokenAsset: it is a URL or an absolute path, leaves the folder, or can't be read.
    """
    plain = urllib.parse.unquote(reference).replace("\\", "/")
    outside = "://" in plain or plain.startswith("/") or plain[1:2] == ":" or "\0" in plain
    if folder is None or outside:
        raise BrokenAsset(f"refers to {reference[:80]!r}; expected a relative path of a file in the asset's own folder")
    folder = folder.resolve()
    path = (folder / plain).resolve()
    if not path.is_relative_to(folder):
        raise BrokenAsset(f"refers to {reference[:80]!r}, outside its own folder; expected a file in that folder")
    try:
        if not path.is_file():
            raise MissingFile(f"refers to {reference[:80]!r}, which is not there; put that file beside it")
        return path.read_bytes()
    except OSError as error:
        raise BrokenAsset(f"refers to {reference[:80]!r}, which cannot be read ({error.strerror})") from error


def base_color(part: AssetPart, vertices: np.ndarray, barycentric: np.ndarray) -> np.ndarray:
    """The base colour of points of a part: its factor times its texture times its vertex colours, as glTF says.

    Texels and vertex colours are interpolated, and all three multiplied, in linear light.

    Args:
      part: what they lie on.
      vertices: int[n, 3], the corners of each point's face.
      barycentric: float[n, 3], their weights.

    Returns:
      float32[n, 4]: displayed (sRGB) red, green, blue, and alpha, in [0, 1].
    """
    material = part.material
    textured = material.texture is not None and part.texture_uv is not None
    if material.factor is None and part.colors is None and not textured:
        return np.broadcast_to(np.float32(DEFAULT_COLOR), (len(vertices), 4)).copy()
    linear = np.tile(np.array(material.factor or (1.0, 1.0, 1.0, 1.0), np.float64), (len(vertices), 1))
    if textured:
        linear *= _look_up(material.texture, np.einsum("nc,ncd->nd", barycentric, part.texture_uv[vertices]))
    if part.colors is not None:
        linear *= np.einsum("nc,ncd->nd", barycentric, part.colors[vertices])
    alpha = linear[:, 3].clip(0, 1)
    if material.alpha_mode == "OPAQUE":
        alpha = np.ones_like(alpha)
    elif material.alpha_mode == "MASK":
        alpha = (alpha >= material.alpha_cutoff).astype(np.float64)
    return np.concatenate([linear_to_srgb(linear[:, :3]), alpha[:, None]], axis=-1).astype(np.float32)


def _look_up(texture: Texture, uv: np.ndarray) -> np.ndarray:
    """Linear red, green, blue and alpha of a texture: float[n, 2] to float64[n, 4]."""
    uv = np.nan_to_num(np.asarray(uv, np.float64), posinf=0.0, neginf=0.0)
    taps = [
        _taps(uv[:, axis], size, wrap, texture.nearest)
        for axis, size, wrap in zip((0, 1), texture.pixels.shape[1::-1], texture.wrap, strict=True)
    ]
    result = np.zeros((len(uv), 4))
    for column, column_weight in taps[0]:
        for row, row_weight in taps[1]:
            texels = texture.pixels[row, column]
            values = np.concatenate([_LINEAR[texels[:, :3]], texels[:, 3:] / 255.0], axis=-1)
            result += (column_weight * row_weight)[:, None] * values
    return result


def _taps(coordinate: np.ndarray, size: int, wrap: int, nearest: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """The texels round a coordinate along one axis, each with its weight: (int64[n], float64[n]), one pair or two."""
    # One period, so that huge coordinates become integers that fit.
    coordinate = coordinate.clip(0, 1) if wrap == CLAMP else coordinate % (2.0 if wrap == MIRROR else 1.0)

    def inside(index: np.ndarray) -> np.ndarray:
        if wrap == CLAMP:
            return index.clip(0, size - 1)
        if wrap == MIRROR:
            index = index % (2 * size)
            return np.where(index < size, index, 2 * size - 1 - index)
        return index % size

    if nearest:
        return [(inside(np.floor(coordinate * size).astype(np.int64)), np.ones_like(coordinate))]
    place = coordinate * size - 0.5
    first = np.floor(place)
    weight = place - first
    index = first.astype(np.int64)
    return [(inside(index), 1 - weight), (inside(index + 1), weight)]
