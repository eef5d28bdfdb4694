"""An object of any render set: views with their cameras, in the project's conventions.

The readers of ``preparation.render_sets`` return these; world, cameras and pixels are those of ``geometry.cameras``.
"""

import dataclasses
import pathlib

import numpy as np

from realiz3d_jax.geometry.cameras import Camera


@dataclasses.dataclass(frozen=True)
class ListedObject:
    """An object of a set, before its images are read.

    Attributes:
      uid: name of the object in the set.
      path: folder of the object.
      caption: caption of the object; None if the set has none.
    """

    uid: str
    path: pathlib.Path
    caption: str | None


@dataclasses.dataclass(frozen=True, eq=False)
class RenderedObject:
    """An object's views.

    Attributes:
      uid: name of the object in the set.
      caption: caption of the object; None if the set has none.
      cameras: one per view, in the canonical world, Z up; an object that the set normalised fills [-0.5, 0.5].
      color: uint8[V, H, W, 3], sRGB over white.
      mask: bool[V, H, W], True where the object is visible.
      normal: float32[V, H, W, 3], unit, canonical world, facing the viewer, 0 in the background; None if the set has none.
      position: float32[V, H, W, 3], canonical world, at the pixel centres, 0 in the background; None if unknown.
    """

    uid: str
    caption: str | None
    cameras: tuple[Camera, ...]
    color: np.ndarray
    mask: np.ndarray
    normal: np.ndarray | None
    position: np.ndarray | None
