"""The reader of sampled items: it gives back what was written, and names what is damaged."""

import json
import pathlib

import numpy as np
import pytest
from sampled_items import RIGS, SIDES, SIX, write_item

from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.cameras import STANDARD, STANDARD_RIG, matching_views
from realiz3d_jax.sampling import items

VIEWS = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """An item of the standard rig."""
    (tmp_path / "mesh.glb").write_bytes(b"glTF")
    write_item(tmp_path / "out" / "one", "one", VIEWS, tmp_path / "mesh.glb")
    return tmp_path / "out" / "one"


@pytest.mark.parametrize(("rig", "chosen"), [(STANDARD_RIG, SIDES), *RIGS.values()])
def test_views_and_their_cameras_come_back_in_their_order(tmp_path, rig, chosen):
    write_item(tmp_path / "one", "one", VIEWS, None, rig, chosen, domain="synthetic")
    item = items.read(tmp_path / "one")
    np.testing.assert_array_equal(items.read_views(item), VIEWS)
    cameras = [rig.cameras()[view] for view in chosen]
    assert matching_views(item.cameras, cameras) == [0, 1, 2, 3]
    assert (item.uid, item.caption, item.domain, item.mesh) == ("one", "a thing", "synthetic", None)
    items.check_mesh(item)


def test_views_have_the_names_of_their_angles(tmp_path):
    write_item(tmp_path / "one", "one", VIEWS, None, SIX, (5, 1, 4, 0))
    assert items.read(tmp_path / "one").names == ("view_000_-90.png", "view_090.png", "view_000_90.png", "view_000.png")


def change(folder: pathlib.Path, **values) -> None:
    path = folder / items.DESCRIPTION
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_items_from_before_they_stated_their_cameras_are_of_the_standard_rig(folder):
    path = folder / items.DESCRIPTION
    found = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in found.items() if key not in ("rig", "views")}))
    item = items.read(folder)
    assert matching_views(item.cameras, STANDARD) == [0, 1, 2, 3]
    np.testing.assert_array_equal(items.read_views(item), VIEWS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"uid": 3}, r"item\.json: uid is 3; expected a text"),
        ({"mesh": "chair.glb"}, r"item\.json: cannot be read \(TypeError"),
        ({"mesh": {"path": "chair.glb"}}, r"item\.json: cannot be read \(KeyError: 'sha256'"),
        ({"rig": None}, r"item\.json: its rig cannot be used"),
        ({"rig": {"azimuth": [0]}}, r"item\.json: its rig cannot be used .*'azimuth'.*expected azimuths"),
        ({"rig": {"width": "1.2"}}, r"item\.json: its rig cannot be used"),
        ({"rig": {"width": -1.0}}, r"item\.json: its rig cannot be used \(rig: width -1"),
        ({"rig": {"azimuths": ["a", 1, 2, 3]}}, r"item\.json: its rig cannot be used"),
        ({"views": [0, 1, 2]}, r"item\.json: views are \[0, 1, 2\]; expected four of the rig's 4, from 0"),
        ({"views": [0, 1, 2, 4]}, r"views are \[0, 1, 2, 4\]; expected four of the rig's 4"),
        ({"views": [0, 1, 2, -1]}, r"views are \[0, 1, 2, -1\]"),
        ({"views": 4}, r"views are 4"),
    ],
)
def test_a_damaged_description_is_named_with_its_field(folder, changes, message):
    change(folder, **changes)
    with pytest.raises(UserError, match=message) as raised:
        items.read(folder)
    assert "sample it again" in str(raised.value)


@pytest.mark.parametrize("content", ["", "[]", '{"uid": "one"', "3", '{"uid": "one"}'])
def test_what_is_no_description_is_named(folder, content):
    (folder / items.DESCRIPTION).write_text(content)
    with pytest.raises(UserError, match=r"item\.json: cannot be read"):
        items.read(folder)


def test_views_of_another_size_than_the_metrics_are_named(folder):
    assert items.read_views(items.read(folder), 8).shape == VIEWS.shape
    with pytest.raises(UserError, match=r"found views of 8 x 8, .* expected 16 x 16, as the metrics were made from"):
        items.read_views(items.read(folder), 16)


def test_a_mesh_that_is_gone_or_another_one_is_named(folder, tmp_path):
    items.check_mesh(items.read(folder))
    (tmp_path / "mesh.glb").write_bytes(b"other")
    with pytest.raises(UserError, match=r"mesh\.glb: is not the mesh that .*one was made with"):
        items.check_mesh(items.read(folder))
    (tmp_path / "mesh.glb").unlink()
    with pytest.raises(UserError, match=r"mesh\.glb is missing; put it back"):
        items.check_mesh(items.read(folder))
