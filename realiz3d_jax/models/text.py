"""A text encoder for the shapes world: deterministic, on the host, with nothing to download.

With w_i the fixed Gaussian vector of word i (a begin mark is word 0) and R a fixed orthogonal map:

    token_i = (w_i + 1/2 R w_(i-1) + 1/2 R^2 w_(i-2)) / sqrt(3/2) + sinusoid(i)

R distinguishes a word from its neighbours' echoes, so the token of a noun encodes its own adjectives: "red cone with blue
torus" and "blue cone with red torus" have the same words and different tokens. R permutes and flips channels, and the vectors
come from SHA-256 by Box-Muller, so that a trained model depends on no library's random stream or factorisation.
"""

import functools
import hashlib
import re
import textwrap
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from realiz3d_jax.errors import UserError

_BEGIN = "<begin>"
_WORD = re.compile(r"[a-z0-9]+")


class WordEncoder:
    """Encodes captions word by word.

    Attributes:
      channels: C of a token, even.
      max_tokens: T, the begin mark included.
    """

    def __init__(self, channels: int = 64, max_tokens: int = 16):
        self.channels = channels
        self.max_tokens = max_tokens
        self._order = np.argsort(_gaussian("<order>", channels))
        self._signs = np.where(_gaussian("<signs>", channels) < 0, -1.0, 1.0)
        self._positions = _sinusoid(max_tokens, channels)

    def check(self, caption: str) -> None:
        """Raises UserError if the caption has more than T - 1 words."""
        self._words(caption)

    def encode(self, captions: Sequence[str]) -> dict[str, np.ndarray]:
        """Tokens, their mask and their mean.

        Args:
          captions: n captions; everything but letters and digits separates words, case does not matter.

        Returns:
          ``states`` float32[n, T, C], 0 where there is no word, ``mask`` bool[n, T], True where there is one, and
          ``pooled`` float32[n, C], the mean of the tokens. "" is one token.

        Raises:
          UserError: a caption has more than T - 1 words.
        """
        tokens = np.zeros((len(captions), self.max_tokens, self.channels), np.float32)
        mask = np.zeros((len(captions), self.max_tokens), bool)
        for row, caption in enumerate(captions):
            words = self._words(caption)
            tokens[row, : len(words)] = self._tokens(words)
            mask[row, : len(words)] = True
        return {"states": tokens, "mask": mask, "pooled": tokens.sum(1) / mask.sum(1, keepdims=True, dtype=np.float32)}

    def _words(self, caption: str) -> list[str]:
        words = [_BEGIN, *_WORD.findall(caption.lower())]
        if len(words) > self.max_tokens:
            raise UserError(
                f"caption {textwrap.shorten(caption, 80)!r}: found {len(words) - 1} words, expected at most "
                f"{self.max_tokens - 1}; shorten it."
            )
        return words

    def _tokens(self, words: list[str]) -> np.ndarray:
        vectors = np.stack([_gaussian(word, self.channels) for word in words])
        bound = vectors.copy()
        echo = vectors
        for distance in (1, 2):
            echo = echo[:, self._order] * self._signs
            bound[distance:] += 0.5 * echo[:-distance]
        return bound / np.sqrt(1.5) + self._positions[: len(words)]


@functools.lru_cache(maxsize=4096)
def _gaussian(word: str, channels: int) -> np.ndarray:
    """A word's vector, float64[channels] of unit variance: SHA-256 in counter mode, then Box-Muller."""
    blocks = [hashlib.sha256(f"{word}/{block}".encode()).digest() for block in range(-(-channels // 8))]
    integers = np.frombuffer(b"".join(blocks), dtype="<u4").astype(np.float64).reshape(-1, 2)
    uniform = (integers + 0.5) / 2.0**32
    radius, angle = np.sqrt(-2.0 * np.log(uniform[:, 0])), 2.0 * np.pi * uniform[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1).reshape(-1)[:channels]


def _sinusoid(tokens: int, channels: int) -> np.ndarray:
    frequencies = 10000.0 ** (-np.arange(channels // 2) / (channels / 2))
    angles = np.outer(np.arange(tokens), frequencies)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)


class TextEncoder(Protocol):
    """Encodes captions into the arrays that a backbone reads.

    Attributes:
      channels: C of a token.
      max_tokens: T.
    """

    @property
    def channels(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...

    def check(self, caption: str) -> None:
        """Raises UserError if the caption can't be encoded; costs next to nothing."""

    def encode(self, captions: Sequence[str]) -> dict[str, np.ndarray]:
        """``states`` float32[n, T, C], 0 where there is no token, ``mask`` bool[n, T], and what else it gives, [n, ...]."""
        ...
