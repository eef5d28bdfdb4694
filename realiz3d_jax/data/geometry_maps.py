"""The geometry maps of a mesh as the datasets store them: made here alone, for training and for sampling."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from realiz3d_jax.data import records
from realiz3d_jax.geometry.cameras import STANDARD, Camera
from realiz3d_jax.geometry.mesh import Mesh
from realiz3d_jax.geometry.render import Maps, Visible, render_maps


@dataclasses.dataclass(frozen=True, eq=False)
class Geometry:
    """The geometry maps of a mesh, encoded as in ``records``.

    Attributes:
      normal, position: uint16[V, H, W, 3].
      mask: uint8[V, H, W].
    """

    normal: np.ndarray
    position: np.ndarray
    mask: np.ndarray


def geometry_of(
    mesh: Mesh, size: int, cameras: Sequence[Camera] = STANDARD, visible: Visible | None = None
) -> Geometry:
    """The maps of a mesh.

    Args:
      mesh: in the canonical frame.
      size: H and W, pixels along a side of a view.
      cameras: one for each view.
      visible: which places can be seen, ``Asset.visible``.
    """
    return stored(render_maps(mesh, size, cameras, visible))


def stored(maps: Maps) -> Geometry:
    """Maps as they are stored."""
    return Geometry(
        normal=records.encode_normals(maps.normal, maps.mask),
        position=records.encode_positions(maps.position, maps.mask),
        mask=maps.mask.astype(np.uint8),
    )
