"""The autoencoder against diffusers' ``AutoencoderKL`` at random weights."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
import torch
from autoencoder_reference import make_reference
from diffusers import AutoencoderKL
from diffusers.models.autoencoders import vae as their_vae
from einops import rearrange

from realiz3d_jax.checkpoints.importers import autoencoder_kl, mapping
from realiz3d_jax.models import vae
from realiz3d_jax.models.vae import VAEConfig

REFERENCE = "diffusers AutoencoderKL"
SMALL = {
    "small": VAEConfig(channels=(32, 64, 64), norm_groups=8),
    "small, like SD3's": VAEConfig(
        channels=(32, 32), blocks=1, latent_channels=16, norm_groups=8, quant_convs=False, scale=1.5305, shift=0.0609
    ),
}
PUBLISHED = {
    "SD": VAEConfig(),
    "SDXL": VAEConfig(scale=0.13025),
    "SD3": VAEConfig(latent_channels=16, quant_convs=False, scale=1.5305, shift=0.0609),
}


def convert(config: VAEConfig, reference: AutoencoderKL):
    state = {name: tensor.numpy() for name, tensor in reference.state_dict().items()}
    like = jax.eval_shape(lambda: vae.init(config, jax.random.key(0)))
    shapes = {name: array.shape for name, array in state.items()}
    rules = autoencoder_kl.rules(config)
    return jax.device_put(mapping.import_params("here", rules, like, shapes, state.__getitem__, np.float32))


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (*shape, 3)).astype(np.float32)


def theirs(array: np.ndarray) -> torch.Tensor:
    """[images, h, w, C] as diffusers has it."""
    return torch.from_numpy(array.transpose(0, 3, 1, 2).copy())


def ours(tensor: torch.Tensor) -> np.ndarray:
    return tensor.permute(0, 2, 3, 1).numpy()


@functools.cache
def compiled(function, config: VAEConfig):
    return jax.jit(functools.partial(function, config))


def encode(config: VAEConfig, params, pixels: np.ndarray) -> np.ndarray:
    return np.asarray(compiled(vae.encode, config)(params, pixels))


def decode(config: VAEConfig, params, latents: np.ndarray) -> np.ndarray:
    return np.asarray(compiled(vae.decode, config)(params, latents))


def their_latents(config: VAEConfig, z: torch.Tensor) -> np.ndarray:
    """What diffusers' pipelines make of a draw."""
    return ours((z - config.shift) * config.scale)


def their_images(config: VAEConfig, reference: AutoencoderKL, latents: np.ndarray) -> np.ndarray:
    """What diffusers' pipelines make of latents."""
    return ours(reference.decode(theirs(latents) / config.scale + config.shift).sample)


@pytest.fixture(scope="module", params=["SD and SDXL", pytest.param("SD3", marks=pytest.mark.slow)])
def published(request):
    """Published autoencoders of one architecture at full width: their names, the reference and our parameters."""
    names = request.param.split(" and ")
    reference = make_reference(PUBLISHED[names[0]])
    return names, reference, convert(PUBLISHED[names[0]], reference)


@pytest.fixture
def drawn_by(monkeypatch):
    """Makes diffusers draw what ``jax.random.normal`` draws from a key."""

    def set_key(key: jax.Array) -> None:
        def draw(shape, **options):
            count, channels, height, width = shape
            return theirs(np.asarray(jax.random.normal(key, (count, height, width, channels))))

        monkeypatch.setattr(their_vae, "randn_tensor", draw)

    return set_key


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("shape", [(64, 64), (32, 96)])
def test_moments_and_images_equal_diffusers(name, shape):
    config = SMALL[name]
    reference = make_reference(config)
    params = convert(config, reference)
    pixels = images(2, *shape)
    z = normal(2, shape[0] // config.factor, shape[1] // config.factor, config.latent_channels)
    expected = ours(reference.encode(theirs(pixels)).latent_dist.parameters)
    parity.check(f"VAE, {name}: moments", REFERENCE, encode(config, params, pixels), expected, 1e-4)
    expected = their_images(config, reference, z)
    parity.check(f"VAE, {name}: images", REFERENCE, decode(config, params, z), expected, 1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_weights_are_written_back_bit_for_bit(name):
    config = SMALL[name]
    reference = make_reference(config)
    expected = {name: tensor.numpy() for name, tensor in reference.state_dict().items()}
    found = dict(mapping.export_params(autoencoder_kl.rules(config), convert(config, reference)))
    assert set(found) == set(expected)
    for key, array in expected.items():
        parity.check(f"VAE, {name}, weights imported and written back", REFERENCE, found[key], array, 0.0)


@pytest.mark.parametrize("side", [64, *(pytest.param(side, marks=pytest.mark.slow) for side in (256, 512))])
def test_the_published_autoencoders_equal_diffusers_at_full_width(published, drawn_by, side):
    """Moments, mode, a draw with the same noise, and images, with the scaling that pipelines apply."""
    names, reference, params = published
    pixels, key = images(1, side, side), jax.random.key(5)
    drawn_by(key)
    moments = encode(PUBLISHED[names[0]], params, pixels)
    there = reference.encode(theirs(pixels)).latent_dist
    parity.check(f"VAE, {' and '.join(names)}, {side} px: moments", REFERENCE, moments, ours(there.parameters), 1e-4)
    for name in names:
        config, what = PUBLISHED[name], f"VAE, {name}, {side} px"
        mode, draw = (vae.latents(config, jnp.asarray(moments), key) for key in (None, key))
        assert parity.relative_error(draw, mode) > 0.1
        parity.check(f"{what}: mode", REFERENCE, mode, their_latents(config, there.mode()), 1e-4)
        parity.check(f"{what}: draw", REFERENCE, draw, their_latents(config, there.sample()), 1e-4)
        z = normal(1, side // 8, side // 8, config.latent_channels)
        found = decode(config, params, z)
        parity.check(f"{what}: images", REFERENCE, found, their_images(config, reference, z), 1e-4)


def test_latents_are_drawn_by_the_closed_form_with_variances_bounded_as_in_diffusers(drawn_by):
    config, key = VAEConfig(scale=0.13025, shift=0.5), jax.random.key(2)
    drawn_by(key)
    mean, log_variance = normal(3, 4, 6, 4), np.linspace(-3.0, 3.0, 288, dtype=np.float32).reshape(3, 4, 6, 4)
    moments = np.concatenate([mean, log_variance], axis=-1)
    noise = np.asarray(jax.random.normal(key, mean.shape), np.float64)
    draw = vae.latents(config, jnp.asarray(moments), key)
    expected = (mean + np.exp(log_variance.astype(np.float64) / 2) * noise - 0.5) * 0.13025
    parity.check("VAE, a draw from moments", "mean + exp(log variance / 2) noise", draw, expected, 1e-6)
    # Of deviations from 1e-20 to 1e20 before the bounds, each number is compared with itself.
    config = dataclasses.replace(config, shift=0.0)
    moments = np.concatenate([np.zeros_like(mean), 30 * log_variance], axis=-1)
    draw = np.asarray(vae.latents(config, jnp.asarray(moments), key))
    expected = ours(their_vae.DiagonalGaussianDistribution(theirs(moments)).sample()) * 0.13025
    what = "VAE, a draw with the variance out of bounds, each relative to itself"
    parity.check(what, "diffusers DiagonalGaussianDistribution", draw / expected, np.ones_like(draw), 1e-5)


def test_views_are_encoded_each_on_its_own_and_a_folded_grid_as_one_image():
    config = SMALL["small"]
    reference = make_reference(config)
    params = convert(config, reference)
    fold = lambda views: rearrange(views, "b (r c) h w k -> b (r h) (c w) k", r=2)  # noqa: E731
    pixels, z = images(2, 4, 32, 32), normal(2, 4, 8, 8, 4)
    each = encode(config, params, pixels)
    expected = ours(reference.encode(theirs(pixels.reshape(8, 32, 32, 3))).latent_dist.parameters)
    parity.check("VAE, small, four views: moments", REFERENCE, each, expected.reshape(each.shape), 1e-4)
    whole = encode(config, params, fold(pixels))
    expected = ours(reference.encode(theirs(fold(pixels))).latent_dist.parameters)
    parity.check("VAE, small, a folded grid: moments", REFERENCE, whole, expected, 1e-4)
    assert parity.relative_error(whole, fold(each)) > 1e-2  # else a lone view would pass for one of a grid
    each = decode(config, params, z)
    expected = their_images(config, reference, z.reshape(8, 8, 8, 4)).reshape(each.shape)
    parity.check("VAE, small, four views: images", REFERENCE, each, expected, 1e-4)
    expected = their_images(config, reference, fold(z))
    parity.check("VAE, small, a folded grid: images", REFERENCE, decode(config, params, fold(z)), expected, 1e-4)


@pytest.mark.parametrize("published", ["SD and SDXL"], indirect=True)
def test_in_bfloat16_sdxl_agrees_to_its_precision_and_is_finite_where_float16_overflows(published):
    """SDXL's weights lead to activations over 65504, float16's largest number; here the first convolutions do."""
    (_, name), reference, params = published
    config = PUBLISHED[name]
    pixels, z = images(1, 64, 64), normal(1, 8, 8, 4)
    expected = {"moments": ours(reference.encode(theirs(pixels)).latent_dist.parameters)}
    expected["images"] = their_images(config, reference, z)

    def large(part: str) -> dict:
        enter = params[part]["enter"]
        return params | {part: params[part] | {"enter": enter | {"kernel": enter["kernel"] * 2.0**20}}}

    for part, run, array, what in (("encoder", encode, pixels, "moments"), ("decoder", decode, z, "images")):
        bfloat16, float16 = (dataclasses.replace(config, dtype=dtype) for dtype in ("bfloat16", "float16"))
        found = run(bfloat16, params, array)
        assert found.dtype == np.float32
        parity.check(f"VAE, {name}, 64 px, in bfloat16: {what}", REFERENCE, found, expected[what], 3e-2)
        exact, found = run(config, large(part), array), run(bfloat16, large(part), array)
        assert np.isfinite(found).all()
        assert not np.isfinite(run(float16, large(part), array)).all()
        what = f"VAE, {name}, 64 px, in bfloat16, activations of a million: {what}"
        parity.check(what, "ours in float32", found, exact, 3e-2)


def test_tiled_decoding_equals_diffusers():
    config = SMALL["small"]
    reference = make_reference(config)
    params = convert(config, reference)
    z = normal(1, 40, 28, 4)
    reference.tile_latent_min_size = 16
    reference.tile_sample_min_size = 64
    expected = ours(reference.tiled_decode(theirs(z / np.float32(config.scale))).sample)
    found = jax.jit(functools.partial(vae.decode_tiled, config, tile=16))(params, z)
    parity.check("VAE, small, decoded in tiles: images", REFERENCE, found, expected, 1e-4)
