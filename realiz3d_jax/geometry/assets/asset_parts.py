"""Format-independent content of an asset file: parts (one mesh with one material each) under a tree of nodes, as in glTF.

All numbers are those of the file. Positions are ``float32`` in the frame of their node; the transforms of the nodes, in double
precision, map them to the file's world, which has Y up as in glTF (a format with Z up gets a root node that rotates it).
"""

import dataclasses
import io
import pathlib
import urllib.parse

import numpy as np
from PIL import Image

from realiz3d_jax.geometry.mesh import linear_to_srgb, srgb_to_linear

REPEAT, CLAMP, MIRROR = 10497, 33071, 33648
"""glTF's codes of the wrapping modes of a texture outside [0, 1]."""

LARGEST_COORDINATE = 1e15
"""Largest absolute coordinate in a file's world and its transforms."""

MOST_FACES = 5_000_000
"""Maximum number of faces placed by a file, so that a small file with many instances cannot exhaust memory."""

MOST_VERTICES = 3 * MOST_FACES

MOST_BYTES = 2**32
"""Maximum number of bytes read from the files that an asset refers to."""

MOST_PIXELS = 2**28
"""Maximum number of pixels in all textures of a file together: 1 GiB decoded."""

DEFAULT_COLOR = (0.8, 0.8, 0.8, 1.0)
"""sRGB colour and alpha of a surface without material, texture and vertex colours: light grey, as in the benchmark's meshes."""

_LINEAR = srgb_to_linear(np.arange(256) / 255.0)


class BrokenAsset(Exception):
    """An asset file is invalid; ``load_asset`` turns it into a ``UserError`` with the name of the file."""


class MissingFile(BrokenAsset):
    """A file that an asset refers to does not exist."""


@dataclasses.dataclass(frozen=True, eq=False)
class Texture:
    """An image and its sampling mode.

    Attributes:
      pixels: uint8[H, W, 4], sRGB and alpha, row 0 at v = 0.
      wrap: wrapping modes of u and v, each ``REPEAT``, ``CLAMP`` or ``MIRROR``.
      nearest: whether to sample the nearest texel; otherwise sampling is bilinear.
    """

    pixels: np.ndarray
    wrap: tuple[int, int] = (REPEAT, REPEAT)
    nearest: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Material:
    """Base colour of a material.

    Attributes:
      name: name in the file, or "".
      factor: linear red, green, blue and alpha in [0, 1]; None if the file has none.
      texture: base-colour texture, or None.
      alpha_mode: "OPAQUE", "MASK" or "BLEND".
      alpha_cutoff: smallest visible alpha of "MASK".
      double_sided: whether the material is visible from behind.
    """

    name: str = ""
    factor: tuple[float, float, float, float] | None = None
    texture: Texture | None = None
    alpha_mode: str = "OPAQUE"
    alpha_cutoff: float = 0.5
    double_sided: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class AssetPart:
    """Faces of one material under one node, as in the file.

    Attributes:
      name: name of the mesh.
      node: index of the node; parts of the same node are one mesh.
      vertices: float32[P, 3], in the frame of the node.
      faces: int32[T, 3], all faces in the order of the file, including those of zero area.
      normals: float32[P, 3] as in the file, or None.
      uv: float32[P, 2], v down, NaN at vertices without texture coordinates; None if no vertex has any.
      texture_uv: float32[P, 2], texture coordinates of the material's texture (texture transforms applied), or None.
      colors: float32[P, 4], linear vertex colours in [0, 1], or None.
      material: material of all faces.
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
      name: name in the file, or "".
      placement: glTF's "matrix", or whichever of "translation", "rotation" and "scale" the file has.
      children: indices of the child nodes.
    """

    name: str = ""
    placement: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    children: tuple[int, ...] = ()

    def matrix(self) -> np.ndarray:
        """Transform from the frame of the node to that of its parent, float64[4, 4]."""
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
    """Content of a file: its parts, the nodes of its scene, and the indices of the root nodes."""

    parts: tuple[AssetPart, ...]
    nodes: tuple[Node, ...]
    roots: tuple[int, ...]


def world_transforms(contents: Contents) -> list[np.ndarray]:
    """Transforms from each node to the file's world (Y up), float64[4, 4] each; the nodes form a forest.

    Raises:
      BrokenAsset: a transform exceeds ``LARGEST_COORDINATE``.
    """
    result = [np.eye(4)] * len(contents.nodes)
    pending = [(root, np.eye(4)) for root in contents.roots]
    while pending:
        index, parent = pending.pop()
        with np.errstate(over="ignore", invalid="ignore"):
            result[index] = parent @ contents.nodes[index].matrix()
        if not np.abs(result[index]).max() <= LARGEST_COORDINATE:  # true for NaN, too
            raise BrokenAsset(f"node {index} has a transform beyond {LARGEST_COORDINATE:g}; expected smaller numbers")
        pending += [(child, result[index]) for child in contents.nodes[index].children]
    return result


def check_size(faces: int, vertices: int) -> None:
    """Raises ``BrokenAsset`` if a file places more than ``MOST_FACES`` faces or ``MOST_VERTICES`` vertices."""
    if faces > MOST_FACES or vertices > MOST_VERTICES:
        raise BrokenAsset(
            f"{faces:,} faces and {vertices:,} vertices or more; expected at most {MOST_FACES:,} and {MOST_VERTICES:,}; "
            "reduce the mesh first"
        )


def decode_image(content: bytes, where: str, budget: int) -> np.ndarray:
    """Decodes an image file to uint8[H, W, 4], sRGB and alpha.

    Args:
      content: bytes of the file.
      where: name of the image in errors.
      budget: largest number of pixels.

    Raises:
      BrokenAsset: the content is not a readable image, or has too many pixels.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > budget:
                raise BrokenAsset(
                    f"{where}: {image.width} x {image.height} pixels; expected at most {MOST_PIXELS:,} in all textures"
                )
            if image.mode.startswith("I"):  # Pillow clips 16 bits to 8 instead of scaling them
                image = Image.fromarray((np.asarray(image).astype(np.int64) // 257).clip(0, 255).astype(np.uint8))
            return np.array(image.convert("RGBA"))
    except BrokenAsset:
        raise
    except Exception as error:  # Pillow does not wrap the errors of its decoders
        raise BrokenAsset(
            f"{where}: {len(content)} bytes that cannot be read as an image ({type(error).__name__}: {error})"
        ) from error


def read_beside(folder: pathlib.Path | None, reference: str) -> bytes:
    """Reads a file that an asset refers to.

    Args:
      folder: folder of the asset; None if it may not refer to files.
      reference: relative path or URI; the file must be in ``folder`` or below.

    Raises:
      BrokenAsset: the reference is a URL or an absolute path or leaves the folder, or the file cannot be read.
      MissingFile: the file does not exist.
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
            raise MissingFile(f"refers to {reference[:80]!r}, which does not exist; put that file beside it")
        return path.read_bytes()
    except OSError as error:
        raise BrokenAsset(f"refers to {reference[:80]!r}, which cannot be read ({error.strerror})") from error


def base_color(part: AssetPart, vertices: np.ndarray, barycentric: np.ndarray) -> np.ndarray:
    """Base colour of points of a part: factor times texture times vertex colour, as glTF specifies.

    Texels and vertex colours are interpolated, and the three are multiplied, in linear light.

    Args:
      part: part that contains the points.
      vertices: int[n, 3], vertices of each point's face.
      barycentric: float[n, 3], their weights.

    Returns:
      float32[n, 4]: sRGB and alpha, in [0, 1].
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
    """Samples a texture at float[n, 2]: float64[n, 4], linear red, green, blue, and alpha."""
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
    """Texels around coordinates along one axis with their weights: one or two pairs (int64[n], float64[n])."""
    # Reduction to one period keeps the integers of huge coordinates in range.
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
