"""A team's own assets: found, named, captioned, rendered, and left out with a reason where they cannot be used."""

import dataclasses
import json
import os
import sys

import numpy as np
import pytest
from asset_files import TETRAHEDRON, cut_out, glb, obj, two_parts
from worlds import assert_same, run_command

from realiz3d_jax.data import geometry_maps, pipeline, records
from realiz3d_jax.data.config import DataConfig
from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.assets.asset import load_asset
from realiz3d_jax.geometry.cameras import STANDARD_RIG, Rig
from realiz3d_jax.models.text import WordEncoder
from realiz3d_jax.preparation.assets import beam, rendering
from realiz3d_jax.preparation.assets.listing import ListedAsset, list_assets
from realiz3d_jax.preparation.assets.rendering import RenderConfig

ALL_TRAIN = RenderConfig(samples=2, validation=0.0, test=0.0)


@pytest.fixture
def folder(tmp_path):
    """Three assets that can be read, in two formats and a folder of their own, and two that cannot."""
    place = tmp_path / "assets"
    (place / "more").mkdir(parents=True)
    (place / "OddChair_2.glb").write_bytes(glb(*two_parts()))
    (place / "plain.obj").write_bytes(obj())
    (place / "more" / "plain.obj").write_bytes(obj(TETRAHEDRON * [1, 1, 0.2]))
    (place / "cut.glb").write_bytes(glb(*two_parts())[:200])
    (place / "empty.obj").write_bytes(b"")
    (place / "notes.txt").write_text("no asset")
    return place


# The list


def test_a_folder_is_searched_with_all_below_it_and_captions_are_found_by_any_name(folder):
    (folder / "captions.json").write_text(json.dumps({"more/plain.obj": "a flat one", "cut": "nothing"}))
    entries, skipped = list_assets(folder)
    assert [entry.uid for entry in entries] == ["OddChair_2", "cut", "empty", "more_plain", "plain"]
    assert not skipped
    captions = {entry.uid: entry.caption for entry in entries}
    assert captions == {"OddChair_2": None, "cut": "nothing", "empty": None, "more_plain": "a flat one", "plain": None}
    assert entries[0].caption_or_name() == "odd chair 2"
    assert entries[3].path == folder / "more" / "plain.obj"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.json", '{"plain": "a thing"}'),
        ("c.json", '[{"uid": "plain", "caption": "a thing"}]'),
        ("c.jsonl", '{"asset": "plain.obj", "caption": "a thing"}\n{"asset": "x", "caption": "y"}\n'),
        ("c.csv", "file,caption\nplain.obj,a thing\n"),
        ("c.csv", '\ufeffcaption,uid\n"a thing",plain\n'),
    ],
)
def test_captions_are_read_in_every_form(folder, name, text):
    path = folder.parent / name
    path.write_text(text, encoding="utf-8")
    entries, _ = list_assets(folder, path)
    assert {entry.uid: entry.caption for entry in entries}["plain"] == "a thing"


def test_a_manifest_names_assets_and_its_bad_rows_are_left_out_with_their_place(folder):
    path = folder / "list.csv"
    path.write_text(
        "mesh,caption,uid,up\nplain.obj,one,first,z\nnone.glb,two,,\nmore/plain.obj,,,\nplain.obj,again,first,\n,x,,\n"
    )
    entries, skipped = list_assets(path)
    assert entries == [
        ListedAsset("first", folder / "plain.obj", "one", "z"),
        ListedAsset("more_plain", folder / "more" / "plain.obj", None, None),
    ]
    assert [one.asset.rpartition(", ")[2] for one in skipped] == ["row 2", "row 5", str(folder / "plain.obj")]
    reasons = ["does not exist", "mesh is required", "has the uid 'first'"]
    assert all(word in one.reason for word, one in zip(reasons, skipped, strict=True))
    lines = folder / "list.jsonl"
    lines.write_text('{"mesh": "plain.obj", "caption": "one"}\n{"mesh": "plain.obj", "color": "red"}\n')
    entries, skipped = list_assets(lines)
    assert [entry.caption for entry in entries] == ["one"]
    assert "found key 'color'" in skipped[0].reason


def test_names_that_are_too_long_stay_different(tmp_path):
    for end in "ab":
        (tmp_path / ("x" * 150 + end + ".obj")).write_bytes(obj())
    entries, skipped = list_assets(tmp_path)
    assert len({entry.uid for entry in entries}) == 2
    assert max(len(entry.uid) for entry in entries) == 100
    assert not skipped


def test_names_of_any_alphabet_stay_different_and_give_captions(tmp_path):
    for name in ("椅子", "桌子", "a b", "a+b", "a_b"):
        (tmp_path / f"{name}.obj").write_bytes(obj())
    entries, skipped = list_assets(tmp_path)
    assert len({entry.uid for entry in entries}) == 5
    assert not skipped
    assert {entry.caption_or_name() for entry in entries} == {"椅子", "桌子", "a b"}
    assert all(entry.uid.isascii() for entry in entries)


def test_what_looks_like_an_asset_and_cannot_be_taken_is_reported(tmp_path, capsys):
    (tmp_path / "a.obj").write_bytes(obj())
    (tmp_path / "a.glb").write_bytes(glb(*two_parts()))
    (tmp_path / "scene.fbx").write_bytes(b"")
    (tmp_path / "gone.glb").symlink_to(tmp_path / "nowhere.glb")
    with open(os.path.join(os.fsencode(tmp_path), b"latin\xe9.obj"), "wb") as file:
        file.write(obj())
    (tmp_path / "captions.json").write_text('{"a": "one", "ghost": "two"}')
    entries, skipped = list_assets(tmp_path)
    assert [entry.path.name for entry in entries] == ["a.glb"]
    reasons = " ".join(one.reason for one in skipped)
    for expected in (
        ".fbx is not supported; export it as GLB",
        "is a broken link",
        "not UTF-8; rename it",
        "rename one, or give uids",
    ):
        assert expected in reasons
    assert "captions that name no asset: 1, such as 'ghost'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda place: None, "there is no such folder or file"),
        (lambda place: place.mkdir(), "found no assets; expected files that end in .glb"),
        (lambda place: place.write_text("{"), "not JSON"),
        (lambda place: place.write_bytes(b"\xff\xfe\x00"), "cannot be read as text"),
        (lambda place: place.write_text("3"), "expected JSON objects"),
    ],
)
def test_a_folder_or_manifest_that_is_none_is_refused(tmp_path, make, message):
    make(tmp_path / "x")
    with pytest.raises(UserError, match=message):
        list_assets(tmp_path / "x")


def test_captions_that_are_none_are_refused(folder):
    (folder / "captions.json").write_text('{"plain": 3}')
    with pytest.raises(UserError, match="expected an asset and its caption"):
        list_assets(folder)


# The dataset


def prepare(folder, directory, config=ALL_TRAIN, collection="things"):
    entries, _ = list_assets(folder)
    return rendering.prepare(directory, collection, entries, 32, config, processes=2)


def test_records_are_what_is_rendered_and_what_cannot_be_used_is_stated_in_the_metadata(folder, tmp_path):
    path, made = prepare(folder, tmp_path / "data")
    assert made
    held = records.open_split(tmp_path / "data", "things_assets", "train")
    assert [record["uid"] for record in held] == ["OddChair_2", "more_plain", "plain"]
    for record in held:
        entry = next(entry for entry in list_assets(folder)[0] if entry.uid == record["uid"])
        expected = rendering.render_example(entry, 32, ALL_TRAIN)
        assert set(expected) == set(record)
        for name, value in expected.items():
            np.testing.assert_array_equal(record[name], value)
    left_out = {one["item"]: one["reason"] for one in held.metadata["skipped"]}
    assert set(left_out) == {str(folder / "cut.glb"), str(folder / "empty.obj")}
    assert "truncated" in left_out[str(folder / "cut.glb")]
    assert prepare(folder, tmp_path / "data") == (path, False)
    assert not (tmp_path / "data" / ".prepare").exists()


def test_maps_are_those_of_sampling_and_depth_and_position_agree(folder):
    entry = ListedAsset("it", folder / "OddChair_2.glb")
    rig = Rig(azimuths=(20, 200), elevations=(10, -30), projection="perspective", fov=50.0)
    for config in (ALL_TRAIN, dataclasses.replace(ALL_TRAIN, rig=rig)):
        record = rendering.render_example(entry, 48, config)
        asset = load_asset(entry.path)
        maps = geometry_maps.geometry_of(asset.mesh, 48, config.rig.cameras(), asset.visible)
        for name, value in dataclasses.asdict(maps).items():
            np.testing.assert_array_equal(record[name], value)
        mask = record["mask"].astype(bool)
        for view, camera in enumerate(config.rig.cameras()):
            row, column = np.nonzero(mask[view])
            pixels, depth = camera.project(record["position"][view][mask[view]] / 65535 - 0.5, 48)
            np.testing.assert_allclose(pixels, np.stack([column, row], axis=-1) + 0.5, atol=2e-3)
            np.testing.assert_allclose(depth, record["depth"][view][mask[view]], atol=3e-5)
        assert (record["depth"][~mask] == 0).all()
        assert (record["synthetic"][mask] < 255).any(axis=-1).mean() > 0.9


def contents(path):
    return {file.name: file.read_bytes() for file in path.iterdir() if "array_record" in file.name}


def test_an_interrupted_call_goes_on_and_renders_again_only_what_has_changed(folder, tmp_path, monkeypatch):
    whole, _ = prepare(folder, tmp_path / "whole")
    rendered = []
    run = rendering.workers.run

    def recorded(function, tasks, *arguments, stop=None):
        for task, result in run(function, tasks, *arguments):
            rendered.append(task[0].uid)
            yield task, result
            if len(rendered) == stop:
                raise KeyboardInterrupt

    def stopped(*arguments):
        return recorded(*arguments, stop=3)

    with monkeypatch.context() as patch:
        patch.setattr(rendering.workers, "run", stopped)
        with pytest.raises(KeyboardInterrupt):
            prepare(folder, tmp_path / "data")
    first = set(rendered)
    rendered.clear()
    monkeypatch.setattr(rendering.workers, "run", recorded)
    changed = sorted(first - {"cut", "empty"})[0]
    file = next(entry.path for entry in list_assets(folder)[0] if entry.uid == changed)
    os.utime(file, ns=(1, 1))
    path, _ = prepare(folder, tmp_path / "data")
    assert changed in rendered
    assert not (first - {changed}) & set(rendered) - {"cut", "empty"}
    assert contents(path) == contents(whole)


def test_if_nothing_can_be_used_the_reasons_are_printed_and_the_next_call_tries_again(tmp_path):
    place = tmp_path / "assets"
    place.mkdir()
    (place / "a.obj").write_bytes(b"")
    with pytest.raises(UserError, match="nothing to train on") as raised:
        prepare(place, tmp_path / "data")
    assert str(place / "a.obj") in str(raised.value)
    (place / "a.obj").write_bytes(obj())
    assert prepare(place, tmp_path / "data")[1]


def test_splits_follow_from_the_uid_alone():
    config = RenderConfig(validation=0.1, test=0.2)
    uids = [f"asset_{number}" for number in range(2000)]
    found = [rendering.split_of(uid, config) for uid in uids]
    assert found.count("validation") == pytest.approx(200, rel=0.2)
    assert found.count("test") == pytest.approx(400, rel=0.2)
    entries = [ListedAsset(uid, None) for uid in uids]
    splits = rendering.split_entries(entries[:1000], config)
    later = rendering.split_entries(entries, config)
    for split, group in splits.items():
        assert {entry.uid for entry in group} <= {entry.uid for entry in later[split]}
    assert set(rendering.split_entries(entries[:1], RenderConfig(validation=0.99, test=0.0))) == {"train"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 0}, "config.samples: found 0, expected 1 to 16"),
        ({"validation": 0.6, "test": 0.5}, "config.test: found 0.5"),
        ({"rig": Rig(projection="fisheye")}, "projection is 'fisheye'"),
        ({"rig": Rig(azimuths=(0, 90), elevations=(0, 1, 2))}, "found 2 azimuths and 3 elevations"),
        ({"rig": Rig(elevations=(100,))}, "expected degrees from -90 to 90"),
        ({"rig": Rig(fov=0.0, projection="perspective")}, "expected positive numbers"),
        ({"rig": Rig(distance=0.5)}, "outside all objects"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        dataclasses.replace(RenderConfig(), **changes).check()


# Training on them


def grids(folder, tmp_path, trained: Rig, views=(0, 1, 2, 3)):
    config = pipeline.StreamConfig(
        DataConfig(str(tmp_path / "data"), "things", rig=trained, views=views, size=32), WordEncoder(64, 20)
    )
    return next(pipeline.open_stream("synthetic_grids", config, 0, 1))


def test_streams_take_the_views_that_are_meant_and_refuse_other_cameras(folder, tmp_path):
    six = Rig(azimuths=(0, 90, 180, 270, 0, 0), elevations=(0, 0, 0, 0, 90, -90))
    prepare(folder, tmp_path / "data", dataclasses.replace(ALL_TRAIN, rig=six))
    held = records.open_split(tmp_path / "data", "things_assets", "train")
    assert held.views == 6
    batch = grids(folder, tmp_path, six, (4, 1, 5, 3))
    record = held[int(batch["record"][0, 0])]
    np.testing.assert_array_equal(batch["image"][0], record["synthetic"][[4, 1, 5, 3]])
    expected = pipeline.control_maps(*(record[name][[4, 1, 5, 3]] for name in ("normal", "position", "mask")))
    np.testing.assert_array_equal(batch["control"][0], expected)
    with pytest.raises(
        UserError, match=r"its rig has azimuths .*, elevations .* To train on these views: --config.data.rig.azimuths="
    ):
        grids(folder, tmp_path, STANDARD_RIG)
    config = pipeline.StreamConfig(DataConfig(str(tmp_path / "data"), "things", size=32), WordEncoder(64, 20))
    assert config.splits("assets") == ["train"]
    singles = next(pipeline.open_stream("synthetic_images", config, 0, 2))
    assert singles["image"].shape == (2, 4, 32, 32, 3)


# Surfaces that are not opaque


@pytest.mark.parametrize(
    ("alpha", "mode", "left", "moved"),
    [
        (0, "OPAQUE", [255, 255, 255], False),
        (0, "MASK", [255, 0, 0], True),
        (200, "MASK", [255, 255, 255], False),
        (0, "BLEND", [255, 0, 0], True),
        (128, "BLEND", [255, 188, 188], False),
    ],
)
def test_what_is_cut_away_shows_what_lies_behind_in_colour_and_maps(tmp_path, alpha, mode, left, moved):
    path = tmp_path / "sheet.glb"
    path.write_bytes(cut_out(alpha, mode))
    record = rendering.render_example(
        ListedAsset("it", path), 64, dataclasses.replace(ALL_TRAIN, rig=Rig(azimuths=(0,)))
    )
    np.testing.assert_allclose(record["synthetic"][0, 32, 24], left, atol=1)
    np.testing.assert_array_equal(record["synthetic"][0, 32, 40], [255, 255, 255])
    np.testing.assert_array_equal(record["synthetic"][0, 32, 8], [255, 0, 0])
    depth = record["depth"][0, 32]
    assert depth[40] < depth[8]
    assert (depth[24] == pytest.approx(depth[8], abs=1e-6)) == moved
    assert record["mask"][0, 32, 24] == 1


def test_an_asset_of_which_nothing_is_seen_is_refused(tmp_path):
    path = tmp_path / "clear.glb"
    path.write_bytes(cut_out(0, "MASK", alphaCutoff=2.0, only=True))
    with pytest.raises(UserError, match="is not visible in any view"):
        rendering.render_example(ListedAsset("it", path), 32, ALL_TRAIN)


# The command


def test_the_command_renders_says_what_is_left_out_and_trains(folder, tmp_path, capsys):
    data = tmp_path / "data"
    arguments = [f"--assets={folder}", "--collection=things", f"--directory={data}", "--workers=2"]
    assert run_command("prepare", *arguments, "--config=configs/data/render.py:perspective", "--config.samples=1") == 0
    printed = capsys.readouterr()
    assert "made things_assets (train 2, test 1)" in printed.out
    assert "objects per minute" in printed.out
    assert "2 left out" in printed.err
    assert len(records.open_split(data, "things_assets", "train").metadata["skipped"]) == 2
    assert "5 of 5 assets have no caption" in printed.err
    assert run_command("prepare", *arguments, "--config=configs/data/render.py:six") == 2
    assert "was requested" in capsys.readouterr().err
    assert run_command("prepare", f"--assets={folder}", f"--directory={data}") == 2
    assert "--collection=NAME: is required" in capsys.readouterr().err
    (folder / "list.csv").write_text("mesh\nnone.glb\n")
    assert run_command("prepare", f"--assets={folder / 'list.csv'}", *arguments[1:]) == 2
    printed = capsys.readouterr().err
    assert "1 left out" in printed
    assert "none of its assets can be used" in printed
    assert run_command("prepare", "--dataset=assets") == 2
    assert "expected one of shapes_photos" in capsys.readouterr().err
    assert run_command("prepare") == 2
    assert "nothing was requested" in capsys.readouterr().err
    assert run_command("prepare", *arguments, "--config=configs/data/render.py:round") == 2
    assert "there is no such rig" in capsys.readouterr().err
    assert run_command("prepare", *arguments, "--config=configs/data/render.py", "--config.lens=3") == 2
    assert "config.lens: there is no such key" in capsys.readouterr().err


# A cluster


def test_beam_makes_the_same_records_and_leaves_out_the_same(folder, tmp_path, capsys):
    pytest.importorskip("apache_beam", reason="Apache Beam has an environment of its own: launch/test.sh")
    data = tmp_path / "cluster"
    arguments = [f"--assets={folder}", "--collection=things", f"--directory={data}", "--beam=--runner=DirectRunner"]
    settings = ["--config=configs/data/render.py", "--config.samples=2", "--config.validation=0.0", "--config.test=0.0"]
    assert run_command("prepare", *arguments, *settings) == 0
    assert "2 left out" in capsys.readouterr().err
    prepare(folder, tmp_path / "data")
    ours, theirs = (records.open_split(place, "things_assets", "train") for place in (tmp_path / "data", data))
    assert ours.metadata == theirs.metadata
    for one, other in zip(ours, theirs, strict=True):
        assert_same(one, other)
    assert run_command("prepare", *arguments, *settings) == 0
    assert "already exists" in capsys.readouterr().out


def test_beam_goes_on_without_a_split_of_which_no_asset_can_be_used(folder, tmp_path, monkeypatch):
    pytest.importorskip("apache_beam", reason="Apache Beam has an environment of its own, which launch/test.sh makes")
    entries, _ = list_assets(folder)
    held_out = {"cut": "validation", "empty": "test"}
    monkeypatch.setattr(rendering, "split_of", lambda uid, config: held_out.get(uid, "train"))
    stale = tmp_path / ".prepare" / "things_assets-32-beam" / "plain.reason"
    stale.parent.mkdir(parents=True)
    stale.write_text("plain.obj\nof a call before")
    beam.prepare(tmp_path, "things", entries, 32, ALL_TRAIN, ["--runner=DirectRunner"])
    splits = records.open_all(tmp_path, "things_assets", 32)
    assert {split: [record["uid"] for record in held] for split, held in splits.items()} == {
        "train": ["OddChair_2", "more_plain", "plain"]
    }
    assert {one["item"] for one in splits["train"].metadata["skipped"]} == {
        str(folder / "cut.glb"),
        str(folder / "empty.obj"),
    }
    bad = [entry for entry in entries if entry.uid in held_out]
    monkeypatch.setattr(rendering, "split_of", lambda uid, config: "train")
    with pytest.raises(UserError, match="nothing to train on"):
        beam.prepare(tmp_path / "other", "things", bad, 32, ALL_TRAIN, ["--runner=DirectRunner"])


def test_without_beam_the_message_has_the_command(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(UserError, match=r"requirements-beam\.txt"):
        beam.prepare(tmp_path, "things", list_assets(folder)[0], 32, ALL_TRAIN, [])
