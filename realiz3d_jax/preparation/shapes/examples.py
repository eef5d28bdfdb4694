"""One record of a shapes dataset from its number: the object, its mesh, its maps and its looks.

Whatever is rendered is rendered from the mesh as it is read back from the GLB file's bytes.
"""

import dataclasses

import numpy as np

from realiz3d_jax.data.geometry_maps import geometry_of
from realiz3d_jax.data.records import Example
from realiz3d_jax.geometry import mesh
from realiz3d_jax.geometry.assets import asset
from realiz3d_jax.preparation.shapes import looks, objects


def photo_example(split: str, index: int, size: int, seed: int) -> tuple[Example, dict[str, bytes]]:
    """A record of shapes_photos (``split`` "train") and the files that go with it: none."""
    assert split == "train"
    item = objects.make_object("photos", index, seed)
    solid = _read(mesh.write_glb(item.parts), item.uid)
    synthetic, real = looks.render_looks(solid, size, _generator(item, seed))
    return {"uid": item.uid, "caption": item.caption, "real": real, "synthetic": synthetic}, {}


def asset_example(split: str, index: int, size: int, seed: int) -> tuple[Example, dict[str, bytes]]:
    """A record of shapes_assets and the files that go with it: the GLB."""
    item = objects.make_object(split, index, seed)
    glb = mesh.write_glb(item.parts)
    solid = _read(glb, item.uid)
    synthetic, real = looks.render_looks(solid, size, _generator(item, seed))
    maps = geometry_of(solid, size)
    path = f"meshes/{item.uid}.glb"
    example = {
        "uid": item.uid,
        "caption": item.caption,
        "mesh": path,
        "synthetic": synthetic,
        "real": real,
        "normal": maps.normal,
        "position": maps.position,
        "mask": maps.mask,
    }
    return example, {path: glb}


def _read(glb: bytes, uid: str) -> mesh.Mesh:
    """The mesh of a GLB; base colours are 8 bits of linear light, as many renderers hold them and as looks have always been."""
    solid = asset.parse_glb(glb, uid).mesh
    linear = np.round(255 * mesh.srgb_to_linear(solid.face_color.astype(np.float64))) / 255
    return dataclasses.replace(solid, face_color=mesh.linear_to_srgb(linear).astype(np.float32))


def _generator(item: objects.ShapesObject, seed: int) -> np.random.Generator:
    """The real look's randomness, its own stream for every object."""
    return np.random.default_rng([seed, 7, *item.uid.encode()])
