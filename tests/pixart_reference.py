"""The reference transformer of diffusers, at random weights, and ours as it is called beside it."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
from diffusers import PixArtTransformer2DModel

from realiz3d_jax.checkpoints.importers import mapping, pixart
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
    for parameter in model.requires_grad_(False).parameters():
        spread = 0.2 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return model


def run_ours(config: DiTConfig, params: dict, latents, timestep, text, text_mask) -> jax.Array:
    """Our output, float32[images, V, h, w, out_channels]: one caption and timestep an image of V views.

    Args: latents [images, V, h, w, C], timestep [images], text [images, T, Ct], text_mask [images, T].
    """
    timestep, text, text_mask = (jnp.asarray(array)[:, None] for array in (timestep, text, text_mask))
    return dit.apply(config, params, latents, timestep, {"states": text, "mask": text_mask})


def run_reference(
    model: PixArtTransformer2DModel, latents, timestep, text, text_mask, cotangent
) -> tuple[np.ndarray, np.ndarray]:
    """Output and gradient of sum(output * cotangent) by the latents, both [images, h, w, channels].

    Args: NumPy arrays: latents [images, h, w, C], timestep [images], text [images, T, Ct], text_mask [images, T],
        cotangent as the output.
    """
    inputs = torch.tensor(latents.transpose(0, 3, 1, 2).copy(), requires_grad=True)
    output = _forward(model, inputs, timestep, text, text_mask)
    (output * torch.tensor(cotangent.transpose(0, 3, 1, 2).copy())).sum().backward()
    return output.detach().numpy().transpose(0, 2, 3, 1), inputs.grad.numpy().transpose(0, 2, 3, 1)


def predict_reference(model: PixArtTransformer2DModel, latents, timestep, text, text_mask) -> np.ndarray:
    """The output alone."""
    with torch.no_grad():
        output = _forward(model, torch.tensor(latents.transpose(0, 3, 1, 2).copy()), timestep, text, text_mask)
    return output.numpy().transpose(0, 2, 3, 1)


def _forward(model, latents: torch.Tensor, timestep, text, text_mask) -> torch.Tensor:
    """Of latents [images, C, h, w]."""
    images, _, height, width = latents.shape
    size = {"resolution": None, "aspect_ratio": None}
    if model.use_additional_conditions:
        pixels = torch.tensor([[8.0 * height, 8.0 * width]]).repeat(images, 1)
        size = {"resolution": pixels, "aspect_ratio": pixels[:, :1] / pixels[:, 1:]}
    return model(
        latents,
        encoder_hidden_states=torch.tensor(text),
        timestep=torch.tensor(timestep),
        encoder_attention_mask=torch.tensor(text_mask.astype(np.float32)),
        added_cond_kwargs=size,
    ).sample
