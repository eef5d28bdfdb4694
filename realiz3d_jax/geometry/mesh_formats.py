"""OBJ with MTL, PLY and STL in; and OFF, by trimesh.

They are read into what a glTF of them would be: one part for each material under one node. Coordinates that single precision
would distort (double precision far from the origin) are kept relative to the node, which then carries the offset.
"""

import io
import pathlib
import re

import numpy as np
import trimesh
from absl import logging

from realiz3d_jax.geometry import asset_parts
from realiz3d_jax.geometry.asset_parts import AssetPart, BrokenAsset, Contents, Material, Node, Texture
from realiz3d_jax.geometry.mesh import srgb_to_linear

_Z_UP_TO_Y_UP = [1.0, 0, 0, 0, 0, 0, -1.0, 0, 0, 1.0, 0, 0, 0, 0, 0, 1.0]
"""``world_to_gltf`` as glTF writes a matrix, column by column."""

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


def read_obj(content: bytes, folder: pathlib.Path | None, z_up: bool) -> Contents:
    """Reads an OBJ file, its MTL files and their ``map_Kd``; polygons are split into fans.

    Args:
      content: the file.
      folder: where the files that it refers to may lie.
      z_up: whether its Z axis is up, else Y.

    Raises:
      BrokenAsset: what is wrong with it.
    """
    rows: dict[str, list[str]] = {"v": [], "vt": [], "vn": []}
    corners: dict[str, int] = {}
    faces, groups, libraries, used = [], [], [], []
    for number, line in enumerate(_text(content).replace("\\\n", " ").split("\n"), 1):
        key, _, rest = line.strip().replace("\t", " ").partition(" ")
        if key in rows:
            rows[key].append(rest)
        elif key == "f":
            try:
                tokens = _absolute(rest.split(), rows) if "-" in rest else rest.split()
                first, *others = [corners.setdefault(token, len(corners)) for token in tokens]
                if len(others) < 2:
                    raise ValueError
            except ValueError:
                raise BrokenAsset(f"line {number}: {line[:60]!r}; expected a face of three or more corners") from None
            for turn in range(len(others) - 1):
                faces += (first, others[turn], others[turn + 1])
            asset_parts.check_size(len(faces) // 3, len(corners))
        elif key == "usemtl":
            used.append(" ".join(rest.split()))
            groups.append(len(faces) // 3)
        elif key == "mtllib":
            libraries.append(rest.strip())
    vertices = _table(rows["v"], "v", 3)
    corner = _corner_table(list(corners))
    for column, key in enumerate(("v", "vt", "vn")):
        named, there = corner[:, column], len(rows[key])
        if len(named) and (named.max() > there or named.min() < (1 if key == "v" else 0)):
            wrong = named.max() if named.max() > there else named.min()
            raise BrokenAsset(f"a face names {key} {wrong}, but there are {there}")
    if not faces:
        return Contents((), (), ())
    order = np.lexsort(corner.T[::-1])  # as the file numbers its vertices
    corner, faces = corner[order], np.argsort(order)[np.array(faces, np.int64).reshape(-1, 3)]
    uv = normals = colors = None
    if corner[:, 1].any():
        table = np.concatenate([[[np.nan, np.nan]], _table(rows["vt"], "vt", 2)])
        uv = (table[corner[:, 1]] * [1, -1] + [0, 1]).astype(np.float32)
    if corner[:, 2].all():
        normals = _table(rows["vn"], "vn", 3)[corner[:, 2] - 1].astype(np.float32)
    if all(row.count(" ") >= 5 and len(row.split()) >= 6 for row in rows["v"]):
        colors = srgb_to_linear(np.nan_to_num(_table(rows["v"], "v", 6)[:, 3:]))
        colors = np.concatenate([colors, np.ones((len(colors), 1))], axis=-1).astype(np.float32)[corner[:, 0] - 1]
    materials = _materials(libraries, folder)
    material_of = np.zeros(len(faces), np.int64)
    names = ["", *dict.fromkeys(used)]
    for name, start in zip(used, groups, strict=True):
        material_of[start:] = names.index(name)
    pieces = []
    for index, name in enumerate(names):
        mine = faces[material_of == index]
        if len(mine):
            kept, mine = _compact(mine, len(corner))
            material = materials.get(name, Material(name))
            attributes = [None if values is None else values[kept] for values in (normals, uv, colors)]
            pieces.append((vertices[corner[kept, 0] - 1], mine, *attributes, material))
    return _contents(pieces, z_up)


def read_ply(content: bytes, folder: pathlib.Path | None, z_up: bool) -> Contents:
    """Reads a PLY file, text or binary: vertices, normals, texture coordinates, colours and faces. See ``read_obj``."""
    end = re.search(rb"end_header\r?\n", content[: 2**20])
    if not content.startswith(b"ply") or end is None:
        raise BrokenAsset("no PLY header")
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
            raise BrokenAsset(f"the line {line[:60]!r} of its header is no PLY") from error
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
            raise BrokenAsset(f"{count} of {name!r} in a file of {len(content)} bytes: it is cut off")
        values[name] = _ply_element(body, name, count, properties)
    if not body.finished():
        raise BrokenAsset("more data than its header says")
    vertex = values.get("vertex", {})
    lists = values.get("face", {})
    faces = lists.get("vertex_indices", lists.get("vertex_index"))
    if faces is None or not len(faces) or not all(axis in vertex for axis in "xyz"):
        return Contents((), (), ())
    vertices = _columns(vertex, "xyz")
    _check_faces(faces, len(vertices))
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
    return _contents([(vertices, faces, normals, uv, colors, Material(texture=texture, alpha_mode="BLEND"))], z_up)


def read_stl(content: bytes, folder: pathlib.Path | None, z_up: bool) -> Contents:
    """Reads an STL file, text or binary; equal corners become one vertex. See ``read_obj``."""
    count = int.from_bytes(content[80:84], "little")
    if len(content) >= 84 and len(content) == 84 + 50 * count:
        records = np.frombuffer(
            content, np.dtype([("normal", "<f4", 3), ("corners", "<f4", 9), ("rest", "<u2")]), offset=84
        )
        corners = records["corners"].reshape(-1, 3)
    elif content[:512].lstrip().startswith(b"solid") and b"\0" not in content[:512]:
        text = _text(content)
        found = re.findall(r"^[ \t]*vertex[ \t]+(\S+)[ \t]+(\S+)[ \t]+(\S+)[ \t]*$", text, re.MULTILINE)
        if len(found) % 3 or len(found) != 3 * len(re.findall(r"^[ \t]*facet\b", text, re.MULTILINE)):
            raise BrokenAsset(f"{len(found)} vertices in its facets; expected three in each: it is broken or cut off")
        corners = _table([" ".join(row) for row in found], "vertex", 3)
    else:
        raise BrokenAsset(f"{len(content)} bytes, its header says {84 + 50 * count}; no STL, or it is cut off")
    asset_parts.check_size(len(corners) // 3, len(corners))
    # -0.0 is another pattern of bits than 0.0, and another place to no one.
    corners = np.ascontiguousarray(corners + np.zeros(1, corners.dtype))
    keys = corners.view(np.dtype((np.void, 3 * corners.itemsize))).reshape(-1)
    _, first, faces = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return _contents([(corners[first[order]], place[faces].reshape(-1, 3), None, None, None, Material())], z_up)


def read_off(content: bytes, folder: pathlib.Path | None, z_up: bool) -> Contents:
    """Reads an OFF file. See ``read_obj``."""
    head = re.sub(r"#.*", "", _text(content)[: 2**16]).upper().removeprefix("OFF").split()[:2]
    if not all(word.isdigit() and int(word) <= len(content) for word in head):
        raise BrokenAsset(f"found {' '.join(head)[:60]!r} where the counts of vertices and faces stand")
    loaded = trimesh.exchange.off.load_off(io.BytesIO(content))
    vertices, faces = np.asarray(loaded["vertices"], np.float64), np.asarray(loaded["faces"], np.int64)
    _check_faces(faces, len(vertices))
    return _contents([(vertices, faces.reshape(-1, 3), None, None, None, Material())], z_up)


def _contents(pieces: list[tuple], z_up: bool) -> Contents:
    """Parts of (vertices float[P, 3], faces, normals, uv, colours, material) under one node."""
    all_vertices = np.concatenate([piece[0] for piece in pieces])
    asset_parts.check_size(sum(len(piece[1]) for piece in pieces), len(all_vertices))
    offset = np.zeros(3)
    finite = all_vertices[np.isfinite(all_vertices).all(axis=1)]
    if len(finite) and all_vertices.dtype != np.float32:
        with np.errstate(over="ignore", invalid="ignore"):
            low, high = finite.min(axis=0), finite.max(axis=0)
            error = np.abs(finite - finite.astype(np.float32)).max()
            if np.isfinite(high - low).all() and error > 1e-7 * (high - low).max():
                offset = (low + high) / 2
    parts = []
    for vertices, faces, normals, uv, colors, material in pieces:
        with np.errstate(over="ignore", invalid="ignore"):
            placed = (vertices - offset if offset.any() else vertices).astype(np.float32)
        parts.append(AssetPart("", 0, placed, faces.astype(np.int32), normals, uv, uv, colors, material))
    nodes = [Node(placement={"translation": offset.tolist()} if offset.any() else {})]
    if z_up:
        nodes.append(Node("z_up", {"matrix": _Z_UP_TO_Y_UP}, (0,)))
    return Contents(tuple(parts), tuple(nodes), (len(nodes) - 1,))


def _text(content: bytes) -> str:
    if b"\0" in content[: 2**16]:
        raise BrokenAsset("binary data; expected text")
    return content.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")


def _table(rows: list[str], key: str, width: int) -> np.ndarray:
    """The first ``width`` numbers of each row, which is text: float64[n, width]."""
    try:
        words = " ".join(rows).split()
        if len(words) % max(len(rows), 1) == 0 and rows and len(words) // len(rows) >= width:
            found = len(words) // len(rows)
            if all(len(row.split()) == found for row in rows):
                return np.array(words, np.float64).reshape(-1, found)[:, :width]
        split = [row.split()[:width] for row in rows]
        return np.array(split, dtype=object).reshape(-1, width).astype(np.float64)
    except ValueError as error:
        raise BrokenAsset(f"a {key!r} without {width} numbers ({str(error)[:80]})") from error


def _check_faces(faces: np.ndarray, vertices: int) -> None:
    if len(faces) and (faces.min() < 0 or faces.max() >= vertices):
        wrong = faces.max() if faces.max() >= vertices else faces.min()
        raise BrokenAsset(f"a face names vertex {wrong}, but there are {vertices}")


def _compact(faces: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The vertices that faces use, of ``count``, in their order, and the faces in terms of these."""
    used = np.zeros(count, bool)
    used[faces] = True
    return np.flatnonzero(used), (np.cumsum(used) - 1)[faces]


# --- OBJ -----------------------------------------------------------------------------------------------------------------


def _absolute(tokens: list[str], rows: dict[str, list]) -> list[str]:
    """Corners whose negative indices count back from the newest, with indices that count from 1."""
    result = []
    for token in tokens:
        words = token.split("/")
        for place, (word, key) in enumerate(zip(words, ("v", "vt", "vn"), strict=False)):
            if word.startswith("-"):
                words[place] = str(max(len(rows[key]) + 1 + int(word), -1))
        result.append("/".join(words))
    return result


def _corner_table(tokens: list[str]) -> np.ndarray:
    """Corners "v", "v/vt", "v//vn" or "v/vt/vn": int64[n, 3], 0 where there is none."""
    try:
        split = [(token + "//").split("/")[:3] for token in tokens]
        if any(token.count("/") > 2 for token in tokens):
            raise ValueError("more than three indices in a corner")
        table = np.array([[int(word or 0) for word in words] for words in split], np.int64)
    except (ValueError, OverflowError) as error:
        raise BrokenAsset(f"a face's corner is no v/vt/vn ({str(error)[:80]})") from error
    return table.reshape(-1, 3)


def _materials(libraries: list[str], folder: pathlib.Path | None) -> dict[str, Material]:
    """The materials of MTL files; those of a library that is not there stay without colours, with a warning."""
    result: dict[str, Material] = {}
    decoded: dict[str, np.ndarray] = {}
    budget = asset_parts.MOST_PIXELS
    for library in libraries:
        values: dict[str, dict] = {}
        current: dict = {}
        try:
            text = _text(asset_parts.read_beside(folder, library))
        except asset_parts.MissingFile as error:
            logging.warning("%s; its materials have no colours", error)
            continue
        for line in text.split("\n"):
            words = line.split()
            if words[:1] == ["newmtl"]:
                current = values.setdefault(" ".join(words[1:]), {})
            elif words and words[0] in ("Kd", "d", "Tr", "map_Kd"):
                current[words[0]] = line.strip()[len(words[0]) :].strip()
        for name, entry in values.items():
            texture = None
            if entry.get("map_Kd"):
                options, reference = _map_options(entry["map_Kd"])
                if reference not in decoded:
                    content = asset_parts.read_beside(folder, reference)
                    decoded[reference] = asset_parts.decode_image(content, reference, budget)
                    budget -= decoded[reference].shape[0] * decoded[reference].shape[1]
                wrap = asset_parts.CLAMP if options.get("-clamp") == "on" else asset_parts.REPEAT
                texture = Texture(decoded[reference], (wrap, wrap))
            result[name] = Material(name, _factor(entry, texture, name), texture, "BLEND")
    return result


def _factor(entry: dict, texture: Texture | None, name: str) -> tuple[float, float, float, float] | None:
    """Linear base-colour factor of an MTL material; ``Kd`` is taken as displayed."""
    if "Kd" not in entry and "d" not in entry and "Tr" not in entry:
        return None
    color = _table([entry.get("Kd", "1 1 1")], f"Kd of {name}", 3)[0]
    alpha = _table([entry["d"]], f"d of {name}", 1)[0] if "d" in entry else 1.0
    if "Tr" in entry and "d" not in entry:
        alpha = 1 - _table([entry["Tr"]], f"Tr of {name}", 1)[0]
    if texture is not None and not color.any():  # exporters that write black beside a map mean the map
        color = np.ones(3)
    return tuple(np.nan_to_num(np.append(srgb_to_linear(np.nan_to_num(color)), alpha)).clip(0, 1).tolist())


def _map_options(text: str) -> tuple[dict[str, str], str]:
    """The options before the file name of an MTL map, and the name, which may hold spaces."""
    counts = {"-o": 3, "-s": 3, "-t": 3, "-mm": 2}
    words, options = text.split(" "), {}
    while len(words) > 1 and words[0].startswith("-"):
        key, taken = words[0], 1
        while (
            taken <= counts.get(key, 1) and taken < len(words) - 1 and (key not in counts or _is_number(words[taken]))
        ):
            taken += 1
        options[key] = " ".join(words[1:taken])
        words = words[taken:]
    return options, " ".join(words)


def _is_number(word: str) -> bool:
    return re.fullmatch(r"[-+.\deE]+", word) is not None


# --- PLY -----------------------------------------------------------------------------------------------------------------


class _PlyText:
    """The words of a text file, taken in turn."""

    def __init__(self, body: bytes):
        self._words, self._place = body.split(), 0

    def rows(self, count: int, types: list[str]) -> list[np.ndarray]:
        width = len(types)
        words = self._words[self._place : self._place + count * width]
        if len(words) < count * width:
            raise BrokenAsset("fewer data than its header says: it is cut off")
        self._place += count * width
        table = _table([b" ".join(words).decode("latin-1")], "row", count * width).reshape(count, width)
        for column, kind in enumerate(types):
            peak = np.iinfo(kind) if kind[0] in "iu" else None
            if peak and count and not (table[:, column].min() >= peak.min and table[:, column].max() <= peak.max):
                raise BrokenAsset(f"a number that is no {kind}")
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
    """The bytes of a binary file, taken in turn."""

    def __init__(self, body: bytes, order: str):
        self._body, self._order, self._place = body, order, 0

    def rows(self, count: int, types: list[str]) -> list[np.ndarray]:
        dtype = np.dtype([(str(column), self._order + kind) for column, kind in enumerate(types)])
        if self._place + count * dtype.itemsize > len(self._body):
            raise BrokenAsset("fewer data than its header says: it is cut off")
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
    """The columns of an element; of lists, faces as int64[T, 3] (polygons as fans), others are passed over."""
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
                raise BrokenAsset(f"a list of {size} in {name!r}, but only {body.left()} are left")
            items = [int(item[0]) if kind[0] in "iu" else 0 for item in body.rows(1, [kind] * size)]
            result[key] += [(items[0], *items[turn : turn + 2]) for turn in range(1, size - 1)]
    return {key: np.array(rows, np.int64).reshape(-1, 3) for key, rows in result.items()}


def _uniform_lists(body: _PlyText | _PlyBytes, count: int, properties: list[tuple]) -> dict[str, np.ndarray] | None:
    """The same in one go where every row's lists are as long as the first row's; else None, and nothing is taken."""
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
    """Columns side by side, float[n, k]; None unless all are there."""
    if not all(name in element and element[name].ndim == 1 for name in names):
        return None
    return np.stack([element[name] for name in names], axis=-1)
