"""The text encoder against transformers' ``T5EncoderModel`` at random weights."""

import jax
import numpy as np
import torch
from transformers import T5Config as Theirs
from transformers import T5EncoderModel
from transformers.models.t5.modeling_t5 import T5Attention

from realiz3d_jax.importers import mapping
from realiz3d_jax.importers import t5 as table
from realiz3d_jax.models import t5
from realiz3d_jax.models.t5 import T5Config

CONFIG = T5Config(width=48, depth=3, heads=4, head_channels=16, hidden=96, vocabulary=100, dtype="float32")


def test_states_equal_transformers():
    torch.manual_seed(0)
    reference = T5EncoderModel(
        Theirs(
            d_model=48,
            d_kv=16,
            d_ff=96,
            num_layers=3,
            num_heads=4,
            vocab_size=100,
            feed_forward_proj="gated-gelu",
        )
    ).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.copy_(torch.randn(parameter.shape) * (0.5 if parameter.ndim == 1 else 0.2))
    state = {name: tensor.numpy() for name, tensor in reference.state_dict().items()}
    like = jax.eval_shape(lambda: t5.init(CONFIG, jax.random.key(0)))
    shapes = {name: array.shape for name, array in state.items()}
    params = mapping.import_params(
        "here", table.rules(CONFIG), like, shapes, state.__getitem__, np.float32, table.IGNORED
    )
    random = np.random.default_rng(0)
    for length in (120, 300):
        tokens = random.integers(0, 100, (3, length))
        mask = np.arange(length)[None] < np.array([[length], [7], [1]])
        attended = torch.from_numpy(mask.astype(np.int64))
        with torch.no_grad():
            expected = reference(torch.from_numpy(tokens), attention_mask=attended).last_hidden_state.numpy()
        found = np.asarray(jax.jit(lambda p, t, m: t5.apply(CONFIG, p, t, m))(params, tokens, mask))
        error = np.abs(found - expected)[mask].max() / np.abs(expected[mask]).max()
        assert error < 1e-4


def test_buckets_equal_transformers():
    for tokens in (5, 300, 1000):
        distance = torch.arange(tokens)[None] - torch.arange(tokens)[:, None]
        expected = T5Attention._relative_position_bucket(distance, True, 32, 128).numpy()
        np.testing.assert_array_equal(t5.position_buckets(tokens, 32, 128), expected)
