"""Texels against brute force and closed forms."""

import numpy as np
import pytest

from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.texturing import texels


def random_triangles(count: int, seed: int) -> np.ndarray:
    """Separate small triangles, one in each cell of a lattice: float64[count², 3, 2]."""
    generator = np.random.default_rng(seed)
    cells = np.stack(np.meshgrid(np.arange(count), np.arange(count)), axis=-1).reshape(-1, 1, 2)
    return (cells + generator.uniform(0.2, 0.8, (count * count, 3, 2))) / count


def lattice(count: int) -> np.ndarray:
    """The unit square, count² cells of two faces each."""
    corner = np.stack(np.meshgrid(np.arange(count), np.arange(count)), axis=-1).reshape(-1, 1, 2)
    lower, upper = np.array([[0, 0], [1, 0], [1, 1]]), np.array([[0, 0], [1, 1], [0, 1]])
    return np.concatenate([corner + lower, corner + upper]) / count


def distance_to_triangle(point: np.ndarray, triangle: np.ndarray) -> float:
    """By brute force: 0 inside, else to the nearest of the three edges."""
    nearest, signs = np.inf, []
    for start, end in zip(triangle, np.roll(triangle, -1, axis=0), strict=True):
        run = end - start
        along = np.clip((point - start) @ run / (run @ run), 0, 1)
        nearest = min(nearest, np.linalg.norm(point - start - along * run))
        signs.append(np.sign(run[0] * (point - start)[1] - run[1] * (point - start)[0]))
    return 0.0 if abs(sum(signs)) == 3 else nearest


def test_texels_are_those_whose_centres_lie_in_faces_and_those_within_the_gutter():
    size, gutter, uv = 40, 4.0, random_triangles(2, 0)
    found = texels.rasterise(uv, size, gutter)
    face = np.full(size * size, -1)
    face[found.index] = found.face
    inside = np.zeros(size * size, bool)
    inside[found.index] = found.inside
    for index in range(size * size):
        center = np.array([index % size + 0.5, index // size + 0.5])
        distances = [distance_to_triangle(center, triangle * size) for triangle in uv]
        nearest = int(np.argmin(distances))
        if abs(distances[nearest] - gutter) < 1e-2 or 0 < distances[nearest] < 1e-2:
            continue
        assert inside[index] == (distances[nearest] == 0)
        assert (face[index] >= 0) == (distances[nearest] < gutter)
        if face[index] >= 0:
            assert distances[face[index]] == pytest.approx(distances[nearest], abs=1e-2)


def test_a_texel_inside_a_face_stands_for_its_own_centre_and_one_of_the_gutter_for_the_nearest_place():
    size, uv = 64, random_triangles(4, 1)
    found = texels.rasterise(uv, size, 4.0)
    place = np.einsum("nc,ncd->nd", found.barycentric, uv[found.face]) * size
    center = np.stack([found.index % size, found.index // size], axis=-1) + 0.5
    distance = np.linalg.norm(place - center, axis=-1)
    assert distance[found.inside].max() < 0.01
    assert 3.5 < distance[~found.inside].max() < 4.01
    np.testing.assert_allclose(found.barycentric.sum(axis=1), 1, atol=1e-6)
    for row in np.flatnonzero(~found.inside)[::29]:
        expected = min(distance_to_triangle(center[row], triangle * size) for triangle in uv)
        assert distance[row] == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("count", [1, 7, 32])
def test_faces_that_tile_the_square_leave_no_texel_out_and_have_no_gutter_between_them(count: int):
    found = texels.rasterise(lattice(count), 64)
    np.testing.assert_array_equal(found.index, np.arange(64 * 64))
    assert found.inside.all()


def test_a_chart_that_meets_no_centre_of_a_texel_still_has_texels():
    sliver = np.array([[[0.5, 0.1], [0.501, 0.1], [0.5, 0.9]]])
    found = texels.rasterise(sliver + 0.2 / 64, 64)
    assert not found.inside.any()
    assert len(found.index) > 0.8 * 64 * 7
    point = np.full((1, 3, 2), 0.3)
    assert len(texels.rasterise(point, 64).index) == pytest.approx(np.pi * 16, abs=6)


def test_of_overlapping_faces_the_first_is_taken():
    big, small = np.array([[0.0, 0], [1, 0], [0, 1]]), np.array([[0.1, 0.1], [0.3, 0.1], [0.1, 0.3]])
    assert (texels.rasterise(np.stack([big, small]), 32).face == 0).all()
    under = texels.rasterise(np.stack([small, big]), 32)
    assert 0 < (under.face == 0).sum() < 32


@pytest.mark.parametrize("value", [np.nan, 1.5, -0.2])
def test_coordinates_outside_the_texture_are_refused(value: float):
    uv = lattice(1)
    uv[0, 0, 0] = value
    with pytest.raises(UserError, match="uv: found coordinates"):
        texels.rasterise(uv, 16)
