"""The solids from which objects are composed, as triangles with normals.

Each function returns a solid that stands on z = 0 around the z axis, in its natural proportions, about 1 wide or high. Their
outlines alone distinguish them at 32 pixels and elevation 0: disc, wide square, tall rectangle, tall triangle, low triangle,
ring.
"""

import itertools

import numpy as np

Surface = tuple[np.ndarray, np.ndarray, np.ndarray]
"""vertices float64[P, 3], faces int64[F, 3], unit vertex normals float64[P, 3]."""

_SEGMENTS = 32


def sphere() -> Surface:
    """A sphere of diameter 1."""
    return _lathe(
        lambda angle: (0.5 * np.sin(angle), 0.5 - 0.5 * np.cos(angle)),
        lambda angle: (np.sin(angle), -np.cos(angle)),
        np.linspace(0, np.pi, _SEGMENTS // 2 + 1),
    )


def cube() -> Surface:
    """A cube of side 0.82, turned so that every view sees two faces of different width."""
    return _turned(_faceted(_BOX_QUADS, _square(0.82, 0.0) + _square(0.82, 0.82)), 10)


def pyramid() -> Surface:
    """A low, wide square pyramid, turned so that every view sees two faces."""
    return _turned(_faceted(_PYRAMID_POLYGONS, [*_square(0.86, 0.0), (0.0, 0.0, 0.68)]), 30)


def cone() -> Surface:
    """A cone of height 1.05 on a disc of diameter 0.76."""
    return _revolved([(0.0, 0.0), (0.38, 0.0), (0.0, 1.05)])


def cylinder() -> Surface:
    """A cylinder of height 1 and diameter 0.46."""
    return _revolved([(0.0, 0.0), (0.23, 0.0), (0.23, 1.0), (0.0, 1.0)])


def torus() -> Surface:
    """An upright ring of outer diameter 1 whose hole is visible from the front and the back."""
    major, minor = 0.345, 0.155
    vertices, faces, normals = _lathe(
        lambda angle: (major + minor * np.cos(angle), minor * np.sin(angle)),
        lambda angle: (np.cos(angle), np.sin(angle)),
        np.linspace(0, 2 * np.pi, _SEGMENTS // 2 + 1),
    )
    upright = np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])
    return vertices @ upright.T + [0, 0, major + minor], faces, normals @ upright.T


def _square(side: float, height: float) -> list[tuple[float, float, float]]:
    half = side / 2
    return [(-half, -half, height), (half, -half, height), (half, half, height), (-half, half, height)]


_BOX_QUADS = [(3, 2, 1, 0), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7)]
_PYRAMID_POLYGONS = [(3, 2, 1, 0), (0, 1, 4), (1, 2, 4), (2, 3, 4), (3, 0, 4)]


def _faceted(polygons: list[tuple[int, ...]], points: list[tuple[float, float, float]]) -> Surface:
    """Builds flat polygons, counter-clockwise seen from outside, each with its own vertices."""
    points = np.asarray(points)
    vertices, faces, normals = [], [], []
    for polygon in polygons:
        corners = points[list(polygon)]
        normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
        first = len(vertices)
        faces += [(first, first + turn, first + turn + 1) for turn in range(1, len(polygon) - 1)]
        vertices += list(corners)
        normals += [normal / np.linalg.norm(normal)] * len(polygon)
    return np.array(vertices), np.array(faces), np.array(normals)


def _turned(surface: Surface, degrees: float) -> Surface:
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    return surface[0] @ turn.T, surface[1], surface[2] @ turn.T


def _revolved(profile: list[tuple[float, float]]) -> Surface:
    """Revolves straight pieces of a profile (radius, height), bottom to top, with sharp edges between them."""
    surfaces = []
    for start, end in itertools.pairwise(profile):
        start, end = np.array(start), np.array(end)
        along = end - start
        normal = np.array([along[1], -along[0]]) / np.linalg.norm(along)

        def curve(fraction, start=start, along=along):
            return tuple(start[:, None] + along[:, None] * fraction)

        def normals(fraction, normal=normal):
            return tuple(np.broadcast_to(normal[:, None], (2, len(fraction))))

        surfaces.append(_lathe(curve, normals, np.array([0.0, 1.0])))
    sizes = np.cumsum([0] + [len(vertices) for vertices, _, _ in surfaces])
    return (
        np.concatenate([vertices for vertices, _, _ in surfaces]),
        np.concatenate([faces + first for (_, faces, _), first in zip(surfaces, sizes, strict=False)]),
        np.concatenate([normals for _, _, normals in surfaces]),
    )


def _lathe(curve, normal_curve, parameters: np.ndarray) -> Surface:
    """Revolves a curve (radius, height) of ``parameters`` around the z axis; the outside is on the curve's right."""
    angles = np.arange(_SEGMENTS + 1) * (2 * np.pi / _SEGMENTS)
    radius, height = curve(parameters)
    outward, upward = normal_curve(parameters)
    cosine, sine = np.cos(angles)[None], np.sin(angles)[None]

    def swept(radial, vertical):
        grid = [radial[:, None] * cosine, radial[:, None] * sine, np.repeat(vertical[:, None], len(angles), axis=1)]
        return np.stack(grid, axis=-1).reshape(-1, 3)

    rows, columns = len(parameters), len(angles)
    row, column = np.meshgrid(np.arange(rows - 1), np.arange(columns - 1), indexing="ij")
    corner = (row * columns + column).reshape(-1)
    faces = np.concatenate(
        [
            np.stack([corner, corner + 1, corner + columns + 1], axis=-1),
            np.stack([corner, corner + columns + 1, corner + columns], axis=-1),
        ]
    )
    vertices = swept(radius, height)
    triangles = vertices[faces]
    areas = np.linalg.norm(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]), axis=-1)
    return vertices, faces[areas > 1e-9], swept(outward, upward)
