"""The noise prediction loss, per group of views."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realiz3d_jax.diffusion.loss import squared_error


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_loss_of_a_group_is_the_mean_square_over_its_views(groups: int):
    prediction, noise = jax.random.normal(jax.random.key(0), (2, 3, 4, 5, 5, 2))
    loss = squared_error(prediction, noise, groups)
    squares = np.square(np.asarray(prediction) - np.asarray(noise)).reshape(3, groups, -1)
    assert loss.shape == (3, groups)
    np.testing.assert_allclose(loss, squares.mean(-1), rtol=1e-5)


def test_a_learned_sigma_behind_the_noise_prediction_is_not_read():
    prediction, noise = jnp.zeros((1, 4, 2, 2, 3)), jnp.ones((1, 4, 2, 2, 3))
    with_sigma = jnp.concatenate([prediction, jnp.full_like(prediction, jnp.nan)], axis=-1)
    np.testing.assert_array_equal(squared_error(with_sigma, noise), 1.0)


def test_the_loss_is_float32_even_of_bfloat16_predictions():
    noise = jnp.full((1, 4, 2, 2, 3), 0.5)
    assert squared_error(jnp.zeros(noise.shape, jnp.bfloat16), noise).dtype == jnp.float32
