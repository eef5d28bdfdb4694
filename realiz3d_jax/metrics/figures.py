"""The file ``metrics.json``: the figures of ``realiz3d_jax.evaluate``, read and checked."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from realiz3d_jax import files
from realiz3d_jax.errors import UserError

REFERENCES = {"real": "true real renders", "synthetic": "true synthetic renders"}
"""The rows of ``metrics.json`` that are no samples: what a perfect result of either look would score."""


@dataclasses.dataclass(frozen=True)
class Figures:
    """A ``metrics.json`` of ``realiz3d_jax.evaluate``.

    Attributes:
      command: what wrote it.
      size: pixels along a side of a view.
      classifier: the facts of the judge of realism.
      rows: the figures by name of the row; ``items`` of each are its objects.
    """

    path: pathlib.Path
    command: str
    size: int
    classifier: Mapping[str, Any]
    rows: Mapping[str, Mapping[str, Any]]

    def objects(self, row: str) -> dict[str, Mapping[str, Any]]:
        """The figures of a row's objects, by uid."""
        return {item["name"]: item for item in self.rows.get(row, {"items": []})["items"]}


def read_figures(path: str | os.PathLike[str]) -> Figures:
    """Reads a ``metrics.json``.

    Raises:
      UserError: it is missing, is no JSON, or is not what ``evaluate`` writes.
    """
    path = pathlib.Path(path)
    content = files.read_json(path, f"python -m realiz3d_jax.evaluate --samples FOLDER --output {path}")
    mend = f"Write it again by\n  python -m realiz3d_jax.evaluate --samples FOLDER --output {path}"
    for key, kind in (("command", str), ("size", int), ("classifier", dict), ("rows", dict)):
        if not isinstance(content.get(key), kind) or not content[key]:
            raise UserError(f"{path}: {key} is {content.get(key)!r}; expected a filled {kind.__name__}. {mend}")
    for name, row in content["rows"].items():
        objects = row.get("items") if isinstance(row, dict) else None
        if not objects or not all({"name", "domain_score", "silhouette_iou"} <= set(item) for item in objects):
            raise UserError(f"{path}: rows.{name}.items lacks the figures of the single objects. {mend}")
    return Figures(path, content["command"], content["size"], content["classifier"], content["rows"])
