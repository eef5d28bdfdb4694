"""What no view saw, against harmonic functions in closed form."""

import jax.numpy as jnp
import numpy as np
import pytest

from realiz3d_jax.geometry import surface_fill, texels
from realiz3d_jax.geometry.mesh import Mesh


def sheet(columns: int, rows: int, gap: float = 0.0) -> tuple[Mesh, np.ndarray]:
    """The square [-0.5, 0.5]² at y = 0 in x and z; its right half is a chart of its own, ``gap`` apart in space."""
    x, z = np.meshgrid(np.arange(columns + 1) / columns - 0.5, np.arange(rows + 1) / rows - 0.5)
    points = np.stack([x, 0 * x, z], axis=-1).reshape(-1, 3)
    corner = (np.arange(rows)[:, None] * (columns + 1) + np.arange(columns)).reshape(-1)
    faces = np.concatenate(
        [
            np.stack([corner, corner + 1, corner + columns + 2], axis=1),
            np.stack([corner, corner + columns + 2, corner + columns + 1], axis=1),
        ]
    )
    triangles = points[faces]
    right = triangles[..., 0].mean(axis=1) > 0
    uv = np.stack([triangles[..., 0] + 0.5, triangles[..., 2] + 0.5], axis=-1) * 0.4
    uv[right] += [0.3, 0.5]  # above and aside: in the UV plane the halves are no neighbours
    triangles[right] += [gap, 0, 0]
    vertices, index = np.unique(triangles.reshape(-1, 3), axis=0, return_inverse=True)
    normals = np.broadcast_to([0, -1.0, 0], triangles.shape).astype(np.float32)
    faces = index.reshape(-1, 3).astype(np.int32)
    return Mesh(vertices.astype(np.float32), faces, normals, np.ones((len(faces), 3), np.float32)), uv


def places(mesh: Mesh, found: texels.Texels) -> np.ndarray:
    return np.einsum("nc,ncd->nd", found.barycentric, mesh.vertices[mesh.faces[found.face]])


@pytest.mark.parametrize("cells", [(2, 1), (24, 24), (90, 5)])
def test_colours_on_both_sides_of_a_gap_are_joined_by_a_straight_ramp_across_a_seam(cells: tuple[int, int]):
    mesh, uv = sheet(*cells)
    found = texels.rasterise(uv, 192)
    x = places(mesh, found)[:, 0]
    seen = np.abs(x) > 0.3
    color = np.where(seen, np.sign(x), np.nan)[:, None].repeat(3, axis=1).astype(np.float32)
    filled = surface_fill.diffuse(mesh, found, color, seen)
    # Seen texels colour the nearest point of a lattice of a hundred or more points a side, so the ramp is steeper by that.
    assert np.abs(filled[:, 0] - x[~seen] / 0.3).max() < 0.06


def test_fills_keep_to_the_range_of_the_colours_seen_even_on_faces_with_obtuse_angles():
    mesh, uv = sheet(90, 5)
    found = texels.rasterise(uv, 192)
    where = places(mesh, found)
    seen = np.hypot(where[:, 0] - 0.1, where[:, 2]) > 0.3
    color = np.random.default_rng(0).uniform(0.2, 0.7, (len(seen), 3)).astype(np.float32)
    filled = surface_fill.diffuse(mesh, found, color, seen)
    assert filled.min() > 0.2 - 1e-5
    assert filled.max() < 0.7 + 1e-5


def test_a_part_of_which_nothing_is_seen_takes_the_nearest_colours():
    mesh, uv = sheet(8, 8, gap=0.05)
    found = texels.rasterise(uv, 192)
    where = places(mesh, found)
    seen = where[:, 0] < 0.01
    color = np.where(where[:, 2:] > 0, [[1.0, 0, 0]], [[0, 0, 1.0]]).astype(np.float32)
    filled, height = surface_fill.diffuse(mesh, found, color, seen), where[~seen, 2]
    np.testing.assert_allclose(filled[height > 0.05], np.broadcast_to([1, 0, 0], (sum(height > 0.05), 3)), atol=1e-5)
    np.testing.assert_allclose(filled[height < -0.05], np.broadcast_to([0, 0, 1], (sum(height < -0.05), 3)), atol=1e-5)


def test_without_anything_seen_everything_is_grey():
    mesh, uv = sheet(2, 2)
    found = texels.rasterise(uv, 32)
    nothing = np.zeros(len(found.index), bool)
    filled = surface_fill.diffuse(mesh, found, np.zeros((len(nothing), 3), np.float32), nothing)
    assert len(filled) == len(nothing)
    assert np.ptp(filled) == 0


@pytest.mark.parametrize("shape", [(16, 16), (13, 30)])
def test_push_pull_keeps_what_is_known_and_fills_the_rest_from_near_it(shape: tuple[int, int]):
    generator = np.random.default_rng(0)
    image = generator.uniform(size=(*shape, 3)).astype(np.float32)
    known = np.zeros(shape, bool)
    known[:2, :2] = known[-1, -1] = True
    filled = np.asarray(surface_fill.push_pull(jnp.asarray(image), jnp.asarray(known)))
    np.testing.assert_array_equal(filled[known], image[known])
    np.testing.assert_allclose(filled[2, 3], image[:2, :2].mean(axis=(0, 1)), rtol=1e-5)
    np.testing.assert_allclose(filled[-2, -1], image[-1, -1], rtol=1e-5)
