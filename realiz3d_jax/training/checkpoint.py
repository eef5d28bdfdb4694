"""Saves and restores a run's checkpoints, with one orbax item per partition, so that partitions can be restored alone.

A checkpoint holds ``backbone``, ``shifters``, ``control`` (those that the stage has), ``opt``, ``ema``, ``counters``, ``data``
(the position of every stream) and ``meta`` (the run's whole config). orbax writes to a temporary folder and renames it, so a
process killed at any point leaves the last complete checkpoint, never a partial one.
"""

import dataclasses
import json
import pathlib
from typing import Any

import orbax.checkpoint as ocp

from realiz3d_jax.checkpoints.workdirs import FOLDER, check_partitions, config_of, reading
from realiz3d_jax.config.schema import TrainConfig, to_json
from realiz3d_jax.training.state import TrainState

Tree = Any
Positions = dict[str, dict[str, int]]


class Checkpoints:
    """The checkpoints of one workdir; a context manager that waits for pending writes on exit."""

    def __init__(self, workdir: pathlib.Path, config: TrainConfig):
        self._config = config
        options = ocp.CheckpointManagerOptions(
            max_to_keep=config.log.checkpoints_kept,
            save_interval_steps=config.log.checkpoint_every or config.steps,
            enable_async_checkpointing=True,
        )
        self._manager = ocp.CheckpointManager((workdir / FOLDER).absolute(), options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *unused: object) -> None:
        self._manager.wait_until_finished()
        self._manager.close()

    def latest(self) -> int | None:
        """Returns the step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def due(self, step: int) -> bool:
        """Returns whether ``save`` would save ``step`` without ``force``."""
        return self._manager.latest_step() != step and self._manager.should_save(step)

    def save(self, step: int, state: TrainState, positions: Positions, force: bool = False) -> bool:
        """Saves a checkpoint if one is due or with ``force``; called every step, so that all hosts notice a preemption.

        Args:
          step: number of completed steps.
          state: state after these steps.
          positions: position of every data stream before the next batch.
          force: save even if no checkpoint is due.

        Returns:
          True if the (multi-host) job is being preempted and should stop now.
        """
        if self._manager.latest_step() == step:
            return self._manager.reached_preemption(step)
        items = {name: ocp.args.StandardSave(tree) for name, tree in _items(state).items()}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                **items,
                data=ocp.args.JsonSave(positions),
                meta=ocp.args.JsonSave({"config": json.loads(to_json(self._config))}),
            ),
            force=force,
        )
        return self._manager.reached_preemption(step)

    def config(self) -> TrainConfig:
        """Returns the config of the newest checkpoint.

        Raises:
          UserError: the checkpoint is damaged, or of another version.
        """
        return config_of(self._manager)

    def restore(self, like: TrainState) -> tuple[TrainState, Positions]:
        """Restores the newest checkpoint, with the shardings of ``like``.

        Args:
          like: a state, or its shapes, dtypes and shardings.

        Returns:
          (the state, the position of every data stream).

        Raises:
          UserError: a parameter is missing, surplus, or of another shape than in ``like`` (all are named), or the optimizer
            state belongs to another optimizer.
        """
        step = self._manager.latest_step()
        folder, wanted = pathlib.Path(self._manager.directory) / str(step), _items(like)
        arguments = {name: ocp.args.StandardRestore(tree) for name, tree in wanted.items()}
        with reading(folder):
            check_partitions(folder, like.params)
            restored = self._manager.restore(step, args=ocp.args.Composite(**arguments, data=ocp.args.JsonRestore()))
        state = dataclasses.replace(
            like,
            params={name: restored[name] for name in like.params},
            opt_state=restored["opt"],
            ema=restored["ema"],
            **restored["counters"],
        )
        return state, restored["data"]


def _items(state: TrainState) -> dict[str, Tree]:
    counters = {"step": state.step, "skipped": state.skipped, "skipped_in_a_row": state.skipped_in_a_row}
    return {**state.params, "opt": state.opt_state, "ema": state.ema, "counters": counters}
