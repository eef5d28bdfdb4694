"""One metric: how it is computed for an object and for a set of objects, and how tables and charts show it.

A metric is one file with one ``Metric``, listed once in ``metrics/evaluation.py:METRICS``: from there it is computed by
``evaluate``, written to ``metrics.json``, printed and drawn.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from realiz3d_jax.geometry.assets.asset import Asset
from realiz3d_jax.geometry.cameras import Camera
from realiz3d_jax.geometry.projection import Correspondence

Row = Mapping[str, Any]
"""The entries of ``metrics.json`` for one set of objects, or for one object of it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Item:
    """One generated object.

    Attributes:
      name: its name in rows.
      caption: the text that it should show.
      views: uint8[V, H, W, 3], on white.
      cameras: one for each view.
      mesh: the file of the mesh that controlled the views, or None if there was none.
      up: the axis that points up in that file, "y" or "z"; None leaves it to the format.
      asset: the content of that file, if it has already been read.
    """

    name: str
    caption: str
    views: np.ndarray
    cameras: tuple[Camera, ...]
    mesh: pathlib.Path | None = None
    up: str | None = None
    asset: Asset | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluated:
    """One object with everything that metrics read.

    Attributes:
      item: the object.
      where: the surface that each pixel shows; None without a mesh.
      probabilities: float[V], the classifier's probability that each view is real.
      features: float[V, F], the classifier's features of the views.
    """

    item: Item
    where: Correspondence | None
    probabilities: np.ndarray
    features: np.ndarray


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of the tables.

    Attributes:
      label: its name.
      meaning: one sentence for readers who meet the metric for the first time.
      better: 1 if more is better, -1 if less is better, 0 if neither.
      digits: decimals.
      read: takes the value out of a row; the value may be absent or None there.
    """

    label: str
    meaning: str
    better: int
    digits: int
    read: Callable[[Row], Any]

    def value(self, row: Row) -> float | None:
        """The rounded value in a row, None if the row has none."""
        try:
            return round(float(self.read(row)), self.digits) + 0.0  # no negative zero
        except (KeyError, TypeError):
            return None


@dataclasses.dataclass(frozen=True)
class ObjectLine:
    """The value of single objects: a strip chart with a dot for each, and a few words under a picture.

    Attributes:
      key: its entry in the row of an object; a number or a list of one number a view, whose mean is shown.
      title: of the chart.
      label: of the chart's axis.
      short: its name under a picture.
      low: the least value of the axis; None lets the values decide.
    """

    key: str
    title: str
    label: str
    short: str
    low: float | None = None

    def value(self, row: Row) -> float | None:
        """The value in the row of an object, None if the row has none."""
        found = row.get(self.key)
        return None if found is None else float(np.mean(found))


def _nothing(*unused: Any) -> dict[str, Any]:
    return {}


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric, or several that are computed together.

    Attributes:
      group: heading of its lines in tables.
      lines: the lines of the tables, in order.
      of_object: the entries of an object's row, JSON values; None stands for a value that does not exist.
      of_set: the entries of a set's row, from its objects, their rows, and the features float[m, F] of reference images.
      strip: the chart of single objects, if there is one.
    """

    group: str
    lines: tuple[Line, ...]
    of_object: Callable[[Evaluated], dict[str, Any]] = _nothing
    of_set: Callable[[Sequence[Evaluated], Sequence[Row], Mapping[str, np.ndarray]], dict[str, Any]] = _nothing
    strip: ObjectLine | None = None
