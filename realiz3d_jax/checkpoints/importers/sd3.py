"""Importer of diffusers' ``SD3Transformer2DModel`` (Stable Diffusion 3 medium)."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from realiz3d_jax.checkpoints.importers.mapping import FROM_HEADS, PATCHES, TO_SEVERAL_HEADS, Rule, linear
from realiz3d_jax.models import embeddings, mmdit
from realiz3d_jax.models.mmdit import MMDiTConfig

CLASSES = ("SD3Transformer2DModel",)
_POSITIONS = "pos_embed.pos_embed"
IGNORED = (_POSITIONS,)
"""A fixed table of positions, which is computed rather than read."""

PROCESS = "rectified_flow"
"""Diffusion process used in training, a module of ``diffusion``."""

init = mmdit.init

_BLOCK = "transformer_blocks.{layer}"
_IMAGE = {
    "modulation": "norm1.linear",
    "projections": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "out": "attn.to_out.0",
    "mlp": "ff",
}
_TEXT = {
    "modulation": "norm1_context.linear",
    "projections": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "out": "attn.to_add_out",
    "mlp": "ff_context",
}


def config_of(values: Mapping[str, Any]) -> MMDiTConfig:
    """Returns our config from the values of a ``config.json``.

    Raises:
      KeyError: a value is missing.
      ValueError: the model is Stable Diffusion 3.5.
    """
    if values.get("qk_norm") or values.get("dual_attention_layers"):
        raise ValueError("has qk_norm or dual attention; expected Stable Diffusion 3, which has neither")
    return MMDiTConfig(
        width=values["num_attention_heads"] * values["attention_head_dim"],
        depth=values["num_layers"],
        heads=values["num_attention_heads"],
        patch_size=values["patch_size"],
        in_channels=values["in_channels"],
        caption_channels=values["joint_attention_dim"],
        pooled_channels=values["pooled_projection_dim"],
        sample_size=values["sample_size"],
        base_size=values["sample_size"] // values["patch_size"],
        max_size=values["pos_embed_max_size"],
    )


def json_of(config: MMDiTConfig) -> dict[str, Any]:
    """Returns the ``config.json`` from which diffusers builds this transformer: the inverse of ``config_of``."""
    return {
        "_class_name": CLASSES[0],
        "num_attention_heads": config.heads,
        "attention_head_dim": config.width // config.heads,
        "num_layers": config.depth,
        "patch_size": config.patch_size,
        "in_channels": config.in_channels,
        "out_channels": config.in_channels,
        "joint_attention_dim": config.caption_channels,
        "caption_projection_dim": config.width,
        "pooled_projection_dim": config.pooled_channels,
        "sample_size": config.base_size * config.patch_size,
        "pos_embed_max_size": config.max_size,
    }


def constants(config: MMDiTConfig) -> dict[str, np.ndarray]:
    """Returns the non-parameter tensors of the published layout: position features of the largest grid, float32[1, n n, D]."""
    side = config.max_size
    features = embeddings.middle_position_features(side, side, config.width, config.base_size, side)
    return {_POSITIONS: features.reshape(1, side * side, config.width)}


def rules(config: MMDiTConfig, names: Iterable[str] = ()) -> list[Rule]:
    """Returns the rules of a transformer; ``names`` is not used."""
    del names
    last = _BLOCK.replace("{layer}", str(config.depth - 1))
    return [
        *linear("patch_embedding", "pos_embed.proj", PATCHES, row=config.patch_size, column=config.patch_size),
        *linear("text_embedding", "context_embedder"),
        *linear("timestep_embedding/first", "time_text_embed.timestep_embedder.linear_1"),
        *linear("timestep_embedding/second", "time_text_embed.timestep_embedder.linear_2"),
        *linear("pooled_embedding/first", "time_text_embed.text_embedder.linear_1"),
        *linear("pooled_embedding/second", "time_text_embed.text_embedder.linear_2"),
        *_stream("blocks", _IMAGE, config),
        *_stream("text_blocks", _TEXT, config),
        *_parts("last_text/modulation", f"{last}.{_TEXT['modulation']}", 2),
        *_projections("last_text/query_key_value", last, _TEXT["projections"], config),
        *_parts("final/modulation", "norm_out.linear", 2),
        *linear("final/linear", "proj_out"),
    ]


def _stream(ours: str, names: dict[str, Any], config: MMDiTConfig) -> list[Rule]:
    return [
        *_parts(f"{ours}/modulation", f"{_BLOCK}.{names['modulation']}", 6),
        *_projections(f"{ours}/query_key_value", _BLOCK, names["projections"], config),
        *linear(f"{ours}/out", f"{_BLOCK}.{names['out']}", FROM_HEADS, head=config.heads),
        *linear(f"{ours}/mlp/first", f"{_BLOCK}.{names['mlp']}.net.0.proj"),
        *linear(f"{ours}/mlp/second", f"{_BLOCK}.{names['mlp']}.net.2"),
    ]


def _parts(ours: str, theirs: str, count: int) -> list[Rule]:
    kernel, bias = "(part outputs) inputs -> inputs part outputs", "(part outputs) -> part outputs"
    return linear(ours, theirs, kernel, bias, part=count)


def _projections(ours: str, block: str, names: tuple[str, ...], config: MMDiTConfig) -> list[Rule]:
    return linear(ours, [f"{block}.{name}" for name in names], *TO_SEVERAL_HEADS, head=config.heads)
