"""Texture coordinates that one texture can be painted on: every face its own texels.

Coordinates of the file are kept, part by part, where they are of use; the other parts are unwrapped by xatlas, and should that
not end in time, cut into charts that are flat projections along an axis. If the parts then do not fit the unit square as they
are, they are moved and scaled (each as a whole) until they do.
"""

import dataclasses
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import logging

from realiz3d_jax import progress
from realiz3d_jax.geometry.assets import Asset

RASTER = 1024
"""Texels along the square in which overlaps are looked for."""

TOLERANCE = 0.01
"""Share of a part's texels that may be overlapped, and of its surface that may have no place, before it is unwrapped anew."""

_INSET = 0.02
"""Texels: what neighbours may overlap by, as rounding makes them."""

_OUTSIDE = 1e-4
"""How far texture coordinates may be outside [0, 1]; they are brought inside."""

_SMALLEST_UV_AREA = 1e-13
"""Twice the area of the smallest face that has a place in the texture: 4e-7 of a texel of 2048 x 2048."""

_SMALLEST_SHARE = 1e-4
"""Share of the unit square that a part must at least cover to be kept."""

_GUTTER = 4 / 1024
"""Between things that are packed here, in units of the texture."""

_FEW = 500
"""Faces: parts of no more are looked at in a smaller square, which is fine enough for them."""

_SEARCHED = 16
"""Layers that a part is tried to share; an asset of more textures than this gets one for each of the others."""

_SPLITS = 8
"""How often charts that overlap themselves are halved before their faces become charts."""


def unwrap(asset: Asset, seconds: float = 120.0) -> Asset:
    """The asset with texture coordinates in [0, 1] in which no two faces share more than ``TOLERANCE`` of the texels.

    Faces and positions stay as they are.

    Args:
      asset: with or without texture coordinates.
      seconds: for xatlas; after that projections take its place, and a warning says so.
    """
    islands, missing = [], []
    for index, mine in asset.faces_of_parts():
        uv = None if asset.uv is None else asset.uv[mine]
        problem = "it has none" if uv is None else uv_problem(uv, _double_area(_triangles(asset, mine)))
        if problem is None:
            islands.append((mine, uv.clip(0, 1)))
        else:
            missing.append(mine)
            logging.info("%s: part %d gets new texture coordinates: %s", asset.name, index, problem)
    layers = _layers(islands)
    if missing:
        faces = np.concatenate(missing)
        layers.append((faces, _unwrapped(asset, missing, seconds)))
    result = np.empty((len(asset.part), 3, 2), np.float32)
    if len(layers) == 1:
        ((faces, uv),) = layers
        result[faces] = uv
    else:
        areas = [_double_area(_triangles(asset, faces)).sum() for faces, _ in layers]
        for (faces, _), uv in zip(layers, _pack_layers([uv for _, uv in layers], areas), strict=True):
            result[faces] = uv
    return dataclasses.replace(asset, uv=result)


def uv_problem(uv: np.ndarray, areas: np.ndarray) -> str | None:
    """Why a part's texture coordinates can't be painted on, or None if they can.

    Args:
      uv: float[F, 3, 2], of its faces.
      areas: float[F], of the surface.
    """
    there = np.isfinite(uv).all(axis=(1, 2))
    share = areas / areas.sum()
    if not there.all():
        return f"{share[~there].sum():.1%} of its surface has none"
    inside = ((uv >= -_OUTSIDE) & (uv <= 1 + _OUTSIDE)).all(axis=(1, 2))
    if not inside.all():
        return f"{share[~inside].sum():.1%} of its surface is outside [0, 1]"
    flat = np.abs(_signed_double_area(uv)) <= _SMALLEST_UV_AREA
    if share[flat].sum() > TOLERANCE:
        return f"{share[flat].sum():.1%} of its surface has no area in the texture"
    if np.abs(_signed_double_area(uv)).sum() / 2 < _SMALLEST_SHARE:
        return f"it covers less than {_SMALLEST_SHARE} of the texture"
    # Seen at the size of the part itself, so that small things can't hide between texels.
    low = uv.min(axis=(0, 1))
    size = (uv.max(axis=(0, 1)) - low).max()
    shared = overlap(coverage((uv - low) / size, RASTER if len(uv) > _FEW else RASTER // 4))
    return f"{shared:.1%} of its texels belong to several faces" if shared > TOLERANCE else None


def overlap(counts: np.ndarray) -> float:
    """Share of the covered texels that more than one face covers, from ``coverage``."""
    covered = np.count_nonzero(counts)
    return np.count_nonzero(counts > 1) / covered if covered else 0.0


def coverage(uv: np.ndarray, size: int = RASTER) -> np.ndarray:
    """How many faces cover the centre of each texel: int32[size, size], row 0 at v = 0.

    Faces are rasterised by rows, so the time is that of their outlines: neighbours that share an edge share no texel.

    Args:
      uv: float[F, 3, 2] in [0, 1].
      size: texels along a side.
    """
    edges = np.zeros(size * (size + 1), np.int32)
    corners = np.asarray(uv, np.float64) * size
    first = np.ceil(corners[..., 1].min(axis=1) + _INSET - 0.5).astype(np.int64).clip(0, size)
    rows = np.floor(corners[..., 1].max(axis=1) - _INSET - 0.5).astype(np.int64).clip(-1, size - 1) + 1 - first
    tall = np.flatnonzero(rows > 0)
    corners, first, rows = corners[tall], first[tall], rows[tall]
    stops = np.cumsum(rows)
    start = 0
    while start < len(rows):  # a few million rows at a time
        stop = max(int(np.searchsorted(stops, stops[start] + 2_000_000)), start + 1)
        face = np.repeat(np.arange(start, stop), rows[start:stop])
        counts = rows[start:stop]
        row = np.arange(len(face)) - np.repeat(np.cumsum(counts) - counts, counts)
        row += first[face]
        low, high = np.full(len(face), np.inf), np.full(len(face), -np.inf)
        for edge in range(3):
            (u0, v0), (u1, v1) = corners[face, edge].T, corners[face, (edge + 1) % 3].T
            with np.errstate(divide="ignore", invalid="ignore"):
                along = (row + 0.5 - v0) / (v1 - v0)
                crossing = u0 + along * (u1 - u0)
            crosses = (along >= 0) & (along <= 1)
            low, high = (
                np.where(crosses, np.minimum(low, crossing), low),
                np.where(crosses, np.maximum(high, crossing), high),
            )
        some = high - low > 2 * _INSET
        begin = np.ceil(low[some] + _INSET - 0.5).astype(np.int64).clip(0, size)
        end = (np.floor(high[some] - _INSET - 0.5).astype(np.int64) + 1).clip(0, size)
        wide = end > begin
        row, begin, end = row[some][wide], begin[wide], end[wide]
        if len(row):
            base = row.min() * (size + 1)
            length = (row.max() + 1) * (size + 1) - base
            changes = np.bincount(row * (size + 1) + begin - base, minlength=length)
            changes -= np.bincount(row * (size + 1) + end - base, minlength=length)
            edges[base : base + length] += changes.astype(np.int32)
        start = stop
    return np.cumsum(edges.reshape(size, size + 1), axis=1, dtype=np.int32)[:, :size]


def _triangles(asset: Asset, faces: np.ndarray) -> np.ndarray:
    return asset.mesh.vertices[asset.mesh.faces[faces]].astype(np.float64)


def _double_area(triangles: np.ndarray) -> np.ndarray:
    return np.linalg.norm(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]), axis=-1)


def _signed_double_area(uv: np.ndarray) -> np.ndarray:
    first, second = (uv[:, corner].astype(np.float64) - uv[:, 0] for corner in (1, 2))
    return first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]


def _layers(islands: list[tuple[np.ndarray, np.ndarray]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Joins parts (faces, uv) that do not overlap one another into layers, each of which fits the unit square as it is."""
    layers: list[tuple[list, np.ndarray | None]] = []
    for faces, uv in islands:
        mine = coverage(uv) > 0
        for members, covered in layers[:_SEARCHED]:
            if np.count_nonzero(mine & covered) <= TOLERANCE * np.count_nonzero(mine):
                members.append((faces, uv))
                covered |= mine
                break
        else:
            layers.append(([(faces, uv)], mine if len(layers) < _SEARCHED else None))
    return [tuple(np.concatenate(values) for values in zip(*members, strict=True)) for members, _ in layers]


def _pack_layers(layers: list[np.ndarray], areas: list[float]) -> list[np.ndarray]:
    """Places layers in the unit square, each with a share of it like its share of the surface: float32[F, 3, 2] each."""
    lows = np.array([uv.min(axis=(0, 1)) for uv in layers], np.float64)
    sizes = np.array([uv.max(axis=(0, 1)) for uv in layers]) - lows
    weights = np.sqrt(np.maximum(areas, 1e-3 * np.max(areas)) / np.maximum(sizes.prod(axis=-1), 1e-12))
    places, scale = pack(sizes * weights[:, None])
    return [
        ((uv - low) * (weight * scale) + place).astype(np.float32).clip(0, 1)
        for uv, low, weight, place in zip(layers, lows, weights, places, strict=True)
    ]


def pack(sizes: np.ndarray) -> tuple[np.ndarray, float]:
    """Places rectangles in the unit square, as large as shelves allow, with gutters between them and round them.

    Args:
      sizes: float[n, 2], widths and heights in any unit.

    Returns:
      (float64[n, 2], scale): rectangle n is ``places[n] + [0, 1] * sizes[n] * scale``.
    """
    sizes = np.maximum(np.asarray(sizes, np.float64), 1e-9 * np.max(sizes))
    gutter = min(_GUTTER, 0.2 / np.sqrt(len(sizes)))
    order = np.argsort(-sizes[:, 1], kind="stable")
    widths, heights = sizes[order].T

    def shelves(scale: float) -> np.ndarray | None:
        stops = np.concatenate([[0], np.cumsum(widths * scale + gutter)])
        places, row, start = np.empty((len(widths), 2)), gutter, 0
        while start < len(widths):
            stop = int(np.searchsorted(stops, stops[start] + 1 - gutter, side="right")) - 1
            if stop <= start or row + heights[start] * scale + gutter > 1:
                return None
            places[start:stop, 0] = gutter + stops[start:stop] - stops[start]
            places[start:stop, 1] = row
            row += heights[start] * scale + gutter
            start = stop
        return places

    low, high = 0.0, 1.0 / sizes.max()
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if shelves(middle) is not None else (low, middle)
    result = np.empty((len(sizes), 2))
    result[order] = shelves(low)
    return result, low


# --- parts without texture coordinates -----------------------------------------------------------------------------------


def _unwrapped(asset: Asset, parts: list[np.ndarray], seconds: float) -> np.ndarray:
    """New texture coordinates of the faces of several parts, float32[F, 3, 2], in [0, 1]."""
    uv, problem = _xatlas(asset, parts, seconds)
    if problem is None:
        shared = overlap(coverage(uv))
        if np.isfinite(uv).all() and uv.min() >= 0 and uv.max() <= 1 and shared <= TOLERANCE:
            return uv
        problem = f"its charts overlap by {shared:.1%}"
    faces = np.concatenate(parts)
    logging.warning(
        "%s: xatlas gave no texture coordinates for %d faces (%s); flat projections take their place, with more seams.",
        asset.name,
        len(faces),
        problem,
    )
    return project(_triangles(asset, faces))


def _xatlas(asset: Asset, parts: list[np.ndarray], seconds: float) -> tuple[np.ndarray | None, str | None]:
    """What xatlas makes of parts in a process of its own: (uv, None), or (None, why not)."""
    worker = pathlib.Path(__file__).with_name("xatlas_worker.py")
    with tempfile.TemporaryDirectory() as folder:
        source, target, errors = (pathlib.Path(folder, name) for name in ("in.npz", "out.npz", "errors"))
        arrays = {}
        for index, faces in enumerate(parts):
            used, names = np.unique(asset.mesh.faces[faces], return_inverse=True)
            arrays[f"vertices_{index}"] = asset.mesh.vertices[used]
            arrays[f"faces_{index}"] = names.reshape(-1, 3).astype(np.uint32)
        np.savez(source, **arrays)
        command = [sys.executable, "-P", str(worker), str(source), str(target)]
        with open(errors, "wb") as stderr, subprocess.Popen(command, stdout=stderr, stderr=stderr) as process:
            try:
                _wait(process, seconds)
            except subprocess.TimeoutExpired:
                return None, f"not done after {seconds:g} s"
            finally:
                process.kill()
        if process.returncode or not target.exists():
            last = errors.read_text(errors="replace").strip().splitlines()[-1:]
            return None, f"it ended with status {process.returncode}: {' '.join(last)[:200]}"
        uv = np.load(target)["uv"]
    good = uv.shape == (sum(map(len, parts)), 3, 2)
    return (uv, None) if good else (None, f"it returned {len(uv)} faces")


def _wait(process: subprocess.Popen, seconds: float) -> None:
    """Waits for the process; if it takes longer than two seconds, with a line that shows how long it may still take."""
    quiet = min(2.0, seconds)
    start = time.monotonic()
    try:
        process.wait(quiet)
        return
    except subprocess.TimeoutExpired:
        if seconds <= quiet:
            raise
    with progress.bar("unwrapping, seconds of at most", int(seconds), int(quiet)) as advance:
        while True:
            left = start + seconds - time.monotonic()
            try:
                process.wait(max(min(1.0, left), 0.0))
                return
            except subprocess.TimeoutExpired:
                if left <= 0:
                    raise
            advance()


def project(triangles: np.ndarray) -> np.ndarray:
    """Texture coordinates by flat projection: float32[F, 3, 2] in [0, 1], without overlaps.

    Faces that hang together and look the same way (of the six axes) are a chart. A chart that overlaps itself is halved along
    the way it looks, or across it, again and again; what overlaps still after that becomes a chart a face.

    Args:
      triangles: float[F, 3, 3].
    """
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    axis = np.abs(normals).argmax(axis=-1)
    way = 2 * axis + (np.take_along_axis(normals, axis[:, None], axis=-1)[:, 0] > 0)
    planes = np.array([[1, 2], [0, 2], [0, 1]])[axis]
    flat = np.take_along_axis(triangles, planes[:, None, :].repeat(3, axis=1), axis=-1)
    depth = np.take_along_axis(triangles.mean(axis=1), axis[:, None], axis=-1)[:, 0]
    middle = flat.mean(axis=1)
    chart = _components(triangles, way)
    own = np.zeros(len(triangles), bool)  # charts of one face, in the face's own plane
    for turn in range(_SPLITS + 1):
        uv, rectangles = _pack_charts(np.where(own[:, None, None], _in_own_plane(triangles), flat), chart)
        bad = _overlapping(uv, rectangles, chart) & ~own
        if not bad.any():
            break
        if turn >= _SPLITS - 1:
            own |= bad
            chart = _numbered(np.where(own, chart.max() + 1 + np.arange(len(chart)), chart))
            continue
        by = depth if turn % 3 == 0 else middle[:, turn % 3 - 1]
        chart = _numbered(2 * chart + (bad & (by > _chart_medians(by, chart))))
    return uv


def _numbered(labels: np.ndarray) -> np.ndarray:
    """Labels as 0, 1, 2 ...: int64[F]."""
    return np.unique(labels, return_inverse=True)[1].reshape(-1)


def _chart_medians(values: np.ndarray, chart: np.ndarray) -> np.ndarray:
    """The median of ``values`` in each face's chart: float64[F]."""
    order = np.lexsort((values, chart))
    counts = np.bincount(chart)
    return values[order[np.cumsum(counts) - counts + (counts - 1) // 2]][chart]


def _components(triangles: np.ndarray, way: np.ndarray) -> np.ndarray:
    """Numbers of the pieces of faces of the same ``way`` that share edges: int64[F]."""
    places = np.round(triangles.reshape(-1, 3) / max(np.ptp(triangles.reshape(-1, 3), axis=0).max() * 1e-6, 1e-300))
    place = np.unique(places, axis=0, return_inverse=True)[1].reshape(-1, 3)
    ends = np.sort(np.stack([place, np.roll(place, -1, axis=1)], axis=-1).reshape(-1, 2), axis=-1)
    face = np.repeat(np.arange(len(triangles)), 3)
    order = np.lexsort((way[face], ends[:, 1], ends[:, 0]))
    same = (ends[order[1:]] == ends[order[:-1]]).all(axis=-1) & (way[face[order[1:]]] == way[face[order[:-1]]])
    one, other = face[order[:-1]][same], face[order[1:]][same]
    label = np.arange(len(triangles))
    while True:  # each face takes the smallest label that it meets, and the label of that label's face
        smallest = np.minimum(label[one], label[other])
        new = label.copy()
        np.minimum.at(new, label[one], smallest)
        np.minimum.at(new, label[other], smallest)
        while (new[new] != new).any():
            new = new[new]
        new = new[label]
        if (new == label).all():
            return _numbered(label)
        label = new


def _in_own_plane(triangles: np.ndarray) -> np.ndarray:
    """Each triangle laid into its own plane, its longest edge along u: float64[F, 3, 2]."""
    edges = np.roll(triangles, -1, axis=1) - triangles
    longest = np.linalg.norm(edges, axis=-1).argmax(axis=1)
    turned = np.take_along_axis(triangles, ((longest[:, None] + np.arange(3)) % 3)[..., None], axis=1)
    along = turned[:, 1] - turned[:, 0]
    length = np.linalg.norm(along, axis=-1)
    unit = along / np.maximum(length, 1e-300)[:, None]
    other = turned[:, 2] - turned[:, 0]
    u = np.einsum("fd,fd->f", other, unit)
    v = np.linalg.norm(other - u[:, None] * unit, axis=-1)
    zero = np.zeros_like(u)
    flat = np.stack([np.stack([zero, zero], -1), np.stack([length, zero], -1), np.stack([u, v], -1)], axis=1)
    return np.take_along_axis(flat, ((np.arange(3) - longest[:, None]) % 3)[..., None], axis=1)


def _pack_charts(flat: np.ndarray, chart: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Charts side by side in the unit square: uv float32[F, 3, 2], and rectangles float64[charts, 4] (low u v, high u v)."""
    order = np.argsort(chart, kind="stable")
    counts = np.bincount(chart)
    starts = np.cumsum(counts) - counts
    low = np.minimum.reduceat(flat.min(axis=1)[order], starts)
    size = np.maximum.reduceat(flat.max(axis=1)[order], starts) - low
    places, scale = pack(size)
    uv = (flat - low[chart][:, None]) * scale + places[chart][:, None]
    return uv.astype(np.float32).clip(0, 1), np.concatenate([places, places + size * scale], axis=-1)


def _overlapping(uv: np.ndarray, rectangles: np.ndarray, chart: np.ndarray) -> np.ndarray:
    """Faces of the charts that overlap themselves: bool[F]."""
    rows, columns = np.nonzero(coverage(uv) > 1)
    if not len(rows):
        return np.zeros(len(uv), bool)
    # The rectangles are apart: of those on the texel's shelf, the last that starts before it holds it.
    points = (np.stack([columns, rows], axis=-1) + 0.5) / RASTER
    shelves = np.unique(rectangles[:, 1])
    order = np.lexsort((rectangles[:, 0], rectangles[:, 1]))
    shelf_of = np.searchsorted(shelves, points[:, 1], side="right") - 1
    key = np.searchsorted(shelves, rectangles[order, 1]) * 2.0 + rectangles[order, 0]
    found = order[np.searchsorted(key, shelf_of * 2.0 + points[:, 0], side="right") - 1]
    wrong = np.zeros(len(rectangles), bool)
    wrong[found] = True
    return wrong[chart]
