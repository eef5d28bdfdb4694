"""The reference transformer of Stable Diffusion 3 in diffusers, at random weights."""

import torch
from diffusers import SD3Transformer2DModel

from realiz3d_jax.models.mmdit import MMDiTConfig

SMALL = MMDiTConfig(
    width=48,
    depth=3,
    heads=4,
    in_channels=4,
    caption_channels=20,
    pooled_channels=12,
    sample_size=16,
    base_size=8,
    max_size=24,
)


def make_reference(config: MMDiTConfig) -> SD3Transformer2DModel:
    """The reference at the size of ``config``, every parameter random and far from zero."""
    model = SD3Transformer2DModel(
        sample_size=config.sample_size,
        patch_size=config.patch_size,
        in_channels=config.in_channels,
        num_layers=config.depth,
        attention_head_dim=config.width // config.heads,
        num_attention_heads=config.heads,
        joint_attention_dim=config.caption_channels,
        caption_projection_dim=config.width,
        pooled_projection_dim=config.pooled_channels,
        out_channels=config.in_channels,
        pos_embed_max_size=config.max_size,
    ).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.requires_grad_(False).parameters():
        spread = 0.2 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return model
