"""Textured assets are valid glTF by the Khronos validator: no error and no warning."""

import asset_files as files
import gltf_validator
import numpy as np

from realiz3d_jax.geometry import mesh
from realiz3d_jax.geometry.assets.asset import load_asset
from realiz3d_jax.geometry.assets.gltf_writer import write_textured_glb
from realiz3d_jax.geometry.texturing.unwrap import unwrap
from realiz3d_jax.preparation.shapes import primitives


def solids():
    """Two solids of the benchmark, one of them far away."""
    parts = []
    for make, shift in ((primitives.torus, 0.0), (primitives.cone, 50.0)):
        vertices, faces, normals = make()
        parts.append(mesh.Part(vertices + np.array([shift, 0, 0]), faces, normals, (0.2, 0.4, 0.6)))
    return mesh.write_glb(parts)


def flat_face():
    """A tetrahedron with a face of no area and a vertex that no face names."""
    vertices = np.concatenate([files.TETRAHEDRON, [[9, 9, 9]]])
    return files.one_part(vertices, np.concatenate([files.TETRAHEDRON_FACES, [[0, 1, 1]]]))


def odd_normals():
    """Normals of which some are zero and others longer than 1."""
    normals = np.array([[0, 0, 0], [2, 0, 0], [0, 3, 0], [0, 0, 1]], np.float32)
    return files.one_part(files.TETRAHEDRON, files.TETRAHEDRON_FACES, NORMAL=normals)


INPUTS = {
    "nodes.glb": lambda: files.glb(*files.two_parts()),
    "solids.glb": solids,
    "flat.glb": flat_face,
    "normals.glb": odd_normals,
    "plain.obj": files.obj,
    "colours.ply": lambda: files.ply("binary_little_endian"),
    "solid.stl": lambda: files.stl("binary"),
}


def test_textured_assets_of_all_kinds_have_no_error_and_no_warning(tmp_path):
    texture = np.random.default_rng(0).integers(0, 256, (64, 64, 4)).astype(np.uint8)
    written = []
    for name, make in INPUTS.items():
        (tmp_path / name).write_bytes(make())
        asset = unwrap(load_asset(tmp_path / name))
        for kind, channels in (("opaque", 3), ("alpha", 4)):
            written.append(tmp_path / f"{name}.{kind}.glb")
            written[-1].write_bytes(write_textured_glb(asset, texture[..., :channels]))
    remarks = {"nodes.glb": "NODE_EMPTY", "flat.glb": "ACCESSOR_INDEX_TRIANGLE_DEGENERATE"}  # as in the inputs
    assert gltf_validator.issues(*written) == {
        f"{name}.{kind}.glb": [f"information: {code}"] for name, code in remarks.items() for kind in ("opaque", "alpha")
    }


def test_the_validator_sees_what_is_wrong(tmp_path):
    (tmp_path / "broken.glb").write_bytes(files.glb(*files.two_parts()).replace(b'"SCALAR"', b'"VEC3"  '))
    (messages,) = gltf_validator.issues(tmp_path / "broken.glb").values()
    assert any(message.startswith("error: ") for message in messages)
