"""The words that a model of the shapes benchmark has been taught; any other word is noise to it."""

import re
from collections.abc import Sequence

from realiz3d_jax.data import records
from realiz3d_jax.models.text import WordEncoder
from realiz3d_jax.sampling.pretrained import Pretrained

COLORS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "gray")
SHAPES = ("sphere", "cube", "cone", "cylinder", "torus", "pyramid")
SIZES = ("small", "large")
RELATIONS = ("with", "on top", "next to", "in front of", "behind")

WORDS = frozenset(" ".join(("a", "an", *COLORS, *SHAPES, *SIZES, *RELATIONS)).split())
"""All words of the benchmark's captions."""


def unknown_words(prompt: str) -> list[str]:
    """The words of a prompt that no caption of the benchmark has, each once, in their order."""
    return list(dict.fromkeys(word for word in re.findall(r"[a-z0-9]+", prompt.lower()) if word not in WORDS))


def caution(pretrained: Pretrained, prompts: Sequence[str]) -> str | None:
    """A warning that names the words of the prompts that the model was not taught; None if there are none.

    It is known of models of the shapes benchmark that read prompts word by word; other models are taken to know every word.
    """
    if pretrained.config.data.collection != records.SHAPES or not isinstance(pretrained.encoder, WordEncoder):
        return None
    unknown = list(dict.fromkeys(word for prompt in prompts for word in unknown_words(prompt)))
    if not unknown:
        return None
    return (
        f"{pretrained.source}: no caption of its training had the words {', '.join(map(repr, unknown))}, so they change the "
        f"views at random; expected colours ({', '.join(COLORS)}), solids ({', '.join(SHAPES)}), sizes "
        f"({', '.join(SIZES)}) and relations ({', '.join(RELATIONS)}). Leave the other words out."
    )
