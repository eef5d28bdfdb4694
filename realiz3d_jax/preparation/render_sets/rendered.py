"""An object as a set of renders shows it, whatever the set: views with their cameras, in the project's own conventions.

Read from the sets that others published by ``preparation.render_sets``; the world, the cameras and the pixels are those of
``geometry.cameras``.
"""

import dataclasses
import pathlib

import numpy as np

from realiz3d_jax.geometry.cameras import Camera


@dataclasses.dataclass(frozen=True)
class ListedObject:
    """An object that lies in a set, before any of its images are read.

    Attributes:
      uid: what the set calls the object.
      path: the folder that holds it.
      caption: None where the set has none.
    """

    uid: str
    path: pathlib.Path
    caption: str | None


@dataclasses.dataclass(frozen=True, eq=False)
class RenderedObject:
    """An object's views.

    Attributes:
      uid: what the set calls the object.
      caption: None where the set has none.
      cameras: one for each view, in the canonical world, Z up; an object that the set normalised fills [-0.5, 0.5].
      color: uint8[V, H, W, 3], sRGB over white.
      mask: bool[V, H, W], whether the object is seen.
      normal: float32[V, H, W, 3], unit, canonical world, on the viewer's side, 0 in the background; None if the set has none.
      position: float32[V, H, W, 3], canonical world, at the pixel centres, 0 in the background; None if it can't be known.
    """

    uid: str
    caption: str | None
    cameras: tuple[Camera, ...]
    color: np.ndarray
    mask: np.ndarray
    normal: np.ndarray | None
    position: np.ndarray | None
