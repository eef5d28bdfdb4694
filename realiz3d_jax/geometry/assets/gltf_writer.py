"""Writer of textured assets: GLB with the coordinates, nodes and names of the input and a single base-colour texture."""

import io
import json
import struct

import numpy as np
from PIL import Image

from realiz3d_jax.geometry.assets import asset_parts
from realiz3d_jax.geometry.assets.asset import Asset, part_normals
from realiz3d_jax.geometry.assets.asset_parts import AssetPart, Material

_UNIT_TOLERANCE = 1e-3
"""Largest deviation from unit length at which a normal of the file is written unchanged, bit for bit."""


def write_textured_glb(asset: Asset, texture: np.ndarray) -> bytes:
    """Writes an asset as GLB with the texture coordinates ``asset.uv`` and one texture.

    Nodes, their transforms and names, meshes, names of materials, positions and faces, including those of zero area, are those
    of the file. Vertices are split only where texture coordinates or normals differ between faces; unused vertices are dropped.
    Skins, morph targets, animations, cameras and lights are not written.

    Args:
      asset: asset with texture coordinates for every face, as ``unwrap`` makes them.
      texture: uint8[H, W, 3 or 4], sRGB, row 0 at v = 0; with four channels, materials keep their alpha mode.

    Returns:
      Bytes of the file, deterministic.

    Raises:
      ValueError: a face has no texture coordinates.
    """
    if asset.uv is None or not np.isfinite(asset.uv).all():
        raise ValueError("the asset has faces without texture coordinates: unwrap it first")
    data, image = _Data(), io.BytesIO()
    Image.fromarray(texture).save(image, "PNG")
    image_view = data.view(image.getvalue(), None)
    meshes, materials = _meshes(asset, data, alpha=texture.shape[2] == 4)
    return _glb(
        {
            "asset": {"version": "2.0", "generator": "realiz3d_jax"},
            "scene": 0,
            "scenes": [{"nodes": list(asset.roots)}],
            "nodes": _nodes(asset, list(meshes)),
            "meshes": list(meshes.values()),
            "materials": materials,
            "textures": [{"source": 0, "sampler": 0}],
            "images": [{"bufferView": image_view, "mimeType": "image/png"}],
            "samplers": [
                {"magFilter": 9729, "minFilter": 9987, "wrapS": asset_parts.CLAMP, "wrapT": asset_parts.CLAMP}
            ],
            "accessors": data.accessors,
            "bufferViews": data.views,
            "buffers": [{"byteLength": data.binary.tell()}],
        },
        data.binary.getvalue(),
    )


def _meshes(asset: Asset, data: "_Data", alpha: bool) -> tuple[dict[int, dict], list[dict]]:
    """Meshes of the parts, by node, and materials; appends their arrays to ``data``."""
    transforms = asset_parts.world_transforms(asset)
    meshes: dict[int, dict] = {}
    materials: list[dict] = []
    written: dict[int, int] = {}
    bounds = np.searchsorted(asset.part, np.arange(len(asset.parts) + 1))
    for index, part in enumerate(asset.parts):
        if not len(part.faces):
            continue
        if id(part.material) not in written:
            written[id(part.material)] = len(materials)
            materials.append(_material(part.material, alpha))
        mine = slice(bounds[index], bounds[index + 1])
        vertices, uv, normals, faces = _split(asset, part, mine, transforms[part.node])
        attributes = {
            "POSITION": data.accessor(vertices, "VEC3", 34962, bounds=True),
            "NORMAL": data.accessor(normals, "VEC3", 34962),
            "TEXCOORD_0": data.accessor(uv, "VEC2", 34962),
        }
        small = len(vertices) < 2**16 - 1
        indices = data.accessor(faces.reshape(-1).astype("<u2" if small else "<u4"), "SCALAR", 34963)
        primitive = {"attributes": attributes, "indices": indices, "material": written[id(part.material)]}
        meshes.setdefault(part.node, {"primitives": [], **_named(part.name)})["primitives"].append(primitive)
    return meshes, materials


def _nodes(asset: Asset, with_mesh: list[int]) -> list[dict]:
    """Nodes of the file; the n-th node of ``with_mesh`` has the n-th mesh."""
    mesh_of = {node: number for number, node in enumerate(with_mesh)}
    nodes = []
    for number, node in enumerate(asset.nodes):
        entry = {**_named(node.name), **node.placement}
        if node.children:
            entry["children"] = list(node.children)
        if number in mesh_of:
            entry["mesh"] = mesh_of[number]
        nodes.append(entry)
    return nodes


def _glb(header: dict, binary: bytes) -> bytes:
    """Joins a header and a binary chunk to a GLB."""
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    chunks = [struct.pack("<I4s", len(chunk), kind) + chunk for kind, chunk in ((b"JSON", text), (b"BIN\0", binary))]
    return struct.pack("<4sII", b"glTF", 2, 12 + sum(map(len, chunks))) + b"".join(chunks)


class _Data:
    """Growing binary chunk with its views and accessors; every view is aligned to four bytes."""

    def __init__(self):
        self.binary, self.views, self.accessors = io.BytesIO(), [], []

    def view(self, content: bytes, target: int | None) -> int:
        entry = {"buffer": 0, "byteOffset": self.binary.tell(), "byteLength": len(content)}
        self.views.append(entry if target is None else {**entry, "target": target})
        self.binary.write(content + b"\0" * (-len(content) % 4))
        return len(self.views) - 1

    def accessor(self, array: np.ndarray, kind: str, target: int, bounds: bool = False) -> int:
        component = {"float32": 5126, "uint16": 5123, "uint32": 5125}[array.dtype.name]
        entry = {"bufferView": self.view(array.tobytes(), target), "componentType": component, "count": len(array)}
        entry["type"] = kind
        if bounds:
            entry |= {"min": array.min(axis=0).tolist(), "max": array.max(axis=0).tolist()}
        self.accessors.append(entry)
        return len(self.accessors) - 1


def _named(name: str) -> dict[str, str]:
    return {"name": name} if name else {}


def _material(material: Material, alpha: bool) -> dict:
    surface = {"baseColorTexture": {"index": 0}, "metallicFactor": 0.0, "roughnessFactor": 1.0}
    entry = {**_named(material.name), "pbrMetallicRoughness": surface}
    if material.double_sided:
        entry["doubleSided"] = True
    if alpha and material.alpha_mode != "OPAQUE":
        entry["alphaMode"] = material.alpha_mode
        if material.alpha_mode == "MASK":
            entry["alphaCutoff"] = max(material.alpha_cutoff, 0.0)
    return entry


def _split(
    asset: Asset, part: AssetPart, mine: slice, transform: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Vertices of a part, split where necessary: positions, uv and normals float32[P, ...], and faces int64[T, 3]."""
    mirrored = np.linalg.det(transform[:3, :3]) < 0
    turn = slice(None, None, -1 if mirrored else 1)
    vertex = asset.corner[mine][:, turn].reshape(-1)
    uv = asset.uv[mine][:, turn].reshape(-1, 2)
    normals = _local_normals(asset, part, mine, transform)[:, turn].reshape(-1, 3)
    # Smooth normals of one vertex differ in their last bits with the order of summation over faces.
    keys = (*np.round(normals, 4).T, *uv.T, vertex)
    order = np.lexsort(keys)
    new = np.zeros(len(order), bool)
    for key in keys:
        new[1:] |= key[order[1:]] != key[order[:-1]]
    new[:1] = True
    name = np.empty(len(order), np.int64)
    name[order] = np.cumsum(new) - 1
    chosen = order[new]
    faces = np.empty((len(part.faces), 3), np.int64)
    kept = asset.part_face[mine]
    faces[kept] = name.reshape(-1, 3)
    # Faces of zero area use any existing copy of a vertex, and add the vertices that no other face has.
    flat = np.ones(len(part.faces), bool)
    flat[kept] = False
    wanted = part.faces[flat]
    first = np.full(len(part.vertices), -1, np.int64)
    first[vertex[chosen][::-1]] = np.arange(len(chosen))[::-1]
    extra = np.unique(wanted[first[wanted] < 0])
    extra = extra[np.isfinite(part.vertices[extra]).all(axis=-1)]
    first[extra] = len(chosen) + np.arange(len(extra))
    faces[flat] = first[wanted]
    faces = faces[(faces >= 0).all(axis=-1)]
    normals = np.concatenate([normals[chosen], np.tile(np.float32([0, 0, 1]), (len(extra), 1))])
    uv = np.concatenate([uv[chosen], np.zeros((len(extra), 2), np.float32)])
    return part.vertices[np.concatenate([vertex[chosen], extra])], uv, normals, faces


def _local_normals(asset: Asset, part: AssetPart, mine: slice, transform: np.ndarray) -> np.ndarray:
    """Unit corner normals of a part's faces, in the part's frame and the mesh's order of corners: float32[F, 3, 3]."""
    corner = asset.corner[mine]
    triangles = part.vertices[corner].astype(np.float64)
    flat = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    if np.linalg.det(transform[:3, :3]) < 0:
        flat = -flat
    flat = _unit(flat, np.array([0.0, 0.0, 1.0]))[:, None]
    # Normals are mapped to the world by the inverse transpose, hence back by the transpose.
    world = asset.file_world_normals(mine)
    result = _unit(world @ transform[:3, :3], flat).astype(np.float32)
    own = part_normals(part)
    if own is not None:
        length = np.linalg.norm(part.normals.astype(np.float64), axis=-1, keepdims=True)
        exact = np.where(np.abs(length - 1) < _UNIT_TOLERANCE, part.normals, own.astype(np.float32))[corner]
        result = np.where(np.isfinite(exact).all(axis=-1, keepdims=True), exact, result)
    return result


def _unit(vectors: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(length > 1e-12, vectors / np.where(length > 1e-12, length, 1.0), otherwise)
