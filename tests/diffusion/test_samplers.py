"""Samplers against diffusers on the same noise predictions, and against the closed form that Gaussian data has.

If data is N(m, s²), x_t is N(√ᾱ m, v²) with v² = ᾱ s² + 1 - ᾱ, the exact noise prediction is √(1-ᾱ) (x - √ᾱ m) / v²,
and the probability-flow ODE keeps z = (x - √ᾱ m) / v constant.
"""

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
import torch

from realiz3d_jax.diffusion import samplers
from realiz3d_jax.diffusion.ddpm import DDPM
from realiz3d_jax.diffusion.samplers import DDIM, DPMSolverPP2M

MEAN, DEVIATION = 0.7, 0.4


class LandsAfter:
    """Stands in for diffusers' number of steps, so that its DDIM lands ``distance`` timesteps further, on the grid."""

    def __init__(self, distance: int):
        self.distance = distance

    def __rfloordiv__(self, total: int) -> int:
        return self.distance


def run(sampler, timesteps, epsilons, noise, key=None, bound=None):
    schedule = DDPM()
    key = jax.random.key(0) if key is None else key

    def denoise(x, timestep, index):
        return epsilons[index]

    return jax.jit(lambda x: samplers.sample(sampler, schedule, timesteps, denoise, x, key, bound))(noise)


def variance(alphas_cumprod):
    return alphas_cumprod * DEVIATION**2 + 1 - alphas_cumprod


def exact_epsilon(x, alphas_cumprod):
    return jnp.sqrt(1 - alphas_cumprod) * (x - jnp.sqrt(alphas_cumprod) * MEAN) / variance(alphas_cumprod)


def exact_denoiser(schedule: DDPM):
    table = jnp.asarray(schedule.exact_alphas_cumprod)
    return lambda x, timestep, index: exact_epsilon(x, table[timestep])


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [1, 50])
def test_ddim_equals_diffusers_on_the_same_predictions_and_noise(eta: float, spacing: str, steps: int):
    key = jax.random.key(3)
    noise = jax.random.normal(jax.random.key(1), (2, 3, 4))
    epsilons = jax.random.normal(jax.random.key(2), (steps, 2, 3, 4))
    sampler = DDIM(eta)
    timesteps = sampler.timesteps(DDPM(), steps, spacing)
    reference = diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=True, timestep_spacing=spacing)
    # Same table, so that the difference is the samplers' alone.
    reference.alphas_cumprod = torch.from_numpy(DDPM().exact_alphas_cumprod)
    reference.set_timesteps(steps)
    x = torch.from_numpy(np.array(noise, np.float64))
    landings = np.append(timesteps[1:], -1)
    for index, timestep in enumerate(reference.timesteps):
        reference.num_inference_steps = LandsAfter(int(timesteps[index] - landings[index]))
        fresh = jax.random.normal(jax.random.fold_in(key, index), noise.shape)
        epsilon = torch.from_numpy(np.array(epsilons[index]))
        x = reference.step(epsilon, timestep, x, eta=eta, variance_noise=torch.from_numpy(np.array(fresh))).prev_sample
    what = f"sampler, {'DDIM' if eta == 0 else 'DDIM with fresh noise (eta 1)'}, steps={steps}"
    parity.check(what, "diffusers DDIMScheduler", run(sampler, timesteps, epsilons, noise, key), x.numpy(), 1e-5)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [1, 2, 20])
def test_dpm_solver_equals_diffusers_on_the_same_predictions(spacing: str, steps: int):
    noise = jax.random.normal(jax.random.key(1), (2, 3, 4))
    epsilons = jax.random.normal(jax.random.key(2), (steps, 2, 3, 4))
    reference = diffusers.DPMSolverMultistepScheduler(
        beta_schedule="linear", algorithm_type="dpmsolver++", solver_order=2, timestep_spacing=spacing
    )
    reference.set_timesteps(steps)
    timesteps = DPMSolverPP2M().timesteps(DDPM(), steps, spacing)
    np.testing.assert_array_equal(timesteps, reference.timesteps.numpy())
    reference.sigmas = exact_sigmas(timesteps)
    x = torch.from_numpy(np.array(noise, np.float64))
    for index, timestep in enumerate(reference.timesteps):
        x = reference.step(torch.from_numpy(np.array(epsilons[index], np.float64)), timestep, x).prev_sample
    found = run(DPMSolverPP2M(), timesteps, epsilons, noise)
    what = f"sampler, DPM-Solver++ 2M, steps={steps}"
    parity.check(what, "diffusers DPMSolverMultistepScheduler", found, x.numpy(), 1e-5)


def exact_sigmas(timesteps: np.ndarray) -> torch.Tensor:
    """diffusers' σ/α of the same float64 table, with 0 at the end."""
    alphas_cumprod = DDPM().exact_alphas_cumprod[timesteps]
    return torch.from_numpy(np.append(np.sqrt(1 / alphas_cumprod - 1), 0.0))


def uniform_log_snr_timesteps(schedule: DDPM, steps: int) -> np.ndarray:
    """``steps`` timesteps between the same two ends for every ``steps``, equally spaced in log-SNR."""
    log_snr = np.log(schedule.exact_alphas_cumprod / (1 - schedule.exact_alphas_cumprod)) / 2
    wanted = np.linspace(-2.0, 2.0, steps)
    return np.round(np.interp(-wanted, -log_snr, np.arange(len(log_snr)))).astype(np.int32)


def integration_error(sampler: samplers.Sampler, schedule: DDPM, steps: int) -> float:
    """How far the ODE solution is missed just before the last step, which is compared as the x_0 it implies."""
    timesteps = uniform_log_snr_timesteps(schedule, steps)
    first, last = schedule.exact_alphas_cumprod[timesteps[[0, -1]]]
    z = jnp.linspace(-2.0, 2.0, 5)
    start = np.sqrt(first) * MEAN + np.sqrt(variance(first)) * z
    exact = np.sqrt(last) * MEAN + np.sqrt(variance(last)) * z
    exact_x0 = (exact - np.sqrt(1 - last) * exact_epsilon(exact, last)) / np.sqrt(last)
    x0 = samplers.sample(sampler, schedule, timesteps, exact_denoiser(schedule), start, jax.random.key(0))
    return float(np.max(np.abs(x0 - exact_x0)))


@pytest.mark.parametrize(("sampler", "order"), [(DDIM(), 1), (DPMSolverPP2M(), 2)])
def test_samplers_converge_to_the_ode_solution_of_gaussian_data_with_their_order(sampler, order: int):
    # A hundred times finer than 1000 timesteps, so that rounding to whole timesteps does not hide the order.
    schedule = DDPM(num_timesteps=100_000, beta_start=1e-6, beta_end=2e-4)
    counts = np.array([65, 129, 257, 513])
    with jax.enable_x64(True):
        errors = [integration_error(sampler, schedule, int(steps)) for steps in counts]
    slope = np.polyfit(np.log(counts - 1), np.log(errors), 1)[0]
    assert -slope == pytest.approx(order, abs=0.07), errors
    assert errors[-1] < (2e-3 if order == 1 else 2e-6)


def test_dpm_solver_is_nearer_to_the_solution_than_ddim_at_the_same_few_steps():
    schedule = DDPM(num_timesteps=100_000, beta_start=1e-6, beta_end=2e-4)
    with jax.enable_x64(True):
        assert integration_error(DPMSolverPP2M(), schedule, 20) < 0.2 * integration_error(DDIM(), schedule, 20)


def test_ancestral_sampling_has_the_mean_and_the_spread_of_the_data():
    schedule = DDPM()
    denoise, timesteps = exact_denoiser(schedule), schedule.sampling_timesteps(1000)

    @jax.jit
    def sample(noise):
        return samplers.sample(DDIM(eta=1.0), schedule, timesteps, denoise, noise, jax.random.key(5))

    x0 = np.asarray(sample(jax.random.normal(jax.random.key(4), (20_000,))))
    standard_error = DEVIATION / np.sqrt(len(x0))
    assert x0.mean() == pytest.approx(MEAN, abs=3 * standard_error)
    assert x0.std() == pytest.approx(DEVIATION, rel=0.02)


def test_fresh_noise_depends_on_the_key_only_when_eta_is_not_zero():
    noise, epsilons = jnp.zeros((6,)), jnp.ones((10, 6))
    timesteps = DDPM().sampling_timesteps(10)
    runs = {eta: [run(DDIM(eta), timesteps, epsilons, noise, jax.random.key(k)) for k in (0, 1)] for eta in (0.0, 1.0)}
    np.testing.assert_array_equal(*runs[0.0])
    assert np.max(np.abs(runs[1.0][0] - runs[1.0][1])) > 0.1


def test_the_denoiser_is_told_the_timestep_and_its_index():
    schedule, timesteps = DDPM(), DDPM().sampling_timesteps(5, "trailing")

    def denoise(x, timestep, index):
        return jnp.where(timestep == jnp.asarray(timesteps)[index], 0.0, jnp.nan) * x

    x0 = samplers.sample(DDIM(), schedule, timesteps, denoise, jnp.ones((3,)), jax.random.key(0))
    # With ε = 0 a step only rescales, so the end is x_T / √ᾱ_T whatever lies between.
    np.testing.assert_allclose(x0, 1 / np.sqrt(schedule.exact_alphas_cumprod[999]), rtol=1e-5)


def test_predictions_of_x0_are_not_clipped():
    timesteps = DDPM().sampling_timesteps(5)
    x0 = run(DDIM(), timesteps, jnp.zeros((5, 3)), jnp.full((3,), 50.0))
    assert np.min(x0) > 50.0


@pytest.mark.parametrize("sampler", [DDIM(), DDIM(0.6), DPMSolverPP2M()])
@pytest.mark.parametrize("bound", [0.5, 1.0])
def test_predictions_of_bounded_data_are_clipped_and_their_noise_is_what_is_left(sampler, bound: float):
    """Four steps by hand in float64; beyond the bound the noise that was predicted is no longer the noise in x."""
    eta = getattr(sampler, "eta", 0.0)
    schedule, key, timesteps = DDPM(), jax.random.key(3), np.array([900, 600, 300, 50])
    noise, epsilons = jax.random.normal(jax.random.key(1), (2, 50)), jax.random.normal(jax.random.key(2), (4, 2, 50))
    alphas = np.append(schedule.exact_alphas_cumprod[timesteps], 1.0)
    log_snr = np.log(alphas[:-1] / (1 - alphas[:-1])) / 2
    x, previous, clipped = np.array(noise, np.float64), 0.0, []
    for index in range(4):
        signal, sigma = np.sqrt(alphas[index]), np.sqrt(1 - alphas[index])
        x0 = (x - sigma * np.array(epsilons[index])) / signal
        clipped.append(np.mean(np.abs(x0) > bound))
        x0 = np.clip(x0, -bound, bound)
        left = (x - signal * x0) / sigma
        variance = eta**2 * (1 - alphas[index + 1]) / (1 - alphas[index]) * (1 - alphas[index] / alphas[index + 1])
        fresh = np.array(jax.random.normal(jax.random.fold_in(key, index), noise.shape))
        momentum = 0.0
        if sampler == DPMSolverPP2M() and index in (1, 2):
            last, step = np.diff(log_snr)[index - 1 : index + 1]
            momentum = np.sqrt(alphas[index + 1]) * (1 - np.exp(-step)) * step / last / 2
        x = np.sqrt(alphas[index + 1]) * x0 + np.sqrt(1 - alphas[index + 1] - variance) * left
        x, previous = x + momentum * (x0 - previous) + np.sqrt(variance) * fresh, x0
    assert min(clipped) > 0.1
    assert clipped[-1] < 0.9
    np.testing.assert_allclose(run(sampler, timesteps, epsilons, noise, key, bound), x, atol=1e-5)


def test_with_a_key_each_what_a_sample_draws_does_not_depend_on_its_batch():
    noise, epsilons = jnp.zeros((3, 6)), jnp.ones((10, 1, 6))
    timesteps, keys = DDPM().sampling_timesteps(10), jax.random.split(jax.random.key(7), 3)
    together = run(DDIM(1.0), timesteps, epsilons, noise, keys)
    alone = run(DDIM(1.0), timesteps, epsilons, noise[1:2], keys[1:2])
    np.testing.assert_array_equal(together[1:2], alone)
    assert np.max(np.abs(together[0] - together[1])) > 0.1
