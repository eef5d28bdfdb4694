"""Records of render sets: the views of the rig, or all of them with their cameras; at another size, too."""

import dataclasses
import re

import numpy as np
import pytest
from render_set_files import Cube, Sphere, write_mv_adapter, write_objaverse_rendering
from worlds import run_command

from realiz3d_jax.data import pipeline, records
from realiz3d_jax.data.config import DataConfig
from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.cameras import STANDARD, Rig, matching_views, orbit
from realiz3d_jax.models.text import WordEncoder
from realiz3d_jax.preparation.assets.rendering import RenderConfig
from realiz3d_jax.preparation.render_sets import conversion, mv_adapter

CONFIG = RenderConfig(validation=0.0, test=0.0)


def prepare(tmp_path, source, form, captions, size=32, config=CONFIG):
    return conversion.prepare(tmp_path / "data", "theirs", source, form, captions, size, config, processes=1)[0]


def only_entry(module, root):
    (entry,) = module.scan(root)
    return entry


def test_views_of_the_rig_become_records_that_train_like_our_own(tmp_path):
    write_mv_adapter(tmp_path / "set", Cube(), size=64)
    entry = only_entry(mv_adapter, tmp_path / "set")
    prepare(tmp_path, tmp_path / "set", "mv_adapter", {entry.uid: "a cube"}, size=64)
    (record,) = records.open_split(tmp_path / "data", "theirs_assets", "train", 64)
    expected = mv_adapter.read(entry)
    chosen = matching_views(expected.cameras, STANDARD)
    np.testing.assert_array_equal(record["synthetic"], expected.color[chosen])
    mask = expected.mask[chosen]
    np.testing.assert_array_equal(record["mask"], mask)
    np.testing.assert_allclose(
        records.decode_positions(record["position"], mask), expected.position[chosen] * mask[..., None], atol=1e-5
    )
    np.testing.assert_allclose(
        records.decode_normals(record["normal"], mask), expected.normal[chosen] * mask[..., None], atol=2e-5
    )
    config = pipeline.StreamConfig(DataConfig(str(tmp_path / "data"), "theirs", size=64), WordEncoder(64, 20))
    batch = next(pipeline.open_stream("synthetic_grids", config, 0, 1))
    np.testing.assert_array_equal(batch["image"][0], record["synthetic"])


@pytest.mark.parametrize("size", [32, 64])
def test_at_another_size_places_lie_on_the_new_pixels_rays_and_on_the_surface(tmp_path, size):
    scene = Sphere()
    write_mv_adapter(tmp_path / "set", scene, size=48)
    held = mv_adapter.read(only_entry(mv_adapter, tmp_path / "set"))
    new = conversion.resized(held, size)
    assert new.color.shape[1:3] == new.mask.shape[1:] == (size, size)
    for view, camera in enumerate(new.cameras):
        row, column = np.nonzero(new.mask[view])
        pixels, _ = camera.project(new.position[view][new.mask[view]], size)
        np.testing.assert_allclose(pixels, np.stack([column, row], axis=-1) + 0.5, atol=1e-3)
    middle = new.mask & (np.linalg.norm(new.normal, axis=-1) > 0)
    facing = np.stack([normal @ camera.backward for normal, camera in zip(new.normal, new.cameras, strict=True)])
    assert scene.off(new.position[middle & (facing > 0.7)]).max() < 0.012  # half a pixel of 48, at 45 degrees


def test_light_is_averaged_by_area():
    view = np.zeros((4, 4, 3), np.uint8)
    view[:, ::2] = 255
    np.testing.assert_array_equal(conversion._scaled(view, 2), np.full((2, 2, 3), 188))


def test_a_set_without_the_rigs_views_keeps_its_own_cameras_and_serves_single_images(tmp_path):
    write_objaverse_rendering(tmp_path / "set", Cube(), size=48)
    entry = only_entry(conversion.FORMATS["objaverse_rendering"], tmp_path / "set")
    prepare(tmp_path, tmp_path / "set", "objaverse_rendering", {entry.uid: "a cube"})
    held = records.open_split(tmp_path / "data", "theirs_assets", "train", 32)
    (record,) = held
    assert held.views == 12
    assert held.metadata["rig"] is None
    assert set(record) == {"uid", "caption", "synthetic", "mask", "cameras"}
    original = conversion.FORMATS["objaverse_rendering"].read(entry).cameras
    for camera, expected in zip(records.decode_cameras(record["cameras"]), original, strict=True):
        np.testing.assert_array_equal(camera.axes, expected.axes)
        np.testing.assert_array_equal(camera.center, expected.center)
        assert (camera.width, camera.perspective) == (expected.width, expected.perspective)
    config = pipeline.StreamConfig(DataConfig(str(tmp_path / "data"), "theirs", size=32), WordEncoder(64, 20))
    batch = next(pipeline.open_stream("synthetic_images", config, 0, 1))
    assert batch["image"].shape == (1, 4, 32, 32, 3)
    with pytest.raises(UserError, match="every object has its own cameras"):
        pipeline.open_stream("synthetic_grids", config, 0, 1)


def test_cameras_match_that_see_the_same():
    held = (orbit(90), orbit(0, distance=5.0), orbit(0, fov=40), orbit(180, width=1.2))
    assert matching_views(held, (orbit(0), orbit(90))) == [1, 0]
    assert matching_views(held, (orbit(180),)) is None
    assert matching_views(held, (orbit(0, fov=40),)) == [2]
    assert matching_views(held, (orbit(0, fov=40, distance=3.0),)) is None
    moved = dataclasses.replace(orbit(0), center=np.array([0.1, -2, 0]))
    assert matching_views((moved,), (orbit(0),)) is None


def test_objects_without_a_caption_or_of_other_views_are_left_out(tmp_path, capsys):
    write_objaverse_rendering(tmp_path / "set", Cube(), size=48)
    data = f"--directory={tmp_path / 'data'}"
    arguments = [
        f"--render-set={tmp_path / 'set'}",
        "--render-format=objaverse_rendering",
        "--collection=theirs",
        data,
        "--workers=1",
    ]
    assert run_command("prepare", *arguments) == 2
    assert re.search("has no caption; pass .* by --captions", capsys.readouterr().err)
    entry = only_entry(conversion.FORMATS["objaverse_rendering"], tmp_path / "set")
    (tmp_path / "captions.csv").write_text(f"uid,caption\n{entry.uid},a cube\n")
    assert run_command("prepare", *arguments, f"--captions={tmp_path / 'captions.csv'}") == 0
    printed = capsys.readouterr()
    assert "made theirs_assets (train 1)" in printed.out
    assert "make no grids" in printed.err
    assert run_command("prepare", *arguments[:1], *arguments[2:]) == 2
    assert "--render-format: is required" in capsys.readouterr().err


@pytest.mark.parametrize("form", list(conversion.FORMATS))
def test_a_folder_that_is_no_such_set_is_refused(tmp_path, form):
    with pytest.raises(UserError, match="found no object in the format"):
        prepare(tmp_path, tmp_path, form, {})
    with pytest.raises(UserError, match="there is no such folder"):
        prepare(tmp_path, tmp_path / "none", form, {})


def test_the_rig_that_is_looked_for_can_be_said(tmp_path):
    write_mv_adapter(tmp_path / "set", Sphere(), size=32)
    entry = only_entry(mv_adapter, tmp_path / "set")
    rig = Rig(azimuths=(180, 0))
    prepare(
        tmp_path, tmp_path / "set", "mv_adapter", {entry.uid: "a ball"}, config=dataclasses.replace(CONFIG, rig=rig)
    )
    held = records.open_split(tmp_path / "data", "theirs_assets", "train", 32)
    assert held.views == 2
    records.check_views(held, rig, ("normal", "position"))
