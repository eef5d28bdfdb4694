"""The reference autoencoder of diffusers, at random weights."""

import torch
from diffusers import AutoencoderKL

from realiz3d_jax.models.vae import VAEConfig

SMALL = VAEConfig(channels=(8, 16), norm_groups=4)


def make_reference(config: VAEConfig) -> AutoencoderKL:
    """The reference at the size of ``config``, every parameter random and far from zero."""
    count = len(config.channels)
    model = AutoencoderKL(
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
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.requires_grad_(False).named_parameters():
        middle = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        spread = 0.2 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
        parameter.copy_(middle + torch.randn(parameter.shape, generator=generator) * spread)
    return model
