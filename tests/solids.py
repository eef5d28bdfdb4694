"""Solids as meshes in the canonical frame."""

import numpy as np
import trimesh

from realiz3d_jax.geometry.mesh import Mesh, smooth_normals


def mesh_of(shape: trimesh.Trimesh, turned: float = 0.0) -> Mesh:
    """A trimesh primitive in the canonical frame, turned about the vertical axis by ``turned`` degrees, never scaled."""
    angle = np.deg2rad(turned)
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])
    vertices = (np.asarray(shape.vertices) @ rotation.T).astype(np.float32)
    faces = np.asarray(shape.faces, np.int32)
    normals = smooth_normals(vertices[faces]).astype(np.float32)
    return Mesh(vertices, faces, normals, np.ones((len(faces), 3), np.float32))


def sphere() -> Mesh:
    return mesh_of(trimesh.creation.icosphere(subdivisions=4, radius=0.5))


def cube(turned: float = 0.0) -> Mesh:
    return mesh_of(trimesh.creation.box((0.7, 0.7, 0.7)), turned)
