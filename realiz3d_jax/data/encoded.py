"""Datasets whose images and captions are encoded once and for all: how they are stored, and what training expects of them.

``prepare --encode`` makes ``NAME_encoded`` beside ``NAME``: images and control maps as the moments of an autoencoder (float16),
captions as the states of a text encoder, cut to their true length (float16). The metadata names the encoders by the SHA-256 of
their parameters; ``null_caption.npy`` holds the states of the empty caption.
"""

import os
from typing import Any

import numpy as np

from realiz3d_jax.data import records
from realiz3d_jax.errors import UserError

NULL_CAPTION = "null_caption.npy"
ENCODED = ("assets", "generated")
"""The kinds of datasets that training reads encoded."""


def name_of(kind: str) -> str:
    """What the encoded form of a kind, or of a dataset, is called."""
    return f"{kind}_encoded"


def padded(states: np.ndarray, tokens: int) -> dict[str, np.ndarray]:
    """``states`` float16[T, C] and ``mask`` bool[T] of states float16[n, C], n <= T."""
    full = np.zeros((tokens, states.shape[1]), states.dtype)
    full[: len(states)] = states
    return {"states": full, "mask": np.arange(tokens) < len(states)}


def null_caption(
    directory: str | os.PathLike[str], collection: str, size: int, encoders: dict[str, Any], tokens: int
) -> dict[str, np.ndarray]:
    """The empty caption of encoded data, after a check that both datasets are of the encoders that are meant.

    Args:
      directory, collection, size: of the data.
      encoders: what the metadata has to say of them, ``checkpoints.encoders.Encoders.identity``.
      tokens: T, the longest caption.

    Raises:
      UserError: a dataset is missing, or was encoded by others or with another longest caption.
    """
    expected = {**encoders, "text_tokens": tokens}
    for kind in ENCODED:
        dataset = records.dataset_name(collection, name_of(kind))
        held = records.open_split(directory, dataset, "train", size)
        for name, value in expected.items():
            if held.metadata.get(name) != value:
                raise UserError(
                    f"{held.path / 'metadata.json'}: {name} is {held.metadata.get(name)}; expected {value}, by config.data. "
                    "Name the encoders that made the data in --config.data.encoders (and their longest caption in "
                    "--config.data.text_tokens), or remove that folder and encode anew by\n  "
                    f"{records.prepare_command(directory, dataset, size)}"
                )
    return padded(np.load(held.path / NULL_CAPTION), tokens)
