"""Meshes: GLB files in and out, the canonical frame, and smooth normals for files that have none."""

import dataclasses
import io
import json
import os
import pathlib
import struct
from collections.abc import Iterable, Sequence

import numpy as np
from trimesh.exchange import gltf

from realiz3d_jax.errors import UserError

CREASE_ANGLE = 40.0
"""Degrees; where a file has no normals, faces that meet at a smaller angle are shaded as one smooth surface."""

_MOST_MEETING = 512
"""Corners in one place that are compared each with each; more (the hub of a fan) take their common mean if they are near it."""

_PLACES = 1_000_002
"""More than the places along an axis when the largest extent has 1e6 steps; its cube fits 63 bits."""

_DEFAULT_COLOR = (0.8, 0.8, 0.8)


@dataclasses.dataclass(frozen=True, eq=False)
class Mesh:
    """A triangle mesh in the canonical frame: Z up, bounding-box centre at 0, largest extent 1.

    Attributes:
      vertices: float32[P, 3].
      faces: int32[F, 3], counter-clockwise seen from outside; no face has zero area.
      corner_normals: float32[F, 3, 3], unit normal of each face's corners.
      face_color: float32[F, 3], base colour as displayed (sRGB) in [0, 1].
      scale, offset: float and float64[3]; the file's own world coordinates are ``vertices / scale + offset``.
    """

    vertices: np.ndarray
    faces: np.ndarray
    corner_normals: np.ndarray
    face_color: np.ndarray
    scale: float = 1.0
    offset: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(3))


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """A piece of a mesh in one colour, in any world frame.

    Attributes:
      vertices: float[P, 3].
      faces: int[F, 3].
      normals: float[P, 3], unit normals of the vertices; a vertex on a sharp edge is there once for each side.
      color: base colour as displayed (sRGB), three floats in [0, 1].
    """

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    color: tuple[float, float, float]


def gltf_to_world(vectors: np.ndarray) -> np.ndarray:
    """glTF's (x, y, z), Y up, to the world's (x, -z, y), Z up: float[..., 3] to float[..., 3]."""
    return np.stack([vectors[..., 0], -vectors[..., 2], vectors[..., 1]], axis=-1)


def world_to_gltf(vectors: np.ndarray) -> np.ndarray:
    """The inverse of ``gltf_to_world``: float[..., 3] to float[..., 3]."""
    return np.stack([vectors[..., 0], vectors[..., 2], -vectors[..., 1]], axis=-1)


def linear_to_srgb(linear: np.ndarray) -> np.ndarray:
    """Linear light in [0, 1] to the displayed value in [0, 1] (IEC 61966-2-1)."""
    linear = np.clip(linear, 0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)


def srgb_to_linear(srgb: np.ndarray) -> np.ndarray:
    """The inverse of ``linear_to_srgb``."""
    srgb = np.clip(srgb, 0.0, 1.0)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def normalize(vertices: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """Moves the bounding-box centre to 0 and scales the largest extent to 1.

    Args:
      vertices: float[P, 3], not all in one point.

    Returns:
      (float64[P, 3] normalised, scale, offset float64[3]): ``normalised = (vertices - offset) * scale``.
    """
    vertices = np.asarray(vertices, np.float64)
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    offset, scale = (low + high) / 2, 1.0 / float((high - low).max())
    return (vertices - offset) * scale, scale, offset


def load_mesh(path: str | os.PathLike[str]) -> Mesh:
    """Reads a GLB file, all its meshes under their node transforms, into the canonical frame.

    The file's normals are kept; a primitive without them gets normals smoothed up to ``CREASE_ANGLE``. The base
    colour of a face is its material's factor times its texture or vertex colours at the centre (trimesh gives
    factors in steps of 1/255 of linear light); faces without any are light grey.

    Raises:
      UserError: the file is missing, is no GLB, is broken, holds no triangles, or has vertices that are not finite
        or all in one point.
    """
    path = pathlib.Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot read this mesh ({error.strerror}); expected a GLB file.") from error
    return parse_glb(content, str(path))


def parse_glb(content: bytes, name: str) -> Mesh:
    """``load_mesh`` of a file's content; ``name`` stands for the file in errors."""
    triangles, normals, colors = [], [], []
    for vertices, faces, vertex_normals, color in _primitives(content, name):
        if len(faces) and (faces.min() < 0 or faces.max() >= len(vertices)):
            raise UserError(
                f"{name}: a face names vertex {faces.max()}, but its mesh has {len(vertices)} vertices; "
                "the file is broken, export it again."
            )
        corners = vertices[faces]
        if not np.isfinite(corners).all():
            raise UserError(
                f"{name}: vertices that are not finite numbers (NaN or infinity); expected finite coordinates. "
                "Clean the mesh and export it again."
            )
        cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        solid = np.linalg.norm(cross, axis=-1) > 0
        if not solid.any():
            continue
        corners, color = corners[solid], color[solid]
        triangles.append(corners)
        colors.append(color)
        normals.append(smooth_normals(corners) if vertex_normals is None else vertex_normals[faces[solid]])
    if not triangles:
        raise UserError(f"{name}: no faces (triangles of non-zero area) in this file; expected at least one mesh.")
    return _assemble(gltf_to_world(np.concatenate(triangles)), gltf_to_world(np.concatenate(normals)), colors, name)


def write_glb(parts: Sequence[Part]) -> bytes:
    """A GLB file with one mesh of one primitive and one material for each part; the same bytes for the same parts."""
    binary, views, accessors, primitives, materials = io.BytesIO(), [], [], [], []

    def accessor(array: np.ndarray, kind: str, component: int, target: int, bounds: bool = False) -> int:
        views.append({"buffer": 0, "byteOffset": binary.tell(), "byteLength": array.nbytes, "target": target})
        binary.write(array.tobytes())
        binary.write(b"\0" * (-binary.tell() % 4))
        entry = {"bufferView": len(views) - 1, "componentType": component, "count": len(array), "type": kind}
        if bounds:
            entry |= {"min": array.min(axis=0).tolist(), "max": array.max(axis=0).tolist()}
        accessors.append(entry)
        return len(accessors) - 1

    for part in parts:
        positions = world_to_gltf(np.asarray(part.vertices)).astype("<f4")
        normals = world_to_gltf(np.asarray(part.normals)).astype("<f4")
        small = len(positions) < 2**16 - 1
        indices = np.asarray(part.faces).reshape(-1).astype("<u2" if small else "<u4")
        attributes = {
            "POSITION": accessor(positions, "VEC3", 5126, 34962, bounds=True),
            "NORMAL": accessor(normals, "VEC3", 5126, 34962),
        }
        index = accessor(indices, "SCALAR", 5123 if small else 5125, 34963)
        primitives.append({"attributes": attributes, "indices": index, "material": len(materials)})
        factor = [*srgb_to_linear(np.asarray(part.color)).tolist(), 1.0]
        materials.append({"pbrMetallicRoughness": {"baseColorFactor": factor, "metallicFactor": 0.0}})
    header = {
        "asset": {"version": "2.0", "generator": "realiz3d_jax"},
        "scene": 0,
        "scenes": [{"nodes": list(range(len(primitives)))}],
        "nodes": [{"mesh": index} for index in range(len(primitives))],
        "meshes": [{"primitives": [primitive]} for primitive in primitives],
        "materials": materials,
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": binary.tell()}],
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    body = binary.getvalue()
    chunks = [struct.pack("<I4s", len(chunk), kind) + chunk for kind, chunk in ((b"JSON", text), (b"BIN\0", body))]
    return struct.pack("<4sII", b"glTF", 2, 12 + sum(map(len, chunks))) + b"".join(chunks)


def smooth_normals(triangles: np.ndarray, crease_angle: float = CREASE_ANGLE) -> np.ndarray:
    """Corner normals of a triangle soup: each is the mean, weighted by corner angle, of the normals of the faces that
    meet in the same place at less than ``crease_angle`` degrees.

    Args:
      triangles: float[F, 3, 3], corners of faces of non-zero area.

    Returns:
      float64[F, 3, 3], unit; zero for needles so thin that their edges have one direction to the last bit.
    """
    triangles = np.asarray(triangles, np.float64)
    edges = np.roll(triangles, -1, axis=1) - triangles
    edges /= np.maximum(np.linalg.norm(edges, axis=-1, keepdims=True), 1e-300)
    normals = np.cross(edges[:, 0], edges[:, 1])
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-300)
    cosines = -np.einsum("fcd,fcd->fc", edges, np.roll(edges, 1, axis=1))
    weights = np.arccos(np.clip(cosines, -1, 1)).reshape(-1)
    extent = np.ptp(triangles.reshape(-1, 3), axis=0).max()
    places = np.round(triangles.reshape(-1, 3) / (extent * 1e-6)).astype(np.int64)
    places -= places.min(axis=0)
    key = (places[:, 0] * _PLACES + places[:, 1]) * _PLACES + places[:, 2]
    _, place, counts = np.unique(key, return_inverse=True, return_counts=True)
    order = np.argsort(place.reshape(-1), kind="stable")
    count = np.repeat(counts, counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    face = order // 3
    own, weights = normals[face], weights[order]
    total = np.zeros_like(own)
    # Each corner meets the others of its place one after the other: memory stays that of the corners.
    rank = np.arange(len(order)) - first
    limit = np.cos(np.deg2rad(crease_angle))
    crowded = count > _MOST_MEETING
    for turn in range(min(int(counts.max()), _MOST_MEETING)):
        corners = np.flatnonzero((count > turn) & ~crowded)
        other = first[corners] + (rank[corners] + turn) % count[corners]
        together = np.einsum("nd,nd->n", own[corners], own[other]) >= limit
        total[corners] += np.where(together, weights[other], 0.0)[:, None] * own[other]
    if crowded.any():
        place = place.reshape(-1)[order]
        mean = np.stack([np.bincount(place, weights * axis) for axis in own.T], axis=-1)
        mean /= np.maximum(np.linalg.norm(mean, axis=-1, keepdims=True), 1e-300)
        close = np.einsum("nd,nd->n", own, mean[place]) >= np.cos(np.deg2rad(crease_angle / 2))
        total[crowded] = np.where(close[:, None], mean[place], own)[crowded]
    total += 1e-9 * own
    length = np.linalg.norm(total, axis=-1, keepdims=True)
    total /= np.where(length > 0, length, 1.0)
    result = np.empty_like(total)
    result[order] = total
    return result.reshape(-1, 3, 3)


def _primitives(content: bytes, name: str) -> Iterable[tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray]]:
    """Every placed triangle primitive: glTF-frame vertices float64[P, 3], faces int64[F, 3], unit normals float64[P, 3]
    or None, face colours float32[F, 3]."""
    try:
        file = gltf.load_glb(io.BytesIO(content))
        geometry = file["geometry"]
        order = {key: place for place, key in enumerate(geometry)}  # as in the file; trimesh walks its nodes backwards
        placed = sorted(_placed(file["graph"]), key=lambda item: order[item[0]])
    except (
        Exception
    ) as error:  # trimesh lets whatever goes wrong while parsing pass: struct, index, key and JSON errors
        raise UserError(
            f"{name}: cannot be read as GLB ({type(error).__name__}: {error}); expected a binary glTF 2.0 file. "
            "Export it again, or convert it to GLB first."
        ) from error
    for key, transform in placed:
        primitive = geometry[key]
        if "faces" not in primitive:
            continue
        vertices = np.asarray(primitive["vertices"], np.float64)
        faces = np.asarray(primitive["faces"], np.int64).reshape(-1, 3)
        linear, normals = transform[:3, :3], primitive.get("vertex_normals")
        vertices = vertices @ linear.T + transform[:3, 3]
        mirrored = np.linalg.det(linear) < 0
        if normals is not None:
            # Cofactors instead of the inverse transpose: the same direction, and a flattening transform is no error.
            cofactors = np.stack([np.cross(linear[(i + 1) % 3], linear[(i + 2) % 3]) for i in range(3)])
            normals = np.asarray(normals, np.float64) @ cofactors.T * (-1.0 if mirrored else 1.0)
            length = np.linalg.norm(normals, axis=-1, keepdims=True)
            usable = np.isfinite(normals).all() and (length > 1e-12).all() and len(normals) == len(vertices)
            normals = normals / length if usable else None
        color = _face_color(primitive, faces)
        yield vertices, faces[:, ::-1] if mirrored else faces, normals, color


def _placed(graph: Iterable[dict]) -> Iterable[tuple[str, np.ndarray]]:
    """Names of primitives with their transforms to the file's world, float64[4, 4], from trimesh's list of edges."""
    edges = list(graph)
    parents = {edge["frame_to"]: edge for edge in edges}
    for edge in edges:
        if "geometry" not in edge:
            continue
        transform, frame = np.eye(4), edge["frame_to"]
        while frame in parents:
            transform = np.asarray(parents[frame].get("matrix", np.eye(4)), np.float64) @ transform
            frame = parents[frame]["frame_from"]
        yield edge["geometry"], transform


def _face_color(primitive: dict, faces: np.ndarray) -> np.ndarray:
    """Displayed base colour of each face: float32[F, 3]."""
    linear = np.ones((len(faces), 3))
    known = False
    visual = primitive.get("visual")
    material = getattr(visual, "material", None)
    colors = primitive.get("vertex_colors", getattr(visual, "vertex_attributes", {}).get("color"))
    if colors is not None:
        colors = np.asarray(colors)
        peak = np.iinfo(colors.dtype).max if np.issubdtype(colors.dtype, np.integer) else 1.0
        linear, known = linear * (colors[faces][..., :3] / peak).mean(axis=1), True
    factor = getattr(material, "baseColorFactor", None)
    if factor is not None:
        linear, known = linear * np.asarray(factor, np.float64)[:3] / 255.0, True
    texture, uv = getattr(material, "baseColorTexture", None), getattr(visual, "uv", None)
    if texture is not None and uv is not None and len(uv):
        pixels = np.asarray(texture.convert("RGB"))
        center = np.nan_to_num(np.asarray(uv, np.float64))[faces].mean(axis=1) % 1.0
        column = (center[:, 0] * pixels.shape[1]).astype(int) % pixels.shape[1]
        row = ((1 - center[:, 1]) * pixels.shape[0]).astype(int) % pixels.shape[0]
        linear, known = linear * srgb_to_linear(pixels[row, column] / 255.0), True
    return linear_to_srgb(linear).astype(np.float32) if known else np.full((len(faces), 3), _DEFAULT_COLOR, np.float32)


def _assemble(triangles: np.ndarray, normals: np.ndarray, colors: list[np.ndarray], name: str) -> Mesh:
    """Joins triangles float64[F, 3, 3] of a world frame into a normalised mesh that shares equal vertices."""
    vertices, faces = np.unique(triangles.reshape(-1, 3), axis=0, return_inverse=True)
    if np.ptp(vertices, axis=0).max() < 1e-12:
        raise UserError(f"{name}: all vertices lie in one point; expected a mesh with an extent.")
    vertices, scale, offset = normalize(vertices)
    return Mesh(
        vertices=vertices.astype(np.float32),
        faces=faces.reshape(-1, 3).astype(np.int32),
        corner_normals=normals.astype(np.float32),
        face_color=np.concatenate(colors),
        scale=scale,
        offset=offset,
    )
