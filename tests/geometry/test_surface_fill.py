"""What no view saw, against harmonic functions in closed form."""

import jax.numpy as jnp
import numpy as np
import pytest
from sheets import cut_sheet, places

from realiz3d_jax.geometry.texturing import surface_fill, texels


@pytest.mark.parametrize("cells", [(2, 1), (24, 24), (90, 5)])
def test_colours_on_both_sides_of_a_gap_are_joined_by_a_straight_ramp_across_a_seam(cells: tuple[int, int]):
    mesh, uv = cut_sheet(*cells)
    found = texels.rasterise(uv, 192)
    x = places(mesh, found)[:, 0]
    seen = np.abs(x) > 0.3
    color = np.where(seen, np.sign(x), np.nan)[:, None].repeat(3, axis=1).astype(np.float32)
    filled = surface_fill.diffuse(mesh, found, color, seen)
    # Seen texels colour the nearest point of a lattice of a hundred or more points a side, so the ramp is steeper by that.
    assert np.abs(filled[:, 0] - x[~seen] / 0.3).max() < 0.06


def test_fills_keep_to_the_range_of_the_colours_seen_even_on_faces_with_obtuse_angles():
    mesh, uv = cut_sheet(90, 5)
    found = texels.rasterise(uv, 192)
    where = places(mesh, found)
    seen = np.hypot(where[:, 0] - 0.1, where[:, 2]) > 0.3
    color = np.random.default_rng(0).uniform(0.2, 0.7, (len(seen), 3)).astype(np.float32)
    filled = surface_fill.diffuse(mesh, found, color, seen)
    assert filled.min() > 0.2 - 1e-5
    assert filled.max() < 0.7 + 1e-5


def test_fills_begin_with_the_colours_seen_beside_them_though_the_lattice_is_coarser(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(surface_fill, "_POINTS", 900)
    mesh, uv = cut_sheet(2, 1)
    found = texels.rasterise(uv, 256)
    where = places(mesh, found)
    seen = np.abs(where[:, 0]) > 0.2
    pattern = np.broadcast_to(0.5 + 0.4 * np.sin(2 * np.pi * where[:, 2:] / 0.1), (len(where), 3))
    color = np.where(seen[:, None], pattern, np.nan).astype(np.float32)
    color[~seen] = surface_fill.diffuse(mesh, found, color, seen)
    image, known = np.full((256 * 256, 3), np.nan), np.zeros(256 * 256)
    image[found.index[found.inside]] = color[found.inside]
    known[found.index[found.inside]] = np.where(seen[found.inside], 1, 2)
    image, known = image.reshape(256, 256, 3), known.reshape(256, 256)
    joints = known[:, 1:] * known[:, :-1] == 2
    assert joints.sum() > 150
    # Less than between neighbours along the waves, a tenth of a wave apart: 0.25.
    assert np.abs(image[:, 1:] - image[:, :-1])[joints].max() < 0.2
    # Far from what is seen there is the mean that the lattice knows.
    np.testing.assert_allclose(color[np.abs(where[:, 0]) < 0.03], 0.5, atol=0.1)


def test_a_part_of_which_nothing_is_seen_takes_the_nearest_colours():
    mesh, uv = cut_sheet(8, 8, gap=0.05)
    found = texels.rasterise(uv, 192)
    where = places(mesh, found)
    seen = where[:, 0] < 0.01
    color = np.where(where[:, 2:] > 0, [[1.0, 0, 0]], [[0, 0, 1.0]]).astype(np.float32)
    filled, height = surface_fill.diffuse(mesh, found, color, seen), where[~seen, 2]
    np.testing.assert_allclose(filled[height > 0.05], np.broadcast_to([1, 0, 0], (sum(height > 0.05), 3)), atol=1e-5)
    np.testing.assert_allclose(filled[height < -0.05], np.broadcast_to([0, 0, 1], (sum(height < -0.05), 3)), atol=1e-5)


def test_without_anything_seen_everything_is_grey():
    mesh, uv = cut_sheet(2, 2)
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
