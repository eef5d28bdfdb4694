"""The reference transformer of diffusers, at random weights, and ours as it is called beside it."""

import jax
import jax.numpy as jnp
import numpy as np
import torch
from diffusers import PixArtTransformer2DModel

from realiz3d_jax.checkpoints.importers import mapping, pixart
from realiz3d_jax.models import dit
from realiz3d_jax.models.dit import DiTConfig

SMALL = DiTConfig(
    width=24,
    depth=3,
    heads=2,
    patch_size=2,
    in_channels=4,
    out_channels=8,
    caption_channels=20,
    sample_size=16,
    base_size=8,
    position_scale=0.5,
)
ORIGINAL = {
    "adaln_single.emb.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "adaln_single.emb.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "adaln_single.linear": "t_block.1",
    "caption_projection.linear_1": "y_embedder.y_proj.fc1",
    "caption_projection.linear_2": "y_embedder.y_proj.fc2",
    "pos_embed.proj": "x_embedder.proj",
    "transformer_blocks": "blocks",
    "attn1.to_out.0": "attn.proj",
    "attn2.to_out.0": "cross_attn.proj",
    "attn2.to_q": "cross_attn.q_linear",
    "ff.net.0.proj": "mlp.fc1",
    "ff.net.2": "mlp.fc2",
    "proj_out": "final_layer.linear",
}
"""The names that the original has for what diffusers names otherwise."""


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


def original_names(reference: PixArtTransformer2DModel) -> dict[str, torch.Tensor]:
    """The state under the names of PixArt's own code, where projections are fused."""
    state, made = dict(reference.state_dict()), {}
    for layer in range(SMALL.depth):
        block = f"transformer_blocks.{layer}"
        for kind in ("weight", "bias"):
            for ours, parts in (("attn1.qkv", ("q", "k", "v")), ("attn2.kv", ("k", "v"))):
                fused = [state.pop(f"{block}.{ours[:5]}.to_{part}.{kind}") for part in parts]
                name = "attn.qkv" if len(parts) == 3 else "cross_attn.kv_linear"
                made[f"blocks.{layer}.{name}.{kind}"] = torch.cat(fused)
    for name, tensor in state.items():
        for theirs, original in ORIGINAL.items():
            name = name.replace(theirs, original)
        made["final_layer.scale_shift_table" if name == "scale_shift_table" else name] = tensor
    made["pos_embed"] = torch.zeros(1, 4, 24)
    made["y_embedder.y_embedding"] = torch.zeros(120, 20)
    return made
