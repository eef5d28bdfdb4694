"""Makes one record of a shapes dataset from its index: the object, its mesh, its maps and its looks.

Everything is rendered from the mesh as read back from the GLB file's bytes.
"""

import dataclasses

import numpy as np

from realiz3d_jax.data.geometry_maps import geometry_of
from realiz3d_jax.data.records import Example
from realiz3d_jax.geometry import mesh
from realiz3d_jax.geometry.assets import asset
from realiz3d_jax.preparation.shapes import looks, objects


def photo_example(split: str, index: int, size: int, seed: int) -> tuple[Example, dict[str, bytes]]:
    """Makes a record of shapes_photos (``split`` must be "train"); it has no attached files."""
    assert split == "train"
    item = objects.make_object("photos", index, seed)
    solid = _read(mesh.write_glb(item.parts), item.uid)
    synthetic, real = looks.render_looks(solid, size, _generator(item, seed))
    return {"uid": item.uid, "caption": item.caption, "real": real, "synthetic": synthetic}, {}


def asset_example(split: str, index: int, size: int, seed: int) -> tuple[Example, dict[str, bytes]]:
    """Makes a record of shapes_assets, with its GLB as the attached file."""
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
    """Reads the mesh of a GLB, with base colours rounded to 8 bits of linear light, as many renderers store them."""
    solid = asset.parse_glb(glb, uid).mesh
    linear = np.round(255 * mesh.srgb_to_linear(solid.face_color.astype(np.float64))) / 255
    return dataclasses.replace(solid, face_color=mesh.linear_to_srgb(linear).astype(np.float32))


def _generator(item: objects.ShapesObject, seed: int) -> np.random.Generator:
    """Returns the random generator of an object's real look, one stream per object."""
    return np.random.default_rng([seed, 7, *item.uid.encode()])
