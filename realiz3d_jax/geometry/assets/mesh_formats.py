"""Readers of OBJ with MTL, STL, and OFF (by trimesh), and the parts they share with the PLY reader.

Files are read into the equivalent glTF content: one part per material under one node. Coordinates that single precision would
distort (double precision far from the origin) are stored relative to the node, which then carries the offset.
"""

import io
import pathlib
import re

import numpy as np
import trimesh

from realiz3d_jax import errors
from realiz3d_jax.geometry.assets import asset_parts
from realiz3d_jax.geometry.assets.asset_parts import AssetPart, BrokenAsset, Contents, Material, Node, Texture
from realiz3d_jax.geometry.mesh import srgb_to_linear

_Z_UP_TO_Y_UP = [1.0, 0, 0, 0, 0, 0, -1.0, 0, 0, 1.0, 0, 0, 0, 0, 0, 1.0]
"""``world_to_gltf`` as a glTF matrix, column-major."""


def read_obj(content: bytes, folder: pathlib.Path | None, z_up: bool) -> Contents:
    """Reads an OBJ file, its MTL files and their ``map_Kd``; polygons are split into fans.

    Args:
      content: bytes of the file.
      folder: root of referenced files.
      z_up: whether the Z axis is up; otherwise Y.

    Raises:
      BrokenAsset: the file is invalid.
    """
    rows: dict[str, list[str]] = {"v": [], "vt": [], "vn": []}
    corners: dict[str, int] = {}
    faces, groups, libraries, used = [], [], [], []
    for number, line in enumerate(as_text(content).replace("\\\n", " ").split("\n"), 1):
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
    vertices = number_table(rows["v"], "v", 3)
    corner = _corner_table(list(corners))
    for column, key in enumerate(("v", "vt", "vn")):
        named, there = corner[:, column], len(rows[key])
        if len(named) and (named.max() > there or named.min() < (1 if key == "v" else 0)):
            wrong = named.max() if named.max() > there else named.min()
            raise BrokenAsset(f"a face refers to {key} {wrong}; expected 1 to {there}")
    if not faces:
        return Contents((), (), ())
    order = np.lexsort(corner.T[::-1])  # the file's own order of vertices
    corner, faces = corner[order], np.argsort(order)[np.array(faces, np.int64).reshape(-1, 3)]
    uv = normals = colors = None
    if corner[:, 1].any():
        table = np.concatenate([[[np.nan, np.nan]], number_table(rows["vt"], "vt", 2)])
        uv = (table[corner[:, 1]] * [1, -1] + [0, 1]).astype(np.float32)
    if corner[:, 2].all():
        normals = number_table(rows["vn"], "vn", 3)[corner[:, 2] - 1].astype(np.float32)
    if all(row.count(" ") >= 5 and len(row.split()) >= 6 for row in rows["v"]):
        colors = srgb_to_linear(np.nan_to_num(number_table(rows["v"], "v", 6)[:, 3:]))
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
    return as_contents(pieces, z_up)


def read_stl(content: bytes, folder: pathlib.Path | None, z_up: bool) -> Contents:
    """Reads a text or binary STL file, merging equal corners into one vertex; arguments and errors as in ``read_obj``."""
    count = int.from_bytes(content[80:84], "little")
    if len(content) >= 84 and len(content) == 84 + 50 * count:
        records = np.frombuffer(
            content, np.dtype([("normal", "<f4", 3), ("corners", "<f4", 9), ("rest", "<u2")]), offset=84
        )
        corners = records["corners"].reshape(-1, 3)
    elif content[:512].lstrip().startswith(b"solid") and b"\0" not in content[:512]:
        text = as_text(content)
        found = re.findall(r"^[ \t]*vertex[ \t]+(\S+)[ \t]+(\S+)[ \t]+(\S+)[ \t]*$", text, re.MULTILINE)
        if len(found) % 3 or len(found) != 3 * len(re.findall(r"^[ \t]*facet\b", text, re.MULTILINE)):
            raise BrokenAsset(f"{len(found)} vertices in its facets; expected three in each: it is broken or truncated")
        corners = number_table([" ".join(row) for row in found], "vertex", 3)
    else:
        raise BrokenAsset(
            f"{len(content)} bytes; its header states {84 + 50 * count}: it is not an STL file, or truncated"
        )
    asset_parts.check_size(len(corners) // 3, len(corners))
    # Adding zero turns -0.0 into 0.0, which has other bits but is the same position.
    corners = np.ascontiguousarray(corners + np.zeros(1, corners.dtype))
    keys = corners.view(np.dtype((np.void, 3 * corners.itemsize))).reshape(-1)
    _, first, faces = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return as_contents([(corners[first[order]], place[faces].reshape(-1, 3), None, None, None, Material())], z_up)


def read_off(content: bytes, folder: pathlib.Path | None, z_up: bool) -> Contents:
    """Reads an OFF file; arguments and errors as in ``read_obj``."""
    head = re.sub(r"#.*", "", as_text(content)[: 2**16]).upper().removeprefix("OFF").split()[:2]
    if not all(word.isdigit() and int(word) <= len(content) for word in head):
        raise BrokenAsset(f"found {' '.join(head)[:60]!r} in its header; expected the counts of vertices and faces")
    loaded = trimesh.exchange.off.load_off(io.BytesIO(content))
    vertices, faces = np.asarray(loaded["vertices"], np.float64), np.asarray(loaded["faces"], np.int64)
    check_faces(faces, len(vertices))
    return as_contents([(vertices, faces.reshape(-1, 3), None, None, None, Material())], z_up)


def as_contents(pieces: list[tuple], z_up: bool) -> Contents:
    """Puts parts under one node.

    Args:
      pieces: (vertices float[P, 3], faces, normals, uv, colours, material) of each part, as in ``AssetPart``.
      z_up: whether the Z axis is up; otherwise Y.
    """
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


def as_text(content: bytes) -> str:
    """Decodes a text file with ``\\n`` line ends; raises BrokenAsset for binary data."""
    if b"\0" in content[: 2**16]:
        raise BrokenAsset("binary data; expected text")
    return content.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n")


def number_table(rows: list[str], key: str, width: int) -> np.ndarray:
    """Parses the first numbers of each row of text.

    Args:
      rows: n rows.
      key: name of the rows in errors.
      width: numbers to take from a row.

    Returns:
      float64[n, width].

    Raises:
      BrokenAsset: a row has fewer numbers, or something else.
    """
    try:
        words = " ".join(rows).split()
        if len(words) % max(len(rows), 1) == 0 and rows and len(words) // len(rows) >= width:
            found = len(words) // len(rows)
            if all(len(row.split()) == found for row in rows):
                return np.array(words, np.float64).reshape(-1, found)[:, :width]
        split = [row.split()[:width] for row in rows]
        return np.array(split, dtype=object).reshape(-1, width).astype(np.float64)
    except ValueError as error:
        raise BrokenAsset(f"a {key!r} that is not valid ({str(error)[:80]}); expected {width} numbers") from error


def check_faces(faces: np.ndarray, vertices: int) -> None:
    """Raises BrokenAsset if a face has an index outside [0, ``vertices``)."""
    if len(faces) and (faces.min() < 0 or faces.max() >= vertices):
        wrong = faces.max() if faces.max() >= vertices else faces.min()
        raise BrokenAsset(f"a face refers to vertex {wrong}, but there are {vertices} vertices")


def _compact(faces: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the used vertices among ``count``, in order, and the faces renumbered to them."""
    used = np.zeros(count, bool)
    used[faces] = True
    return np.flatnonzero(used), (np.cumsum(used) - 1)[faces]


# --- OBJ -----------------------------------------------------------------------------------------------------------------


def _absolute(tokens: list[str], rows: dict[str, list]) -> list[str]:
    """Replaces negative indices of corners, which count back from the latest row, by indices that count from 1."""
    result = []
    for token in tokens:
        words = token.split("/")
        for place, (word, key) in enumerate(zip(words, ("v", "vt", "vn"), strict=False)):
            if word.startswith("-"):
                words[place] = str(max(len(rows[key]) + 1 + int(word), -1))
        result.append("/".join(words))
    return result


def _corner_table(tokens: list[str]) -> np.ndarray:
    """Parses corners "v", "v/vt", "v//vn" or "v/vt/vn": int64[n, 3], 0 for absent indices."""
    try:
        split = [(token + "//").split("/")[:3] for token in tokens]
        if any(token.count("/") > 2 for token in tokens):
            raise ValueError("more than three indices in a corner")
        table = np.array([[int(word or 0) for word in words] for words in split], np.int64)
    except (ValueError, OverflowError) as error:
        raise BrokenAsset(f"a corner of a face is not valid ({str(error)[:80]}); expected v/vt/vn") from error
    return table.reshape(-1, 3)


def _materials(libraries: list[str], folder: pathlib.Path | None) -> dict[str, Material]:
    """Materials of MTL files; those of a missing file have no colours, with a warning."""
    result: dict[str, Material] = {}
    decoded: dict[str, np.ndarray] = {}
    budget = asset_parts.MOST_PIXELS
    for library in libraries:
        values: dict[str, dict] = {}
        current: dict = {}
        try:
            text = as_text(asset_parts.read_beside(folder, library))
        except asset_parts.MissingFile as error:
            errors.warn(f"{error}; its materials have no colours")
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
    """Linear base-colour factor of an MTL material; ``Kd`` is taken as sRGB."""
    if "Kd" not in entry and "d" not in entry and "Tr" not in entry:
        return None
    color = number_table([entry.get("Kd", "1 1 1")], f"Kd of {name}", 3)[0]
    alpha = number_table([entry["d"]], f"d of {name}", 1)[0] if "d" in entry else 1.0
    if "Tr" in entry and "d" not in entry:
        alpha = 1 - number_table([entry["Tr"]], f"Tr of {name}", 1)[0]
    if texture is not None and not color.any():  # some exporters write black where only the map counts
        color = np.ones(3)
    return tuple(np.nan_to_num(np.append(srgb_to_linear(np.nan_to_num(color)), alpha)).clip(0, 1).tolist())


def _map_options(text: str) -> tuple[dict[str, str], str]:
    """Options before the file name of an MTL map, and the name, which may contain spaces."""
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
