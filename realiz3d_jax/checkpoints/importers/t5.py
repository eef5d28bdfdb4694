"""Importer of transformers' ``T5EncoderModel`` (T5 v1.1)."""

from collections.abc import Iterable, Mapping
from typing import Any

from realiz3d_jax.checkpoints.importers.mapping import FROM_HEADS, LINEAR, TO_SEVERAL_HEADS, Rule
from realiz3d_jax.models import t5
from realiz3d_jax.models.t5 import T5Config

CLASSES = ("T5EncoderModel", "T5ForConditionalGeneration")

IGNORED = ("encoder.embed_tokens.weight",)
"""A duplicate of ``shared.weight``."""

init = t5.init

_LAYER = "encoder.block.{layer}.layer"


def config_of(values: Mapping[str, Any]) -> T5Config:
    """Returns our config from the values of a ``config.json``.

    Raises:
      KeyError: a value is missing.
      ValueError: the model is T5 before version 1.1.
    """
    if values["feed_forward_proj"] != "gated-gelu":
        raise ValueError(f"feed_forward_proj is {values['feed_forward_proj']!r}; expected 'gated-gelu' (T5 v1.1)")
    return T5Config(
        width=values["d_model"],
        depth=values["num_layers"],
        heads=values["num_heads"],
        head_channels=values["d_kv"],
        hidden=values["d_ff"],
        vocabulary=values["vocab_size"],
        buckets=values["relative_attention_num_buckets"],
        max_distance=values.get("relative_attention_max_distance", 128),
    )


def rules(config: T5Config, names: Iterable[str] = ()) -> list[Rule]:
    """Returns the rules of an encoder; ``names`` is not used."""
    del names
    attention, mlp = f"{_LAYER}.0.SelfAttention", f"{_LAYER}.1.DenseReluDense"
    heads = {"head": config.heads}
    return [
        Rule("embedding/embedding", ("shared.weight",)),
        Rule("position_bias", ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",)),
        Rule("layers/attention_norm/scale", (f"{_LAYER}.0.layer_norm.weight",)),
        Rule(
            "layers/query_key_value/kernel",
            tuple(f"{attention}.{name}.weight" for name in "qkv"),
            TO_SEVERAL_HEADS[0],
            heads,
        ),
        Rule("layers/attention_out/kernel", (f"{attention}.o.weight",), FROM_HEADS, heads),
        Rule("layers/mlp_norm/scale", (f"{_LAYER}.1.layer_norm.weight",)),
        Rule(
            "layers/mlp_in/kernel", (f"{mlp}.wi_0.weight", f"{mlp}.wi_1.weight"), "n outputs inputs -> inputs n outputs"
        ),
        Rule("layers/mlp_out/kernel", (f"{mlp}.wo.weight",), LINEAR),
        Rule("norm/scale", ("encoder.final_layer_norm.weight",)),
    ]
