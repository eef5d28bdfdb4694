"""Meshes: the canonical frame, smooth normals for files without normals, and a writer of plain GLB files."""

import dataclasses
import io
import json
import struct
from collections.abc import Sequence

import numpy as np

CREASE_ANGLE = 40.0
"""Degrees; in files without normals, faces that meet at a smaller angle are shaded as one smooth surface."""

_MOST_MEETING = 512
"""Maximum number of corners in one place that are compared pairwise; more (the hub of a fan) take their common mean if they are
close to it."""

_PLACES = 1_000_002
"""Upper bound of the grid positions along an axis with 1e6 steps along the largest extent; its cube fits 63 bits."""


@dataclasses.dataclass(frozen=True, eq=False)
class Mesh:
    """A triangle mesh in the canonical frame: Z up, bounding-box centre at 0, largest extent 1.

    Attributes:
      vertices: float32[P, 3].
      faces: int32[F, 3], counter-clockwise seen from outside; no face has zero area.
      corner_normals: float32[F, 3, 3], unit normals of each face's corners.
      face_color: float32[F, 3], base colour, sRGB in [0, 1].
      scale: scale from the world coordinates of the file, which are ``vertices / scale + offset``.
      offset: float64[3], centre of the bounding box in world coordinates of the file.
    """

    vertices: np.ndarray
    faces: np.ndarray
    corner_normals: np.ndarray
    face_color: np.ndarray
    scale: float = 1.0
    offset: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(3))


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """A single-coloured part of a mesh, in any world frame.

    Attributes:
      vertices: float[P, 3].
      faces: int[F, 3].
      normals: float[P, 3], unit normals of the vertices; vertices on sharp edges are duplicated, one for each side.
      color: base colour, sRGB, three floats in [0, 1].
    """

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    color: tuple[float, float, float]


def gltf_to_world(vectors: np.ndarray) -> np.ndarray:
    """Maps glTF's (x, y, z), Y up, to the world's (x, -z, y), Z up: float[..., 3] to float[..., 3]."""
    return np.stack([vectors[..., 0], -vectors[..., 2], vectors[..., 1]], axis=-1)


def world_to_gltf(vectors: np.ndarray) -> np.ndarray:
    """Inverse of ``gltf_to_world``: float[..., 3] to float[..., 3]."""
    return np.stack([vectors[..., 0], vectors[..., 2], -vectors[..., 1]], axis=-1)


def linear_to_srgb(linear: np.ndarray) -> np.ndarray:
    """Converts linear light in [0, 1] to sRGB in [0, 1] (IEC 61966-2-1)."""
    linear = np.clip(linear, 0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)


def srgb_to_linear(srgb: np.ndarray) -> np.ndarray:
    """Inverse of ``linear_to_srgb``."""
    srgb = np.clip(srgb, 0.0, 1.0)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def normalize(vertices: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """Moves the centre of the bounding box to 0 and scales the largest extent to 1.

    Args:
      vertices: float[P, 3], not all equal.

    Returns:
      (normalised float64[P, 3], scale, offset float64[3]): ``normalised = (vertices - offset) * scale``.
    """
    vertices = np.asarray(vertices, np.float64)
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    offset, scale = (low + high) / 2, 1.0 / float((high - low).max())
    return (vertices - offset) * scale, scale, offset


def write_glb(parts: Sequence[Part]) -> bytes:
    """Writes a GLB file with one mesh, primitive and material per part; deterministic to the byte."""
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
    """Smooth corner normals of a triangle soup.

    Each corner normal is the mean, weighted by corner angle, of the normals of the faces that meet in the same place at less
    than the crease angle.

    Args:
      triangles: float[F, 3, 3], corners of faces of non-zero area.
      crease_angle: degrees.

    Returns:
      float64[F, 3, 3], unit; zero for needles so thin that their edges have exactly the same direction.
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
    # Corners of one place are compared one offset at a time, so that memory stays linear in the corners.
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
