"""A flat sheet of two charts, for tests of what happens across a seam."""

import numpy as np

from realiz3d_jax.geometry.mesh import Mesh
from realiz3d_jax.geometry.texturing.texels import Texels


def cut_sheet(columns: int, rows: int, gap: float = 0.0) -> tuple[Mesh, np.ndarray]:
    """The square [-0.5, 0.5]² at y = 0 in x and z, no vertex shared; what has x > 0 is a chart of its own, ``gap`` apart."""
    x, z = np.meshgrid(np.arange(columns + 1) / columns - 0.5, np.arange(rows + 1) / rows - 0.5)
    points = np.stack([x, 0 * x, z], axis=-1).reshape(-1, 3)
    corner = (np.arange(rows)[:, None] * (columns + 1) + np.arange(columns)).reshape(-1)
    lower = np.stack([corner, corner + 1, corner + columns + 2], axis=1)
    upper = np.stack([corner, corner + columns + 2, corner + columns + 1], axis=1)
    triangles = points[np.concatenate([lower, upper])]
    uv = (triangles[..., [0, 2]] + 0.5) * 0.4 + 0.05
    right = triangles[..., 0].mean(axis=1) > 0
    uv[right] += [0.3, 0.5]  # above and aside: in the UV plane the halves are no neighbours
    triangles[right] += [gap, 0, 0]
    normals = np.broadcast_to([0, -1.0, 0], triangles.shape).astype(np.float32)
    index = np.arange(triangles.size // 3, dtype=np.int32).reshape(-1, 3)
    colors = np.ones((len(triangles), 3), np.float32)
    return Mesh(triangles.reshape(-1, 3).astype(np.float32), index, normals, colors), uv


def places(mesh: Mesh, found: Texels) -> np.ndarray:
    """Where texels are on a mesh: float64[n, 3]."""
    return np.einsum("nc,ncd->nd", found.barycentric.astype(np.float64), mesh.vertices[mesh.faces[found.face]])
