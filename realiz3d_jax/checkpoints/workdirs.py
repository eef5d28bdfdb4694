"""Reads the config and parameters of a run from the newest complete checkpoint in its workdir."""

import contextlib
import os
import pathlib
import textwrap
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from realiz3d_jax.config.schema import TrainConfig, from_stored
from realiz3d_jax.errors import UserError

Tree = Any

FOLDER = "checkpoints"
"""The folder of a workdir that holds its checkpoints."""


def read_config(workdir: str | os.PathLike[str]) -> TrainConfig:
    """Returns the config with which the newest checkpoint of ``workdir`` was trained.

    Raises:
      UserError: there is no complete checkpoint.
    """
    with _reader(workdir) as manager:
        return config_of(manager)


def latest_step(workdir: str | os.PathLike[str]) -> int:
    """Returns the step of the newest checkpoint of ``workdir``.

    Raises:
      UserError: there is no complete checkpoint.
    """
    with _reader(workdir) as manager:
        return manager.latest_step()


def read_params(workdir: str | os.PathLike[str], like: Tree, averaged: bool = True) -> Tree:
    """Reads partitions of the newest checkpoint of ``workdir``, and nothing else.

    Args:
      workdir: workdir of the run.
      like: ``{partition: tree of ShapeDtypeStruct or arrays}``; selects the partitions and their shardings.
      averaged: whether to return the moving average of trained partitions.

    Raises:
      UserError: there is no complete checkpoint, it lacks a partition, or a shape differs.
    """
    with _reader(workdir) as manager:
        step = manager.latest_step()
        folder = manager.directory / str(step)
        with reading(folder):
            check_partitions(folder, like)
            restored = manager.restore(
                step, args=ocp.args.Composite(**{name: ocp.args.StandardRestore(tree) for name, tree in like.items()})
            )
            params = {name: restored[name] for name in like}
            trained = {name: like[name] for name in _tree_metadata(folder, "ema") if name in like}
            if averaged and trained:
                params.update(_read_averages(folder, trained))
    return params


@contextlib.contextmanager
def reading(folder: pathlib.Path) -> Iterator[None]:
    """Converts the many exceptions that orbax and its stores raise about a checkpoint into one message."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = textwrap.shorten(str(error).split("\n")[0], 160)
        others = [path.name for path in folder.parent.iterdir() if path.name.isdigit() and path != folder]
        before = f"Remove this folder to continue from step {max(others, key=int)}, or start" if others else "Start"
        raise UserError(
            f"{folder}: is damaged, or was saved by another version or optimizer ({type(error).__name__}: {reason}). "
            f"{before} in another --workdir; --config.init.source and --config.init.partitions take over parameters."
        ) from error


def config_of(manager: ocp.CheckpointManager) -> TrainConfig:
    """Returns the config of the newest checkpoint of ``manager``.

    Raises:
      UserError: the checkpoint is damaged, or of another version.
    """
    folder = manager.directory / str(manager.latest_step())
    with reading(folder):
        meta = manager.restore(manager.latest_step(), args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
    try:
        return from_stored(meta["config"])
    except UserError as error:
        raise UserError(f"{folder}: was trained by another version ({error}) Train it again.") from error


def _read_averages(folder: pathlib.Path, like: Tree) -> Tree:
    """Reads the averages of the partitions of ``like`` alone."""
    arguments = ocp.args.PyTreeRestore(
        item=like, restore_args=ocp.checkpoint_utils.construct_restore_args(like), partial_restore=True
    )
    with ocp.PyTreeCheckpointer() as checkpointer:
        return checkpointer.restore(folder / "ema", args=arguments)


def _reader(workdir: str | os.PathLike[str]) -> ocp.CheckpointManager:
    folder = pathlib.Path(workdir) / FOLDER
    if not folder.is_dir():
        raise UserError(f"{workdir}: has no checkpoint; expected the folder {folder}. Pass a run's --workdir.")
    manager = ocp.CheckpointManager(folder.absolute(), options=ocp.CheckpointManagerOptions(read_only=True))
    if manager.latest_step() is None:
        raise UserError(f"{folder}: no checkpoint is complete yet. Let the run save one first.")
    return manager


def check_partitions(folder: pathlib.Path, like: Tree) -> None:
    """Checks that the checkpoint in ``folder`` holds the partitions of ``like``, in their shapes.

    Raises:
      UserError: a partition is missing, or as ``check_shapes``.
    """
    held = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    for name in like:
        if name not in held:
            raise UserError(f"{folder}: has no partition {name!r}; it holds {', '.join(held)}.")
    check_shapes(folder, {name: _tree_metadata(folder, name) for name in like}, like)


def _tree_metadata(folder: pathlib.Path, name: str) -> Tree:
    with ocp.PyTreeCheckpointer() as checkpointer:
        return checkpointer.metadata(folder / name).item_metadata.tree


def check_shapes(source: str | os.PathLike[str], found: Tree, expected: Tree) -> None:
    """Checks that the leaves of ``found`` have the shapes of those of ``expected``, for the partitions of ``expected``.

    Args:
      source: file or folder that errors name.
      found: partitions, as arrays or shapes.
      expected: partitions, as arrays or shapes.

    Raises:
      UserError: a leaf is missing, surplus or of another shape; all are counted and the first 12 are named.
    """
    shapes = {path: tuple(np.shape(leaf)) for path, leaf in flatten({name: found[name] for name in expected})}
    wanted = {path: tuple(np.shape(leaf)) for path, leaf in flatten(expected)}
    problems = [
        f"{path}: found {shapes.get(path, 'nothing')}, expected {wanted.get(path, 'nothing')}"
        for path in sorted({*shapes, *wanted})
        if shapes.get(path) != wanted.get(path)
    ]
    if problems:
        raise UserError(
            f"{source}: holds another model ({len(problems)} parameters differ):\n  "
            + "\n  ".join(problems[:12])
            + "\nUse the config with which it was trained, or another source."
        )


def flatten(tree: Tree) -> list[tuple[str, Any]]:
    """Returns the leaves of nested dicts with their paths, joined by "/"."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [("/".join(str(key.key) for key in path), leaf) for path, leaf in leaves]
