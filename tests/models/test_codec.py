"""The autoencoder's codec: what it stores, draws and decodes; views by themselves or as one picture; tiles for large ones."""

import functools

import einops
import jax
import numpy as np
import pytest
from worlds import random_like

from realiz3d_jax.models import vae
from realiz3d_jax.models.codec import AutoencoderCodec
from realiz3d_jax.models.vae import VAEConfig

VAE = VAEConfig(channels=(8, 16), norm_groups=4, scale=0.5, shift=0.25)
CODEC = AutoencoderCodec(VAE)


@pytest.fixture(scope="module")
def params():
    return random_like(jax.eval_shape(lambda: CODEC.init(jax.random.key(0))))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 4, 16, 16, 3), np.uint8)


def jitted(codec: AutoencoderCodec, name: str):
    return jax.jit(functools.partial(getattr(codec, name)))


def test_views_are_encoded_by_themselves_and_decoded_to_the_images_that_an_autoencoder_gives(params, images):
    stored = jitted(CODEC, "encode")(params, images)
    assert stored.shape == (2, 4, 8, 8, 2 * CODEC.channels)
    expected = vae.encode(VAE, params, images / np.float32(127.5) - 1)
    np.testing.assert_allclose(stored, expected, rtol=1e-4, atol=1e-5)
    latents = CODEC.latents(stored)
    np.testing.assert_allclose(latents, (stored[..., :4] - 0.25) * 0.5, rtol=1e-6)
    decoded = jitted(CODEC, "decode")(params, latents)
    assert (decoded.shape, decoded.dtype) == (images.shape, np.uint8)
    unrounded = (np.asarray(vae.decode(VAE, params, latents)) + 1) * 127.5
    assert np.abs(decoded - unrounded.clip(0, 255)).max() < 0.51


def test_another_key_draws_another_latent_around_the_most_likely_one(params, images):
    stored = np.repeat(jitted(CODEC, "encode")(params, images[:1]), 2000, axis=0)
    drawn = np.asarray(CODEC.latents(stored, jax.random.key(0)))
    mean, log_variance = np.split(stored[0], 2, axis=-1)
    deviation = 0.5 * np.exp(log_variance / 2)
    assert np.abs((drawn.mean(axis=0) - (mean - 0.25) * 0.5) / deviation).max() < 5 / np.sqrt(2000)
    np.testing.assert_allclose(drawn.std(axis=0), deviation, rtol=0.1)


def test_a_control_is_the_most_likely_latents_of_its_two_pictures(params):
    maps = np.random.default_rng(1).uniform(0, 1, (2, 4, 16, 16, 6)).astype(np.float32)
    control = CODEC.control(jitted(CODEC, "encode_control")(params, maps))
    assert control.shape == (2, 4, 8, 8, CODEC.control_channels)
    for place, picture in enumerate(np.split(maps, 2, axis=-1)):
        expected = vae.latents(VAE, vae.encode(VAE, params, picture * 2 - 1))
        np.testing.assert_allclose(np.split(control, 2, axis=-1)[place], expected, rtol=1e-4, atol=1e-5)


def test_a_whole_grid_is_encoded_and_decoded_as_one_picture(params, images):
    codec = AutoencoderCodec(VAE, whole_grid=True)
    fold = functools.partial(einops.rearrange, pattern="n (a b) h w c -> n (a h) (b w) c", a=2)
    stored = jitted(codec, "encode")(params, images)
    expected = vae.encode(VAE, params, fold(images) / np.float32(127.5) - 1)
    np.testing.assert_allclose(fold(stored), expected, rtol=1e-4, atol=1e-5)
    assert np.abs(stored - jitted(CODEC, "encode")(params, images)).max() > 1e-2, "views see one another"
    latents = codec.latents(stored)
    decoded = jitted(codec, "decode")(params, latents)
    expected = (np.asarray(vae.decode(VAE, params, fold(latents))) + 1) * 127.5
    assert np.abs(fold(decoded) - expected.clip(0, 255)).max() < 0.51


def test_large_views_are_decoded_in_tiles_with_less_memory(params):
    """Tiles follow one another, so that what the compiled program needs beside its result is what a few of them need."""
    latents = np.random.default_rng(2).normal(size=(1, 4, 24, 24, 4)).astype(np.float32)
    whole, tiled = AutoencoderCodec(VAE, tile=24), AutoencoderCodec(VAE, tile=12)
    found = jitted(tiled, "decode")(params, latents)
    expected = vae.decode_tiled(VAE, params, latents[:, 1], 12)
    assert np.abs(np.asarray(found[:, 1], np.float32) - ((np.asarray(expected) + 1) * 127.5).clip(0, 255)).max() < 0.51
    memory = [jitted(codec, "decode").lower(params, latents).compile().memory_analysis() for codec in (whole, tiled)]
    assert memory[1].temp_size_in_bytes < 0.5 * memory[0].temp_size_in_bytes
