"""The transformer as this project uses it: groups, shifts, controls, frozen blocks, and ways to run it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import residual
from realiz3d_jax.models import dit
from realiz3d_jax.models.presets import PIXART
from realiz3d_jax.sampling.pretrained import SHIPPED, open_model

TINY = dit.DiTConfig(
    width=32,
    depth=3,
    heads=2,
    patch_size=2,
    in_channels=3,
    out_channels=6,
    caption_channels=8,
    sample_size=8,
    base_size=4,
)
BATCH, VIEWS, TEXT = 2, 4, 5

CHEAP = {"xla_backend_optimization_level": 0}
"""Compiler options that halve compilation: the code that is compared with itself need not be fast."""

predict = jax.jit(dit.apply, static_argnums=0, static_argnames="freeze_input")


def _normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@functools.cache
def _params():
    """Random parameters of which none is zero: fresh ones would hide the text and predict nothing."""
    shapes = jax.tree.leaves_with_path(jax.eval_shape(lambda: dit.init(TINY, jax.random.key(0))))
    leaves = [0.2 * _normal(100 + index, *leaf.shape) for index, (_, leaf) in enumerate(shapes)]
    structure = jax.tree.structure(jax.eval_shape(lambda: dit.init(TINY, jax.random.key(0))))
    return jax.tree.unflatten(structure, leaves)


def _inputs(groups, batch=BATCH, views=VIEWS):
    mask = np.arange(TEXT) < 1 + np.random.default_rng(1).integers(0, TEXT, (batch, groups, 1))
    return {
        "latents": _normal(2, batch, views, 8, 8, 3),
        "timestep": np.random.default_rng(3).integers(0, 1000, (batch, groups)).astype(np.int32),
        "captions": {"states": _normal(4, batch, groups, TEXT, 8), "mask": mask},
    }


def _views_that_differ(one, other):
    """Indices (grid, view) of the views whose prediction is not bit-identical."""
    return np.argwhere((np.asarray(one) != np.asarray(other)).any(axis=(2, 3, 4))).tolist()


def _relative_error(found, expected):
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return np.abs(found - expected).max() / np.abs(expected).max()


# --- Groups ---


def test_a_fresh_model_is_stacked_and_predicts_nothing_because_its_last_layer_is_zero():
    params = jax.jit(dit.init, static_argnums=0)(TINY, jax.random.key(0))
    assert set(dit.PARTS.input + dit.PARTS.stacked) < set(params)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(params["blocks"])} == {TINY.depth}
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    tables = np.asarray(params["blocks"]["table"])
    assert (tables[0] != tables[1]).all()
    assert np.std(tables) == pytest.approx(TINY.width**-0.5, rel=0.1)
    kernel = np.asarray(params["blocks"]["self_attention"]["query_key_value"]["kernel"])
    assert np.abs(kernel).max() == pytest.approx((6 / (2 * TINY.width)) ** 0.5, rel=0.01)
    assert (params["blocks"]["cross_attention"]["out"]["kernel"] == 0).all()
    output = predict(TINY, params, **_inputs(1))
    assert (output.shape, output.dtype) == ((BATCH, VIEWS, 8, 8, 6), jnp.float32)
    assert (output == 0).all()


def test_in_single_image_mode_a_tile_changes_its_own_prediction_only_and_in_joint_mode_that_of_its_whole_grid():
    for groups, expected in ((VIEWS, [[1, 2]]), (1, [[1, 0], [1, 1], [1, 2], [1, 3]])):
        before, inputs = predict(TINY, _params(), **_inputs(groups)), _inputs(groups)
        inputs["latents"][1, 2, 0, 0, 0] += 1.0
        assert _views_that_differ(before, predict(TINY, _params(), **inputs)) == expected


def test_joint_mode_differs_from_single_image_mode_under_the_same_captions_and_timesteps():
    joint = _inputs(1)
    groups = {key: joint[key] for key in ("timestep", "captions")}
    single = joint | jax.tree.map(lambda array: np.repeat(array, VIEWS, axis=1), groups)
    assert _relative_error(predict(TINY, _params(), **joint), predict(TINY, _params(), **single)) > 0.1


def test_single_image_mode_equals_separate_calls_where_every_tile_has_the_positions_of_a_single_image():
    config = dataclasses.replace(TINY, positions="view")
    inputs = _inputs(VIEWS)
    alone = jax.tree.map(lambda array: array.reshape(BATCH * VIEWS, 1, *array.shape[2:]), inputs)
    expected = np.asarray(predict(TINY, _params(), **alone)).reshape(BATCH, VIEWS, 8, 8, 6)
    assert _relative_error(predict(config, _params(), **inputs), expected) < 1e-5
    assert _relative_error(predict(TINY, _params(), **inputs), expected) > 1e-2  # on the canvas positions differ


def test_each_group_has_its_own_caption_and_timestep():
    before = predict(TINY, _params(), **_inputs(VIEWS))
    for change in (lambda inputs: inputs["timestep"], lambda inputs: inputs["captions"]["states"]):
        changed = _inputs(VIEWS)
        change(changed)[0, 3] += 1
        assert _views_that_differ(before, predict(TINY, _params(), **changed)) == [[0, 3]]


def test_masked_text_tokens_are_never_read():
    inputs = _inputs(1)
    before = predict(TINY, _params(), **inputs)
    captions = inputs["captions"]
    noise = _normal(10, *captions["states"].shape)
    captions["states"] = np.where(captions["mask"][..., None], captions["states"], noise)
    assert _views_that_differ(before, predict(TINY, _params(), **inputs)) == []


# --- Shifts and controls ---


def test_zero_shifts_and_zero_controls_change_no_bit():
    for groups in (1, VIEWS):
        inputs = _inputs(groups)
        nothing = predict(TINY, _params(), **inputs)
        zeros = predict(
            TINY,
            _params(),
            **inputs,
            block_shift=np.zeros((TINY.depth, 1, TINY.width), np.float32),
            control_tokens=np.zeros((1, VIEWS, 1, TINY.width), np.float32),
        )
        assert _views_that_differ(nothing, zeros) == []


def test_shifts_go_to_their_grid_and_a_shift_for_all_grids_may_be_given_once():
    inputs = _inputs(VIEWS)
    shift = _normal(5, TINY.depth, 1, TINY.width)
    shared = predict(TINY, _params(), **inputs, block_shift=shift)
    repeated = predict(TINY, _params(), **inputs, block_shift=np.repeat(shift, BATCH, axis=1))
    assert _relative_error(repeated, shared) < 1e-6
    first_only = np.concatenate([shift, np.zeros_like(shift)], axis=1)
    mixed = predict(TINY, _params(), **inputs, block_shift=first_only)
    assert _relative_error(mixed[0], shared[0]) < 1e-6
    assert _relative_error(mixed[1], predict(TINY, _params(), **inputs)[1]) < 1e-6
    assert _relative_error(shared, predict(TINY, _params(), **inputs)) > 1e-2


def test_the_shift_before_the_first_block_is_what_a_control_adds_to_all_tokens():
    inputs, shift = _inputs(1), _normal(6, TINY.width)
    first = np.zeros((TINY.depth, 1, TINY.width), np.float32)
    first[0, 0] = shift
    by_shift = predict(TINY, _params(), **inputs, block_shift=first)
    by_control = predict(TINY, _params(), **inputs, control_tokens=np.tile(shift, (1, VIEWS, 1, 1)))
    assert _relative_error(by_shift, by_control) < 1e-5


# --- Frozen blocks ---


@functools.cache
def _compiled_gradients(config, freezing, freeze_input, freeze_shared):
    """(params, shift, control, frozen_blocks or None) -> loss and gradients by the first three: one executable."""

    def loss(params, shift, control, frozen_blocks):
        output = dit.apply(
            config,
            params,
            **_inputs(1),
            block_shift=shift,
            control_tokens=control,
            frozen_blocks=frozen_blocks,
            freeze_input=freeze_input,
            freeze_shared=freeze_shared,
        )
        return jnp.sum(output * _normal(7, *output.shape)) / output.size

    gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))
    lowered = gradients.lower(_params(), _shift(), _control(), np.int32(0) if freezing else None)
    return lowered.compile(compiler_options=CHEAP)


def _shift():
    return _normal(8, TINY.depth, BATCH, TINY.width)


def _control():
    return _normal(9, 1, VIEWS, 1, TINY.width)


def _gradients(config, frozen_blocks, freeze_input=False, freeze_shared=False):
    compiled = _compiled_gradients(config, frozen_blocks is not None, freeze_input, freeze_shared)
    loss, (params, shift, control) = compiled(_params(), _shift(), _control(), frozen_blocks)
    return loss, {"params": params, "shift": shift, "control": control}


def _assert_close(found, expected, tolerance):
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.abs(np.asarray(one, np.float64) - np.asarray(other, np.float64)).max() <= tolerance * scale


def _all_zero(tree):
    return all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(tree))


def test_frozen_blocks_get_no_gradient_and_the_others_keep_theirs_for_every_range_in_one_executable():
    loss, free = _gradients(TINY, None)
    for frozen in range(TINY.depth + 1):
        found_loss, found = _gradients(TINY, np.int32(frozen))
        assert found_loss == pytest.approx(float(loss), rel=1e-6)
        blocks = (found["params"]["blocks"], found["shift"])
        assert _all_zero(jax.tree.map(lambda leaf: leaf[:frozen], blocks))  # noqa: B023
        expected = jax.tree.map(lambda leaf: leaf[frozen:], (free["params"]["blocks"], free["shift"]))  # noqa: B023
        if frozen < TINY.depth:
            _assert_close(jax.tree.map(lambda leaf: leaf[frozen:], blocks), expected, 1e-6)  # noqa: B023
        _assert_close(found["params"]["final"], free["params"]["final"], 1e-6)
        assert _all_zero((found["params"]["patch_embedding"], found["control"])) == (frozen > 0)
        assert _all_zero((found["params"]["modulation"], found["params"]["caption_projection"])) == (
            frozen == TINY.depth
        )


def test_computing_and_masking_the_frozen_backward_pass_gives_the_same_gradients_as_skipping_it():
    masked = dataclasses.replace(TINY, skip_frozen_backward=False)
    for frozen in range(TINY.depth + 1):
        found, expected = (_gradients(config, np.int32(frozen))[1] for config in (masked, TINY))
        _assert_close(found, expected, 1e-6)
        assert _all_zero(jax.tree.map(lambda leaf: leaf[:frozen], found["params"]["blocks"]))  # noqa: B023


def test_a_frozen_input_takes_the_gradient_from_patches_and_control_and_from_nothing_else():
    free, frozen = _gradients(TINY, np.int32(0))[1], _gradients(TINY, np.int32(0), freeze_input=True)[1]
    assert _all_zero((frozen["params"].pop("patch_embedding"), frozen.pop("control")))
    assert not _all_zero((free["params"].pop("patch_embedding"), free.pop("control")))
    _assert_close(frozen, free, 1e-6)


def test_frozen_shared_parts_take_the_gradient_from_timestep_modulation_and_caption_and_from_nothing_else():
    free, frozen = _gradients(TINY, np.int32(1))[1], _gradients(TINY, np.int32(1), freeze_shared=True)[1]
    shared = set(dit.PARTS.shared) & set(free["params"])
    assert shared == {"timestep_embedding", "modulation", "caption_projection"}
    for part in shared:
        assert _all_zero(frozen["params"].pop(part))
        assert not _all_zero(free["params"].pop(part))
    _assert_close(frozen, free, 1e-6)


# --- Ways to run ---


@pytest.mark.parametrize(
    "changes",
    [
        {"remat": "full"},
        {"remat": "attention", "scan_unroll": 3},
    ],
    ids=str,
)
def test_rematerialisation_and_unrolling_change_nothing_but_rounding(changes):
    loss, expected = _gradients(TINY, np.int32(1))
    found_loss, found = _gradients(dataclasses.replace(TINY, **changes), np.int32(1))
    assert found_loss == pytest.approx(float(loss), rel=1e-5)
    _assert_close(found, expected, 2e-6)


def test_with_bfloat16_products_a_float32_residual_stream_keeps_the_domains_that_a_bfloat16_one_blurs():
    """The effect of the shipped model's shifts, beside that in float32."""
    model = open_model(SHIPPED["texture"], devices=jax.devices()[:1])
    exact = residual.domain_effect(model, 1.0, "float32", "float32")
    errors = {}
    for stream in ("float32", "bfloat16"):
        found = residual.domain_effect(model, 1.0, "bfloat16", stream)
        errors[stream] = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    assert 0.01 < errors["float32"] < 0.12, errors
    assert errors["bfloat16"] > 2 * errors["float32"], errors


@pytest.mark.parametrize("groups", [1, VIEWS])
def test_analytic_flops_are_those_that_the_compiler_counts(groups):
    config = dataclasses.replace(TINY, width=512, heads=8, sample_size=16, base_size=8, scan_unroll=3)
    params = jax.eval_shape(lambda: dit.init(config, jax.random.key(0)))
    shapes = jax.eval_shape(lambda: _inputs(groups) | {"latents": jnp.zeros((BATCH, VIEWS, 16, 16, 3))})
    counted = jax.jit(lambda params, inputs: dit.apply(config, params, **inputs)).lower(params, shapes).cost_analysis()
    analytic = BATCH * dit.flops(config, VIEWS, groups, TEXT)
    assert 0.0 <= counted["flops"] / analytic - 1.0 < 0.03  # what is over are norms, softmax and activations


def test_at_the_size_of_pixart_sigma_parameters_and_flops_are_the_published_ones():
    config = PIXART["pixart_sigma"]
    params = jax.eval_shape(lambda: dit.init(config, jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 610_856_096
    assert dit.flops(config, views=4, groups=1, text_tokens=300) == pytest.approx(6.63e12, rel=1e-3)
