"""Geometry maps of a mesh in the datasets' encoding; training data and sampling both use this module."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from realiz3d_jax.data import records
from realiz3d_jax.geometry.cameras import STANDARD, Camera
from realiz3d_jax.geometry.mesh import Mesh
from realiz3d_jax.geometry.render import Maps, Visible, render_maps


@dataclasses.dataclass(frozen=True, eq=False)
class Geometry:
    """Geometry maps of a mesh, encoded as in ``records``.

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
    """Renders the geometry maps of a mesh.

    Args:
      mesh: in the canonical frame.
      size: H and W, pixels along a side of a view.
      cameras: V cameras, one per view.
      visible: predicate for visible surface points, ``Asset.visible``; None if all are visible.
    """
    return stored(render_maps(mesh, size, cameras, visible))


def stored(maps: Maps) -> Geometry:
    """Encodes rendered maps for storage."""
    return Geometry(
        normal=records.encode_normals(maps.normal, maps.mask),
        position=records.encode_positions(maps.position, maps.mask),
        mask=maps.mask.astype(np.uint8),
    )
