"""A run's checkpoints, written and restored: one orbax item per partition, so the shifters alone can be taken over.

A checkpoint holds ``backbone``, ``shifters``, ``control`` (those that the stage has), ``opt``, ``ema``, ``counters``, ``data``
(the position of every stream) and ``meta`` (the run's whole config). orbax writes beside and renames: a process killed at any
point leaves the last complete checkpoint, never half of one.
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
    """The checkpoints of one workdir; a context manager that waits for what is being written."""

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
        """The step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def due(self, step: int) -> bool:
        """Whether ``save`` would save ``step`` without being forced to."""
        return self._manager.latest_step() != step and self._manager.should_save(step)

    def save(self, step: int, state: TrainState, positions: Positions, force: bool = False) -> bool:
        """Saves if it is time to, or if ``force``; called every step, so that a preemption is noticed on every host.

        Returns:
          whether the job is being preempted (multi-host): it should stop now.
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
        """The config of the newest checkpoint.

        Raises:
          UserError: it is damaged, or of another version.
        """
        return config_of(self._manager)

    def restore(self, like: TrainState) -> tuple[TrainState, Positions]:
        """The newest checkpoint, on the shardings of ``like`` (a state or its shapes).

        Raises:
          UserError: a parameter is missing, surplus, or of another shape than ``like``'s (every such one is named), or the
            optimizer's state is another optimizer's.
        """
        step = self._manager.latest_step()
        folder, wanted = self._manager.directory / str(step), _items(like)
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
