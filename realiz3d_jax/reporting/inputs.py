"""The inputs of a report: metrics, sampled items and training runs, read from disk and checked for consistency."""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from realiz3d_jax import files
from realiz3d_jax.config.build import outline
from realiz3d_jax.config.schema import TrainConfig, from_stored
from realiz3d_jax.errors import UserError
from realiz3d_jax.metrics.stored import StoredMetrics
from realiz3d_jax.sampling import items
from realiz3d_jax.sampling.items import Item
from realiz3d_jax.views import to_grid


@dataclasses.dataclass(frozen=True)
class Samples:
    """A folder written by ``realiz3d_jax.sample``.

    Attributes:
      path: the folder.
      row: row of the metrics that evaluates the folder.
      items: items by uid, in order of uid.
    """

    path: pathlib.Path
    row: str
    items: Mapping[str, Item]

    def common(self, *keys: str) -> Any:
        """Returns the value that all items store under the nested ``keys``, or None if they differ."""
        values = []
        for item in self.items.values():
            value: Any = item.description
            for key in keys:
                value = value[key]
            values.append(value)
        return values[0] if all(value == values[0] for value in values) else None

    def only(self, uid: str) -> "Samples":
        """Returns the folder restricted to one item."""
        return dataclasses.replace(self, items={uid: self.items[uid]})

    @property
    def title(self) -> str:
        """Title of the folder's pictures: the requested look, preceded by the row's name if it differs."""
        if self.domain == self.row:
            return f"{self.domain} mode"
        return f"{self.row}, {self.domain} mode" if self.domain else self.row

    @property
    def domain(self) -> str:
        """The requested look; "" if the items differ, or if the model has no domains."""
        return self.common("domain") or ""


@dataclasses.dataclass(frozen=True)
class TrainingRun:
    """A workdir of ``realiz3d_jax.train``.

    Attributes:
      path: the workdir.
      config: the run's config.
      lines: objects of ``metrics.jsonl``, by increasing step.
      parameters: number of parameters in each partition.
      trainable: the partitions that are trained.
    """

    path: pathlib.Path
    config: TrainConfig
    lines: Sequence[Mapping[str, Any]]
    parameters: Mapping[str, int]
    trainable: tuple[str, ...]


def read_samples(path: str | os.PathLike[str], metrics: StoredMetrics) -> Samples:
    """Reads the descriptions of a folder of items, and finds the row of the metrics that evaluates them.

    Raises:
      UserError: there are no items, one is damaged, or the metrics evaluate another folder or other items.
    """
    path = pathlib.Path(path)
    found = {}
    for item in items.read_all(path):
        missing = {"domain", "seed", "sampling", "model", "versions"} - set(item.description)
        if missing:
            raise UserError(
                f"{item.folder / items.DESCRIPTION}: has no {sorted(missing)[0]!r}; expected what realiz3d_jax.sample "
                "writes. Remove the folder and sample it again."
            )
        found[item.uid] = item
    row = _row_of(path, metrics)
    evaluated = set(metrics.objects(row))
    if evaluated != set(found):
        strange = sorted(evaluated ^ set(found))
        raise UserError(
            f"{metrics.path}: row {row!r} evaluates {len(evaluated)} objects, but {path} holds {len(found)} "
            f"({strange[0]!r} is only in one of them); expected the same objects. Evaluate the folder again."
        )
    return Samples(path, row, found)


def common_objects(folders: Sequence[Samples]) -> list[str]:
    """Returns the objects that all folders have, in order of uid.

    Raises:
      UserError: the folders have no object in common.
    """
    common = [uid for uid in folders[0].items if all(uid in folder.items for folder in folders)]
    if not common:
        raise UserError(
            f"--samples: {folders[0].path} and {folders[-1].path} have no object in common; expected the same objects in "
            "all folders."
        )
    return common


def read_grid(item: Item, size: int) -> np.ndarray:
    """Reads the four views of an item as a 2x2 grid uint8[2 size, 2 size, 3], from the evaluated files.

    Raises:
      UserError: a view is missing, damaged or of another size.
    """
    return to_grid(items.read_views(item, size))


def read_image(path: pathlib.Path, side: int) -> np.ndarray:
    """Reads a square image uint8[side, side, 3].

    Raises:
      UserError: the image is missing, damaged or of another size.
    """
    pixels = items.read_image(path)
    if pixels.shape[:2] != (side, side):
        raise UserError(
            f"{path}: found {pixels.shape[1]} x {pixels.shape[0]} pixels, expected {side} x {side}, as in the "
            "evaluated images. Sample it again."
        )
    return pixels


def read_run(path: str | os.PathLike[str]) -> TrainingRun:
    """Reads the config and the metrics of a run.

    An incomplete last line is ignored, since a running process may be writing it.

    Raises:
      UserError: the config or the metrics are missing or damaged, or there are no metrics yet.
    """
    path = pathlib.Path(path)
    command = f"python -m realiz3d_jax.train --config configs/STAGE.py --workdir {path}"
    values = files.read_json(path / "config.json", command)
    try:
        config = from_stored(values)
    except UserError as error:
        raise UserError(f"{path / 'config.json'}: {error}") from error
    log = path / "metrics.jsonl"
    try:
        texts = log.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{log}: cannot be read ({error}); expected the metrics of a run, as written by\n  {command}"
        ) from error
    lines = []
    for number, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
            lines.append({"step": int(line["step"]), **line})
        except (ValueError, TypeError, KeyError) as error:
            if number < len(texts) or text.endswith("}"):
                raise UserError(
                    f"{log}: line {number} is {text[:60]!r}; expected a JSON object with a step. Remove that line."
                ) from error
    if not lines:
        raise UserError(
            f"{log}: holds no metrics; expected a line for every {config.log.metrics_every} steps. Continue the run by\n"
            f"  {command}"
        )
    stage, shapes = outline(config)
    parameters = {name: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree)) for name, tree in shapes.items()}
    return TrainingRun(path, config, lines, parameters, stage.trainable)


def _row_of(path: pathlib.Path, metrics: StoredMetrics) -> str:
    """Returns the row whose name is the end of the path; ``evaluate`` uses the fewest last parts that are unique."""
    parts = path.resolve().parts
    names = ["/".join(parts[-count:]) for count in range(1, len(parts) + 1)]
    if found := [name for name in names if name in metrics.rows]:
        return found[-1]
    raise UserError(
        f"{metrics.path}: has no row for {path}; it has {', '.join(metrics.rows)}. Evaluate all folders in one call, "
        "which writes the file again:\n"
        f"  python -m realiz3d_jax.evaluate --samples {path} --samples OTHER --output {metrics.path}"
    )
