"""The order of the views in a grid: one place says it, and everything that lays views out follows."""

import jax.numpy as jnp
import numpy as np
import pytest

from realiz3d_jax import views
from realiz3d_jax.models import embeddings

PICTURES = np.random.default_rng(0).integers(0, 256, (2, 4, 3, 5, 3), np.uint8)


def test_a_grid_is_row_major_and_comes_apart_again():
    grid = views.to_grid(PICTURES)
    rows = [np.concatenate([PICTURES[:, 2 * row], PICTURES[:, 2 * row + 1]], axis=2) for row in range(2)]
    np.testing.assert_array_equal(grid, np.concatenate(rows, axis=1))
    np.testing.assert_array_equal(views.to_views(grid), PICTURES)


@pytest.mark.parametrize("count", [1, 4, 9])
def test_grids_of_jax_arrays_and_of_other_square_numbers_of_views(count: int):
    tiles = jnp.arange(count * 24).reshape(count, 2, 4, 3)
    np.testing.assert_array_equal(views.to_views(views.to_grid(tiles), count), tiles)


def test_another_order_moves_pictures_and_position_features_alike(monkeypatch):
    canvas = lambda rows, columns: np.arange(rows * columns).reshape(rows, columns, 1)  # noqa: E731
    before = embeddings.grid_position_features(canvas, 4, 2, 2, "canvas"), views.to_grid(PICTURES)
    for module in (views, embeddings):
        monkeypatch.setattr(module, "ORDER", "(column row)")
    after = embeddings.grid_position_features(canvas, 4, 2, 2, "canvas"), views.to_grid(PICTURES)
    turned = [0, 2, 1, 3]
    np.testing.assert_array_equal(after[0], before[0][turned])
    monkeypatch.undo()
    np.testing.assert_array_equal(after[1], views.to_grid(PICTURES[:, turned]))
