"""Predictions: epsilon, v, velocity and x describe one denoiser, so they give one trajectory and comparable losses.

If data is N(m, s²), then x = α x_0 + σ ε has the variance α² s² + σ², and the best predictions are linear in x:

    E[x_0 | x] = m + α s² (x - α m) / (α² s² + σ²),        E[ε | x] = σ (x - α m) / (α² s² + σ²)
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import encoded, load_config

from realiz3d_jax.config.schema import from_stored
from realiz3d_jax.diffusion import samplers
from realiz3d_jax.diffusion.ddpm import DDPM
from realiz3d_jax.diffusion.rectified_flow import RectifiedFlow
from realiz3d_jax.diffusion.samplers import DDIM, DPMSolverPP2M
from realiz3d_jax.errors import UserError
from realiz3d_jax.training import setup

MEAN, DEVIATION = 0.7, 0.4

PROCESSES = {
    f"{process.name} {prediction}": dataclasses.replace(process, prediction=prediction)
    for process in (DDPM(), RectifiedFlow())
    for prediction in process.PREDICTIONS
}


@pytest.fixture(params=PROCESSES.values(), ids=PROCESSES.keys())
def process(request):
    return request.param


def combined(process, data, noise, signal, sigma):
    """The prediction that belongs to data and noise, from the papers' definitions."""
    return {
        "epsilon": noise,
        "x": data,
        "v": signal * noise - sigma * data,
        "velocity": noise - data,
    }[process.prediction]


def best(process, x, timestep):
    """The prediction with the least error for Gaussian data; float64 under x64."""
    table = np.arange(process.num_timesteps)
    if process.name == "ddpm":
        signal, sigma = (jnp.asarray(level)[timestep] for level in process.levels(table))
    else:
        signal, sigma = 1 - timestep / 1000, timestep / 1000
    centred = (x - signal * MEAN) / (signal**2 * DEVIATION**2 + sigma**2)
    return combined(process, MEAN + signal * DEVIATION**2 * centred, sigma * centred, signal, sigma)


def draw(process, x, sampler, steps: int = 20):
    timesteps = sampler.timesteps(process, steps, "trailing")
    denoise = lambda x, timestep, index: best(process, x, timestep)  # noqa: E731
    return samplers.sample(sampler, process, timesteps, denoise, x, jax.random.key(7))


def test_the_defaults_are_those_of_the_published_models():
    assert DDPM().prediction == "epsilon"
    assert RectifiedFlow().prediction == "velocity"
    assert (RectifiedFlow().logit_mean, RectifiedFlow().logit_scale) == (0.0, 1.0)


def test_x_and_the_target_determine_data_and_noise(process):
    x0, noise = jax.random.normal(jax.random.key(0), (2, 3, 6))
    timestep = jnp.array([20, 300, 900])
    noisy, target = process.add_noise(x0, noise, timestep), process.target(x0, noise, timestep)
    signal, sigma = (jnp.float32(level)[:, None] for level in process.levels(np.array(timestep)))
    np.testing.assert_allclose(target, combined(process, x0, noise, signal, sigma), atol=1e-6)
    found = process.split(noisy, target, signal, sigma)
    np.testing.assert_allclose(found[0], x0, atol=5e-5)
    np.testing.assert_allclose(found[1], noise, atol=5e-5)


def test_views_of_a_grid_share_its_timestep_in_the_target(process):
    x0, noise = jax.random.normal(jax.random.key(1), (2, 2, 4, 3, 3, 5))
    joint = process.target(x0, noise, jnp.array([[7], [600]]))
    single = process.target(x0, noise, jnp.array([[7] * 4, [600] * 4]))
    np.testing.assert_array_equal(joint, single)


def test_the_loss_is_least_for_the_best_prediction_of_gaussian_data(process):
    """A line through draws of (x, target) is the closed form, so target and ``split`` mean the same prediction."""
    x0 = MEAN + DEVIATION * jax.random.normal(jax.random.key(2), (1, 200_000))
    noise = jax.random.normal(jax.random.key(3), x0.shape)
    for timestep in (200, 700):
        at = jnp.array([timestep])
        x, target = process.add_noise(x0, noise, at)[0], process.target(x0, noise, at)[0]
        slope, offset = np.polyfit(np.asarray(x, np.float64), np.asarray(target, np.float64), 1)
        places = np.array([-1.0, 0.0, 1.0])
        np.testing.assert_allclose(slope * places + offset, best(process, places, timestep), atol=0.02)


@pytest.mark.parametrize("sampler", [DDIM(), DDIM(eta=1.0), DPMSolverPP2M()], ids=["ddim", "ancestral", "dpm"])
@pytest.mark.parametrize("family", ["ddpm", "rectified_flow"])
def test_all_predictions_of_a_process_give_the_same_trajectory(family: str, sampler):
    x = jnp.linspace(-2.0, 2.0, 5)
    with jax.enable_x64(True):
        drawn = [draw(process, x, sampler) for process in PROCESSES.values() if process.name == family]
    assert len(drawn) >= 2
    for other in drawn[1:]:
        # float32 tables of the process and of the coefficients, in float64 arithmetic
        np.testing.assert_allclose(other, drawn[0], atol=1e-6)


def test_sampling_from_noise_reaches_the_gaussian_data(process):
    z = jnp.linspace(-2.0, 2.0, 5)
    np.testing.assert_allclose(draw(process, z, DDIM(), 400), MEAN + DEVIATION * z, atol=0.02)


def test_guidance_is_the_same_extrapolation_of_the_data_in_every_prediction(process):
    x, texts = jnp.linspace(-1.0, 1.0, 4), (0.3, -0.5)
    signal, sigma = (jnp.float32(level) for level in process.levels(np.array(400)))
    unconditional, conditional = (combined(process, m, (x - signal * m) / sigma, signal, sigma) for m in texts)
    found = process.split(x, unconditional + 3.0 * (conditional - unconditional), signal, sigma)[0]
    np.testing.assert_allclose(found, 0.3 + 3.0 * (-0.5 - 0.3), atol=1e-4)


# Weights


def error_in_data(process, timesteps: np.ndarray) -> np.ndarray:
    """The squared error of the prediction that an error of 1 in x_0 is, at given x."""
    signal, sigma = process.levels(timesteps)
    x, (a, b) = 0.3, (0.1, 1.1)
    predictions = [combined(process, m, (x - signal * m) / sigma, signal, sigma) for m in (a, b)]
    return (predictions[1] - predictions[0]) ** 2


def test_the_loss_of_x_under_a_rectified_flow_is_the_loss_of_the_velocity_up_to_the_cap():
    timesteps = np.linspace(1.0, 1000.0, 500)
    weight = RectifiedFlow(prediction="x").weight(jnp.asarray(timesteps), 400.0)
    velocity = error_in_data(RectifiedFlow(), timesteps)
    above = timesteps >= 50  # σ_min² = 1/400
    np.testing.assert_allclose(weight[above], velocity[above], rtol=1e-4)
    np.testing.assert_array_equal(weight[~above], 400.0)
    np.testing.assert_array_equal(RectifiedFlow(prediction="x").weight(jnp.asarray(timesteps), 1.0), 1.0)


def test_all_losses_of_ddpm_weigh_errors_in_the_data_by_the_truncated_ratio_within_a_factor_of_two():
    timesteps = np.arange(20, 900)  # the weights there are below the cap
    signal, sigma = DDPM().levels(timesteps)
    truncated = np.maximum((signal / sigma) ** 2, 1.0)
    for prediction, most in (("epsilon", 1.0), ("x", 1.0), ("v", 2.0)):
        process = DDPM(prediction=prediction)
        ratio = process.weight(jnp.asarray(timesteps), 1e5) * error_in_data(process, timesteps) / truncated
        assert 0.999 < ratio.min() <= ratio.max() < 1.001 * most


def test_every_weight_lies_between_1_and_the_cap(process):
    timesteps = jnp.arange(1, 1000).reshape(333, 3)
    for cap in (1.0, 50.0):
        weight = process.weight(timesteps, cap)
        assert weight.shape == timesteps.shape
        assert 1.0 <= float(weight.min()) <= float(weight.max()) <= cap


def test_the_logit_normal_has_the_mean_and_the_deviation_that_are_set():
    process = RectifiedFlow(shift=1.0, logit_mean=-0.8, logit_scale=0.5)
    level = np.asarray(process.draw_timesteps(jax.random.key(0), (50_000,)), np.float64) / 1000
    normal = np.log(level / (1 - level))
    assert normal.mean() == pytest.approx(-0.8, abs=0.01)
    assert normal.std() == pytest.approx(0.5, abs=0.01)


# In a run


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prediction": "eps"}, r"config\.diffusion\.prediction: found 'eps', expected one of 'epsilon', 'v', 'x'"),
        ({"name": "rectified_flow", "prediction": "v"}, r"found 'v', expected one of 'velocity', 'x'"),
        ({"name": "rectified_flow", "logit_scale": 0.0}, r"config\.diffusion\.logit_scale: found 0\.0, expected more"),
    ],
)
def test_a_setting_that_the_process_does_not_have_is_named(changes, message):
    stored = dataclasses.asdict(load_config("base", size="tiny"))
    with pytest.raises(UserError, match=message):
        from_stored(stored | {"diffusion": changes})


def test_a_config_from_before_predictions_were_a_setting_keeps_its_prediction():
    stored = dataclasses.asdict(load_config("base", size="tiny"))
    stored["diffusion"] = {"name": "ddpm", "num_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02}
    assert from_stored(stored).diffusion == DDPM()


def test_the_dit_learns_to_predict_the_data_of_a_rectified_flow():
    """Continuous timesteps go through its sinusoids; the loss of flat images falls."""
    changes = {"data.batch_grids": 2, "optimizer.warmup_steps": 0, "optimizer.learning_rate": 3e-3}
    config = dataclasses.replace(
        load_config("base", changes, size="tiny"), diffusion=RectifiedFlow(shift=1.0, prediction="x")
    )
    config = dataclasses.replace(config, timestep_weight_cap=400.0)
    run = setup.make_run(config, jax.devices()[:1])
    assert run.step_config.model.process.prediction == "x"
    kind = run.stage.iterations[0]
    flat = np.broadcast_to(np.array([200, 60, 40], np.uint8), (2, 4, 32, 32, 3))
    batch = {"image": flat, "captions": encoded(run.encoder, ["a red cone"] * 8, 2)}
    state, losses = run.initial_state(), []
    for _ in range(30):
        state, metrics = run.steps[kind.name](state, run.put(batch))
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-8:]) < 0.3 * np.mean(losses[:8])
