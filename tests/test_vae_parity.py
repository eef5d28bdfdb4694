"""The autoencoder against diffusers' ``AutoencoderKL`` at random weights."""

import jax
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from realiz3d_jax.importers import autoencoder_kl, mapping
from realiz3d_jax.models import vae
from realiz3d_jax.models.vae import VAEConfig

CONFIGS = {
    "sd": VAEConfig(channels=(32, 64, 64), norm_groups=8),
    "sd3": VAEConfig(
        channels=(32, 32), blocks=1, latent_channels=16, norm_groups=8, quant_convs=False, scale=1.5305, shift=0.0609
    ),
}


def make_reference(config: VAEConfig) -> AutoencoderKL:
    torch.manual_seed(0)
    count = len(config.channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * count,
        up_block_types=("UpDecoderBlock2D",) * count,
        block_out_channels=config.channels,
        layers_per_block=config.blocks,
        latent_channels=config.latent_channels,
        norm_num_groups=config.norm_groups,
        scaling_factor=config.scale,
        shift_factor=config.shift or None,
        use_quant_conv=config.quant_convs,
        use_post_quant_conv=config.quant_convs,
        sample_size=64,
    ).eval()


def convert(config: VAEConfig, reference: AutoencoderKL):
    state = {name: tensor.numpy() for name, tensor in reference.state_dict().items()}
    like = jax.eval_shape(lambda: vae.init(config, jax.random.key(0)))
    shapes = {name: array.shape for name, array in state.items()}
    rules = autoencoder_kl.rules(config)
    params = mapping.import_params("here", rules, like, shapes, state.__getitem__, np.float32)
    back = dict(mapping.export_params(rules, params))
    assert set(back) == set(state)
    for name in state:
        np.testing.assert_array_equal(back[name], state[name])
    return params


def relative(found, expected) -> float:
    return float(np.abs(np.asarray(found) - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("shape", [(64, 64), (32, 96)])
def test_moments_latents_and_images_equal_diffusers(name, shape):
    config = CONFIGS[name]
    reference = make_reference(config)
    params = convert(config, reference)
    random = np.random.default_rng(0)
    images = random.uniform(-1, 1, (2, *shape, 3)).astype(np.float32)
    z = random.normal(size=(2, shape[0] // config.factor, shape[1] // config.factor, config.latent_channels)).astype(
        np.float32
    )
    with torch.no_grad():
        there = reference.encode(torch.from_numpy(images).permute(0, 3, 1, 2)).latent_dist
        moments = there.parameters.permute(0, 2, 3, 1).numpy()
        unscaled = torch.from_numpy((z / config.scale + config.shift).astype(np.float32)).permute(0, 3, 1, 2)
        decoded = reference.decode(unscaled).sample.permute(0, 2, 3, 1).numpy()
    assert relative(jax.jit(lambda p, x: vae.encode(config, p, x))(params, images), moments) < 1e-4
    assert relative(jax.jit(lambda p, x: vae.decode(config, p, x))(params, z), decoded) < 1e-4


def test_tiled_decoding_equals_diffusers():
    config = CONFIGS["sd"]
    reference = make_reference(config)
    params = convert(config, reference)
    z = np.random.default_rng(0).normal(size=(1, 40, 28, 4)).astype(np.float32)
    reference.tile_latent_min_size = 16
    reference.tile_sample_min_size = 64
    with torch.no_grad():
        expected = reference.tiled_decode(torch.from_numpy(z / np.float32(config.scale)).permute(0, 3, 1, 2)).sample
    assert relative(vae.decode_tiled(config, params, z, tile=16), expected.permute(0, 2, 3, 1).numpy()) < 1e-4
