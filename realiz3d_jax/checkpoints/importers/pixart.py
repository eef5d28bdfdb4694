"""Importer of the PixArt-alpha and PixArt-Sigma transformers, in diffusers' layout and the original ``.pth`` layout."""

from collections.abc import Iterable, Mapping
from typing import Any

from realiz3d_jax.checkpoints.importers.mapping import FROM_HEADS, PATCHES, TO_HEADS, TO_SEVERAL_HEADS, Rule, linear
from realiz3d_jax.models import dit
from realiz3d_jax.models.dit import DiTConfig

CLASSES = ("PixArtTransformer2DModel", "Transformer2DModel")
"""diffusers' class names; PixArt-alpha's checkpoints use the second."""

PROCESS = "ddpm"
"""Diffusion process used in training, a module of ``diffusion``."""

init = dit.init

IGNORED = ("pos_embed", "y_embedder.y_embedding")
"""Tensors of the original layout that are not read: positions are computed, and the text encoder gives the null caption."""

_DIFFUSERS = {
    "patch": "pos_embed.proj",
    "time": ("adaln_single.emb.timestep_embedder.linear_1", "adaln_single.emb.timestep_embedder.linear_2"),
    "resolution": ("adaln_single.emb.resolution_embedder.linear_1", "adaln_single.emb.resolution_embedder.linear_2"),
    "aspect": ("adaln_single.emb.aspect_ratio_embedder.linear_1", "adaln_single.emb.aspect_ratio_embedder.linear_2"),
    "modulation": "adaln_single.linear",
    "caption": ("caption_projection.linear_1", "caption_projection.linear_2"),
    "block": "transformer_blocks.{layer}",
    "self": (("attn1.to_q", "attn1.to_k", "attn1.to_v"), "attn1.to_out.0"),
    "cross": (("attn2.to_q",), ("attn2.to_k", "attn2.to_v"), "attn2.to_out.0"),
    "mlp": ("ff.net.0.proj", "ff.net.2"),
    "final": ("scale_shift_table", "proj_out"),
}
_ORIGINAL = {
    "patch": "x_embedder.proj",
    "time": ("t_embedder.mlp.0", "t_embedder.mlp.2"),
    "resolution": ("csize_embedder.mlp.0", "csize_embedder.mlp.2"),
    "aspect": ("ar_embedder.mlp.0", "ar_embedder.mlp.2"),
    "modulation": "t_block.1",
    "caption": ("y_embedder.y_proj.fc1", "y_embedder.y_proj.fc2"),
    "block": "blocks.{layer}",
    "self": (("attn.qkv",), "attn.proj"),
    "cross": (("cross_attn.q_linear",), ("cross_attn.kv_linear",), "cross_attn.proj"),
    "mlp": ("mlp.fc1", "mlp.fc2"),
    "final": ("final_layer.scale_shift_table", "final_layer.linear"),
}
_PIXELS = 8
"""Ratio of an image's side to its latent's side."""

_SIX = ("(six outputs) inputs -> inputs six outputs", "(six outputs) -> six outputs")


def config_of(values: Mapping[str, Any]) -> DiTConfig:
    """Returns our config from the values of a ``config.json``; raises KeyError if one is missing."""
    side, patch = values["sample_size"], values["patch_size"]
    conditions = values.get("use_additional_conditions")
    return DiTConfig(
        width=values["num_attention_heads"] * values["attention_head_dim"],
        depth=values["num_layers"],
        heads=values["num_attention_heads"],
        patch_size=patch,
        in_channels=values["in_channels"],
        out_channels=values["out_channels"],
        caption_channels=values["caption_channels"],
        sample_size=side,
        base_size=side // patch,
        position_scale=float(values.get("interpolation_scale") or max(side // 64, 1)),
        size_conditions=_PIXELS if (side == 128 if conditions is None else conditions) else 0,
    )


def json_of(config: DiTConfig) -> dict[str, Any]:
    """Returns the ``config.json`` from which diffusers builds this transformer: the inverse of ``config_of``."""
    return {
        "_class_name": CLASSES[0],
        "num_attention_heads": config.heads,
        "attention_head_dim": config.width // config.heads,
        "num_layers": config.depth,
        "patch_size": config.patch_size,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "cross_attention_dim": config.width,
        "caption_channels": config.caption_channels,
        "sample_size": config.base_size * config.patch_size,
        "interpolation_scale": config.position_scale,
        "use_additional_conditions": config.size_conditions > 0,
        "attention_bias": True,
        "activation_fn": "gelu-approximate",
        "norm_type": "ada_norm_single",
        "norm_elementwise_affine": False,
        "norm_eps": 1e-6,
        "num_embeds_ada_norm": 1000,
    }


def constants(config: DiTConfig) -> dict[str, Any]:
    """Returns the non-parameter tensors of the published layout: none, since diffusers computes the positions."""
    del config
    return {}


def rules(config: DiTConfig, names: Iterable[str] = ()) -> list[Rule]:
    """Returns the rules of a transformer.

    Args:
      config: config of the transformer.
      names: names of the checkpoint's tensors, which distinguish the original layout from diffusers', the default.
    """
    theirs = _ORIGINAL if "x_embedder.proj.weight" in names else _DIFFUSERS
    block, heads = theirs["block"], config.heads

    def perceptron(ours: str, names: tuple[str, str], prefix: str = "") -> list[Rule]:
        parts = zip(("first", "second"), names, strict=True)
        return [rule for part, name in parts for rule in linear(f"{ours}/{part}", prefix + name)]

    table = [
        *linear("patch_embedding", theirs["patch"], PATCHES, row=config.patch_size, column=config.patch_size),
        *perceptron("timestep_embedding", theirs["time"]),
        *linear("modulation", theirs["modulation"], *_SIX, six=6),
        *perceptron("caption_projection", theirs["caption"]),
        Rule("blocks/table", (f"{block}.scale_shift_table",)),
        *_to_heads("blocks/self_attention/query_key_value", block, theirs["self"][0], 3, heads),
        *linear("blocks/self_attention/out", f"{block}.{theirs['self'][1]}", FROM_HEADS, head=heads),
        *_to_heads("blocks/cross_attention/query", block, theirs["cross"][0], 1, heads),
        *_to_heads("blocks/cross_attention/key_value", block, theirs["cross"][1], 2, heads),
        *linear("blocks/cross_attention/out", f"{block}.{theirs['cross'][2]}", FROM_HEADS, head=heads),
        *perceptron("blocks/mlp", theirs["mlp"], f"{block}."),
        Rule("final/table", (theirs["final"][0],)),
        *linear("final/linear", theirs["final"][1]),
    ]
    if config.size_conditions:
        table += perceptron("resolution_embedding", theirs["resolution"])
        table += perceptron("aspect_embedding", theirs["aspect"])
    return table


def _to_heads(ours: str, block: str, names: tuple[str, ...], count: int, heads: int) -> list[Rule]:
    """Returns the rules of a projection to ``count`` times K heads, from ``count`` tensors or from one fused tensor."""
    theirs = [f"{block}.{name}" for name in names]
    if count == 1:
        return linear(ours, theirs, *TO_HEADS, head=heads)
    if len(names) == 1:
        return linear(ours, theirs, *(one.replace("n (", "(n ") for one in TO_SEVERAL_HEADS), head=heads, n=count)
    return linear(ours, theirs, *TO_SEVERAL_HEADS, head=heads)
