"""Reader of ``metrics.json``, the output of ``realiz3d_jax.evaluate``."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from realiz3d_jax import files
from realiz3d_jax.errors import UserError

REFERENCES = {"real": "true real renders", "synthetic": "true synthetic renders"}
"""Reference rows of ``metrics.json``, which are not samples: the scores of a perfect result of either look."""


@dataclasses.dataclass(frozen=True)
class StoredMetrics:
    """Content of a ``metrics.json``.

    Attributes:
      path: the file.
      command: command that wrote it.
      size: pixels along a side of a view.
      classifier: facts of the evaluator of realism.
      rows: metrics by name of the row; ``items`` of each are those of its objects.
    """

    path: pathlib.Path
    command: str
    size: int
    classifier: Mapping[str, Any]
    rows: Mapping[str, Mapping[str, Any]]

    def objects(self, row: str) -> dict[str, Mapping[str, Any]]:
        """Metrics of a row's objects, by uid."""
        return {item["name"]: item for item in self.rows.get(row, {"items": []})["items"]}


def read_metrics(path: str | os.PathLike[str]) -> StoredMetrics:
    """Reads a ``metrics.json``.

    Raises:
      UserError: the file is missing, is not JSON, or lacks entries that ``evaluate`` writes.
    """
    path = pathlib.Path(path)
    content = files.read_json(path, f"python -m realiz3d_jax.evaluate --samples FOLDER --output {path}")
    fix = f"Write it again by\n  python -m realiz3d_jax.evaluate --samples FOLDER --output {path}"
    for key, kind in (("command", str), ("size", int), ("classifier", dict), ("rows", dict)):
        if not isinstance(content.get(key), kind) or not content[key]:
            raise UserError(f"{path}: {key} is {content.get(key)!r}; expected a non-empty {kind.__name__}. {fix}")
    for name, row in content["rows"].items():
        objects = row.get("items") if isinstance(row, dict) else None
        if not objects or not all({"name", "domain_score", "silhouette_iou"} <= set(item) for item in objects):
            raise UserError(f"{path}: rows.{name}.items lacks the metrics of the objects. {fix}")
    return StoredMetrics(path, content["command"], content["size"], content["classifier"], content["rows"])
