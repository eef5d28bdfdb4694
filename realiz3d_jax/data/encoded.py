"""Datasets with images and captions encoded in advance: their storage, and the checks that training makes.

``prepare --encode`` writes ``NAME_encoded`` beside ``NAME``: images and control maps as the moments of an autoencoder
(float16), captions as the states of a text encoder, cut to their true length (float16). The metadata identifies the encoders by
the SHA-256 of their parameters; ``null_caption.npy`` holds the states of the empty caption.
"""

import os
from typing import Any

import numpy as np

from realiz3d_jax.data import records
from realiz3d_jax.errors import UserError

NULL_CAPTION = "null_caption.npy"
ENCODED = ("assets", "generated")
"""Kinds of datasets that training reads in encoded form."""


def name_of(kind: str) -> str:
    """Name of the encoded form of a kind or of a dataset."""
    return f"{kind}_encoded"


def padded(states: np.ndarray, tokens: int) -> dict[str, np.ndarray]:
    """Pads the states of one caption to a fixed length.

    Args:
      states: float16[n, C], n <= T.
      tokens: T.

    Returns:
      ``states`` float16[T, C] and ``mask`` bool[T].
    """
    full = np.zeros((tokens, states.shape[1]), states.dtype)
    full[: len(states)] = states
    return {"states": full, "mask": np.arange(tokens) < len(states)}


def null_caption(
    directory: str | os.PathLike[str], collection: str, size: int, encoders: dict[str, Any], tokens: int
) -> dict[str, np.ndarray]:
    """Loads the empty caption of encoded data, and checks that both datasets were made by the configured encoders.

    Args:
      directory: root of the datasets.
      collection: collection of the datasets.
      size: pixels along a side of a view.
      encoders: expected metadata entries of the encoders, ``checkpoints.encoders.Encoders.identity``.
      tokens: T, the maximum caption length in tokens.

    Returns:
      ``states`` float16[T, C] and ``mask`` bool[T].

    Raises:
      UserError: a dataset is missing, or was made by other encoders or with another maximum caption length.
    """
    expected = {**encoders, "text_tokens": tokens}
    for kind in ENCODED:
        dataset = records.dataset_name(collection, name_of(kind))
        held = records.open_split(directory, dataset, "train", size)
        for name, value in expected.items():
            if held.metadata.get(name) != value:
                raise UserError(
                    f"{held.path / 'metadata.json'}: {name} is {held.metadata.get(name)}; expected {value}, by config.data. "
                    "Set --config.data.encoders to the encoders that made the data (and --config.data.text_tokens to their "
                    "maximum caption length), or remove that folder and encode again by\n  "
                    f"{records.prepare_command(directory, dataset, size)}"
                )
    return padded(np.load(held.path / NULL_CAPTION), tokens)
