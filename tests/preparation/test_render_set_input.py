"""Broken render sets: an error names the file, the field, what was found and what was expected."""

import json
import sys

import numpy as np
import pytest
import render_set_files as sets
from PIL import Image

from realiz3d_jax.errors import UserError
from realiz3d_jax.preparation.render_sets import fields, g_objaverse, mv_adapter, objaverse_rendering, transforms_json

CUBE = sets.Cube()


def write_mv_adapter(root):
    return mv_adapter, sets.write_mv_adapter(root, CUBE, size=32)


def write_g_objaverse(root):
    return g_objaverse, sets.write_g_objaverse(root, CUBE, size=16)


def write_objaverse_rendering(root):
    return objaverse_rendering, sets.write_objaverse_rendering(root, CUBE, size=32, matrices=FORK, save=to_camera)


def write_trellis(root):
    return transforms_json, sets.write_trellis(root, CUBE, size=32)


def write_hunyuan(root):
    return transforms_json, sets.write_hunyuan(root, CUBE, size=32)


def to_camera(matrix):
    return np.linalg.inv(matrix)[:3]


FORK = [sets.stand(30 * view, 20, 1.8) for view in range(12)]


def refused(reader, root, message):
    (entry,) = reader.scan(root)
    with pytest.raises(UserError, match=message):
        reader.read(entry)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edit_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


IMAGES = {
    "mv_adapter's colour": (write_mv_adapter, "color_0003.webp"),
    "mv_adapter's normals": (write_mv_adapter, "normal_0003.webp"),
    "mv_adapter's depth": (write_mv_adapter, "depth_0003.exr"),
    "g_objaverse's colour": (write_g_objaverse, "00007/00007.png"),
    "g_objaverse's normals and depth": (write_g_objaverse, "00007/00007_nd.exr"),
    "objaverse-rendering's colour": (write_objaverse_rendering, "004.png"),
    "objaverse-rendering's camera": (write_objaverse_rendering, "004.npy"),
    "TRELLIS' colour": (write_trellis, "002.png"),
    "TRELLIS' mesh": (write_trellis, "mesh.ply"),
    "Hunyuan's normals": (write_hunyuan, "002_normal.png"),
    "Hunyuan's positions": (write_hunyuan, "002_pos.png"),
}


@pytest.mark.parametrize(("write", "name"), IMAGES.values(), ids=IMAGES)
def test_a_truncated_file_is_named(tmp_path, write, name):
    reader, folder = write(tmp_path)
    cut(folder / name)
    refused(reader, tmp_path, rf"{name}: .*(truncated|broken|cannot be read)")


NEEDED = {what: one for what, one in IMAGES.items() if what != "TRELLIS' mesh"}


@pytest.mark.parametrize(("write", "name"), NEEDED.values(), ids=NEEDED)
def test_a_missing_file_is_named(tmp_path, write, name):
    reader, folder = write(tmp_path)
    (folder / name).unlink()
    refused(reader, tmp_path, rf"{(folder / name).name}")


@pytest.mark.parametrize(
    ("write", "name"),
    [one for one in IMAGES.values() if one[1].endswith(("png", "webp"))],
    ids=lambda one: str(one)[-20:],
)
def test_views_of_several_sizes_are_refused(tmp_path, write, name):
    reader, folder = write(tmp_path)
    with Image.open(folder / name) as image:
        image.resize((24, 24)).save(folder / name)
    refused(reader, tmp_path, r"pixels wide; expected \d+, as in the object's other images")


@pytest.mark.parametrize("write", [write_mv_adapter, write_g_objaverse, write_objaverse_rendering, write_trellis])
def test_views_that_are_not_square_are_refused(tmp_path, write):
    reader, folder = write(tmp_path)
    first = next(path for path in sorted(folder.rglob("*")) if path.suffix in (".webp", ".png"))
    with Image.open(first) as image:
        image.resize((32, 24)).save(first)
    refused(reader, tmp_path, r"is 32 x 24 pixels; expected a square view")


def test_an_outline_is_never_a_colour(tmp_path):
    reader, folder = write_objaverse_rendering(tmp_path)
    with Image.open(folder / "003.png") as image:
        image.convert("RGB").save(folder / "003.png")
    refused(reader, tmp_path, r"003.png: has no alpha, and nothing else in the set")


def test_where_alpha_is_missing_the_depth_is_the_outline(tmp_path):
    _, folder = write_mv_adapter(tmp_path)
    for path in folder.glob("color_*.webp"):
        with Image.open(path) as image:
            image.convert("RGB").save(path, lossless=True)
    (entry,) = mv_adapter.scan(tmp_path)
    found = mv_adapter.read(entry)
    truth = sets.shoot(CUBE, sets.stand(-90, 0, 1.8), 32, width=1.1)
    assert (found.mask[0] == truth["mask"]).all()
    assert (found.color[~found.mask] == 255).all()


def test_sixteen_bits_of_grey_are_no_view(tmp_path):
    reader, folder = write_trellis(tmp_path)
    Image.fromarray(np.zeros((32, 32), np.uint16)).save(folder / "001.png")
    refused(reader, tmp_path, r"001.png: has the image mode I;16; expected 8 bits")


def test_depths_that_differ_by_channel_are_no_depth(tmp_path):
    reader, folder = write_mv_adapter(tmp_path)
    sets.save_exr(folder / "depth_0002.exr", R=np.ones((32, 32)), G=np.zeros((32, 32)), B=np.ones((32, 32)))
    refused(reader, tmp_path, r"depth_0002.exr: has 3 channels that differ; expected one depth")


def test_a_depth_in_three_equal_channels_is_a_depth(tmp_path):
    _, folder = write_mv_adapter(tmp_path)
    for path in folder.glob("depth_*.exr"):
        depth = fields.read_exr(path)["V"]
        sets.save_exr(path, R=depth, G=depth, B=depth, A=np.ones_like(depth))
    (entry,) = mv_adapter.scan(tmp_path)
    assert mv_adapter.read(entry).mask.any()


def test_depth_and_colour_of_different_views_are_refused(tmp_path):
    reader, folder = write_mv_adapter(tmp_path)
    sets.save_exr(folder / "depth_0008.exr", V=np.full((32, 32), 65535.0))
    refused(reader, tmp_path, r"color_0008.webp and .*depth_0008.exr: their masks show different views")


def test_normals_that_are_empty_are_refused(tmp_path):
    reader, folder = write_mv_adapter(tmp_path)
    sets.save_image(folder / "normal_0005.webp", np.full((32, 32, 3), 127, np.uint8))
    refused(reader, tmp_path, r"normal_0005.webp: lacks normals where the object is visible")


def test_without_openexr_the_command_that_installs_it_is_printed(tmp_path, monkeypatch):
    reader, _ = write_mv_adapter(tmp_path)
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    refused(
        reader,
        tmp_path,
        r"depth_0000.exr: reading OpenEXR files needs the package OpenEXR. Run\n  pip install OpenEXR",
    )


def put(name, value):
    return lambda record: record.update({name: value})


def drop(name):
    return lambda record: record.pop(name)


def in_location(change):
    return lambda content: change(content["locations"][2])


def in_frame(change):
    return lambda content: change(content["frames"][2])


TILTED = np.eye(4)
TILTED[0, 1] = 0.5
NOT_FINITE = np.where(np.eye(4) == 1, np.nan, 0).tolist()

FIELDS = {
    "no locations": (write_mv_adapter, drop("locations"), r"meta.json: locations is missing; expected a list"),
    "locations of none": (write_mv_adapter, put("locations", []), r"locations is \[\]; expected a list"),
    "no matrix": (
        write_mv_adapter,
        in_location(drop("transform_matrix")),
        r"locations\[2\]: transform_matrix is missing",
    ),
    "3 x 3": (write_mv_adapter, in_location(put("transform_matrix", np.eye(3).tolist())), r"expected .* \[4, 4\]"),
    "ragged": (
        write_mv_adapter,
        in_location(put("transform_matrix", [[1, 2], [3]])),
        r"transform_matrix is \[\[1, 2\], \[3\]\]",
    ),
    "NaN": (write_mv_adapter, in_location(put("transform_matrix", NOT_FINITE)), r"all finite"),
    "no rotation": (
        write_mv_adapter,
        in_location(put("transform_matrix", TILTED.tolist())),
        r"locations\[2\]: .*stretched",
    ),
    "no kind": (write_mv_adapter, in_location(put("projection_type", "PANO")), r"'PANO'; expected ORTHO or PERSP"),
    "no width": (write_mv_adapter, in_location(drop("ortho_scale")), r"ortho_scale is missing; expected a number"),
    "width 0": (write_mv_adapter, in_location(put("ortho_scale", 0)), r"width of 0.0; expected a number above 0"),
    "width in words": (write_mv_adapter, in_location(put("ortho_scale", "wide")), r"ortho_scale is 'wide'"),
    "no azimuth": (write_mv_adapter, in_location(drop("azimuth")), r"azimuth is missing"),
    "no index": (write_mv_adapter, in_location(drop("index")), r"index is missing; expected a string"),
    "an index twice": (write_mv_adapter, in_location(put("index", "0001")), r"repeat an index"),
    "a view that isn't there": (write_mv_adapter, in_location(put("index", "0042")), r"no color_0042.webp"),
    "no box": (write_trellis, drop("aabb"), r"transforms.json: aabb is missing"),
    "an empty box": (write_trellis, put("aabb", [[1, 1, 1], [0, 2, 2]]), r"aabb goes from .*expected a box"),
    "no scale": (write_trellis, drop("scale"), r"scale is missing"),
    "scale 0": (write_trellis, put("scale", 0), r"scale is 0; expected a number above 0"),
    "no offset": (write_trellis, put("offset", [0, 0]), r"offset is \[0, 0\]; expected numbers of shape \[3\]"),
    "no frames": (write_trellis, put("frames", {}), r"frames is \{\}; expected a list"),
    "no file": (write_trellis, in_frame(drop("file_path")), r"frames\[2\]: file_path is missing"),
    "a file elsewhere": (write_trellis, in_frame(put("file_path", "../x.png")), r"expected a file beside"),
    "degrees": (write_trellis, in_frame(put("camera_angle_x", 40)), r"camera_angle_x is 40; expected radians.*degrees"),
    "3 x 4": (write_trellis, in_frame(put("transform_matrix", np.eye(4)[:3].tolist())), r"expected .* \[4, 4\]"),
    "OpenCV's axes": (
        write_trellis,
        in_frame(put("transform_matrix", np.diag([1.0, -1, -1, 1]).tolist())),
        r"frames\[2\]",
    ),
    "another kind": (write_hunyuan, in_frame(put("proj_type", 2)), r"proj_type is 2; expected 0"),
    "azimuth in degrees": (
        write_hunyuan,
        in_frame(put("azimuth", 90.0)),
        r"frames\[2\]: transform_matrix places the camera in direction",
    ),
    "another distance": (write_hunyuan, in_frame(put("cam_dis", 2.0)), r"gives the distance 1.500, but cam_dis is 2"),
}


@pytest.mark.parametrize(("write", "change", "message"), FIELDS.values(), ids=FIELDS)
def test_a_field_that_is_missing_or_impossible_is_named(tmp_path, write, change, message):
    reader, folder = write(tmp_path)
    edit_json(folder / ("meta.json" if reader is mv_adapter else "transforms.json"), change)
    refused(reader, tmp_path, message)


G_FIELDS = {
    "no x": (drop("x"), r"00005.json: x is missing; expected numbers of shape \[3\]"),
    "not finite": (put("origin", [0, 1, float("inf")]), r"origin is \[0, 1, inf\]"),
    "not unit": (put("x", [2, 0, 0]), r"00005.json: x, y, z: holds axes that are stretched"),
    "degrees": (put("x_fov", 39.6), r"x_fov is 39.6; expected radians between 0 and pi; this looks like degrees"),
}


@pytest.mark.parametrize(("change", "message"), G_FIELDS.values(), ids=G_FIELDS)
def test_a_field_of_g_objaverse_that_is_missing_or_impossible_is_named(tmp_path, change, message):
    reader, folder = write_g_objaverse(tmp_path)
    edit_json(folder / "00005" / "00005.json", change)
    refused(reader, tmp_path, message)


@pytest.mark.parametrize(("content", "message"), [("{", "is not valid JSON"), ("[]", "holds a list; expected a dict")])
def test_metadata_that_is_no_json_object_is_refused(tmp_path, content, message):
    reader, folder = write_trellis(tmp_path)
    (folder / "transforms.json").write_text(content)
    refused(reader, tmp_path, message)


def test_captions_are_texts(tmp_path):
    write_mv_adapter(tmp_path)
    sets.save_json(tmp_path / "objaverse_short_captions.json", {"abcdef": 3})
    with pytest.raises(UserError, match=r"objaverse_short_captions.json: the caption of 'abcdef' is 3"):
        mv_adapter.scan(tmp_path)


def test_a_set_without_captions_has_none(tmp_path):
    write_mv_adapter(tmp_path)
    (tmp_path / "objaverse_short_captions.json").unlink()
    (entry,) = mv_adapter.scan(tmp_path)
    assert entry.caption is None


def test_a_thirteenth_view_has_no_known_azimuth(tmp_path):
    reader, folder = write_objaverse_rendering(tmp_path)
    (folder / "012.png").write_bytes((folder / "011.png").read_bytes())
    refused(reader, tmp_path, r"has 012.png; expected 12 views")
