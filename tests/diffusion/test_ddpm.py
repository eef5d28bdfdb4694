"""The forward process and the timesteps of sampling, against the definitions and against diffusers."""

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest

from realiz3d_jax.diffusion.ddpm import DDPM


def test_the_table_is_that_of_diffusers():
    reference = diffusers.DDPMScheduler(beta_schedule="linear", beta_start=1e-4, beta_end=0.02).alphas_cumprod.numpy()
    ours = np.asarray(DDPM().alphas_cumprod)
    assert ours.dtype == np.float32
    assert ours[0] == np.float32(0.9999)
    # diffusers multiplies up 1000 float32 factors; ours is the float64 product, so the difference is its rounding.
    what = "schedule, cumulative alphas, each relative to itself"
    parity.check(what, "diffusers DDPMScheduler", ours / reference, np.ones(1000), 1e-4)


def test_noise_of_a_group_is_added_at_that_groups_timestep():
    schedule = DDPM()
    x0, noise = jax.random.normal(jax.random.key(0), (2, 2, 4, 3, 3, 5))
    timestep = jnp.array([[0, 10, 500, 999], [1, 2, 3, 4]])
    noisy = schedule.add_noise(x0, noise, timestep)
    for b, v in np.ndindex(2, 4):
        alpha = schedule.exact_alphas_cumprod[timestep[b, v]]
        expected = np.sqrt(alpha) * x0[b, v] + np.sqrt(1 - alpha) * noise[b, v]
        np.testing.assert_allclose(noisy[b, v], expected, rtol=1e-5, atol=1e-6)


def test_one_timestep_for_a_whole_grid_broadcasts_over_its_views():
    schedule = DDPM()
    x0, noise = jax.random.normal(jax.random.key(1), (2, 2, 4, 3, 3, 5))
    joint = schedule.add_noise(x0, noise, jnp.array([[7], [600]]))
    single = schedule.add_noise(x0, noise, jnp.array([[7] * 4, [600] * 4]))
    np.testing.assert_array_equal(joint, single)


def test_data_is_recovered_from_the_noisy_sample_and_its_noise():
    schedule = DDPM()
    x0, noise = jax.random.normal(jax.random.key(2), (2, 3, 6))
    timestep = jnp.array([0, 300, 700])
    noisy = schedule.add_noise(x0, noise, timestep)
    signal, sigma = (jnp.float32(level)[:, None] for level in schedule.levels(timestep))
    recovered, given = schedule.split(noisy, noise, signal, sigma)
    np.testing.assert_array_equal(given, noise)
    np.testing.assert_allclose(recovered, x0, atol=1e-5)


@pytest.mark.parametrize("cap", [1.0, 100.0, 300.0])
def test_a_timestep_weighs_the_inverse_of_its_signal_to_noise_ratio_from_1_to_the_cap(cap: float):
    alphas = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    expected = np.minimum(np.maximum((1 - alphas) / alphas, 1.0), cap)
    found = DDPM().weight(jnp.arange(1000).reshape(250, 4), cap)
    np.testing.assert_allclose(found, expected.reshape(250, 4), rtol=2e-4)  # of 1 - ᾱ in float32
    assert float(found.max()) == cap


def test_every_timestep_is_drawn_as_often_as_any_other():
    counts = np.bincount(np.asarray(DDPM(num_timesteps=10).draw_timesteps(jax.random.key(0), (5000, 4))).ravel())
    assert len(counts) == 10
    assert np.abs(counts - 2000).max() < 5 * np.sqrt(2000)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [1, 2, 7, 20, 50, 333, 1000])
def test_sampling_timesteps_are_those_of_diffusers(spacing: str, steps: int):
    reference = diffusers.DDIMScheduler(timestep_spacing=spacing)
    reference.set_timesteps(steps)
    timesteps = DDPM().sampling_timesteps(steps, spacing)
    np.testing.assert_array_equal(timesteps, reference.timesteps.numpy())
    assert timesteps.dtype == np.int32
    assert np.all(np.diff(timesteps) < 0)


def test_more_steps_than_timesteps_or_an_unknown_spacing_are_refused():
    with pytest.raises(ValueError, match="found 1001, expected 1 to 1000"):
        DDPM().sampling_timesteps(1001)
    with pytest.raises(ValueError, match="found 'karras'"):
        DDPM().sampling_timesteps(10, "karras")
