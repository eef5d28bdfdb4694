"""Attention is softmax(q k^T / sqrt(h) + bias) v, and a back end that is not there is named, not replaced."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from realiz3d_jax.errors import UserError
from realiz3d_jax.models import attention


def _arrays(queries=5, keys=7, heads=2, channels=4):
    random = np.random.default_rng(0)
    shapes = [(3, queries, heads, channels), (3, keys, heads, channels), (3, keys, heads, channels)]
    return [random.standard_normal(shape).astype(np.float32) for shape in shapes]


def _by_hand(query, key, value, bias):
    out = np.zeros(query.shape)
    for s, q, k in np.ndindex(*query.shape[:3]):
        scores = key[s, :, k].astype(np.float64) @ query[s, q, k] / np.sqrt(query.shape[-1]) + bias[s]
        weights = np.exp(scores - scores.max())
        out[s, q, k] = weights @ value[s, :, k] / weights.sum()
    return out


def test_attention_equals_the_formula_in_float64():
    query, key, value = _arrays()
    bias = np.random.default_rng(1).standard_normal((3, 7)).astype(np.float32)
    np.testing.assert_allclose(
        attention.attend(query, key, value, bias), _by_hand(query, key, value, bias), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        attention.attend(query, key, value), _by_hand(query, key, value, np.zeros((3, 7))), rtol=1e-5, atol=1e-6
    )


def test_a_masked_key_is_as_good_as_absent():
    query, key, value = _arrays()
    bias = np.where(np.arange(7) < 4, 0.0, attention.MASKED).astype(np.float32) * np.ones((3, 1), np.float32)
    expected = attention.attend(query, key[:, :4], value[:, :4], bias[:, :4])
    np.testing.assert_allclose(attention.attend(query, key, value, bias), expected, rtol=1e-6, atol=1e-7)


def test_a_row_that_is_masked_altogether_stays_finite_forward_and_backward():
    query, key, value = _arrays()
    bias = np.full((3, 7), attention.MASKED, np.float32)
    out, gradient = jax.value_and_grad(lambda q: attention.attend(q, key, value, bias).sum())(query)
    assert np.isfinite(out)
    assert np.isfinite(gradient).all()


def test_low_precision_goes_in_and_out_but_the_softmax_is_float32():
    query, key, value = (jnp.asarray(array, jnp.bfloat16) for array in _arrays())
    out = attention.attend(query, key, value)
    exact = _by_hand(*(np.asarray(array, np.float32) for array in (query, key, value)), np.zeros((3, 7)))
    assert out.dtype == jnp.bfloat16
    # Two roundings to 8 bits: of the weights and of the result.
    assert np.abs(np.asarray(out, np.float32) - exact).max() < 2 * 2**-8 * np.abs(exact).max()


@pytest.mark.parametrize(
    ("backend", "named"), [("cudnn", "needs a gpu"), ("splash", "needs a tpu"), ("flash", "expected one of")]
)
def test_a_back_end_that_is_not_there_is_a_user_error(backend, named):
    with pytest.raises(UserError, match=named):
        attention.attend(*_arrays(), backend=backend)


def test_splash_lowers_for_tpus_forward_and_backward_on_a_machine_without_one():
    query = jax.ShapeDtypeStruct((2, 256, 4, 72), jnp.bfloat16)
    gradient = jax.jit(jax.grad(lambda q: attention.attend(q, q, q, backend="splash").astype(jnp.float32).sum()))
    with attention.compiling_for("tpu"):
        text = gradient.trace(query).lower(lowering_platforms=("tpu",)).as_text()
        with pytest.raises(UserError, match="multiple of 128 tokens, found 5 queries"):
            attention.attend(*_arrays(), backend="splash")
    assert text.count("tpu_custom_call") >= 2


def test_cudnn_asks_for_bfloat16():
    with attention.compiling_for("gpu"), pytest.raises(UserError, match="bfloat16, found float32"):
        attention.attend(*_arrays(), backend="cudnn")
