"""Guidance on the text: its formula, for any denoiser; ``test_generate.py`` has it with a model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realiz3d_jax.diffusion import guidance, samplers
from realiz3d_jax.diffusion.ddpm import DDPM


@pytest.mark.parametrize(("scale", "expected"), [(0.0, 1.0), (1.0, 3.0), (4.5, 10.0), (-1.0, -1.0)])
def test_guidance_extrapolates_from_the_empty_text_through_the_caption(scale: float, expected: float):
    assert float(guidance.combine(jnp.float32(1.0), jnp.float32(3.0), scale)) == pytest.approx(expected)


def test_a_control_without_numbers_has_two_branches_too():
    assert guidance.both(*[jnp.zeros((3, 4, 0))] * 2).shape == (6, 4, 0)


def test_both_branches_see_the_same_sample_control_and_plan_in_one_call():
    text = guidance.both(jnp.zeros((2, 1)), jnp.array([[1.0], [2.0]]))
    control = guidance.both(*[jnp.array([[10.0], [20.0]])] * 2)
    calls = []

    def denoise(x, timestep, index):
        calls.append(x.shape)
        return x + 100 * index + 1000 * timestep + control + text

    x = jnp.array([[0.1], [0.2]])
    epsilon = guidance.guided(denoise, 3.0)(x, jnp.int32(7), jnp.int32(5))
    assert calls == [(4, 1)]
    shared = np.asarray(x) + 500 + 7000 + np.array([[10.0], [20.0]])
    np.testing.assert_allclose(epsilon, shared + 3.0 * np.array([[1.0], [2.0]]), rtol=1e-6)


def test_a_guided_denoiser_samples_the_data_that_its_predictions_point_to():
    # ε(x, text) points to the constant image `text`, ε(x, ∅) to 0: guidance of 2 points to 2 · text.
    schedule = DDPM()
    target = guidance.both(jnp.zeros((1, 3)), jnp.full((1, 3), 0.5))

    def denoise(x, timestep, index):
        alpha = schedule.alphas_cumprod[timestep]
        return (x - jnp.sqrt(alpha) * target) / jnp.sqrt(1 - alpha)

    noise = jax.random.normal(jax.random.key(0), (1, 3))
    x0 = samplers.sample(
        samplers.DDIM(),
        schedule,
        schedule.sampling_timesteps(10, "trailing"),
        guidance.guided(denoise, 2.0),
        noise,
        jax.random.key(1),
    )
    np.testing.assert_allclose(x0, 1.0, atol=1e-4)
