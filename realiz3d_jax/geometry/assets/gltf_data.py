"""Data access for glTF files: entries of the header and the bytes that they refer to, validated.

Nothing of a size stated in the file is allocated before the bytes for it are known to exist.
"""

import base64
import binascii
import pathlib
from collections.abc import Callable

import numpy as np

from realiz3d_jax.geometry.assets import asset_parts
from realiz3d_jax.geometry.assets.asset_parts import BrokenAsset

_COMPONENTS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


class GltfData:
    """A glTF file during reading: its header, and a cache of the entries already read.

    Its methods raise ``BrokenAsset`` with the name of the entry.
    """

    def __init__(self, header: dict, binary: bytes | None, folder: pathlib.Path | None):
        """Wraps a parsed header.

        Args:
          header: the JSON object.
          binary: binary chunk of a GLB, or None.
          folder: root of referenced files; None if references are not allowed.
        """
        self.header, self._binary, self._folder = header, binary, folder
        self._read: dict[tuple[str, int], object] = {}
        self._pixels_left = asset_parts.MOST_PIXELS
        self._elements_left = asset_parts.MOST_VERTICES
        self._bytes_left = asset_parts.MOST_BYTES

    def entry(self, table: str, index: object) -> dict:
        """The JSON object ``header[table][index]``."""
        entries = self.header.get(table, [])
        if not isinstance(entries, list):
            raise BrokenAsset(f"{table} is a {type(entries).__name__}, expected a list")
        if not is_count(index) or index >= len(entries):
            raise BrokenAsset(f"{table}[{str(index)[:20]}] does not exist; {table} has {len(entries)} entries")
        if not isinstance(entries[index], dict):
            raise BrokenAsset(f"{table}[{index}] is a {type(entries[index]).__name__}, expected an object")
        return entries[index]

    def once(self, table: str, index: object, read: Callable[[dict, str], object]) -> object:
        """The cached result of ``read(entry, where)`` for an entry."""
        entry = self.entry(table, index)
        if (table, index) not in self._read:
            self._read[table, index] = read(entry, f"{table}[{index}]")
        return self._read[table, index]

    def image(self, entry: dict, where: str) -> np.ndarray:
        """Decodes an entry of "images": uint8[H, W, 4]."""
        content = self._view(entry["bufferView"])[0] if entry.get("uri") is None else self._uri(entry["uri"], where)
        pixels = asset_parts.decode_image(bytes(content), where, self._pixels_left)
        self._pixels_left -= pixels.shape[0] * pixels.shape[1]
        return pixels

    def _uri(self, uri: object, where: str) -> bytes:
        if not isinstance(uri, str):
            raise BrokenAsset(f"{where}.uri is a {type(uri).__name__}, expected text")
        if not uri.startswith("data:"):
            content = asset_parts.read_beside(self._folder, uri)
            self._bytes_left -= len(content)
            if self._bytes_left < 0:
                raise BrokenAsset(
                    f"its referenced files have more than {asset_parts.MOST_BYTES:,} bytes; expected fewer"
                )
            return content
        head, _, body = uri.partition(",")
        try:
            if not head.endswith(";base64"):
                raise BrokenAsset(f"{where}.uri: data in another encoding; expected base64")
            return base64.b64decode(body, validate=True)
        except (binascii.Error, ValueError) as error:
            raise BrokenAsset(f"{where}.uri: broken base64 ({error})") from error

    def _buffer(self, entry: dict, where: str) -> bytes:
        length = entry.get("byteLength")
        if entry.get("uri") is not None:
            content = self._uri(entry["uri"], where)
        elif self._binary is not None and where == "buffers[0]":
            content = self._binary
        else:
            raise BrokenAsset(f"{where} has neither a uri nor a binary chunk; expected one of them")
        if not is_count(length) or length > len(content):
            raise BrokenAsset(
                f"{where}.byteLength is {str(length)[:20]}; expected at most the {len(content)} bytes of the buffer"
            )
        return content[:length]

    def _view(self, index: object) -> tuple[memoryview, int | None]:
        """Bytes of a buffer view, and its stride."""
        where = f"bufferViews[{str(index)[:20]}]"
        entry = self.entry("bufferViews", index)
        if "EXT_meshopt_compression" in entry.get("extensions", {}):
            raise BrokenAsset(
                f"{where} is compressed with meshopt, which is not supported; export it without compression"
            )
        content = self.once("buffers", entry.get("buffer"), self._buffer)
        start, length, stride = entry.get("byteOffset", 0), entry.get("byteLength"), entry.get("byteStride")
        if not (is_count(start) and is_count(length)) or start + length > len(content):
            raise BrokenAsset(f"{where} is bytes {str(start)[:20]} + {str(length)[:20]} of a buffer of {len(content)}")
        if stride is not None and (not is_count(stride) or not 1 <= stride <= 252):
            raise BrokenAsset(f"{where}.byteStride is {stride!r}; expected 4 to 252")
        return memoryview(content)[start : start + length], stride

    def array(self, index: object) -> np.ndarray:
        """Elements of an accessor, [count, width]."""
        return self.once("accessors", index, self._accessor)

    def _accessor(self, entry: dict, where: str) -> np.ndarray:
        kind, component, count = entry.get("type"), entry.get("componentType"), entry.get("count")
        if kind not in _WIDTHS or component not in _COMPONENTS or not is_count(count):
            raise BrokenAsset(
                f"{where}: found type {kind!r}, componentType {component!r}, count {str(count)[:20]}; expected scalars or "
                "vectors of a known component type"
            )
        dtype, width = np.dtype(_COMPONENTS[component]), _WIDTHS[kind]
        sparse, normalized = entry.get("sparse"), entry.get("normalized") is True and dtype.kind in "iu"
        if sparse is not None or normalized:  # these allocate memory, the others are views of the file
            self._elements_left -= count
            if self._elements_left < 0:
                raise BrokenAsset(f"{where}.count is {count}; expected at most {asset_parts.MOST_VERTICES:,} in all")
        if entry.get("bufferView") is not None:
            result = self._strided(entry, dtype, width, count, where)
        elif sparse is None:
            raise BrokenAsset(f"{where} has no data; expected a bufferView")
        else:  # the sparse values replace some of the zeros
            result = np.zeros((count, width), dtype)
        if sparse is not None:
            changed = sparse.get("count")
            if not is_count(changed) or changed > count:
                raise BrokenAsset(f"{where}.sparse.count is {str(changed)[:20]}; expected at most {count}")
            indices_dtype = np.dtype(_COMPONENTS[sparse["indices"]["componentType"]])
            indices = self._strided(sparse["indices"], indices_dtype, 1, changed, where)[:, 0]
            if indices_dtype.kind != "u" or (changed and indices.max() >= count):
                raise BrokenAsset(f"{where}.sparse.indices: found an index outside its {count} elements")
            result = result.copy()
            result[indices] = self._strided(sparse["values"], dtype, width, changed, where)
        if normalized:
            result = np.maximum(result.astype(np.float32) / np.float32(np.iinfo(dtype).max), np.float32(-1))
        return result

    def _strided(self, entry: dict, dtype: np.dtype, width: int, count: int, where: str) -> np.ndarray:
        """View, without a copy, of ``count`` elements of ``width`` components in a buffer view."""
        content, stride = self._view(entry.get("bufferView"))
        offset, size = entry.get("byteOffset", 0), dtype.itemsize * width
        stride = size if stride is None else stride
        if stride < size:
            raise BrokenAsset(
                f"{where}: elements of {size} bytes at a stride of {stride} bytes; expected a larger stride"
            )
        if not is_count(offset) or (count and offset + stride * (count - 1) + size > len(content)):
            raise BrokenAsset(f"{where}: {count} elements of {size} bytes at {offset}, in {len(content)} bytes")
        if not count:
            return np.empty((0, width), dtype)
        return np.ndarray((count, width), dtype, content, offset, (stride, dtype.itemsize))

    def vectors(self, index: object, kinds: tuple[str, ...], where: str) -> np.ndarray:
        """Elements of an accessor of vectors of the given types, as float32."""
        if self.entry("accessors", index).get("type") not in kinds:
            raise BrokenAsset(f"{where}: expected {' or '.join(kinds)}")
        return np.ascontiguousarray(self.array(index), np.float32)


def is_count(value: object) -> bool:
    """Whether a value of the header is a valid size or offset."""
    return type(value) is int and 0 <= value < 2**53
