"""The reference transformer of diffusers, at small size, and the table that maps its weights to ours."""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from diffusers import PixArtTransformer2DModel

from realiz3d_jax.models.dit import DiTConfig


@dataclasses.dataclass(frozen=True)
class Rule:
    """One of our arrays, and how it is made.

    Attributes:
        ours: path in the parameters, "/" between keys.
        theirs: names of the reference's tensors; "{layer}" stands for every block, stacked on a leading axis.
        convert: (config, *tensors of one block) -> array of one block.
    """

    ours: str
    theirs: tuple[str, ...]
    convert: Callable[..., np.ndarray]


def _same(config, tensor):
    return tensor


def _transposed(config, tensor):
    """A linear layer: [out, in] -> [in, out]."""
    return tensor.T


def _patches(config, tensor):
    """The patch convolution [D, c, p, q] as a matrix [(c p q), D]."""
    return tensor.reshape(tensor.shape[0], -1).T


def _six(config, tensor):
    """adaLN's matrix [6 D, D] -> [D, 6, D], or bias [6 D] -> [6, D]."""
    return tensor.reshape(6, config.width, *tensor.shape[1:]).transpose(*((2, 0, 1) if tensor.ndim == 2 else (0, 1)))


def _heads(config, *tensors):
    """Projections to heads, fused: n of [K h, D] -> [D, n, K, h]; n of [K h] -> [n, K, h]; n = 1 loses its axis."""
    split = [tensor.T.reshape(*tensor.T.shape[:-1], config.heads, -1) for tensor in tensors]
    return split[0] if len(split) == 1 else np.stack(split, axis=-3)


def _from_heads(config, tensor):
    """The projection of an attention's output: [D, K h] -> [K, h, D]."""
    return tensor.T.reshape(config.heads, -1, config.width)


def _linear(ours: str, theirs: str, kernel: Callable = _transposed, bias: Callable = _same) -> tuple[Rule, Rule]:
    return Rule(f"{ours}/kernel", (f"{theirs}.weight",), kernel), Rule(f"{ours}/bias", (f"{theirs}.bias",), bias)


def _projection(ours: str, block_part: str, names: tuple[str, ...]) -> tuple[Rule, Rule]:
    theirs = [f"transformer_blocks.{{layer}}.{block_part}.{name}" for name in names]
    return (
        Rule(f"blocks/{ours}/kernel", tuple(f"{name}.weight" for name in theirs), _heads),
        Rule(f"blocks/{ours}/bias", tuple(f"{name}.bias" for name in theirs), _heads),
    )


_BLOCK = "transformer_blocks.{layer}"

RULES = (
    *_linear("patch_embedding", "pos_embed.proj", _patches),
    *_linear("timestep_embedding/first", "adaln_single.emb.timestep_embedder.linear_1"),
    *_linear("timestep_embedding/second", "adaln_single.emb.timestep_embedder.linear_2"),
    *_linear("modulation", "adaln_single.linear", _six, _six),
    *_linear("caption_projection/first", "caption_projection.linear_1"),
    *_linear("caption_projection/second", "caption_projection.linear_2"),
    Rule("blocks/table", (f"{_BLOCK}.scale_shift_table",), _same),
    *_projection("self_attention/query_key_value", "attn1", ("to_q", "to_k", "to_v")),
    *_linear("blocks/self_attention/out", f"{_BLOCK}.attn1.to_out.0", _from_heads),
    *_projection("cross_attention/query", "attn2", ("to_q",)),
    *_projection("cross_attention/key_value", "attn2", ("to_k", "to_v")),
    *_linear("blocks/cross_attention/out", f"{_BLOCK}.attn2.to_out.0", _from_heads),
    *_linear("blocks/mlp/first", f"{_BLOCK}.ff.net.0.proj"),
    *_linear("blocks/mlp/second", f"{_BLOCK}.ff.net.2"),
    Rule("final/table", ("scale_shift_table",), _same),
    *_linear("final/linear", "proj_out"),
)


def tensor_names(rule: Rule, layer: int) -> list[str]:
    return [name.format(layer=layer) for name in rule.theirs]


def convert(config: DiTConfig, state: dict[str, np.ndarray]) -> dict:
    """Our parameters from the reference's ``state`` of NumPy arrays."""
    params: dict = {}
    for rule in RULES:
        layers = range(config.depth) if "{layer}" in rule.theirs[0] else [None]
        made = [rule.convert(config, *(state[name] for name in tensor_names(rule, layer))) for layer in layers]
        *path, last = rule.ours.split("/")
        node = params
        for key in path:
            node = node.setdefault(key, {})
        node[last] = np.ascontiguousarray(made[0] if layers == [None] else np.stack(made))
    return params


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
        use_additional_conditions=False,
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
    output = model(
        inputs,
        encoder_hidden_states=torch.tensor(text),
        timestep=torch.tensor(timestep),
        encoder_attention_mask=torch.tensor(text_mask.astype(np.float32)),
    ).sample
    (output * torch.tensor(cotangent.transpose(0, 3, 1, 2).copy())).sum().backward()
    return output.detach().numpy().transpose(0, 2, 3, 1), inputs.grad.numpy().transpose(0, 2, 3, 1)
