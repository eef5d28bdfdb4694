"""Importer of diffusers' ``AutoencoderKL`` (Stable Diffusion, SDXL, Stable Diffusion 3)."""

from collections.abc import Iterable, Mapping
from typing import Any

from realiz3d_jax.checkpoints.importers.mapping import CONVOLUTION, SAME, Rule, linear
from realiz3d_jax.models import vae
from realiz3d_jax.models.vae import VAEConfig

CLASSES = ("AutoencoderKL",)
IGNORED = ()

init = vae.init

_PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")
_OLD_PROJECTIONS = ("query", "key", "value", "proj_attn")
"""``_PROJECTIONS`` in checkpoints saved before 2023, such as ``sd-vae-ft-ema``."""


def config_of(values: Mapping[str, Any]) -> VAEConfig:
    """Returns our config from the values of a ``config.json``; raises KeyError if one is missing."""
    return VAEConfig(
        channels=tuple(values["block_out_channels"]),
        blocks=values["layers_per_block"],
        latent_channels=values["latent_channels"],
        norm_groups=values["norm_num_groups"],
        quant_convs=values.get("use_quant_conv", True),
        scale=float(values.get("scaling_factor", 0.18215)),
        shift=float(values.get("shift_factor") or 0.0),
    )


def rules(config: VAEConfig, names: Iterable[str] = ()) -> list[Rule]:
    """Returns the rules of an autoencoder.

    Args:
      config: config of the autoencoder.
      names: names of the checkpoint's tensors, which distinguish old checkpoints from new ones.
    """
    old = "encoder.mid_block.attentions.0.query.weight" in names
    projections = _OLD_PROJECTIONS if old else _PROJECTIONS
    count = len(config.channels)
    table = [*_ends("encoder", "encoder"), *_ends("decoder", "decoder")]
    table += _middle("encoder", projections) + _middle("decoder", projections)
    for index in range(count):
        last = index == count - 1
        inputs = config.channels[max(index - 1, 0)]
        table += _residuals(
            f"encoder/down/{index}", f"encoder.down_blocks.{index}", config.blocks, inputs != config.channels[index]
        )
        rising = config.channels[::-1]
        inputs = rising[max(index - 1, 0)]
        table += _residuals(
            f"decoder/up/{index}", f"decoder.up_blocks.{index}", config.blocks + 1, inputs != rising[index]
        )
        if not last:
            table += linear(
                f"encoder/down/{index}/shrink", f"encoder.down_blocks.{index}.downsamplers.0.conv", CONVOLUTION
            )
            table += linear(f"decoder/up/{index}/grow", f"decoder.up_blocks.{index}.upsamplers.0.conv", CONVOLUTION)
    if config.quant_convs:
        table += linear("quant", "quant_conv", CONVOLUTION) + linear("post_quant", "post_quant_conv", CONVOLUTION)
    return table


def _ends(ours: str, theirs: str) -> list[Rule]:
    return [
        *linear(f"{ours}/enter", f"{theirs}.conv_in", CONVOLUTION),
        *_norm(f"{ours}/norm", f"{theirs}.conv_norm_out"),
        *linear(f"{ours}/leave", f"{theirs}.conv_out", CONVOLUTION),
    ]


def _middle(side: str, names: tuple[str, ...]) -> list[Rule]:
    theirs, ours = f"{side}.mid_block.attentions.0", f"{side}/middle/attention"
    projections = [f"{theirs}.{name}" for name in names[:3]]
    return [
        *_residual(f"{side}/middle/first", f"{side}.mid_block.resnets.0", False),
        *_residual(f"{side}/middle/second", f"{side}.mid_block.resnets.1", False),
        *_norm(f"{ours}/norm", f"{theirs}.group_norm"),
        *linear(
            f"{ours}/query_key_value", projections, "n outputs inputs -> inputs n outputs", "n outputs -> n outputs"
        ),
        *linear(f"{ours}/out", f"{theirs}.{names[3]}"),
    ]


def _residuals(ours: str, theirs: str, count: int, widens: bool) -> list[Rule]:
    return [
        rule
        for index in range(count)
        for rule in _residual(f"{ours}/residuals/{index}", f"{theirs}.resnets.{index}", widens and index == 0)
    ]


def _residual(ours: str, theirs: str, shortcut: bool) -> list[Rule]:
    table = []
    for number in (1, 2):
        table += _norm(f"{ours}/norm{number}", f"{theirs}.norm{number}")
        table += linear(f"{ours}/conv{number}", f"{theirs}.conv{number}", CONVOLUTION)
    return table + (linear(f"{ours}/shortcut", f"{theirs}.conv_shortcut", CONVOLUTION) if shortcut else [])


def _norm(ours: str, theirs: str) -> list[Rule]:
    return [Rule(f"{ours}/scale", (f"{theirs}.weight",), SAME), Rule(f"{ours}/bias", (f"{theirs}.bias",), SAME)]
