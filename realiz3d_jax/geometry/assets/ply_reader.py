"""Reader of text and binary PLY files."""

import pathlib
import re

import numpy as np

from realiz3d_jax.geometry.assets import asset_parts, mesh_formats
from realiz3d_jax.geometry.assets.asset_parts import BrokenAsset, Contents, Material, Texture
from realiz3d_jax.geometry.mesh import srgb_to_linear

_PLY_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}


def read_ply(content: bytes, folder: pathlib.Path | None, z_up: bool) -> Contents:
    """Reads vertices, normals, texture coordinates, colours and faces of a PLY file.

    Args:
      content: bytes of the file.
      folder: root of referenced files.
      z_up: whether the Z axis is up; otherwise Y.

    Raises:
      BrokenAsset: the file is invalid.
    """
    end = re.search(rb"end_header\r?\n", content[: 2**20])
    if not content.startswith(b"ply") or end is None:
        raise BrokenAsset("no PLY header; expected one")
    kind, elements, image = "", [], None
    for line in content[: end.start()].decode("latin-1").splitlines()[1:]:
        words = line.split()
        try:
            if words[:1] == ["format"]:
                kind = words[1]
            elif words[:1] == ["element"]:
                elements.append((words[1], int(words[2]), []))
            elif words[:2] == ["property", "list"]:
                elements[-1][2].append((words[4], _PLY_TYPES[words[3]], _PLY_TYPES[words[2]]))
            elif words[:1] == ["property"]:
                elements[-1][2].append((words[2], _PLY_TYPES[words[1]], None))
            elif words[:2] == ["comment", "TextureFile"]:
                image = " ".join(words[2:])
        except (IndexError, KeyError, ValueError) as error:
            raise BrokenAsset(f"the line {line[:60]!r} of its header is not valid in a PLY file") from error
    readers = {
        "ascii": _PlyText,
        "binary_little_endian": lambda body: _PlyBytes(body, "<"),
        "binary_big_endian": lambda body: _PlyBytes(body, ">"),
    }
    if kind not in readers:
        raise BrokenAsset(f"format {kind[:40]!r}; expected {', '.join(readers)}")
    body = readers[kind](content[end.end() :])
    values = {}
    for name, count, properties in elements:
        if count < 0 or count * max(len(properties), 1) > len(content):
            raise BrokenAsset(f"{count} of {name!r} in a file of {len(content)} bytes: it is truncated")
        values[name] = _ply_element(body, name, count, properties)
    if not body.finished():
        raise BrokenAsset("more data than its header states")
    vertex = values.get("vertex", {})
    lists = values.get("face", {})
    faces = lists.get("vertex_indices", lists.get("vertex_index"))
    if faces is None or not len(faces) or not all(axis in vertex for axis in "xyz"):
        return Contents((), (), ())
    vertices = _columns(vertex, "xyz")
    mesh_formats.check_faces(faces, len(vertices))
    normals = _columns(vertex, ("nx", "ny", "nz"))
    pairs = (_columns(vertex, pair) for pair in ("st", "uv", ("texture_u", "texture_v")))
    uv = next((pair for pair in pairs if pair is not None), None)
    colors = _columns(vertex, ("red", "green", "blue"))
    if colors is not None:
        peak = 1.0 if vertex["red"].dtype.kind == "f" else np.iinfo(vertex["red"].dtype).max
        colors = srgb_to_linear(np.nan_to_num(colors) / peak)
        alpha = vertex["alpha"][:, None] / peak if "alpha" in vertex else np.ones((len(colors), 1))
        colors = np.concatenate([colors, np.nan_to_num(alpha).clip(0, 1)], axis=-1).astype(np.float32)
    texture = None
    if image is not None and uv is not None:
        pixels = asset_parts.decode_image(asset_parts.read_beside(folder, image), image, asset_parts.MOST_PIXELS)
        texture = Texture(pixels)
    uv = None if uv is None else (uv * [1, -1] + [0, 1]).astype(np.float32)
    normals = None if normals is None else normals.astype(np.float32)
    return mesh_formats.as_contents(
        [(vertices, faces, normals, uv, colors, Material(texture=texture, alpha_mode="BLEND"))], z_up
    )


class _PlyText:
    """Sequential reader of the words of a text file."""

    def __init__(self, body: bytes):
        self._words, self._place = body.split(), 0

    def rows(self, count: int, types: list[str]) -> list[np.ndarray]:
        """The next ``count`` rows, one column per type; raises BrokenAsset if the data ends before."""
        width = len(types)
        words = self._words[self._place : self._place + count * width]
        if len(words) < count * width:
            raise BrokenAsset("less data than its header states: it is truncated")
        self._place += count * width
        table = mesh_formats.number_table([b" ".join(words).decode("latin-1")], "row", count * width).reshape(
            count, width
        )
        for column, kind in enumerate(types):
            peak = np.iinfo(kind) if kind[0] in "iu" else None
            if peak and count and not (table[:, column].min() >= peak.min and table[:, column].max() <= peak.max):
                raise BrokenAsset(f"a number out of the range of its type {kind}")
        return [table[:, column].astype(kind) for column, kind in enumerate(types)]

    def finished(self) -> bool:
        return self._place == len(self._words)

    def left(self) -> int:
        return len(self._words) - self._place

    def mark(self) -> int:
        return self._place

    def back(self, mark: int) -> None:
        self._place = mark


class _PlyBytes:
    """Sequential reader of the bytes of a binary file."""

    def __init__(self, body: bytes, order: str):
        self._body, self._order, self._place = body, order, 0

    def rows(self, count: int, types: list[str]) -> list[np.ndarray]:
        """The next ``count`` rows, one column per type; raises BrokenAsset if the data ends before."""
        dtype = np.dtype([(str(column), self._order + kind) for column, kind in enumerate(types)])
        if self._place + count * dtype.itemsize > len(self._body):
            raise BrokenAsset("less data than its header states: it is truncated")
        table = np.frombuffer(self._body, dtype, count, self._place)
        self._place += count * dtype.itemsize
        return [table[str(column)].astype(kind) for column, kind in enumerate(types)]

    def finished(self) -> bool:
        return not self._body[self._place :].strip()

    def left(self) -> int:
        return len(self._body) - self._place

    def mark(self) -> int:
        return self._place

    def back(self, mark: int) -> None:
        self._place = mark


def _ply_element(body: _PlyText | _PlyBytes, name: str, count: int, properties: list[tuple]) -> dict[str, np.ndarray]:
    """Columns of an element. If it has lists, these become triangles int64[T, 3] (polygons as fans), others are skipped."""
    if all(length is None for _, _, length in properties):
        return dict(
            zip((key for key, _, _ in properties), body.rows(count, [kind for _, kind, _ in properties]), strict=True)
        )
    if not count:
        return {key: np.zeros((0, 3), np.int64) for key, _, _ in properties}
    uniform = _uniform_lists(body, count, properties)
    if uniform is not None:
        return uniform
    result: dict[str, list] = {key: [] for key, _, _ in properties}
    for _ in range(count):
        for key, kind, length in properties:
            if length is None:
                body.rows(1, [kind])
                continue
            size = int(body.rows(1, [length])[0][0])
            if not 0 <= size <= body.left():
                raise BrokenAsset(f"a list of {size} in {name!r}; expected at most the {body.left()} that are left")
            items = [int(item[0]) if kind[0] in "iu" else 0 for item in body.rows(1, [kind] * size)]
            result[key] += [(items[0], *items[turn : turn + 2]) for turn in range(1, size - 1)]
    return {key: np.array(rows, np.int64).reshape(-1, 3) for key, rows in result.items()}


def _uniform_lists(body: _PlyText | _PlyBytes, count: int, properties: list[tuple]) -> dict[str, np.ndarray] | None:
    """Reads an element at once if the lists of all rows have the lengths of the first; otherwise consumes nothing: None."""
    start, types, sizes = body.mark(), [], []
    for _, kind, length in properties:
        sizes.append(None if length is None else int(body.rows(1, [length])[0][0]))
        if sizes[-1] is not None and not 0 <= sizes[-1] <= 64:
            body.back(start)
            return None
        types += [kind] if length is None else [length] + [kind] * sizes[-1]
        body.rows(1, [kind] * (1 if length is None else sizes[-1]))
    body.back(start)
    try:
        columns = body.rows(count, types)
    except BrokenAsset:
        body.back(start)
        return None
    result, place = {}, 0
    for (key, _, length), size in zip(properties, sizes, strict=True):
        if length is None:
            place += 1
            continue
        if not (columns[place] == size).all():
            body.back(start)
            return None
        items = np.array(columns[place + 1 : place + 1 + size], np.float64).reshape(size, count).astype(np.int64)
        fans = [items[[0, turn, turn + 1]].T for turn in range(1, size - 1)]
        result[key] = np.stack(fans, axis=1).reshape(-1, 3) if fans else np.zeros((0, 3), np.int64)
        place += 1 + size
    return result


def _columns(element: dict[str, np.ndarray], names: tuple[str, ...] | str) -> np.ndarray | None:
    """Stacks k columns to float[n, k]; None unless all of them exist."""
    if not all(name in element and element[name].ndim == 1 for name in names):
        return None
    return np.stack([element[name] for name in names], axis=-1)
