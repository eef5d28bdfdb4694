"""Controls are tokens that start at zero; the codec puts images on [-1, 1] and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import encoded, load_config, random_params

from realiz3d_jax.method import interface
from realiz3d_jax.method.model import Model
from realiz3d_jax.models import control, dit
from realiz3d_jax.models.codec import PixelCodec
from realiz3d_jax.models.text import WordEncoder
from realiz3d_jax.views import AZIMUTHS

CONFIG = dit.DiTConfig(
    width=16,
    depth=1,
    heads=2,
    patch_size=2,
    in_channels=3,
    out_channels=6,
    caption_channels=8,
    sample_size=4,
    base_size=2,
)


def _maps():
    return np.random.default_rng(0).standard_normal((2, 4, 4, 4, 6)).astype(np.float32)


def _params(task):
    params = control.init(task, CONFIG, jax.random.key(0))
    assert all((leaf == 0).all() and leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    return jax.tree.map(lambda leaf: np.random.default_rng(1).standard_normal(leaf.shape).astype(np.float32), params)


@pytest.mark.parametrize(("task", "shape"), [("texture", (2, 4, 4, 16)), ("text_to_multiview", (1, 4, 1, 16))])
def test_fresh_tokens_are_zero_and_learn_from_the_first_step(task, shape):
    params = control.init(task, CONFIG, jax.random.key(0))
    tokens = control.apply(task, CONFIG, params, _maps())
    assert (tokens.shape, tokens.dtype) == (shape, jnp.float32)
    assert (tokens == 0).all()
    gradient = jax.grad(lambda params: control.apply(task, CONFIG, params, _maps()).sum())(params)
    assert np.abs(gradient["kernel"]).max() > 0


def test_texture_tokens_are_the_convolution_of_the_concatenated_channels():
    params, maps = _params("texture"), _maps()
    kernel = params["kernel"].reshape(6, 2, 2, 16)
    expected = jax.lax.conv_general_dilated(
        maps.reshape(8, 4, 4, 6), kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "IHWO", "NHWC")
    )
    tokens = control.apply("texture", CONFIG, params, maps)
    np.testing.assert_allclose(tokens, expected.reshape(2, 4, 4, 16), rtol=1e-5, atol=1e-5)


def test_viewpoints_in_latents_are_one_colour_a_view_and_go_through_the_patch_embedding():
    """What the paper adds to the latents is added to the tokens through the patch embedding, which is linear."""
    base = load_config("base")
    method = interface.load("realiz3d", {})
    model = Model(base.model, method, "text_to_multiview", base.diffusion, base.codec, "latents")
    params = model.init(("shifters", "control"), jax.random.key(0)) | random_params(base)
    assert params["control"]["kernel"].shape == (6, 3)
    random = np.random.default_rng(0)
    noise, timestep = random.normal(size=(1, 4, 32, 32, 3)).astype(np.float32), np.array([[500]])
    captions = encoded(WordEncoder(64, 20), ["a red cone"], 1)
    domain, control_given = jnp.zeros(base.model.depth, jnp.int32), np.zeros((1, 0), np.float32)
    predict = jax.jit(model.predict)
    null = predict(params, noise, timestep, captions, domain=domain)
    fresh = predict(params, noise, timestep, captions, domain=domain, control=control_given)
    np.testing.assert_array_equal(fresh, null)
    params["control"]["kernel"] = kernel = random.normal(size=(6, 3)).astype(np.float32)
    added = (control.azimuth_code(AZIMUTHS) @ kernel)[None, :, None, None, :]
    found = predict(params, noise, timestep, captions, domain=domain, control=control_given)
    expected = predict(params, noise + added, timestep, captions, domain=domain)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert np.std(found - null) > 1e-3


def test_a_null_control_adds_nothing_even_when_trained():
    assert (control.apply("texture", CONFIG, _params("texture"), np.zeros_like(_maps())) == 0).all()


def test_a_token_sees_its_own_patch_only():
    params, maps = _params("texture"), _maps()
    changed = maps.copy()
    changed[1, 2, 2:, :2] += 1.0  # third view, second row and first column of tokens
    tokens = [np.asarray(control.apply("texture", CONFIG, params, array)) for array in (maps, changed)]
    moved = (tokens[0] != tokens[1]).any(axis=-1)
    assert np.argwhere(moved).tolist() == [[1, 2, 2]]


def test_the_four_viewpoints_are_those_of_the_cameras_and_can_be_given_any_four_vectors():
    code = control.azimuth_code(AZIMUTHS)
    angles = np.deg2rad(np.outer(AZIMUTHS, [1, 2, 4]))
    np.testing.assert_allclose(code, np.concatenate([np.sin(angles), np.cos(angles)], axis=1), atol=1e-6)
    assert code.shape == (4, 6)
    assert set(np.unique(code)) == {-1.0, 0.0, 1.0}
    assert np.linalg.matrix_rank(code) == 4


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_pixels_survive_the_codec(array):
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=-1)
    latents = PixelCodec().latents(PixelCodec().encode(None, array(images)))
    assert isinstance(latents, type(array(images)))
    assert (latents.dtype, float(latents.min()), float(latents.max())) == (jnp.float32, -1.0, 1.0)
    decoded = PixelCodec().decode(None, latents)
    assert decoded.dtype == jnp.uint8
    np.testing.assert_array_equal(decoded, images)
    assert PixelCodec().decode(None, array(np.array([-1.5, 3.0], np.float32))).tolist() == [0, 255]
