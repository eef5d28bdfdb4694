"""Ten meshes with a texture each, known everywhere: made of patches with closed forms.

Each patch is one chart, a rectangle of the UV plane, and maps (s, t) to space. The texture is a pattern in space, waves of
many directions and lengths and spots with soft rims, so it is continuous across the charts' borders, and the gutter around
a chart continues it.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from realiz3d_jax.geometry.mesh import Mesh, smooth_normals

Patch = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(s, t), float64[...] both, to float64[..., 3]; s, then t, then the outward normal are right-handed."""

_MARGIN = 0.025
"""Of the UV plane, round each chart."""


@dataclasses.dataclass(frozen=True, eq=False)
class Textured:
    """A mesh with its coordinates, float64[F, 3, 2], its patches, and the transform from their frame to the mesh's."""

    mesh: Mesh
    uv: np.ndarray
    patches: Sequence[Patch]
    scale: float
    offset: np.ndarray

    def texture(self, size: int, waves_per_unit: float) -> np.ndarray:
        """uint8[T, T, 3]: the pattern, whose shortest wave is ``1 / waves_per_unit`` long."""
        center = (np.arange(size) + 0.5) / size
        columns = int(np.ceil(np.sqrt(len(self.patches))))
        image = np.full((size, size, 3), 0.5)
        for place, patch in enumerate(self.patches):
            row, column = divmod(place, columns)
            s, t = (_inside(center, number, columns) for number in (column, row))
            within = 0.5 / (1 - _MARGIN * columns)  # a patch's own rectangle, with its margin
            rows, across = np.flatnonzero(np.abs(t - 0.5) < within), np.flatnonzero(np.abs(s - 0.5) < within)
            grid_t, grid_s = np.meshgrid(t[rows], s[across], indexing="ij")
            points = (patch(grid_s, grid_t) - self.offset) * self.scale
            image[np.ix_(rows, across)] = pattern(points, waves_per_unit)
        return np.round(255 * image).astype(np.uint8)


def pattern(points: np.ndarray, waves_per_unit: float) -> np.ndarray:
    """sRGB in [0, 1], float64[..., 3], at places float64[..., 3]: waves up to a frequency, and soft spots."""
    generator = np.random.default_rng(7)
    color = np.zeros((*points.shape[:-1], 3))
    frequencies = np.geomspace(2.0, waves_per_unit, 8)
    for frequency in frequencies:
        for _ in range(2):
            direction = generator.normal(size=3)
            direction /= np.linalg.norm(direction)
            wave = np.sin(2 * np.pi * (frequency * (points @ direction) + generator.uniform()))
            color += generator.normal(size=3) * wave[..., None] * (2.0 / frequency) ** 0.35
    spots = np.prod(np.sin(np.pi * waves_per_unit / 4 * points + 0.4), axis=-1)
    rim = 1 / (1 + np.exp(-np.clip(12 * (np.abs(spots) - 0.35), -50, 50)))
    base = 0.45 + 0.1 * np.tanh(color / 2) * 3
    return np.clip(base * (1 - 0.6 * rim[..., None]) + 0.6 * rim[..., None] * [0.9, 0.75, 0.3], 0.02, 0.98)


def make(name: str, faces: int) -> Textured:
    """One of ``NAMES`` with about so many faces."""
    patches = _SHAPES[name]()
    columns = int(np.ceil(np.sqrt(len(patches))))
    cells = max(2, round(np.sqrt(faces / 2 / len(patches))))
    lattice = np.arange(cells + 1) / cells
    t, s = np.meshgrid(lattice, lattice, indexing="ij")
    corner = (np.arange(cells)[:, None] * (cells + 1) + np.arange(cells)).reshape(-1)
    quad = [corner, corner + 1, corner + cells + 2, corner + cells + 1]
    index = np.concatenate([np.stack([quad[0], quad[1], quad[2]], -1), np.stack([quad[0], quad[2], quad[3]], -1)])
    triangles, uv = [], []
    for place, patch in enumerate(patches):
        row, column = divmod(place, columns)
        triangles.append(patch(s, t).reshape(-1, 3)[index])
        uv.append(np.stack([_outside(s, column, columns), _outside(t, row, columns)], -1).reshape(-1, 2)[index])
    triangles, uv = np.concatenate(triangles), np.concatenate(uv)
    low, high = triangles.min(axis=(0, 1)), triangles.max(axis=(0, 1))
    offset, scale = (low + high) / 2, 1 / (high - low).max()
    triangles = np.round((triangles - offset) * scale, 7).astype(np.float32).astype(np.float64)
    area = np.linalg.norm(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]), axis=-1)
    triangles, uv = triangles[area > 1e-12], uv[area > 1e-12]
    vertices, faces_of = np.unique(triangles.reshape(-1, 3), axis=0, return_inverse=True)
    mesh = Mesh(
        vertices.astype(np.float32),
        faces_of.reshape(-1, 3).astype(np.int32),
        smooth_normals(triangles).astype(np.float32),
        np.full((len(triangles), 3), 0.5, np.float32),
    )
    return Textured(mesh, uv, patches, scale, offset)


def _outside(s: np.ndarray, number: int, columns: int) -> np.ndarray:
    """A patch's coordinate to that of the UV plane."""
    side = 1 / columns
    return number * side + _MARGIN / 2 + s * (side - _MARGIN)


def _inside(u: np.ndarray, number: int, columns: int) -> np.ndarray:
    return (u - number / columns - _MARGIN / 2) / (1 / columns - _MARGIN)


def _cube_faces() -> list[Patch]:
    """The sides of the cube [-1, 1]³."""

    def side(axis: int, sign: float) -> Patch:
        def patch(s: np.ndarray, t: np.ndarray) -> np.ndarray:
            a, b = 2 * s - 1, (2 * t - 1) * sign
            point = np.empty((*s.shape, 3))
            point[..., axis], point[..., (axis + 1) % 3], point[..., (axis + 2) % 3] = sign, a, b
            return point

        return patch

    return [side(axis, sign) for axis in range(3) for sign in (1.0, -1.0)]


def _mapped(patches: list[Patch], change: Callable[[np.ndarray], np.ndarray]) -> list[Patch]:
    return [lambda s, t, patch=patch: change(patch(s, t)) for patch in patches]


def _turned(patches: list[Patch], degrees: float, tilt: float = 0.0) -> list[Patch]:
    """About the vertical axis, after a tilt about the x axis."""
    a, b = np.deg2rad(degrees), np.deg2rad(tilt)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return _mapped(patches, lambda point: point @ (about_z @ about_x).T)


def _placed(patches: list[Patch], scale: Sequence[float], shift: Sequence[float]) -> list[Patch]:
    return _mapped(patches, lambda point: point * scale + shift)


def _superquadric(power: float) -> list[Patch]:
    """The cube drawn to the unit sphere of a p-norm; equal angles make the sphere's patches even."""

    def round_off(point: np.ndarray) -> np.ndarray:
        point = np.tan(point * np.pi / 4) if power == 2 else point
        return point / (np.abs(point) ** power).sum(axis=-1, keepdims=True) ** (1 / power)

    return _mapped(_cube_faces(), round_off)


def _revolved(profile: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], bands: int, sectors: int) -> list[Patch]:
    """Radius and height of [0, 1], from below outside upwards, turned round the z axis, cut into patches."""

    def piece(band: int, sector: int) -> Patch:
        def patch(s: np.ndarray, t: np.ndarray) -> np.ndarray:
            angle = 2 * np.pi * (sector + s) / sectors
            radius, height = profile(np.clip((band + t) / bands, 0, 1))
            return np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=-1)

        return patch

    return [piece(band, sector) for band in range(bands) for sector in range(sectors)]


def _torus() -> list[Patch]:
    def piece(one: int, two: int) -> Patch:
        def patch(s: np.ndarray, t: np.ndarray) -> np.ndarray:
            a, b = 2 * np.pi * (one + s) / 4, 2 * np.pi * (two + t) / 2
            return np.stack([(1 + 0.4 * np.cos(b)) * np.cos(a), (1 + 0.4 * np.cos(b)) * np.sin(a), 0.4 * np.sin(b)], -1)

        return patch

    return [piece(one, two) for one in range(4) for two in range(2)]


def _sheet() -> list[Patch]:
    def piece(column: int, row: int) -> Patch:
        def patch(s: np.ndarray, t: np.ndarray) -> np.ndarray:
            x, z = (column + s) - 1, (row + t) - 1
            return np.stack([x, 0.15 * np.sin(3 * x + 2 * z), z], axis=-1)

        return patch

    return [piece(column, row) for column in (0, 1) for row in (0, 1)]


def _bowl_profile(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Outside up to the rim, over it, and down inside."""
    angle = np.pi / 2 * np.clip(t / 0.48, 0, 1)
    back = np.pi / 2 * np.clip((1 - t) / 0.48, 0, 1)
    over = np.pi * np.clip((t - 0.48) / 0.04, 0, 1)
    outer, inner = np.sin(angle), 0.88 * np.sin(back)
    radius = np.where(t < 0.48, outer, np.where(t > 0.52, inner, 0.94 + 0.06 * np.cos(over)))
    height = np.where(t < 0.48, -np.cos(angle), np.where(t > 0.52, -0.88 * np.cos(back), 0.06 * np.sin(over)))
    return radius, height


def _vase_profile(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A closed body with a waist."""
    return np.sin(np.pi * t) ** 0.5 * (0.5 + 0.2 * np.cos(4 * np.pi * t)), -1.2 * np.cos(np.pi * t)


def _column() -> list[Patch]:
    """A square column twisted by a quarter."""

    def twist(point: np.ndarray) -> np.ndarray:
        angle = np.pi / 4 * point[..., 2]
        x, y = 0.4 * point[..., 0], 0.4 * point[..., 1]
        return np.stack(
            [x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle), point[..., 2]], -1
        )

    return _mapped(_cube_faces(), twist)


def _stairs() -> list[Patch]:
    steps = [_placed(_cube_faces(), (0.9, 0.33, 0.3 * n), (0, 0.66 * n, 0.3 * n)) for n in (1, 2, 3)]
    return _turned([patch for step in steps for patch in step], 28)


def _group() -> list[Patch]:
    ball = _placed(_superquadric(2), (0.5, 0.5, 0.5), (0.0, 0.0, 1.1))
    block = _turned(_placed(_superquadric(8), (0.8, 0.6, 0.4), (0, 0, 0)), 33)
    ring = _placed(_turned(_torus(), 0, 70), (0.3, 0.3, 0.3), (1.1, -0.5, 0.3))
    return [*ball, *block, *ring]


_SHAPES: dict[str, Callable[[], list[Patch]]] = {
    "sphere": lambda: _superquadric(2),
    "torus": lambda: _turned(_torus(), 0, 35),
    "rounded box": lambda: _turned(_placed(_superquadric(8), (1, 0.7, 0.8), (0, 0, 0)), 25, 12),
    "several parts": _group,
    "thin sheet": lambda: _turned(_sheet(), 20),
    "concave bowl": lambda: _turned(_revolved(_bowl_profile, 4, 4), 10, 30),
    "vase": lambda: _revolved(_vase_profile, 3, 4),
    "twisted column": lambda: _turned(_column(), 15),
    "stairs": _stairs,
    "cube": lambda: _turned(_cube_faces(), 20),
}

NAMES = tuple(_SHAPES)
