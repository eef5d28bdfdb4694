"""Renamed keys of a config: everything stored keeps loading, everything written by hand is shown the new name."""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import numpy as np
import pytest
import safetensors
from worlds import REPOSITORY, load_config, run_command, write_exported

from realiz3d_jax.checkpoints import exported
from realiz3d_jax.config import schema
from realiz3d_jax.config.renamed import RENAMED
from realiz3d_jax.errors import UserError
from realiz3d_jax.reporting import inputs
from realiz3d_jax.sampling import pretrained
from realiz3d_jax.sharding import DeviceConfig
from realiz3d_jax.training import checkpoint, setup

STAGE_2 = str(REPOSITORY / "configs" / "stage2.py")
SIZES = ["tiny", "shapes_sd3", "pixart_sigma"]


def section(values: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    *sections, name = key.split(".")
    for inner in sections:
        values = values[inner]
    return values, name


def earlier(config: schema.TrainConfig, keys: tuple[tuple[str, str], ...] = RENAMED) -> dict[str, Any]:
    """``config`` as a version before the renaming of ``keys`` stored it."""
    values = json.loads(schema.to_json(config))
    for old, new in keys:
        (before, old_name), (now, new_name) = section(values, old), section(values, new)
        before[old_name] = now.pop(new_name)
    return values


@pytest.mark.parametrize("size", SIZES)
def test_a_stored_config_with_earlier_keys_is_the_same_config(size: str):
    config = dataclasses.replace(load_config("stage2", size=size), devices=DeviceConfig(2, 4))
    assert schema.from_stored(json.loads(schema.to_json(config))) == config
    assert schema.from_stored(earlier(config)) == config
    for pair in RENAMED:
        assert schema.from_stored(earlier(config, (pair,))) == config


def test_reading_a_stored_config_leaves_its_values_alone():
    values = earlier(load_config("stage2"))
    kept = json.dumps(values)
    schema.from_stored(values)
    assert json.dumps(values) == kept


@pytest.mark.parametrize(("old", "new"), RENAMED)
def test_a_stored_key_under_both_names_is_an_error(old: str, new: str):
    values = json.loads(schema.to_json(load_config("stage2")))
    before, name = section(values, old)
    before[name] = {} if old == "mesh" else "dit"
    with pytest.raises(UserError, match=rf"config\.{old}: found beside config\.{new}"):
        schema.from_stored(values)


@pytest.mark.parametrize(("old", "new"), RENAMED)
def test_an_earlier_key_by_flag_is_an_error_that_names_the_new_one(old: str, new: str, capsys):
    flag = f"--config.{old}.fsdp=4" if old == "mesh" else f"--config.{old}=mmdit"
    assert run_command("train", f"--config={STAGE_2}:tiny", "--workdir=/dev/null/workdir", flag) == 2
    error = capsys.readouterr().err
    assert error.count("error: ") == 1
    assert f"error: config.{old}: there is no such key; its name is now config.{new}." in error


@pytest.mark.parametrize(
    ("statement", "new"),
    [
        ("config.model.family = 'mmdit'", "model.name"),
        ("config.diffusion.process = 'rectified_flow'", "diffusion.name"),
        ("config.codec.codec = 'autoencoder'", "codec.name"),
        ("config.mesh = {'fsdp': 4}", "devices"),
        ("config.mesh.fsdp = 4", "devices"),
        ("print(config.model.family)", "model.name"),
    ],
)
def test_an_earlier_key_in_a_config_file_is_an_error_that_names_the_new_one(statement, new, tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(
        "import importlib.util\n"
        f"spec = importlib.util.spec_from_file_location('stage2', {STAGE_2!r})\n"
        "stage2 = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(stage2)\n"
        "def get_config():\n"
        "    config = stage2.get_config('tiny')\n"
        f"    {statement}\n"
        "    return config\n"
    )
    assert run_command("train", f"--config={path}", "--workdir=/dev/null/workdir") == 2
    assert f"its name is now config.{new}." in capsys.readouterr().err


@pytest.mark.parametrize("name", ["base", "texture", "text_to_multiview"])
def test_every_shipped_model_opens(name: str):
    path = pretrained.SHIPPED[name]
    with safetensors.safe_open(path, "numpy") as file:
        assert "mesh" in json.loads(file.metadata()["config"]), "its config has the keys of the version that made it"
    opened = pretrained.open_model(path)
    assert opened.config.model.name == "dit"
    assert opened.config.devices == DeviceConfig()
    assert opened.checksum == exported.read(path).facts["parameters_sha256"]


def test_exported_checkpoints_runs_and_checkpoints_with_earlier_keys_are_read(tmp_path: pathlib.Path, monkeypatch):
    config = dataclasses.replace(load_config("base"), devices=DeviceConfig(8, 1))
    stored = json.dumps(earlier(config))
    for module in (exported, checkpoint):
        monkeypatch.setattr(module, "to_json", lambda config: stored)
    write_exported(tmp_path / "model.safetensors", config)
    assert exported.read_config(tmp_path / "model.safetensors") == config
    (tmp_path / "config.json").write_text(stored)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    assert inputs.read_run(tmp_path).config == config
    shapes = setup.make_run(config).abstract_state
    state = jax.tree.map(lambda leaf: jax.device_put(np.zeros(leaf.shape, leaf.dtype), leaf.sharding), shapes)
    with checkpoint.Checkpoints(tmp_path / "run", config) as checkpoints:
        checkpoints.save(1, state, {}, force=True)
    with checkpoint.Checkpoints(tmp_path / "run", config) as checkpoints:
        assert checkpoints.config() == config
    assert exported.read_config(tmp_path / "run") == config
