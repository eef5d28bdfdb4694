"""The reference transformer of diffusers, at random weights."""

import jax
import numpy as np
import torch
from diffusers import PixArtTransformer2DModel

from realiz3d_jax.importers import mapping, pixart
from realiz3d_jax.models import dit
from realiz3d_jax.models.dit import DiTConfig


def convert(config: DiTConfig, state: dict[str, np.ndarray]) -> dict:
    """Our parameters from the reference's ``state`` of NumPy arrays."""
    like = jax.eval_shape(lambda: dit.init(config, jax.random.key(0)))
    shapes = {name: array.shape for name, array in state.items()}
    table = pixart.rules(config, shapes)
    return mapping.import_params("the reference", table, like, shapes, state.__getitem__, np.float32)


def make_reference(config: DiTConfig, seed: int) -> PixArtTransformer2DModel:
    """The reference at the size of ``config``, every parameter random and far from zero."""
    model = PixArtTransformer2DModel(
        num_attention_heads=config.heads,
        attention_head_dim=config.width // config.heads,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        num_layers=config.depth,
        cross_attention_dim=config.width,
        sample_size=config.base_size * config.patch_size,
        patch_size=config.patch_size,
        caption_channels=config.caption_channels,
        interpolation_scale=config.position_scale,
        use_additional_conditions=config.size_conditions > 0,
    ).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.2 if parameter.ndim == 1 else (parameter[0].numel() if parameter.ndim > 1 else 1) ** -0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return model


def run_reference(
    model: PixArtTransformer2DModel, latents, timestep, text, text_mask, cotangent
) -> tuple[np.ndarray, np.ndarray]:
    """Output and gradient of sum(output * cotangent) by the latents, both [images, h, w, channels].

    Args: NumPy arrays: latents [images, h, w, C], timestep [images], text [images, T, Ct], text_mask [images, T],
        cotangent as the output.
    """
    inputs = torch.tensor(latents.transpose(0, 3, 1, 2).copy(), requires_grad=True)
    height, width = latents.shape[1:3]
    size = {"resolution": None, "aspect_ratio": None}
    if model.use_additional_conditions:
        pixels = torch.tensor([[8.0 * height, 8.0 * width]]).repeat(len(latents), 1)
        size = {"resolution": pixels, "aspect_ratio": pixels[:, :1] / pixels[:, 1:]}
    output = model(
        inputs,
        encoder_hidden_states=torch.tensor(text),
        timestep=torch.tensor(timestep),
        encoder_attention_mask=torch.tensor(text_mask.astype(np.float32)),
        added_cond_kwargs=size,
    ).sample
    (output * torch.tensor(cotangent.transpose(0, 3, 1, 2).copy())).sum().backward()
    return output.detach().numpy().transpose(0, 2, 3, 1), inputs.grad.numpy().transpose(0, 2, 3, 1)
