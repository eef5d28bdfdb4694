"""Encodes captions with T5, in batches of fixed shapes."""

import functools
import textwrap
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from realiz3d_jax.errors import UserError
from realiz3d_jax.models import t5
from realiz3d_jax.models.t5 import Params, T5Config
from realiz3d_jax.models.tokenizer import Tokenizer

_ENDLESS = 10_000
_LENGTHS = (16, 32, 64, 128)
"""Sequence lengths: a caption is encoded at the shortest of these, or T, that holds it, whatever the others in its batch."""


class T5Encoder:
    """A frozen text encoder, compared by identity.

    Attributes:
      channels: D of a state.
      max_tokens: T: 120 for PixArt-alpha, 300 for PixArt-Sigma.
      batch_size: captions that are encoded at once; smaller batches are padded, so that one compilation for each of a few
        lengths serves all calls. In its row of a batch a caption has the same states, bit for bit, whatever the other rows.
    """

    def __init__(
        self,
        config: T5Config,
        params: Params,
        tokenizer: Tokenizer,
        max_tokens: int,
        batch_size: int = 8,
        sharding: NamedSharding | None = None,
    ):
        """Keeps the parameters where they are.

        Args:
          params: as ``t5.init`` makes them, on the devices; bfloat16 halves their memory.
          config: the encoder's sizes.
          tokenizer: of the same checkpoint.
          max_tokens, batch_size: see the attributes.
          sharding: sharding of a batch's leading axis over the devices of ``params``, whose number must divide
            ``batch_size``; None on a single device.

        Raises:
          UserError: the tokenizer has tokens that the encoder has no embedding for.
        """
        tokenizer.check_fits(config.vocabulary)
        self.channels = config.width
        self.max_tokens = max_tokens
        self.batch_size = batch_size
        self._params = params
        self._tokenizer = tokenizer
        # Replicated on every device at the end, so that each of several processes can read all of it.
        whole = NamedSharding(sharding.mesh, PartitionSpec()) if sharding else None
        self._states = jax.jit(
            functools.partial(_states, config, sharding), in_shardings=(None, sharding, sharding), out_shardings=whole
        )

    def check(self, caption: str) -> None:
        """Raises UserError if the caption has more than T tokens, since ``encode`` would drop the last ones."""
        length = int(self._tokenizer.encode([caption.lower().strip()], _ENDLESS)[1].sum())
        if length > self.max_tokens:
            raise UserError(
                f"caption {textwrap.shorten(caption, 80)!r}: found {length} tokens, expected at most {self.max_tokens}; "
                "shorten it."
            )

    def encode(self, captions: Sequence[str]) -> dict[str, np.ndarray]:
        """The states of n captions; [""] gives the null text.

        Captions are lower-cased and stripped of surrounding white space, as in PixArt's training and pipelines.

        Returns:
          "states": float32[n, T, D], 0 behind </s>; "mask": bool[n, T], True up to </s>.
        """
        tokens, mask = self._tokenizer.encode([caption.lower().strip() for caption in captions], self.max_tokens)
        states = np.zeros((*tokens.shape, self.channels), np.float32)
        lengths = np.array([*(length for length in _LENGTHS if length < self.max_tokens), self.max_tokens])
        of_captions = lengths[np.searchsorted(lengths, mask.sum(axis=1))]
        for length in lengths:
            rows = np.flatnonzero(of_captions == length)
            for start in range(0, len(rows), self.batch_size):
                part = rows[start : start + self.batch_size]
                full = np.concatenate([part, np.full(self.batch_size - len(part), part[-1])])
                found = self._states(self._params, tokens[full, :length], mask[full, :length])
                states[part, :length] = np.asarray(found)[: len(part)]
        return {"states": states, "mask": mask}


def _states(
    config: T5Config, sharding: NamedSharding | None, params: Params, tokens: jax.Array, mask: jax.Array
) -> jax.Array:
    return jnp.where(mask[..., None], t5.apply(config, params, tokens, mask, sharding), 0.0)
