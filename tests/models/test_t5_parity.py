"""The text encoder against transformers' ``T5EncoderModel`` at random weights."""

import dataclasses
import functools

import jax
import numpy as np
import parity
import pytest
import torch
from transformers import T5Config as Theirs
from transformers import T5EncoderModel
from transformers.models.t5.modeling_t5 import T5Attention

from realiz3d_jax.checkpoints.importers import mapping
from realiz3d_jax.checkpoints.importers import t5 as table
from realiz3d_jax.models import t5
from realiz3d_jax.models.t5 import T5Config

REFERENCE = "transformers T5EncoderModel"
SMALL = T5Config(width=48, depth=3, heads=4, head_channels=16, hidden=96, vocabulary=100, dtype="float32")


def make_reference(config: T5Config) -> T5EncoderModel:
    """The reference at the size of ``config``, every parameter random and far from zero."""
    model = T5EncoderModel(
        Theirs(
            d_model=config.width,
            d_kv=config.head_channels,
            d_ff=config.hidden,
            num_layers=config.depth,
            num_heads=config.heads,
            vocab_size=config.vocabulary,
            feed_forward_proj="gated-gelu",
        )
    ).eval()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.requires_grad_(False).named_parameters():
        spread = 0.5 if parameter.ndim == 1 else parameter.shape[1] ** -0.5
        if "shared" in name or "bias" in name:
            spread = 1.0
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return model


def convert(config: T5Config, reference: T5EncoderModel):
    state = {name: tensor.numpy() for name, tensor in reference.state_dict().items()}
    like = jax.eval_shape(lambda: t5.init(config, jax.random.key(0)))
    shapes = {name: array.shape for name, array in state.items()}
    return mapping.import_params(
        "here", table.rules(config), like, shapes, state.__getitem__, np.float32, table.IGNORED
    )


def captions(config: T5Config, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and mask of three: of the padded length, of a few tokens, and of one as the null caption."""
    tokens = np.random.default_rng(0).integers(0, config.vocabulary, (3, length))
    return tokens, np.arange(length)[None] < np.array([[length], [7], [1]])


def states(config: T5Config, params, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Ours, of the tokens that count: [tokens, D]."""
    return np.asarray(jax.jit(functools.partial(t5.apply, config))(params, tokens, mask))[mask]


def their_states(reference: T5EncoderModel, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    attended = torch.from_numpy(mask.astype(np.int64))
    return reference(torch.from_numpy(tokens), attention_mask=attended).last_hidden_state.numpy()[mask]


def check_float32_and_bfloat16(what: str, config: T5Config, lengths: tuple[int, ...]) -> None:
    reference = make_reference(config)
    params = jax.device_put(convert(config, reference))
    for length in lengths:
        given = captions(config, length)
        expected = their_states(reference, *given)
        parity.check(f"T5, {what}, {length} tokens", REFERENCE, states(config, params, *given), expected, 1e-4)
        rough = states(dataclasses.replace(config, dtype="bfloat16"), params, *given)
        error = parity.check(f"T5, {what}, {length} tokens, in bfloat16", REFERENCE, rough, expected, 3e-2)
        assert error > 1e-4  # else it did not run in bfloat16


def test_states_equal_transformers():
    check_float32_and_bfloat16("small", SMALL, (120, 300))


@pytest.mark.slow
def test_states_equal_transformers_at_the_width_of_xxl():
    """Two of the 24 layers and few of the token embeddings. Takes 5 GiB."""
    check_float32_and_bfloat16("XXL, 2 layers", T5Config(depth=2, vocabulary=1000, dtype="float32"), (120, 300))


def test_padding_is_never_read():
    params = convert(SMALL, make_reference(SMALL))
    tokens, mask = captions(SMALL, 30)
    other = np.where(mask, tokens, (tokens + 1) % SMALL.vocabulary)
    np.testing.assert_array_equal(states(SMALL, params, tokens, mask), states(SMALL, params, other, mask))
    shorter = states(SMALL, params, tokens[1:, :10], mask[1:, :10])
    what = "T5, small, 30 tokens of which 7 and 1 count"
    parity.check(what, "ours with 10 tokens", states(SMALL, params, tokens[1:], mask[1:]), shorter, 1e-5)


def test_buckets_equal_transformers():
    for tokens in (5, 300, 1000):
        distance = torch.arange(tokens)[None] - torch.arange(tokens)[:, None]
        expected = T5Attention._relative_position_bucket(distance, True, 32, 128).numpy()
        np.testing.assert_array_equal(t5.position_buckets(tokens, 32, 128), expected)
