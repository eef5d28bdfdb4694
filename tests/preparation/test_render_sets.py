"""Two known objects, written in each format by its definition, come back as they are; wrong conventions don't come in."""

import functools

import numpy as np
import pytest
import render_set_files as sets

from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry import cameras
from realiz3d_jax.preparation.render_sets import (
    evidence,
    fields,
    g_objaverse,
    mv_adapter,
    objaverse_rendering,
    transforms_json,
)
from realiz3d_jax.preparation.render_sets.formats import FORMATS
from realiz3d_jax.views import AZIMUTHS

SCENES = {"sphere": sets.Sphere(), "cube": sets.Cube()}
SPHERE, CUBE = SCENES.values()
scenes = pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)


def read_only_one(reader, root):
    (entry,) = reader.scan(root)
    return reader.read(entry)


def check_views(found, scene, *, place=1e-4, normals=1.0):
    """The object is the scene: places on their pixels' rays and on the surface, normals outward, each side on its side."""
    views, size = found.mask.shape[:2]
    assert found.color.shape == (views, size, size, 3)
    assert found.color.dtype == np.uint8
    assert found.position.dtype == found.normal.dtype == np.float32
    assert len(found.cameras) == views
    assert (found.color[~found.mask] == 255).all()
    assert not found.position[~found.mask].any()
    assert not found.normal[~found.mask].any()
    for camera, mask, color, normal, position in zip(
        found.cameras, found.mask, found.color, found.normal, found.position, strict=True
    ):
        row, column = np.nonzero(mask)
        assert len(row) > 0.1 * mask.size
        pixels, _ = camera.project(position[mask], size)
        np.testing.assert_allclose(pixels, np.stack([column, row], axis=1) + 0.5, atol=0.01)
        lens = {"fov": 2 * np.arctan(camera.width / 2)} if camera.perspective else {"width": camera.width}
        matrix = np.concatenate([camera.axes.T, camera.center[:, None]], axis=1)
        truth = sets.shoot(scene, matrix, size, **lens)
        assert (truth["mask"] != mask).mean() < 0.005
        both = truth["mask"] & mask
        assert scene.off(position[mask]).max() < place
        cosine = np.sum(normal[both] * truth["normal"][both], axis=-1)
        assert np.degrees(np.arccos(np.quantile(cosine, 0.01).clip(-1, 1))) < normals
        assert (scene.color(position[mask]) == color[mask]).all(axis=-1).mean() >= (0.99 if scene is CUBE else 0)
        assert np.abs(scene.color(position[mask]).astype(int) - color[mask]).mean() < 2


def by_azimuth(found, azimuth):
    """The view whose camera stands at an azimuth of the project's."""
    places = [camera.backward @ cameras.view_axes(azimuth)[2] for camera in found.cameras]
    return int(np.argmax(places))


def test_every_format_has_its_two_functions():
    assert sorted(FORMATS) == ["g_objaverse", "mv_adapter", "objaverse_rendering", "transforms_json"]
    for module in FORMATS.values():
        assert callable(module.scan)
        assert callable(module.read)


@pytest.mark.parametrize("module", FORMATS.values(), ids=FORMATS)
def test_an_empty_folder_has_no_objects(module, tmp_path):
    assert module.scan(tmp_path) == []


@scenes
@pytest.mark.parametrize("fov", [None, 0.75], ids=["orthographic", "perspective"])
@pytest.mark.parametrize("frame", ["world", "camera", "last"])
def test_mv_adapter_comes_back_whatever_frame_its_normals_are_in(tmp_path, scene, fov, frame):
    sets.write_mv_adapter(tmp_path, scene, fov=fov, frame=frame)
    found = read_only_one(mv_adapter, tmp_path)
    assert (found.uid, found.caption) == ("abcdef", "a thing")
    check_views(found, scene)
    assert [by_azimuth(found, azimuth) for azimuth in AZIMUTHS] == [0, 1, 2, 3]
    assert found.cameras[8].backward[2] > 0.999 > -0.999 > found.cameras[9].backward[2]


def test_the_public_script_names_its_images_otherwise(tmp_path):
    sets.write_mv_adapter(tmp_path, CUBE, name="render")
    check_views(read_only_one(mv_adapter, tmp_path), CUBE)


MV_ADAPTER_NORMALS = {
    "red and blue swapped": lambda normal, view: normal[..., ::-1],
    "y of another sign": lambda normal, view: normal * [1, -1, 1],
    "inward": lambda normal, view: -normal,
    "y and z swapped": lambda normal, view: normal[..., [0, 2, 1]],
    "one view in another frame": lambda normal, view: normal[..., [1, 2, 0]] if view == 4 else normal,
    "the last view in another frame": lambda normal, view: normal[..., ::-1] if view == 9 else normal,
}


@scenes
@pytest.mark.parametrize("change", MV_ADAPTER_NORMALS.values(), ids=MV_ADAPTER_NORMALS)
def test_mv_adapters_normals_that_contradict_the_depth_are_refused(tmp_path, scene, change):
    sets.write_mv_adapter(tmp_path, scene, edit_normal=change)
    with pytest.raises(UserError, match="agree with the depth"):
        read_only_one(mv_adapter, tmp_path)


def test_normals_that_agree_with_the_depth_in_both_frames_are_refused(tmp_path):
    """From cameras that are nearly turned as the world is, nothing tells whose frame it is."""
    sets.write_mv_adapter(tmp_path, SPHERE, views=[(0, 60), (0, 62), (0, 64)])
    with pytest.raises(
        UserError, match=r"agree with the depth is 1.00 in the world frame, .* expected .* one of the two"
    ):
        read_only_one(mv_adapter, tmp_path)


def test_a_surface_too_small_to_tell_by_is_refused(tmp_path):
    sets.write_mv_adapter(tmp_path, SPHERE, size=4)
    with pytest.raises(UserError, match="nan in the world frame"):
        read_only_one(mv_adapter, tmp_path)
    sets.write_g_objaverse(tmp_path, SPHERE, size=6)
    with pytest.raises(UserError, match="too little of the surface is visible"):
        read_only_one(g_objaverse, tmp_path)


def to_world_to_camera(location, view):
    location["transform_matrix"] = np.linalg.inv(location["transform_matrix"]).tolist()


def to_opencv(location, view):
    location["transform_matrix"] = (np.array(location["transform_matrix"]) @ np.diag([1, -1, -1, 1])).tolist()


def to_degrees(location, view):
    location["azimuth"], location["elevation"] = np.rad2deg([location["azimuth"], location["elevation"]])


MV_ADAPTER_CAMERAS = {
    "world to camera": (to_world_to_camera, "expected radians and a camera-to-world matrix"),
    "OpenCV's axes": (to_opencv, "away from the object"),
    "angles in degrees": (to_degrees, "expected radians"),
    "another width": (lambda location, view: location.update(ortho_scale=1.4), "sees free space"),
}


@scenes
@pytest.mark.parametrize(("edit", "message"), MV_ADAPTER_CAMERAS.values(), ids=MV_ADAPTER_CAMERAS)
def test_mv_adapters_cameras_of_another_convention_are_refused(tmp_path, scene, edit, message):
    sets.write_mv_adapter(tmp_path, scene, edit=edit)
    with pytest.raises(UserError, match=message):
        read_only_one(mv_adapter, tmp_path)


def test_an_angle_of_view_in_degrees_is_refused(tmp_path):
    sets.write_mv_adapter(tmp_path, SPHERE, fov=0.7, edit=lambda location, view: location.update(camera_angle_x=40.0))
    with pytest.raises(UserError, match=r"locations\[0\]: camera_angle_x is 40; expected radians.*looks like degrees"):
        read_only_one(mv_adapter, tmp_path)


@scenes
@pytest.mark.parametrize("fov", [None, 0.8], ids=["by focal length", "by x_fov"])
def test_g_objaverse_comes_back(tmp_path, scene, fov):
    sets.write_g_objaverse(tmp_path, scene, fov=fov)
    found = read_only_one(g_objaverse, tmp_path)
    assert (found.uid, found.caption) == ("17/4321", "a thing")
    assert found.cameras[0].width == pytest.approx(1024 / 1422.222 if fov is None else 2 * np.tan(0.4), rel=1e-6)
    check_views(found, scene)


G_OBJAVERSE_CHANNELS = {
    "OpenCV's order": (
        lambda c: {**c, "R": c["B"], "B": c["R"]},
        "agree with the depth .* red and blue swapped fits best",
    ),
    "Blender's normals": (lambda c: {**c, "R": -c["R"], "G": -c["B"], "B": c["G"]}, "the world's own fits best"),
    "inward normals": (lambda c: {**c, "R": -c["R"], "G": -c["G"], "B": -c["B"]}, "all signs turned fits best"),
    "depth first": (lambda c: {"R": c["A"], "G": c["R"], "B": c["G"], "A": c["B"]}, "masks show different views"),
    "no depth": (lambda c: {name: c[name] for name in "RGB"}, "channels .*, but no A"),
}


@scenes
@pytest.mark.parametrize(("change", "message"), G_OBJAVERSE_CHANNELS.values(), ids=G_OBJAVERSE_CHANNELS)
def test_g_objaverses_channels_in_another_order_are_refused(tmp_path, scene, change, message):
    sets.write_g_objaverse(tmp_path, scene, edit_channels=change)
    with pytest.raises(UserError, match=message):
        read_only_one(g_objaverse, tmp_path)


def turn(record, *names):
    record.update({name: [-value for value in record[name]] for name in names})


G_OBJAVERSE_CAMERAS = {
    "y and z of the other sign": (functools.partial(turn), ("y", "z"), "away from the object"),
    "y of the other sign": (functools.partial(turn), ("y",), "left-handed"),
    "x and y of the other sign": (functools.partial(turn), ("x", "y"), "sees free space|agree with the depth"),
}


@pytest.mark.parametrize(("change", "names", "message"), G_OBJAVERSE_CAMERAS.values(), ids=G_OBJAVERSE_CAMERAS)
def test_g_objaverses_axes_of_the_other_convention_are_refused(tmp_path, change, names, message):
    sets.write_g_objaverse(tmp_path, CUBE, edit=lambda record: change(record, *names))
    with pytest.raises(UserError, match=message):
        read_only_one(g_objaverse, tmp_path)


def test_a_depth_before_the_cube_is_no_depth(tmp_path):
    def spoil(channels):
        depth = channels["A"].copy()
        depth[16, 14:18] = 0.8  # the cameras stand at 1.7 and farther, the cube begins at 0.83
        return {**channels, "A": depth}

    sets.write_g_objaverse(tmp_path, SPHERE, edit_channels=spoil)
    found = read_only_one(g_objaverse, tmp_path)
    assert not found.mask[:, 16, 14:18].any()
    assert found.mask[:, 15, 14:18].all()


@pytest.mark.parametrize("distance", [1.5, 1.2])
def test_objaverse_renderings_cameras_are_derived_and_the_outlines_decide_for_the_nearer_script(tmp_path, distance):
    sets.write_objaverse_rendering(tmp_path, CUBE, distance=distance)
    found = read_only_one(objaverse_rendering, tmp_path)
    assert found.normal is None
    assert found.position is None
    assert found.caption is None
    check_colors(found, CUBE)
    np.testing.assert_allclose(found.cameras[0].center, [distance * np.cos(np.pi / 6), 0, distance / 2], atol=1e-12)
    np.testing.assert_allclose(found.cameras[3].center, [0, distance * np.cos(np.pi / 6), distance / 2], atol=1e-12)


def check_colors(found, scene):
    """Each view shows what its camera would see of the scene."""
    for camera, mask, color in zip(found.cameras, found.mask, found.color, strict=True):
        matrix = np.concatenate([camera.axes.T, camera.center[:, None]], axis=1)
        truth = sets.shoot(scene, matrix, len(mask), fov=2 * np.arctan(camera.width / 2))
        assert (truth["mask"] == mask).mean() > 0.995
        both = truth["mask"] & mask
        assert (truth["color"][both] == color[both]).all(axis=-1).mean() > 0.98
        assert (color[~mask] == 255).all()


PLATE = sets.Cube()
PLATE.boxes = np.array([[[-0.5, -0.4, -0.1], [0.4, 0.4, 0.1]], [[0.4, 0.1, -0.1], [0.5, 0.3, 0.1]]])
OBJAVERSE_CAMERAS = {
    "clockwise": (CUBE, {"turn": -1}),
    "too far, a block": (CUBE, {"distance": 2.0}),
    "too far, a plate": (PLATE, {"distance": 2.0}),
    "too near": (CUBE, {"distance": 1.0}),
}


@pytest.mark.parametrize(("scene", "change"), OBJAVERSE_CAMERAS.values(), ids=OBJAVERSE_CAMERAS)
def test_outlines_that_the_scripts_cameras_dont_explain_are_refused(tmp_path, scene, change):
    sets.write_objaverse_rendering(tmp_path, scene, **change)
    with pytest.raises(UserError, match="no object in a cube of side 1 has these outlines"):
        read_only_one(objaverse_rendering, tmp_path)


FORK = [sets.stand(77 * view, 60 * np.sin(3 * view), 1.5 + 0.05 * view) for view in range(12)]


@scenes
def test_the_forks_own_cameras_are_used(tmp_path, scene):
    sets.write_objaverse_rendering(tmp_path, scene, matrices=FORK, save=lambda matrix: np.linalg.inv(matrix)[:3])
    found = read_only_one(objaverse_rendering, tmp_path)
    for camera, matrix in zip(found.cameras, FORK, strict=True):
        np.testing.assert_allclose(camera.center, matrix[:3, 3], atol=1e-12)
    check_colors(found, scene)


FORK_FILES = {
    "camera to world": (lambda matrix: matrix[:3], "off the optical axis|away from the object"),
    "OpenCV's axes": (lambda matrix: np.diag([1, -1, -1]) @ np.linalg.inv(matrix)[:3], "away from the object"),
    "another shape": (lambda matrix: np.linalg.inv(matrix), r"expected numbers of shape \[3, 4\]"),
    "turned over": (lambda matrix: np.diag([-1, -1, 1]) @ np.linalg.inv(matrix)[:3], "has these outlines"),
    "no rotation": (lambda matrix: 1.2 * np.linalg.inv(matrix)[:3], "stretched"),
}


@pytest.mark.parametrize(("save", "message"), FORK_FILES.values(), ids=FORK_FILES)
def test_the_forks_cameras_of_another_convention_are_refused(tmp_path, save, message):
    sets.write_objaverse_rendering(tmp_path, CUBE, matrices=FORK, save=save)
    with pytest.raises(UserError, match=message):
        read_only_one(objaverse_rendering, tmp_path)


MESHES = {
    "as it lies": {},
    "with Y up": {"change": lambda points: np.stack([points[:, 0], points[:, 2], -points[:, 1]], axis=1)},
    "in its own coordinates": {
        "change": lambda p: (p - [0.1, 0.2, -0.3]) / 0.25,
        "scale": 0.25,
        "offset": (0.1, 0.2, -0.3),
    },
    "in a box of 2": {"box": 1.0},
}


@scenes
@pytest.mark.parametrize("mesh", MESHES.values(), ids=MESHES)
def test_trellis_comes_back_wherever_its_mesh_lies(tmp_path, scene, mesh):
    sets.write_trellis(tmp_path, scene, **mesh)
    found = read_only_one(transforms_json, tmp_path)
    assert (found.uid, found.caption) == ("f00d", None)
    check_views(found, scene, place=6e-4)


def test_trellis_without_a_mesh_has_outlines_but_no_maps(tmp_path):
    sets.write_trellis(tmp_path, CUBE, mesh=False)
    found = read_only_one(transforms_json, tmp_path)
    assert found.normal is None
    assert found.position is None
    check_colors(found, CUBE)


def test_a_mesh_of_another_object_is_refused(tmp_path):
    folder = sets.write_trellis(tmp_path, CUBE)
    sets.save_ply(folder / "mesh.ply", *SPHERE.mesh())
    with pytest.raises(UserError, match=r"mesh.ply: agrees with the views by .* with Z up, as it lies"):
        read_only_one(transforms_json, tmp_path)


POSITION_MAPS = {
    "OpenCV's order": {},
    "x, y, z": {"order": lambda p: p},
    "in a sphere of 1.15": {"order": lambda p: p, "span": 1.15},
}


@scenes
@pytest.mark.parametrize("maps", POSITION_MAPS.values(), ids=POSITION_MAPS)
def test_hunyuan_comes_back_with_the_outline_of_its_mesh(tmp_path, scene, maps):
    sets.write_hunyuan(tmp_path, scene, **maps)
    found = read_only_one(transforms_json, tmp_path)
    assert (found.uid, found.cameras[0].width, found.cameras[0].perspective) == ("001", 1.2, False)
    check_views(found, scene, place=6e-4)
    assert [by_azimuth(found, azimuth) for azimuth in AZIMUTHS] == [0, 1, 2, 3]


@scenes
@pytest.mark.parametrize("maps", POSITION_MAPS.values(), ids=POSITION_MAPS)
def test_hunyuan_without_a_mesh_comes_back_from_its_maps_of_8_bits(tmp_path, scene, maps):
    sets.write_hunyuan(tmp_path, scene, mesh=False, albedo_alpha=True, **maps)
    check_views(read_only_one(transforms_json, tmp_path), scene, place=0.004, normals=1.5)


def test_maps_in_jpeg_place_a_mesh_but_are_no_maps(tmp_path):
    sets.write_hunyuan(tmp_path / "mesh", CUBE, size=128, ending="jpg")
    check_views(read_only_one(transforms_json, tmp_path / "mesh"), CUBE, place=6e-4)
    sets.write_hunyuan(tmp_path / "maps", CUBE, size=128, ending="jpg", mesh=False, albedo_alpha=True)
    with pytest.raises(UserError, match=r"000_pos.png: is missing, and JPEG is too coarse"):
        read_only_one(transforms_json, tmp_path / "maps")


def test_a_grey_object_on_grey_is_seen_whole(tmp_path):
    grey = sets.Cube()
    grey.color = lambda points: np.full(points.shape, 127, np.uint8)
    sets.write_hunyuan(tmp_path, grey)
    found = read_only_one(transforms_json, tmp_path)
    truth = sets.shoot(CUBE, sets.stand(-90, 0, 1.5), 48, width=1.2)
    assert (found.mask[0] == truth["mask"]).mean() > 0.995
    assert (found.color[found.mask] == 127).all()


def test_a_background_colour_is_no_outline(tmp_path):
    sets.write_hunyuan(tmp_path, CUBE, mesh=False)
    with pytest.raises(UserError, match=r"neither this image nor its albedo has alpha, and there is no mesh.ply"):
        read_only_one(transforms_json, tmp_path)


HUNYUAN_MAPS = {
    "normals in OpenCV's order": {"edit_normal": lambda normal: normal[..., ::-1]},
    "inward normals": {"edit_normal": lambda normal: -normal},
    "normals with Y up": {"edit_normal": lambda normal: normal[..., [0, 2, 1]] * [1, 1, -1]},
    "positions of another order": {"order": lambda p: (p[1], p[0], p[2])},
    "positions of another span": {"order": lambda p: p, "span": 2.0},
}


@pytest.mark.parametrize(("scene", "mesh"), [(CUBE, True), (CUBE, False), (SPHERE, False)])
@pytest.mark.parametrize("change", HUNYUAN_MAPS.values(), ids=HUNYUAN_MAPS)
def test_hunyuans_maps_of_another_convention_are_refused(tmp_path, scene, mesh, change):
    sets.write_hunyuan(tmp_path, scene, mesh=mesh, albedo_alpha=not mesh, **change)
    with pytest.raises(UserError, match=r"agrees? with the|lie on the rays"):
        read_only_one(transforms_json, tmp_path)


@pytest.mark.parametrize("fov", [None, 70])
def test_depth_is_the_distance_along_the_axis_of_view(fov):
    camera = cameras.orbit(20, 30, fov=fov)
    places = evidence.positions_from_depth(camera, np.full((16, 16), 1.5))
    np.testing.assert_allclose((camera.center - places) @ camera.backward, 1.5)
    along_the_ray = np.linalg.norm(places - camera.rays(16)[0], axis=-1)
    assert along_the_ray.max() == pytest.approx(1.5) if fov is None else along_the_ray.max() > 1.8


def test_normals_follow_from_places_up_to_the_edges_of_the_surface():
    camera = cameras.orbit(0, 20)
    truth = sets.shoot(CUBE, np.concatenate([camera.axes.T, camera.center[:, None]], axis=1), 48, width=camera.width)
    normal, known = evidence.seen_normals(camera, truth["point"], truth["mask"])
    assert not known[~truth["mask"]].any()
    assert known[truth["mask"]].mean() > 0.6
    right = np.sum(normal[known] * truth["normal"][known], axis=-1) > 0.999
    assert right.mean() > 0.97
    assert evidence.agreement(truth["normal"], normal, known) > 0.99
    assert np.isnan(evidence.agreement(truth["normal"], normal, np.zeros_like(known)))


def test_alpha_is_mixed_with_white_as_displayed():
    color = np.array([[[0, 0, 0], [200, 100, 0], [7, 8, 9]]], np.uint8)
    mixed = fields.over_white(color, np.array([[128, 51, 0]], np.uint8))
    np.testing.assert_array_equal(mixed, [[[127, 127, 127], [244, 224, 204], [255, 255, 255]]])
