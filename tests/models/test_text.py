"""The word encoder is a fixed function of the caption, and binds adjectives to their nouns."""

import hashlib

import numpy as np
import pytest

from realiz3d_jax.errors import UserError
from realiz3d_jax.models.text import WordEncoder

NOUNS = {"cone": 2, "torus": 4}
"""Positions in "red cone blue torus", the begin mark included."""


def test_the_encoding_is_the_same_on_every_machine_and_in_every_release():
    tokens = WordEncoder().encode(["a red cone with a small blue torus"])["states"]
    assert hashlib.sha256(np.round(tokens, 4).astype("<f4").tobytes()).hexdigest()[:16] == "3661034e5c8fd818"


def test_tokens_come_padded_with_zeros_and_with_a_mask():
    tokens, mask, _ = WordEncoder(channels=32, max_tokens=6).encode(["red cone", "one two three four five"]).values()
    assert (tokens.shape, tokens.dtype, mask.dtype) == ((2, 6, 32), np.float32, bool)
    assert mask.sum(axis=1).tolist() == [3, 6]
    assert (tokens[~mask] == 0).all()
    assert (np.abs(tokens[mask]).max(axis=1) > 0.5).all()


def test_an_empty_caption_is_one_token_so_that_no_row_is_masked_altogether():
    tokens, mask, _ = WordEncoder().encode(["", "  ,. "]).values()
    assert mask.sum(axis=1).tolist() == [1, 1]
    np.testing.assert_array_equal(tokens[0], tokens[1])


def test_case_and_punctuation_do_not_matter():
    tokens = WordEncoder().encode(["A Red cone, on a 3x3 box!", "a red cone on a 3x3 box"])["states"]
    np.testing.assert_array_equal(tokens[0], tokens[1])


def test_colours_are_bound_to_their_nouns():
    tokens = WordEncoder().encode(["red cone blue torus", "blue cone red torus"])["states"]
    for place in NOUNS.values():
        difference = np.linalg.norm(tokens[0, place] - tokens[1, place])
        assert difference > 0.3 * np.linalg.norm(tokens[0, place])


def test_word_vectors_have_unit_variance_and_are_uncorrelated():
    tokens = WordEncoder(channels=4096).encode([f"word{i}" for i in range(20)])["states"]
    words = tokens[:, 1] - tokens[:, 1].mean(axis=0)  # the begin mark's echo and the position are common to all
    covariance = words @ words.T / 4096
    expected = (np.eye(20) - 1 / 20) / 1.5
    assert np.abs(covariance - expected).max() < 0.06


def test_a_caption_that_is_too_long_is_a_user_error_that_names_it():
    with pytest.raises(UserError, match="'a b c d': found 4 words, expected at most 3"):
        WordEncoder(max_tokens=4).encode(["a", "a b c d"])


def test_the_pooled_caption_is_the_mean_of_its_tokens():
    tokens, mask, pooled = WordEncoder().encode(["", "a red cone"]).values()
    np.testing.assert_allclose(pooled[1], tokens[1][mask[1]].mean(axis=0), rtol=1e-5, atol=1e-6)
    assert pooled.shape == (2, 64)
