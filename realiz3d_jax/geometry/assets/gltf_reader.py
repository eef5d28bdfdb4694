"""Reader of glTF 2.0: GLB, and glTF with buffers and images in separate files or data URIs.

The reader takes the default scene, triangles (lists, strips, fans), normals, texture coordinates, vertex colours and the base
colour of materials, with the extensions of ``_EXTENSIONS``. It ignores skins, morph targets, animations, cameras and lights:
meshes are placed by their nodes alone. ``gltf_data`` reads the numbers.
"""

import json
import math
import pathlib
import struct
from collections.abc import Iterator

import numpy as np

from realiz3d_jax.geometry.assets import asset_parts
from realiz3d_jax.geometry.assets.asset_parts import AssetPart, BrokenAsset, Contents, Material, Node, Texture
from realiz3d_jax.geometry.assets.gltf_data import GltfData, is_count

_EXTENSIONS = {
    "KHR_texture_transform",
    "KHR_mesh_quantization",
    "KHR_materials_pbrSpecularGlossiness",
    "EXT_texture_webp",
}
_HARMLESS = ("KHR_materials_", "KHR_lights_", "KHR_xmp", "KHR_animation", "KHR_node_")
"""Prefixes of extensions that change neither geometry nor base colour."""


def read_gltf(content: bytes, folder: pathlib.Path | None) -> Contents:
    """Reads a GLB or glTF file.

    Args:
      content: bytes of the file.
      folder: root of referenced files; None if references are not allowed.

    Raises:
      BrokenAsset: the file is invalid or uses an unsupported feature.
    """
    binary = None
    if content[:4] == b"glTF":
        content, binary = _chunks(content)
    try:
        header = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BrokenAsset(f"its JSON cannot be read ({type(error).__name__}: {str(error)[:120]})") from error
    if not isinstance(header, dict):
        raise BrokenAsset(f"its JSON is a {type(header).__name__}, expected an object")
    return _File(header, binary, folder).contents()


def _chunks(content: bytes) -> tuple[bytes, bytes | None]:
    """JSON and binary chunk of a GLB."""
    if len(content) < 20:
        raise BrokenAsset(f"{len(content)} bytes; a GLB has at least 20: it is truncated")
    version, length = struct.unpack("<II", content[4:12])
    if version != 2:
        raise BrokenAsset(f"glTF version {version}; expected 2")
    if length > len(content):
        raise BrokenAsset(f"{len(content)} bytes; its header states {length}: it is truncated")
    chunks, place = {}, 12
    while place + 8 <= length:
        size, kind = struct.unpack("<I4s", content[place : place + 8])
        if place + 8 + size > length:
            raise BrokenAsset(f"a chunk of {size} bytes at byte {place} extends beyond its end")
        chunks.setdefault(kind, content[place + 8 : place + 8 + size])
        place += 8 + size
    if b"JSON" not in chunks:
        raise BrokenAsset("no JSON chunk; expected one")
    return chunks[b"JSON"], chunks.get(b"BIN\0")


class _File(GltfData):
    """Interpretation of the tables of a glTF file."""

    def contents(self) -> Contents:
        """Content of the default scene."""
        asset = self.header.get("asset")
        version = asset.get("version") if isinstance(asset, dict) else None
        if not isinstance(version, str) or not version.startswith("2."):
            raise BrokenAsset(f"asset.version is {version!r}; expected glTF 2.0")
        for extension in self.header.get("extensionsRequired", []):
            if extension not in _EXTENSIONS and not str(extension).startswith(_HARMLESS):
                raise BrokenAsset(
                    f"it needs the extension {extension}, which is not supported; "
                    f"expected none, or {', '.join(sorted(_EXTENSIONS))}"
                )
        nodes, roots, meshes = self._nodes()
        parts, faces, vertices = [], 0, 0
        for index, mesh in meshes:
            for part in self._parts(mesh, index):
                faces, vertices = faces + len(part.faces), vertices + len(part.vertices)
                asset_parts.check_size(faces, vertices)
                parts.append(part)
        return Contents(tuple(parts), nodes, roots)

    # --- the scene ---------------------------------------------------------------------------------------------------

    def _nodes(self) -> tuple[tuple[Node, ...], tuple[int, ...], list[tuple[int, int]]]:
        """Nodes of the default scene, indices of the roots, and (node, mesh) pairs in the order of the file."""
        named = self.header.get("nodes", [])
        if self.header.get("scenes"):
            starts = self.entry("scenes", self.header.get("scene", 0)).get("nodes", [])
        else:
            below = {child for node in named for child in node.get("children", [])}
            starts = [index for index in range(len(named)) if index not in below]
        seen, pending = set(), list(reversed(starts))
        while pending:
            index = pending.pop()
            node = self.entry("nodes", index)
            if index in seen:
                raise BrokenAsset(f"nodes[{index}] has two parents or is its own descendant; expected a tree")
            seen.add(index)
            pending += reversed(node.get("children", []))
        order = {old: new for new, old in enumerate(sorted(seen))}
        nodes, meshes = [], []
        for old, new in order.items():
            entry = self.entry("nodes", old)
            children = tuple(order[child] for child in entry.get("children", []))
            nodes.append(Node(_name(entry), _placement(entry, f"nodes[{old}]"), children))
            if entry.get("mesh") is not None:
                meshes.append((new, entry["mesh"]))
        return tuple(nodes), tuple(order[start] for start in starts), meshes

    def _parts(self, mesh_index: int, node: int) -> Iterator[AssetPart]:
        mesh = self.entry("meshes", mesh_index)
        for number, primitive in enumerate(mesh.get("primitives", [])):
            where = f"meshes[{mesh_index}].primitives[{number}]"
            mode = primitive.get("mode", 4)
            if mode in (0, 1, 2, 3):  # points and lines
                continue
            if mode not in (4, 5, 6):
                raise BrokenAsset(f"{where}.mode is {mode!r}; expected 0 to 6")
            if "KHR_draco_mesh_compression" in primitive.get("extensions", {}):
                raise BrokenAsset(
                    f"{where} is compressed with Draco, which is not supported; export it without compression"
                )
            yield self._part(primitive, where, mode, _name(mesh), node)

    def _part(self, primitive: dict, where: str, mode: int, name: str, node: int) -> AssetPart:
        attributes = primitive.get("attributes", {})
        if "POSITION" not in attributes:
            raise BrokenAsset(f"{where} has no POSITION; expected vertex positions")
        vertices = self.vectors(attributes["POSITION"], ("VEC3",), f"{where}.POSITION")
        if primitive.get("indices") is None:
            indices = np.arange(len(vertices), dtype=np.int64)
        else:
            indices = self.array(primitive["indices"])
            if indices.shape[1] != 1 or indices.dtype.kind != "u":
                raise BrokenAsset(f"{where}.indices: expected unsigned whole numbers")
            indices = indices[:, 0].astype(np.int64)
        if len(indices) and indices.max() >= len(vertices):
            raise BrokenAsset(
                f"{where}: a face refers to vertex {indices.max()}, but there are {len(vertices)} vertices"
            )
        material, transform, texture_set = Material(), None, 0
        if primitive.get("material") is not None:
            material, transform, texture_set = self.once("materials", primitive["material"], self._material)
        per_vertex = {}
        for key, kinds in (
            ("NORMAL", ("VEC3",)),
            ("TEXCOORD_0", ("VEC2",)),
            (f"TEXCOORD_{texture_set}", ("VEC2",)),
            ("COLOR_0", ("VEC3", "VEC4")),
        ):
            if attributes.get(key) is not None and key not in per_vertex:
                per_vertex[key] = self.vectors(attributes[key], kinds, f"{where}.{key}")
                if len(per_vertex[key]) != len(vertices):
                    raise BrokenAsset(
                        f"{where}.{key}: {len(per_vertex[key])} values for {len(vertices)} vertices; expected one each"
                    )
        uv = per_vertex.get(f"TEXCOORD_{texture_set}")
        colors = per_vertex.get("COLOR_0")
        if colors is not None:
            colors = np.nan_to_num(colors).clip(0, 1)
            colors = np.concatenate([colors, np.ones((len(colors), 4 - colors.shape[1]), np.float32)], axis=1)
        return AssetPart(
            name=name,
            node=node,
            vertices=vertices,
            faces=_triangles(indices, mode, where),
            normals=per_vertex.get("NORMAL"),
            uv=per_vertex.get("TEXCOORD_0") if uv is None else uv,
            texture_uv=None if uv is None else _transformed(uv, transform),
            colors=colors,
            material=material,
        )

    # --- materials ---------------------------------------------------------------------------------------------------

    def _material(self, entry: dict, where: str) -> tuple[Material, dict | None, int]:
        """A material, the transform of its texture, and the index of its set of texture coordinates."""
        extensions = entry.get("extensions", {})
        glossy = extensions.get("KHR_materials_pbrSpecularGlossiness")
        if "pbrMetallicRoughness" in entry or glossy is None:
            surface = entry.get("pbrMetallicRoughness", {})
            factor, use = surface.get("baseColorFactor"), surface.get("baseColorTexture")
        else:
            factor, use = glossy.get("diffuseFactor"), glossy.get("diffuseTexture")
        if factor is not None:
            factor = _numbers(factor, 4, f"{where}.baseColorFactor")
            factor = tuple(min(max(value, 0.0), 1.0) for value in factor)
        texture, transform, texture_set = None, None, 0
        if use is not None:
            texture = self.once("textures", use.get("index"), self._texture)
            transform = use.get("extensions", {}).get("KHR_texture_transform")
            texture_set = (transform or {}).get("texCoord", use.get("texCoord", 0))
            if not is_count(texture_set):
                raise BrokenAsset(f"{where}: texCoord is {texture_set!r}; expected a whole number")
        mode, cutoff = entry.get("alphaMode", "OPAQUE"), entry.get("alphaCutoff", 0.5)
        if mode not in ("OPAQUE", "MASK", "BLEND"):
            raise BrokenAsset(f"{where}.alphaMode is {mode!r}; expected OPAQUE, MASK or BLEND")
        (cutoff,) = _numbers([cutoff], 1, f"{where}.alphaCutoff")
        double_sided = entry.get("doubleSided", False) is True
        return Material(_name(entry), factor, texture, mode, cutoff, double_sided), transform, texture_set

    def _texture(self, entry: dict, where: str) -> Texture | None:
        source = entry.get("extensions", {}).get("EXT_texture_webp", {}).get("source", entry.get("source"))
        if source is None:
            if "KHR_texture_basisu" in entry.get("extensions", {}):
                raise BrokenAsset(
                    f"{where} is in KTX2 (Basis Universal), which is not supported; expected PNG, JPEG or WebP"
                )
            return None
        sampler = self.entry("samplers", entry["sampler"]) if entry.get("sampler") is not None else {}
        wrap = sampler.get("wrapS", asset_parts.REPEAT), sampler.get("wrapT", asset_parts.REPEAT)
        for mode in wrap:
            if mode not in (asset_parts.REPEAT, asset_parts.CLAMP, asset_parts.MIRROR):
                raise BrokenAsset(
                    f"{where}: its sampler has the wrapping mode {mode!r}; expected 10497, 33071 or 33648"
                )
        return Texture(self.once("images", source, self.image), wrap, sampler.get("magFilter") == 9728)


def _name(entry: dict) -> str:
    name = entry.get("name", "")
    return name.encode("utf-8", "replace").decode() if isinstance(name, str) else ""


def _numbers(values: object, count: int, where: str) -> list[float]:
    good = isinstance(values, list) and len(values) == count and all(type(value) in (int, float) for value in values)
    if not good or not all(abs(value) < 1e300 and math.isfinite(value) for value in values):
        raise BrokenAsset(f"{where} is {str(values)[:60]}; expected {count} finite numbers")
    return [float(value) for value in values]


def _placement(entry: dict, where: str) -> dict[str, list[float]]:
    if entry.get("matrix") is not None:
        matrix = _numbers(entry["matrix"], 16, f"{where}.matrix")
        if matrix[3::4] != [0, 0, 0, 1]:
            raise BrokenAsset(f"{where}.matrix has the last row {matrix[3::4]}; expected 0, 0, 0, 1")
        return {"matrix": matrix}
    counts = {"translation": 3, "rotation": 4, "scale": 3}
    result = {
        key: _numbers(entry[key], size, f"{where}.{key}") for key, size in counts.items() if entry.get(key) is not None
    }
    length = math.hypot(*result.get("rotation", [1.0]))
    if not 1e-6 < length < 1e6:
        raise BrokenAsset(f"{where}.rotation is {result['rotation']}; expected a unit quaternion")
    if abs(length - 1) > 1e-3:  # smaller deviations are rounding by exporters, kept bit for bit
        result["rotation"] = [value / length for value in result["rotation"]]
    return result


def _triangles(indices: np.ndarray, mode: int, where: str) -> np.ndarray:
    """Triangles int32[T, 3] of a list (mode 4), a strip (5) or a fan (6)."""
    if mode == 4:
        if len(indices) % 3:
            raise BrokenAsset(f"{where}: {len(indices)} corners; expected a multiple of 3")
        return indices.reshape(-1, 3).astype(np.int32)
    count = max(len(indices) - 2, 0)
    first = np.arange(count)
    if mode == 5:  # every second triangle of a strip has the opposite winding
        odd = first % 2
        corners = np.stack([first, first + 1 + odd, first + 2 - odd], axis=-1)
    else:
        corners = np.stack([first + 1, first + 2, np.zeros_like(first)], axis=-1)
    return indices[corners].reshape(-1, 3).astype(np.int32)


def _transformed(uv: np.ndarray, transform: dict | None) -> np.ndarray:
    """Applies KHR_texture_transform: offset + R(-rotation) (scale * uv), v down.

    This is counter-clockwise as seen in the UV plane, like the text of the extension and its implementations; the GLSL listing
    of the extension rotates the other way (KhronosGroup/glTF, issue 1563).
    """
    if transform is None:
        return uv
    scale = _numbers(transform.get("scale", [1, 1]), 2, "KHR_texture_transform.scale")
    offset = _numbers(transform.get("offset", [0, 0]), 2, "KHR_texture_transform.offset")
    (angle,) = _numbers([transform.get("rotation", 0)], 1, "KHR_texture_transform.rotation")
    sine, cosine = math.sin(angle), math.cos(angle)
    with np.errstate(over="ignore", invalid="ignore"):
        u, v = (uv * np.array(scale)).T
        return (np.stack([cosine * u + sine * v, cosine * v - sine * u], axis=-1) + offset).astype(np.float32)
