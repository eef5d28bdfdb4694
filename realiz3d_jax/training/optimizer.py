"""AdamW that leaves a frozen block exactly unchanged: parameters, both moments and the count of its own steps.

A zero gradient does not freeze a block: momentum and weight decay still move it. PyTorch's AdamW skips a parameter whose
``.grad is None`` entirely and counts its steps separately. Here blocks are stacked, [L, ...], and the frozen range is known
only at run time, so every leaf has an array ``active``, bool[blocks] for a stacked leaf and otherwise bool[]. With n the
leaf's (or block's) own count of active steps,

    (1)  m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2,   n <- n + 1
    (2)  p <- p - lr ( (m / (1 - b1^n)) / (sqrt(v / (1 - b2^n)) + epsilon) + decay p )

where active; elsewhere nothing changes (Loshchilov and Hutter 2019, algorithm 2).
"""

import math
from collections.abc import Hashable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from realiz3d_jax.config.schema import OptimizerConfig
from realiz3d_jax.errors import UserError
from realiz3d_jax.method.interface import Iteration, Stage
from realiz3d_jax.models.backbone import Parts

Tree = Any


class AdamState(NamedTuple):
    """State of Adam.

    Attributes:
      count: int32[L] or int32[], active steps of each block or leaf.
      mu, nu: first and second moments, shaped like the parameters.
    """

    count: Tree
    mu: Tree
    nu: Tree


def activity(
    params: Tree, iteration: Iteration, frozen: jax.Array, parts: Parts, depth: int, trainable: tuple[str, ...]
) -> Tree:
    """Determines which parts of a stage's partitions an iteration updates.

    Args:
      params: the partitions, ``{"backbone": ..., "shifters": ..., "control": ...}``.
      iteration: kind of iteration. ``freeze_input`` freezes the input of block 0, including the control embedding, which is
        also frozen without control; ``freeze_shared`` freezes the parameters that all blocks share.
      frozen: int32[], number of frozen blocks, from the first.
      parts: assignment of the backbone's parameters to blocks.
      depth: number of blocks L.
      trainable: the partitions that train in this stage; all others are frozen.

    Returns:
      a tree like ``params`` of bool[blocks] (stacked leaves) or bool[].
    """

    def active(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        partition, part = path[0].key, path[1].key
        if partition not in trainable:
            return jnp.asarray(False)
        if partition == "backbone" and part in parts.stacked:
            return jnp.arange(leaf.shape[0]) >= frozen
        if partition == "backbone" and part in parts.last:
            return frozen < depth
        if partition == "backbone" and part in parts.input:
            return jnp.asarray(not iteration.freeze_input)
        if partition == "backbone" and part in parts.shared:
            return jnp.asarray(not iteration.freeze_shared)
        if partition == "control":
            return jnp.asarray(iteration.control and not iteration.freeze_input)
        return jnp.asarray(True)

    return jax.tree_util.tree_map_with_path(active, params)


def labels(stage: Stage) -> dict[str, str]:
    """Returns the role of each partition in a stage, a prefix tree of its parameters: "trains", "control" or "rests"."""
    trains = {name: "control" if name == "control" else "trains" for name in stage.trainable}
    return {name: trains.get(name, "rests") for name in stage.partitions}


def make_optimizer(
    config: OptimizerConfig, steps: int, parts: Parts, stage: Stage
) -> optax.GradientTransformationExtraArgs:
    """Builds the optimizer: clipping, then equations (1) and (2) for trainable partitions; frozen ones have no moments.

    ``update`` takes gradients of all partitions, zeros for frozen ones, and ``active``, a tree as returned by ``activity`` for
    ``parts``; ``optax.multi_transform`` passes each transformation its part of both.

    Args:
      config: settings of the optimizer.
      steps: number of steps of the run.
      parts: assignment of the backbone's parameters to blocks.
      stage: the stage.
    """
    learning_rate = learning_rate_schedule(config, steps)

    def adamw(factor: float) -> optax.GradientTransformationExtraArgs:
        return optax.chain(
            _scale_by_adam_where_active(config.b1, config.b2, config.epsilon, parts),
            optax.add_decayed_weights(config.weight_decay),
            optax.scale_by_learning_rate(learning_rate),
            optax.scale(factor),
        )

    transforms: dict[Hashable, optax.GradientTransformation] = {
        "trains": adamw(1.0),
        "control": adamw(config.control_factor),
        "rests": optax.set_to_zero(),
    }
    return optax.chain(
        _zero_where_inactive(),
        optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
        optax.multi_transform(transforms, labels(stage), mask_compatible_extra_args=True),
        _zero_where_inactive(),
    )


def learning_rate_schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Returns the learning rate as a function of the step, counted from 0.

    Args:
      config: settings of the optimizer.
      steps: number of steps of the run.

    Raises:
      UserError: the schedule is unknown.
    """
    peak, warmup = config.learning_rate, config.warmup_steps
    after_warmup = {
        "constant": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, max(steps - warmup, 1)),
        "trapezoid": optax.linear_schedule(peak, 0.0, steps // 5, transition_begin=steps - steps // 5 - warmup),
    }
    if config.schedule not in after_warmup:
        raise UserError(
            f"config.optimizer.schedule: found {config.schedule!r}, expected one of {', '.join(after_warmup)}."
        )
    return optax.join_schedules(
        [optax.linear_schedule(0.0, peak, warmup), after_warmup[config.schedule]], boundaries=[warmup]
    )


def _where(active: jax.Array, new: jax.Array, old: jax.Array) -> jax.Array:
    return jnp.where(active.reshape(active.shape + (1,) * (new.ndim - active.ndim)), new, old)


def _zero_where_inactive() -> optax.GradientTransformationExtraArgs:
    def update(updates: Tree, state: optax.EmptyState, params: Tree = None, *, active: Tree) -> tuple[Tree, Tree]:
        return jax.tree.map(lambda a, u: _where(a, u, jnp.zeros_like(u)), active, updates), state

    # optax's constructor is typed without the extra arguments that the class is for.
    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)  # pyright: ignore[reportArgumentType]


def _scale_by_adam_where_active(
    b1: float, b2: float, epsilon: float, parts: Parts
) -> optax.GradientTransformationExtraArgs:
    def init(params: Tree) -> AdamState:
        def zero_count(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
            stacked = path[0].key == "backbone" and path[1].key in parts.stacked
            return jnp.zeros(leaf.shape[:1] if stacked else (), jnp.int32)

        zeros = jax.tree.map(jnp.zeros_like, params)
        return AdamState(jax.tree_util.tree_map_with_path(zero_count, params), zeros, zeros)

    def update(gradients: Tree, state: AdamState, params: Tree = None, *, active: Tree) -> tuple[Tree, AdamState]:
        count = jax.tree.map(lambda a, n: n + a, active, state.count)
        mu = jax.tree.map(lambda a, m, g: _where(a, b1 * m + (1 - b1) * g, m), active, state.mu, gradients)
        nu = jax.tree.map(lambda a, v, g: _where(a, b2 * v + (1 - b2) * g * g, v), active, state.nu, gradients)

        def direction(n: jax.Array, m: jax.Array, v: jax.Array) -> jax.Array:
            n = jnp.maximum(n, 1).reshape(n.shape + (1,) * (m.ndim - n.ndim))
            first, second = (
                -jnp.expm1(n * math.log(b)) for b in (b1, b2)
            )  # 1 - b^n, exact to the last digits at small n
            return (m / first) / (jnp.sqrt(v / second) + epsilon)

        return jax.tree.map(direction, count, mu, nu), AdamState(count, mu, nu)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]  # as above
