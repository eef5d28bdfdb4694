"""From a folder of assets to textured meshes: every command of the way, on a collection with a rig of its own."""

import json

import numpy as np
import pytest
from worlds import run_command

from realiz3d_jax.data import records
from realiz3d_jax.geometry.assets.asset import load_asset
from realiz3d_jax.geometry.mesh import write_glb
from realiz3d_jax.preparation import self_generation
from realiz3d_jax.preparation.shapes import objects


@pytest.mark.slow
def test_a_team_trains_and_samples_on_its_own_assets(world, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(self_generation, "STEPS", 2)
    folder, data = tmp_path / "assets", f"--directory={tmp_path / 'data'}"
    folder.mkdir()
    items = [objects.make_object("train", index, 0) for index in range(12)]
    for item in items:
        (folder / f"{item.uid}.glb").write_bytes(write_glb(item.parts))
    (folder / "captions.json").write_text(json.dumps({item.uid: item.caption for item in items}))
    rig = ["--config=configs/data/render.py:six", "--config.validation=0.2", "--config.test=0.1"]
    assert run_command("prepare", f"--assets={folder}", "--collection=toys", data, *rig) == 0
    assert run_command("prepare", "--self-generate", "--collection=toys", data, f"--base={world.base}") == 0
    settings = [f"--config.data.directory={tmp_path / 'data'}", "--config.data.collection=toys"]
    settings += ["--config.data.batch_grids=8", "--config.log.samples_every=2", "--config.steps=4"]
    stage1, stage2 = tmp_path / "stage1", tmp_path / "stage2"
    first = [f"--workdir={stage1}", f"--config.init.source={world.base}", *settings]
    assert run_command("train", "--config=configs/stage1.py:tiny", *first) == 0
    second = ["--config=configs/stage2.py:tiny", f"--workdir={stage2}", f"--config.init.source={stage1}", *settings]
    second += ["--config.method.real_warmup_steps=0"]
    capsys.readouterr()
    assert run_command("train", *second) == 2
    assert "To train on these views: --config.data.rig.azimuths=" in capsys.readouterr().err
    second += ["--config.data.rig.azimuths=(0,90,180,270,0,0)", "--config.data.rig.elevations=(0.,0.,0.,0.,90.,-90.)"]
    second += ["--config.data.views=(0,1,4,5)"]
    assert run_command("train", *second) == 0
    out = tmp_path / "out"
    sampled = [
        "--split=validation",
        "--steps=2",
        "--texture-size=512",
        f"--data={tmp_path / 'data'}",
        f"--output={out}",
    ]
    assert run_command("sample", f"--workdir={stage2}", *sampled) == 0
    held = records.open_split(tmp_path / "data", "toys_assets", "validation")
    assert len(held) > 0
    for record in held:
        place = out / record["uid"]
        names = {"view_000.png", "view_090.png", "view_000_90.png", "view_000_-90.png"}
        assert names == {path.name for path in place.glob("view_*.png")}
        control = np.load(place / "control.npz")
        np.testing.assert_array_equal(control["position"], record["position"][[0, 1, 4, 5]])
        original, textured = load_asset(folder / f"{record['uid']}.glb"), load_asset(place / "textured.glb")
        assert len(textured.mesh.faces) == len(original.mesh.faces)
        again = tmp_path / f"{record['uid']}.glb"
        bake = [f"--mesh={folder / record['uid']}.glb", f"--views={place}", "--texture-size=512", f"--output={again}"]
        assert run_command("bake", *bake) == 0
        assert again.read_bytes() == (place / "textured.glb").read_bytes()
