"""From noise to images: what ``Model.sample`` and ``Generator`` draw is DDIM with guidance, done by hand call by call."""

import functools

import by_hand
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import encoded, load_config, random_params

from realiz3d_jax import sharding
from realiz3d_jax.checkpoints.encoders import Encoders
from realiz3d_jax.config.schema import SamplingConfig
from realiz3d_jax.diffusion.samplers import DDIM, DPMSolverPP2M
from realiz3d_jax.method.domains import Domain
from realiz3d_jax.sampling.generator import Generator
from realiz3d_jax.sharding import DeviceConfig
from realiz3d_jax.training import setup

CONFIG = load_config("stage2")
MODEL, ENCODER = setup.make_model(CONFIG), Encoders(CONFIG).open_text()
EMPTY = jax.tree.map(lambda array: array[0], ENCODER.encode([""]))
SEEDS, VIEWS = [5, 9], (4, 32, 32, 3)
TIMESTEPS, ETA = np.array([800, 450, 100]), 0.7
PLAN = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1]], np.int32)

predict = jax.jit(MODEL.predict)


@pytest.fixture(scope="module")
def params():
    return random_params(CONFIG)


@functools.cache
def control() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 1, (len(SEEDS), 4, 32, 32, 6)).astype(np.float32)


def captions(*texts: str) -> dict[str, np.ndarray]:
    return encoded(ENCODER, list(texts), len(SEEDS))


@jax.jit
def sample(params, noise, captions, empty_caption, plan, control, scale):
    keys = jnp.stack([jax.random.fold_in(jax.random.key(seed), 1) for seed in SEEDS])
    return MODEL.sample(
        params, DDIM(ETA), TIMESTEPS, noise, captions, empty_caption, plan, control, jnp.float32(scale), keys
    )


def error(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(np.asarray(one) - np.asarray(other)).max())


@pytest.mark.parametrize("texts", [("a red cone", "a blue cube"), ("a red cone", "a cube", "", "a torus") * 2])
def test_sampling_is_ddim_by_hand_with_the_empty_text_and_the_caption_called_one_by_one(params, texts):
    """Under a plan of its own in each step, with fresh noise, in joint (one caption a grid) and in single-image mode."""
    noise, text = by_hand.initial_noise(SEEDS, VIEWS), captions(*texts)
    given = control() if len(texts) == len(SEEDS) else None
    inputs = (params, noise, text, EMPTY, PLAN, given)
    expected = by_hand.sample(predict, *inputs, timesteps=TIMESTEPS, guidance_scale=2.5, eta=ETA, seeds=SEEDS)
    assert error(sample(*inputs, 2.5), expected) < 2e-4
    assert np.mean(np.abs(expected) == 1.0) > 0.02, "x_0 is clipped to what a pixel can be"


def test_guidance_of_0_does_not_read_the_caption_and_guidance_of_1_not_the_empty_text(params):
    noise = by_hand.initial_noise(SEEDS, VIEWS)
    one, other, third = (captions(text, text) for text in ("a red cone", "a blue cube", "a small torus"))
    empties = [jax.tree.map(lambda array: array[0, 0], text) for text in (one, third)]
    draw = lambda text, empty, scale: sample(params, noise, text, empty, PLAN, control(), scale)  # noqa: E731
    np.testing.assert_array_equal(draw(one, empties[1], 0.0), draw(other, empties[1], 0.0))
    assert error(draw(one, empties[0], 0.0), draw(one, empties[1], 0.0)) > 0.05
    assert error(draw(other, empties[0], 1.0), draw(other, empties[1], 1.0)) < 2e-4
    assert error(draw(one, empties[0], 1.0), draw(other, empties[0], 1.0)) > 0.05


def test_both_branches_see_the_control(params):
    """At a guidance of 0 only the empty text counts, at 1 only the caption: the control changes both."""
    noise, text = by_hand.initial_noise(SEEDS, VIEWS), captions("a red cone", "a blue cube")
    for scale in (0.0, 1.0):
        with_control, without = (
            sample(params, noise, text, EMPTY, PLAN, given, scale) for given in (control(), 0 * control())
        )
        assert error(with_control, without) > 0.05, scale


@pytest.mark.parametrize(
    ("texts", "domain"),
    [([["a red cone"], ["a blue cube"]], Domain.REAL), ([["a cone", "a cube", "", "a torus"]] * 2, Domain.SYNTHETIC)],
)
def test_a_request_is_drawn_with_its_seeds_captions_control_domain_and_all_settings(params, texts, domain):
    """Levels of 255, rounded: a sample that lies between two of them may come out as either."""
    given = control() if len(texts[0]) == 1 else None
    settings = SamplingConfig(spacing="linspace", steps=3, guidance_scale=2.0, eta=ETA, block_max=0.4, timestep_max=600)
    here = jax.device_put(params, sharding.replicated(sharding.make_device_mesh(DeviceConfig(1), jax.devices()[:1])))
    generator = Generator(MODEL, ENCODER, settings)
    images = generator(here, texts, SEEDS, domain, given)
    shifted = Domain.SYNTHETIC
    expected = by_hand.sample(
        predict,
        params,
        by_hand.initial_noise(SEEDS, VIEWS),
        captions(*texts[0], *texts[1]),
        EMPTY,
        np.array([[shifted] * 3, [shifted, domain, domain], [shifted, domain, domain]], np.int32),
        given,
        timesteps=np.array([999, 500, 0]),
        guidance_scale=2.0,
        eta=ETA,
        seeds=SEEDS,
    )
    difference = np.abs(images - np.clip((expected + 1.0) * 127.5, 0, 255))
    assert images.dtype == np.uint8
    assert difference.max() < 1.0
    assert difference.mean() < 0.26, "rounding alone"


def test_a_sampler_is_made_as_the_settings_say():
    assert SamplingConfig(eta=0.3).make_sampler() == DDIM(0.3)
    assert SamplingConfig(sampler="dpm++").make_sampler() == DPMSolverPP2M()
