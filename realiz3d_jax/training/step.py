"""One training iteration as a pure function, compiled by ``train``, the tests and ahead-of-time compilation alike."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from einops import rearrange

from realiz3d_jax.diffusion.loss import squared_error
from realiz3d_jax.method.interface import Iteration, Params, Stage
from realiz3d_jax.method.model import Model
from realiz3d_jax.method.plans import BlockPlan
from realiz3d_jax.models import backbone, parallel
from realiz3d_jax.models.backbone import Captions
from realiz3d_jax.training.optimizer import activity
from realiz3d_jax.training.state import TrainState, stream_key

Batch = dict[str, Any]
Metrics = dict[str, jax.Array]

TIMESTEP_BUCKETS = 4


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """Settings of a step.

    Attributes:
      model: the model.
      stage: the stage.
      optimizer: as built by ``make_optimizer``.
      seed: seed of all random streams.
      caption_dropout: probability that a caption is replaced by the empty one.
      ema_decay: final decay of the moving average.
      timestep_weight_cap: upper bound of the loss weight of a timestep.
      empty_caption: the text encoder's arrays [...] of the empty caption.
      accumulation: number of parts in which a batch is computed sequentially, each with equally many grids of every device.
    """

    model: Model
    stage: Stage
    optimizer: optax.GradientTransformationExtraArgs
    seed: int
    caption_dropout: float
    ema_decay: float
    timestep_weight_cap: float
    empty_caption: Captions
    accumulation: int = 1


def make_step(config: StepConfig, iteration: Iteration) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Returns the step function of one kind of iteration, to be jitted with the state donated.

    The batch holds ``image`` and, if the iteration is controlled, ``control``, [B, V, ...] as stored by the codec, and
    ``captions``, arrays [B, G, ...]. A step whose loss or gradient is not finite changes only the step number and the counts
    of skipped steps.

    Metrics: ``loss`` and ``gradient_norm`` float32[]; ``bucket_loss`` and ``bucket_count`` float32[4], the summed loss and
    the number of groups in each quarter of the timesteps; ``finite`` bool[]; ``skipped_in_a_row`` int32[].

    Args:
      config: settings of the step.
      iteration: kind of iteration.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        model = config.model
        plan = iteration.plan(stream_key(config.seed, "plan", state.step), model.config.depth)
        control = None
        if iteration.control:
            control = model.codec.control(batch["control"]) if model.task == "texture" else batch["control"]
        inputs = parallel.split_batch({**_draw(config, iteration, state.step, batch), "control": control})
        trainable = {name: state.params[name] for name in config.stage.trainable}
        frozen = {name: state.params[name] for name in state.params if name not in trainable}
        loss_fn = functools.partial(_loss, config, iteration, plan, frozen)
        gradient_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, losses), gradients = _mean_over_parts(gradient_fn, trainable, inputs, config.accumulation)
        parts, depth = backbone.of(model.config).PARTS, model.config.depth
        active = activity(state.params, iteration, plan.frozen, parts, depth, config.stage.trainable)
        # Frozen partitions are not differentiated: their zeros are constants, which no device stores (tested on the program).
        everything = {**jax.tree.map(jnp.zeros_like, frozen), **gradients}
        updates, opt_state = config.optimizer.update(everything, state.opt_state, state.params, active=active)
        updates = cast(Params, updates)
        updated = optax.apply_updates(trainable, {name: updates[name] for name in trainable})
        decay = jnp.minimum(config.ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema = jax.tree.map(lambda average, new: decay * average + (1 - decay) * new, state.ema, updated)

        gradient_norm = optax.tree.norm(gradients)
        finite = jnp.isfinite(loss) & jnp.isfinite(gradient_norm)
        kept = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old),
            (updated, opt_state, ema),
            (trainable, state.opt_state, state.ema),
        )
        skipped = jnp.where(finite, 0, 1).astype(jnp.int32)
        new_state = TrainState(
            step=state.step + 1,
            params={**state.params, **kept[0]},
            opt_state=kept[1],
            ema=kept[2],
            skipped=state.skipped + skipped,
            skipped_in_a_row=(state.skipped_in_a_row + skipped) * skipped,
        )
        metrics = {
            "loss": loss,
            "gradient_norm": gradient_norm,
            **_bucket_losses(losses, inputs["timestep"], model.process.num_timesteps),
            "finite": finite,
            "skipped_in_a_row": new_state.skipped_in_a_row,
        }
        return new_state, metrics

    return step


def _loss(
    config: StepConfig, iteration: Iteration, plan: BlockPlan, frozen: Params, trainable: Params, inputs: Batch
) -> tuple[jax.Array, jax.Array]:
    """Returns the weighted mean loss, and the unweighted losses float32[B, G] of the groups."""
    model = config.model
    prediction = model.predict(
        {**frozen, **trainable},
        inputs["noisy"],
        inputs["timestep"],
        inputs["captions"],
        domain=plan.domain,
        control=inputs["control"],
        frozen_blocks=plan.frozen if iteration.draw_plan else None,
        freeze_input=iteration.freeze_input,
        freeze_shared=iteration.freeze_shared,
    )
    losses = squared_error(prediction, inputs["target"], groups=inputs["timestep"].shape[1])
    weight = model.process.weight(inputs["timestep"], config.timestep_weight_cap)
    return jnp.mean(weight * losses), losses


def _mean_over_parts(
    gradient_fn: Callable[[Params, Batch], tuple[tuple[jax.Array, jax.Array], Params]],
    trainable: Params,
    inputs: Batch,
    parts: int,
) -> tuple[tuple[jax.Array, jax.Array], Params]:
    """Returns ``((loss, losses), gradients)`` of a batch, in equal parts, so that only one part's activations are in memory."""
    if parts == 1:
        return gradient_fn(trainable, inputs)
    devices = parallel.device_count()
    # Each part takes equally many rows of every device, so no data moves.
    divide = lambda array: rearrange(array, "(d k m) ... -> k (d m) ...", d=devices, k=parts)  # noqa: E731
    divided = parallel.split_batch(jax.tree.map(divide, inputs), axis=1)

    def add(total: tuple[jax.Array, Params], part: Batch) -> tuple[tuple[jax.Array, Params], jax.Array]:
        (loss, losses), gradients = gradient_fn(trainable, part)
        return jax.tree.map(jnp.add, total, (loss, gradients)), losses

    nothing = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, trainable))
    total, losses = jax.lax.scan(add, nothing, divided)
    loss, gradients = jax.tree.map(lambda summed: summed / parts, total)
    return (loss, rearrange(losses, "k (d m) g -> (d k m) g", d=devices)), gradients


def _draw(config: StepConfig, iteration: Iteration, step: jax.Array, batch: Batch) -> Batch:
    """Draws the random part of an iteration, each from its own stream: latents, noise, timesteps, dropped captions."""
    process = config.model.process
    latents = config.model.codec.latents(batch["image"], stream_key(config.seed, "latents", step))
    shape = (latents.shape[0], 1 if iteration.joint else latents.shape[1])
    noise = jax.random.normal(stream_key(config.seed, "noise", step), latents.shape)
    timestep = process.draw_timesteps(stream_key(config.seed, "timestep", step), shape)
    dropped = jax.random.bernoulli(stream_key(config.seed, "caption_dropout", step), config.caption_dropout, shape)

    def drop(empty: jax.Array, given: jax.Array) -> jax.Array:
        return jnp.where(dropped.reshape(shape + (1,) * (given.ndim - dropped.ndim)), empty, given)

    return {
        "target": process.target(latents, noise, timestep),
        "timestep": timestep,
        "noisy": process.add_noise(latents, noise, timestep),
        "captions": jax.tree.map(drop, config.empty_caption, batch["captions"]),
    }


def _bucket_losses(losses: jax.Array, timestep: jax.Array, num_timesteps: int) -> Metrics:
    quarter = jnp.minimum(timestep * TIMESTEP_BUCKETS // num_timesteps, TIMESTEP_BUCKETS - 1).astype(jnp.int32)
    bucket = jax.nn.one_hot(quarter, TIMESTEP_BUCKETS)
    return {"bucket_loss": jnp.einsum("bg,bgk->k", losses, bucket), "bucket_count": jnp.sum(bucket, axis=(0, 1))}
