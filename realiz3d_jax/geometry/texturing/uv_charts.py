"""Charts in the unit square: coverage and overlaps, packing, and flat projection."""

import numpy as np

RASTER = 1024
"""Texels along a side of the raster in which overlaps are detected."""

_INSET = 0.02
"""Overlap of neighbours, in texels, that is attributed to rounding."""

_GUTTER = 4 / 1024
"""Distance between packed rectangles, in units of the texture."""

_SPLITS = 8
"""Number of times that self-overlapping charts are halved before each of their faces becomes a chart."""


def overlap(counts: np.ndarray) -> float:
    """Fraction of the covered texels that more than one face covers, from the counts of ``coverage``."""
    covered = np.count_nonzero(counts)
    return np.count_nonzero(counts > 1) / covered if covered else 0.0


def coverage(uv: np.ndarray, size: int = RASTER) -> np.ndarray:
    """Counts the faces that cover the centre of each texel.

    Faces are rasterised by rows, so the time is proportional to their outlines. Neighbours that share an edge share no texel.

    Args:
      uv: float[F, 3, 2], in [0, 1].
      size: texels along a side.

    Returns:
      int32[size, size], row 0 at v = 0.
    """
    edges = np.zeros(size * (size + 1), np.int32)
    corners = np.asarray(uv, np.float64) * size
    first = np.ceil(corners[..., 1].min(axis=1) + _INSET - 0.5).astype(np.int64).clip(0, size)
    rows = np.floor(corners[..., 1].max(axis=1) - _INSET - 0.5).astype(np.int64).clip(-1, size - 1) + 1 - first
    tall = np.flatnonzero(rows > 0)
    corners, first, rows = corners[tall], first[tall], rows[tall]
    stops = np.cumsum(rows)
    start = 0
    while start < len(rows):  # chunks of a few million rows
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


def pack(sizes: np.ndarray) -> tuple[np.ndarray, float]:
    """Packs rectangles on shelves in the unit square, as large as possible, with gutters between and around them.

    Args:
      sizes: float[n, 2], widths and heights in any unit.

    Returns:
      (places float64[n, 2], scale): rectangle n is ``places[n] + [0, 1] * sizes[n] * scale``.
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


def project(triangles: np.ndarray) -> np.ndarray:
    """Makes texture coordinates without overlaps by flat projection.

    Connected faces with the same dominant direction, of the six axes, form a chart. Charts that overlap themselves are halved
    repeatedly, along their direction or across it; if overlaps remain, each of their faces becomes a chart.

    Args:
      triangles: float[F, 3, 3].

    Returns:
      float32[F, 3, 2], in [0, 1].
    """
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    axis = np.abs(normals).argmax(axis=-1)
    way = 2 * axis + (np.take_along_axis(normals, axis[:, None], axis=-1)[:, 0] > 0)
    planes = np.array([[1, 2], [0, 2], [0, 1]])[axis]
    flat = np.take_along_axis(triangles, planes[:, None, :].repeat(3, axis=1), axis=-1)
    depth = np.take_along_axis(triangles.mean(axis=1), axis[:, None], axis=-1)[:, 0]
    middle = flat.mean(axis=1)
    chart = _components(triangles, way)
    own = np.zeros(len(triangles), bool)  # charts of a single face, in its own plane
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
    """Renumbers labels to 0, 1, 2, ...: int64[F]."""
    return np.unique(labels, return_inverse=True)[1].reshape(-1)


def _chart_medians(values: np.ndarray, chart: np.ndarray) -> np.ndarray:
    """Median of ``values`` in the chart of each face: float64[F]."""
    order = np.lexsort((values, chart))
    counts = np.bincount(chart)
    return values[order[np.cumsum(counts) - counts + (counts - 1) // 2]][chart]


def _components(triangles: np.ndarray, way: np.ndarray) -> np.ndarray:
    """Labels of the edge-connected components of faces with the same ``way``: int64[F]."""
    places = np.round(triangles.reshape(-1, 3) / max(np.ptp(triangles.reshape(-1, 3), axis=0).max() * 1e-6, 1e-300))
    place = np.unique(places, axis=0, return_inverse=True)[1].reshape(-1, 3)
    ends = np.sort(np.stack([place, np.roll(place, -1, axis=1)], axis=-1).reshape(-1, 2), axis=-1)
    face = np.repeat(np.arange(len(triangles)), 3)
    order = np.lexsort((way[face], ends[:, 1], ends[:, 0]))
    same = (ends[order[1:]] == ends[order[:-1]]).all(axis=-1) & (way[face[order[1:]]] == way[face[order[:-1]]])
    one, other = face[order[:-1]][same], face[order[1:]][same]
    label = np.arange(len(triangles))
    while True:  # each face takes the smallest label among its neighbours, and then that label's own label
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
    """Triangles in the coordinates of their own planes, with the longest edge along u: float64[F, 3, 2]."""
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
    """Packs charts into the unit square: uv float32[F, 3, 2], and rectangles float64[charts, 4] (low u v, high u v)."""
    order = np.argsort(chart, kind="stable")
    counts = np.bincount(chart)
    starts = np.cumsum(counts) - counts
    low = np.minimum.reduceat(flat.min(axis=1)[order], starts)
    size = np.maximum.reduceat(flat.max(axis=1)[order], starts) - low
    places, scale = pack(size)
    uv = (flat - low[chart][:, None]) * scale + places[chart][:, None]
    return uv.astype(np.float32).clip(0, 1), np.concatenate([places, places + size * scale], axis=-1)


def _overlapping(uv: np.ndarray, rectangles: np.ndarray, chart: np.ndarray) -> np.ndarray:
    """Faces of self-overlapping charts: bool[F]."""
    rows, columns = np.nonzero(coverage(uv) > 1)
    if not len(rows):
        return np.zeros(len(uv), bool)
    # The rectangles are disjoint, so the last one on the texel's shelf that starts before the texel contains it.
    points = (np.stack([columns, rows], axis=-1) + 0.5) / RASTER
    shelves = np.unique(rectangles[:, 1])
    order = np.lexsort((rectangles[:, 0], rectangles[:, 1]))
    shelf_of = np.searchsorted(shelves, points[:, 1], side="right") - 1
    key = np.searchsorted(shelves, rectangles[order, 1]) * 2.0 + rectangles[order, 0]
    found = order[np.searchsorted(key, shelf_of * 2.0 + points[:, 0], side="right") - 1]
    wrong = np.zeros(len(rectangles), bool)
    wrong[found] = True
    return wrong[chart]
