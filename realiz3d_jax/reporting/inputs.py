"""What a report is made of: figures, sampled items and training runs, read from disk and checked against one another."""

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
from realiz3d_jax.config.schema import TrainConfig, from_config_dict
from realiz3d_jax.errors import UserError
from realiz3d_jax.metrics.figures import Figures
from realiz3d_jax.sampling import items
from realiz3d_jax.sampling.items import Item
from realiz3d_jax.views import to_grid


@dataclasses.dataclass(frozen=True)
class Samples:
    """A folder of ``realiz3d_jax.sample``.

    Attributes:
      row: the row of the figures that judges it.
      items: by uid, in order of uid.
    """

    path: pathlib.Path
    row: str
    items: Mapping[str, Item]

    def common(self, *keys: str) -> Any:
        """What all items say under ``keys`` (one inside the other), or None if they do not agree."""
        values = []
        for item in self.items.values():
            value: Any = item.description
            for key in keys:
                value = value[key]
            values.append(value)
        return values[0] if all(value == values[0] for value in values) else None

    def only(self, uid: str) -> "Samples":
        """One of the items."""
        return dataclasses.replace(self, items={uid: self.items[uid]})

    @property
    def title(self) -> str:
        """What pictures of the folder are called: by the look that was asked for, and the row where that is another name."""
        if self.domain == self.row:
            return f"{self.domain} mode"
        return f"{self.row}, {self.domain} mode" if self.domain else self.row

    @property
    def domain(self) -> str:
        """The look that was asked for; "" if the items do not agree, or if the model knows no domains."""
        return self.common("domain") or ""


@dataclasses.dataclass(frozen=True)
class TrainingRun:
    """A workdir of ``realiz3d_jax.train``.

    Attributes:
      lines: the objects of ``metrics.jsonl``, by increasing step.
      parameters: how many each partition holds.
      trainable: the partitions that train.
    """

    path: pathlib.Path
    config: TrainConfig
    lines: Sequence[Mapping[str, Any]]
    parameters: Mapping[str, int]
    trainable: tuple[str, ...]


def read_samples(path: str | os.PathLike[str], figures: Figures) -> Samples:
    """Reads the descriptions of a folder of items, and finds the row of the figures that judges them.

    Raises:
      UserError: there are no items, one is damaged, or the figures judge no such folder, or other items.
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
    row = _row_of(path, figures)
    judged = set(figures.objects(row))
    if judged != set(found):
        strange = sorted(judged ^ set(found))
        raise UserError(
            f"{figures.path}: its row {row!r} judges {len(judged)} objects, but {path} holds {len(found)} "
            f"({strange[0]!r} is in one of them only); expected the same objects. Evaluate the folder again."
        )
    return Samples(path, row, found)


def common_objects(folders: Sequence[Samples]) -> list[str]:
    """The objects that all folders have, in order of uid.

    Raises:
      UserError: there is none.
    """
    common = [uid for uid in folders[0].items if all(uid in folder.items for folder in folders)]
    if not common:
        raise UserError(
            f"--samples: {folders[0].path} and {folders[-1].path} have no object in common; expected the same ones side "
            "by side."
        )
    return common


def read_grid(item: Item, size: int) -> np.ndarray:
    """The four views of an item in their 2x2 grid, uint8[2 size, 2 size, 3], from the files that were judged.

    Raises:
      UserError: a view is missing, damaged or of another size.
    """
    return to_grid(items.read_views(item, size))


def read_image(path: pathlib.Path, side: int) -> np.ndarray:
    """uint8[side, side, 3].

    Raises:
      UserError: the image is missing, damaged or of another size.
    """
    pixels = items.read_image(path)
    if pixels.shape[:2] != (side, side):
        raise UserError(
            f"{path}: found {pixels.shape[1]} x {pixels.shape[0]} pixels, expected {side} x {side}, as the figures "
            "were made from. Sample it again."
        )
    return pixels


def read_run(path: str | os.PathLike[str]) -> TrainingRun:
    """Reads the config and the metrics of a run.

    A last line that ends in the middle belongs to a run that is writing it, and is left out.

    Raises:
      UserError: one of them is missing or damaged, or there are no metrics yet.
    """
    path = pathlib.Path(path)
    command = f"python -m realiz3d_jax.train --config configs/STAGE.py --workdir {path}"
    values = files.read_json(path / "config.json", command)
    try:
        config = from_config_dict(values)
    except UserError as error:
        raise UserError(f"{path / 'config.json'}: {error}") from error
    log = path / "metrics.jsonl"
    try:
        texts = log.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{log}: cannot be read ({error}); expected the metrics of a run, as by\n  {command}"
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
            f"{log}: holds no metrics; expected a line for every {config.log.metrics_every} steps. Let the run go on by\n"
            f"  {command}"
        )
    stage, shapes = outline(config)
    parameters = {name: sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree)) for name, tree in shapes.items()}
    return TrainingRun(path, config, lines, parameters, stage.trainable)


def _row_of(path: pathlib.Path, figures: Figures) -> str:
    """The row whose name is the end of the path: ``evaluate`` takes as few last parts as tell its folders apart."""
    parts = path.resolve().parts
    names = ["/".join(parts[-count:]) for count in range(1, len(parts) + 1)]
    if found := [name for name in names if name in figures.rows]:
        return found[-1]
    raise UserError(
        f"{figures.path}: has no row for {path}; it has {', '.join(figures.rows)}. Evaluate all folders in one call, "
        "which writes the file anew:\n"
        f"  python -m realiz3d_jax.evaluate --samples {path} --samples OTHER --output {figures.path}"
    )
