"""The optimizer: PyTorch's AdamW with ``grad=None`` on whatever rests, and bit-identical rest."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from worlds import adam_state

from realiz3d_jax.config.schema import OptimizerConfig
from realiz3d_jax.method.domains import Domain
from realiz3d_jax.method.interface import Iteration, Stage
from realiz3d_jax.models.dit import PARTS
from realiz3d_jax.training import optimizer

DEPTH, WIDTH = 5, 7
REAL = Iteration("real", "real_images", Domain.REAL, freeze_input=True)
SYNTHETIC = Iteration("synthetic", "synthetic_grids", Domain.SYNTHETIC, joint=True, control=True)
SHARED = Iteration("real", "real_images", Domain.REAL, freeze_input=True, freeze_shared=True)
TRAINABLE = ("backbone", "control")
STAGE = Stage(("backbone", "shifters", "control"), TRAINABLE, (SYNTHETIC, REAL))


def make_optimizer(**settings):
    """Of stage 2, ten steps."""
    return optimizer.make_optimizer(OptimizerConfig(**settings), steps=10, parts=PARTS, stage=STAGE)


def activity(params: dict, iteration: Iteration, frozen: int = 0) -> dict:
    return optimizer.activity(params, iteration, jnp.int32(frozen), PARTS, DEPTH, TRAINABLE)


def fresh_params() -> dict:
    random = np.random.default_rng(0)

    def array(*shape: int) -> jax.Array:
        return jnp.asarray(random.normal(size=shape), jnp.float32)

    return {
        "backbone": {
            "patch_embedding": {"kernel": array(WIDTH, WIDTH)},
            "modulation": {"kernel": array(WIDTH, WIDTH)},
            "blocks": {"mlp": {"kernel": array(DEPTH, WIDTH, WIDTH), "bias": array(DEPTH, WIDTH)}},
            "final": {"kernel": array(WIDTH)},
        },
        "shifters": {"left": array(DEPTH, WIDTH)},
        "control": {"kernel": array(WIDTH)},
    }


def rests(path: str, layer: int | None, iteration: Iteration, frozen: int) -> bool:
    """What the method says rests, restated independently of ``optimizer.activity``."""
    if "blocks" in path:
        return layer < frozen
    if "shifters" in path or ("modulation" in path and iteration is SHARED):
        return True
    return iteration is not SYNTHETIC and ("patch_embedding" in path or "control" in path)


def test_random_freezing_follows_torch_adamw_with_grad_none_on_what_rests():
    transformation = make_optimizer(learning_rate=0.03, weight_decay=0.1, clip_norm=0.0, b1=0.8, b2=0.95, epsilon=0.01)
    params = fresh_params()
    state = transformation.init(params)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    # One torch parameter a block: in torch a block can rest by itself.
    pieces = [
        [torch.nn.Parameter(torch.tensor(np.array(piece))) for piece in (leaf if "blocks" in path else leaf[None])]
        for path, leaf in zip(paths, jax.tree.leaves(params), strict=True)
    ]
    reference = torch.optim.AdamW(
        [p for row in pieces for p in row], lr=0.03, weight_decay=0.1, betas=(0.8, 0.95), eps=0.01
    )

    @jax.jit
    def update(gradients, state, params, active):
        updates, state = transformation.update(gradients, state, params, active=active)
        return jax.tree.map(jnp.add, params, updates), state

    random = np.random.default_rng(1)
    for _ in range(50):
        iteration = (REAL, SHARED, SYNTHETIC, SYNTHETIC)[random.integers(4)]
        frozen = 0 if iteration is SYNTHETIC else int(random.integers(0, DEPTH + 1))
        gradients = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), jnp.float32), params)
        params, state = update(gradients, state, params, activity(params, iteration, frozen))
        for path, row, gradient in zip(paths, pieces, jax.tree.leaves(gradients), strict=True):
            for layer, (piece, part) in enumerate(
                zip(row, gradient if "blocks" in path else gradient[None], strict=True)
            ):
                resting = rests(path, layer, iteration, frozen)
                piece.grad = None if resting else torch.tensor(np.array(part))
        reference.step()
    for path, row, leaf in zip(paths, pieces, jax.tree.leaves(params), strict=True):
        expected = torch.stack(list(row)).detach().numpy().reshape(leaf.shape)
        error = np.max(np.abs(np.array(leaf) - expected)) / np.max(np.abs(expected))
        assert error < 1e-5, (path, error)


@pytest.mark.parametrize("iteration", [REAL, SHARED], ids=["blocks", "blocks and shared"])
@pytest.mark.parametrize("frozen", range(DEPTH + 1))
def test_what_rests_keeps_parameters_moments_and_count_bit_for_bit(frozen: int, iteration: Iteration):
    transformation = make_optimizer(learning_rate=0.1, weight_decay=0.1)
    params = fresh_params()
    state = transformation.init(params)
    ones = jax.tree.map(jnp.ones_like, params)
    updates, state = transformation.update(ones, state, params, active=activity(params, SYNTHETIC))
    params = jax.tree.map(jnp.add, params, updates)

    updates, new_state = transformation.update(ones, state, params, active=activity(params, iteration, frozen))
    new_params = jax.tree.map(jnp.add, params, updates)
    adam, new_adam = adam_state(state), adam_state(new_state)
    assert set(adam.mu) == set(adam.nu) == set(adam.count) == set(TRAINABLE), "what rests has no moments"
    for old, new in [
        (params, new_params),
        (adam.mu, new_adam.mu),
        (adam.nu, new_adam.nu),
        (adam.count, new_adam.count),
    ]:
        for (path, before), after in zip(
            jax.tree_util.tree_flatten_with_path(old)[0], jax.tree.leaves(new), strict=True
        ):
            name = jax.tree_util.keystr(path)
            if "blocks" in name:
                for layer in range(DEPTH):
                    same = np.array_equal(before[layer], after[layer])
                    assert same == rests(name, layer, iteration, frozen), (name, layer)
            else:
                assert np.array_equal(before, after) == rests(name, None, iteration, frozen), name


def test_a_control_that_is_not_given_rests_also_where_what_feeds_block_0_trains():
    real = dataclasses.replace(REAL, freeze_input=False)
    active = activity(fresh_params(), real)
    assert not active["control"]["kernel"]
    assert active["backbone"]["patch_embedding"]["kernel"]
    assert active["backbone"]["blocks"]["mlp"]["kernel"].all()


def test_clipping_sees_only_what_trains():
    params = fresh_params()
    transformation = make_optimizer(learning_rate=1.0, weight_decay=0.0, clip_norm=1.0)
    gradients = jax.tree.map(jnp.ones_like, params)
    gradients["backbone"]["patch_embedding"]["kernel"] *= 1e6  # rests below, so it must not shrink the others' share
    _, state = transformation.update(gradients, transformation.init(params), params, active=activity(params, REAL))
    trained = jax.tree.leaves(adam_state(state).mu)
    norm = np.sqrt(sum(float(jnp.sum(jnp.square(moment / 0.1))) for moment in trained))
    assert norm == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("clip_norm", [0.0, 0.5, 3.0, 1e6])
def test_gradients_are_scaled_down_together_to_the_norm_of_the_settings(clip_norm: float):
    params = fresh_params()
    transformation = make_optimizer(learning_rate=1.0, weight_decay=0.0, clip_norm=clip_norm, b1=0.75)
    random = np.random.default_rng(0)
    gradients = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), jnp.float32), params)
    trained = [leaf for name in TRAINABLE for leaf in jax.tree.leaves(gradients[name])]
    norm = np.sqrt(sum(float(jnp.sum(jnp.square(leaf))) for leaf in trained))
    assert 10 < norm < 100
    everything = activity(params, SYNTHETIC)
    _, state = transformation.update(gradients, transformation.init(params), params, active=everything)
    moments = adam_state(state).mu
    factor = min(1.0, clip_norm / norm) if clip_norm else 1.0
    for moment, gradient in zip(
        [leaf for name in TRAINABLE for leaf in jax.tree.leaves(moments[name])], trained, strict=True
    ):
        np.testing.assert_allclose(moment, 0.25 * factor * gradient, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "trapezoid"])
def test_update_n_is_as_long_as_the_schedule_says_at_n(schedule: str):
    """Of a gradient that is always 1, AdamW's step without decay is the learning rate; with it, decay comes on top."""
    transformation = make_optimizer(
        learning_rate=0.5, schedule=schedule, warmup_steps=3, weight_decay=0.2, clip_norm=0.0, epsilon=1e-12
    )
    params = fresh_params()
    state, ones = transformation.init(params), jax.tree.map(jnp.ones_like, params)
    everything = activity(params, SYNTHETIC)
    update = jax.jit(lambda state: transformation.update(ones, state, params, active=everything))
    ends = {
        "constant": [0.5] * 7,
        "cosine": 0.25 * (1 + np.cos(np.pi * np.arange(7) / 7)),
        "trapezoid": [0.5] * 6 + [0.25],
    }
    for rate in (0.0, 0.5 / 3, 1.0 / 3, *ends[schedule]):
        steps, state = update(state)
        assert not np.any(steps["shifters"]["left"]), "what does not train rests"
        steps, weights = ({name: tree[name] for name in TRAINABLE} for tree in (steps, params))
        for step, leaf in zip(jax.tree.leaves(steps), jax.tree.leaves(weights), strict=True):
            np.testing.assert_allclose(step, -rate * (1 + 0.2 * leaf), rtol=1e-4, atol=1e-6)


def test_the_control_factor_scales_the_steps_of_the_control_alone():
    params = fresh_params()
    active = activity(params, SYNTHETIC)
    steps = {}
    for factor in (1.0, 8.0):
        transformation = make_optimizer(learning_rate=0.1, weight_decay=0.1, control_factor=factor)
        steps[factor], _ = transformation.update(params, transformation.init(params), params, active=active)
    np.testing.assert_allclose(steps[8.0]["control"]["kernel"], 8 * steps[1.0]["control"]["kernel"], rtol=1e-6)
    for one, other in zip(
        jax.tree.leaves(steps[1.0]["backbone"]), jax.tree.leaves(steps[8.0]["backbone"]), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_the_learning_rate_warms_up_and_follows_its_schedule():
    cosine = optimizer.learning_rate_schedule(
        OptimizerConfig(learning_rate=2.0, schedule="cosine", warmup_steps=10), 110
    )
    assert [float(cosine(step)) for step in (0, 5, 10, 60, 110)] == pytest.approx([0, 1, 2, 1, 0], abs=1e-6)
    trapezoid = optimizer.learning_rate_schedule(
        OptimizerConfig(learning_rate=2.0, schedule="trapezoid", warmup_steps=10), 100
    )
    assert [float(trapezoid(step)) for step in (0, 5, 10, 80, 90, 100)] == pytest.approx([0, 1, 2, 2, 1, 0], abs=1e-6)
    constant = optimizer.learning_rate_schedule(OptimizerConfig(learning_rate=2.0, warmup_steps=10), 110)
    assert [float(constant(step)) for step in (0, 5, 10, 110)] == pytest.approx([0, 1, 2, 2])
