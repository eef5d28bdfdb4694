"""What is saved comes back bit for bit, on any device mesh and in part; what is damaged or of another model is named."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest
import safetensors.numpy
from saved_runs import POSITIONS, make_run, random_state
from worlds import assert_same, random_params, run_command, write_exported

from realiz3d_jax.checkpoints import exported, workdirs
from realiz3d_jax.config.schema import InitConfig
from realiz3d_jax.data.config import DataConfig
from realiz3d_jax.errors import UserError
from realiz3d_jax.sampling.pretrained import open_model
from realiz3d_jax.training.checkpoint import Checkpoints
from realiz3d_jax.training.setup import Run
from realiz3d_jax.training.state import TrainState


def like(run: Run, *partitions: str):
    return {name: run.abstract_state.params[name] for name in partitions}


@pytest.fixture(scope="module")
def run() -> Run:
    return make_run()


@pytest.fixture(scope="module")
def saved(run: Run, tmp_path_factory) -> tuple[pathlib.Path, TrainState]:
    """A workdir with a checkpoint of step 7, and the state in it."""
    workdir, state = tmp_path_factory.mktemp("workdir"), random_state(run)
    with Checkpoints(workdir, run.config) as checkpoints:
        checkpoints.save(7, state, POSITIONS, force=True)
    return workdir, state


def test_a_state_comes_back_bit_for_bit_with_the_positions_of_the_data(run, saved):
    workdir, state = saved
    with Checkpoints(workdir, run.config) as checkpoints:
        assert checkpoints.latest() == 7
        restored, positions = checkpoints.restore(run.abstract_state)
    assert_same(restored, state)
    assert positions == POSITIONS
    assert workdirs.read_config(workdir) == run.config
    assert workdirs.latest_step(workdir) == 7


def test_a_state_moves_from_one_device_to_eight_and_back(run, saved, tmp_path):
    workdir, state = saved
    eight = make_run(8)
    with Checkpoints(workdir, run.config) as checkpoints:
        on_eight, _ = checkpoints.restore(eight.abstract_state)
    assert_same(on_eight, state)
    for leaf, wanted in zip(*map(jax.tree.leaves, (on_eight, eight.abstract_state)), strict=True):
        assert leaf.sharding == wanted.sharding
    with Checkpoints(tmp_path, eight.config) as checkpoints:
        checkpoints.save(8, on_eight, POSITIONS, force=True)
    with Checkpoints(tmp_path, run.config) as checkpoints:
        back, _ = checkpoints.restore(run.abstract_state)
    assert_same(back, state)
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(back)} == {1}


def test_the_shifters_can_be_taken_over_alone(run, saved):
    workdir, state = saved
    taken = workdirs.read_params(workdir, like(run, "shifters"))
    assert_same(taken, {"shifters": state.params["shifters"]})


def test_trained_partitions_are_read_averaged_or_as_they_are(run, saved):
    workdir, state = saved
    partitions = like(run, "backbone", "shifters", "control")
    assert_same(workdirs.read_params(workdir, partitions), state.sampling_params())
    assert_same(workdirs.read_params(workdir, partitions, averaged=False), state.params)
    assert_same(workdirs.read_params(workdir, like(run, "control")), {"control": state.ema["control"]})
    assert not np.array_equal(state.ema["control"]["kernel"], state.params["control"]["kernel"])


def test_only_the_newest_checkpoints_are_kept(run, tmp_path):
    config = dataclasses.replace(
        run.config, log=dataclasses.replace(run.config.log, checkpoint_every=2, checkpoints_kept=2)
    )
    state = random_state(run)
    with Checkpoints(tmp_path, config) as checkpoints:
        due = [step for step in range(8) if checkpoints.due(step) | bool(checkpoints.save(step, state, POSITIONS))]
    assert due == [0, 2, 4, 6]
    assert sorted(int(folder.name) for folder in (tmp_path / "checkpoints").iterdir()) == [4, 6]


def restore_all(workdir: pathlib.Path, run: Run) -> None:
    with Checkpoints(workdir, run.config) as checkpoints:
        checkpoints.restore(run.abstract_state)


def restore_shifters(workdir: pathlib.Path, run: Run) -> None:
    workdirs.read_params(workdir, like(run, "shifters"))


@pytest.mark.parametrize("restore", [restore_all, restore_shifters])
def test_parameters_of_another_shape_are_named_with_what_is_there_and_what_was_expected(saved, restore):
    workdir, _ = saved
    with pytest.raises(UserError, match=r"2 parameters differ") as caught:
        restore(workdir, make_run(method__rank=4))
    assert "shifters/left: found (3, 32, 8), expected (3, 32, 4)" in str(caught.value)
    assert "shifters/right: found (3, 8, 32), expected (3, 4, 32)" in str(caught.value)
    assert str(workdir) in str(caught.value)


def test_the_state_of_another_optimizer_is_refused(run, saved):
    workdir, _ = saved
    other = dataclasses.replace(run.abstract_state, opt_state=run.abstract_state.opt_state[:-1])
    with (
        Checkpoints(workdir, run.config) as checkpoints,
        pytest.raises(UserError, match="another version or optimizer"),
    ):
        checkpoints.restore(other)


def test_another_depth_names_at_most_a_dozen_parameters_and_counts_the_rest(saved):
    workdir, _ = saved
    with pytest.raises(UserError, match=r"holds another model \(\d\d parameters differ\)") as caught:
        workdirs.read_params(workdir, like(make_run(model__depth=5), "backbone"))
    assert 10 < len(str(caught.value).splitlines()) < 16


def test_a_partition_that_is_not_there_is_named_with_those_that_are(run, saved):
    workdir, _ = saved
    with pytest.raises(UserError, match=r"has no partition 'adapter'; it holds .*backbone.*shifters"):
        workdirs.read_params(workdir, {"adapter": {}})


def test_a_folder_without_a_complete_checkpoint_is_refused(run, tmp_path):
    with pytest.raises(UserError, match="has no checkpoint"):
        workdirs.read_config(tmp_path)
    (tmp_path / "checkpoints" / "5.orbax-checkpoint-tmp").mkdir(parents=True)
    with pytest.raises(UserError, match="no checkpoint is complete yet"):
        workdirs.read_params(tmp_path, like(run, "shifters"))


def test_a_damaged_checkpoint_is_one_message_that_names_the_one_before(run, tmp_path, capsys):
    with Checkpoints(tmp_path, run.config) as checkpoints:
        for step in (7, 9):
            checkpoints.save(step, random_state(run), POSITIONS, force=True)
    for path in (tmp_path / "checkpoints" / "9" / "backbone").rglob("*"):
        if path.is_file() and path.suffix != ".json":
            path.write_bytes(path.read_bytes()[:100])
    with Checkpoints(tmp_path, run.config) as checkpoints, pytest.raises(UserError) as caught:
        checkpoints.restore(run.abstract_state)
    for message in (str(caught.value), converted(tmp_path, capsys)):
        assert "checkpoints/9: is damaged" in message
        assert "Remove this folder to continue from step 7" in message
        assert message.count("\n") <= 1


def converted(workdir: pathlib.Path, capsys) -> str:
    assert run_command("convert", f"--workdir={workdir}", f"--output={workdir / 'a.safetensors'}") == 2
    return capsys.readouterr().err


# Exported checkpoints


@pytest.fixture(scope="module")
def model_path(run, tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("exported") / "model.safetensors"
    write_exported(path, run.config)
    return path


def test_an_exported_checkpoint_comes_back_bit_for_bit(run, model_path):
    found = exported.read(model_path)
    assert_same(found.params, random_params(run.config))
    assert found.config == run.config
    assert found.facts == {"seed": 0}
    taken = exported.read_params(model_path, like(make_run(8), "backbone"))
    assert_same(taken, {"backbone": random_params(run.config)["backbone"]})
    assert not taken["backbone"]["blocks"]["mlp"]["first"]["kernel"].sharding.is_fully_replicated


def test_converting_a_run_gives_the_parameters_that_its_checkpoint_samples_from(run, saved, tmp_path, capsys):
    workdir, state = saved
    (workdir / "metrics.jsonl").write_text('{"step": 5, "loss/real": 2.0}\n{"step": 7, "loss/real": 1.0}\n')
    metrics = tmp_path / "metrics.json"
    items = [{"name": "a", "domain_score": 0.5, "silhouette_iou": [0.9] * 4}]
    rows = {"real": {"domain_score": {"mean": 0.5}, "items": items}}
    metrics.write_text(json.dumps({"command": "judge", "size": 32, "classifier": {"seed": 0}, "rows": rows}))
    output = tmp_path / "new" / "model.safetensors"
    flags = (f"--workdir={workdir}", f"--output={output}", f"--metrics={metrics}", "--command=make it")
    assert run_command("convert", *flags) == 0
    assert "7 steps" in capsys.readouterr().out
    found = exported.read(output)
    assert_same(found.params, state.sampling_params())
    data = dataclasses.replace(run.config.data, directory=DataConfig().directory)
    assert found.config == dataclasses.replace(run.config, init=InitConfig(), data=data), (
        "whose folders are nobody else's"
    )
    assert found.facts["command"] == "make it"
    assert found.facts["step"] == 7
    assert found.facts["figures"] == {"real": {"domain_score": {"mean": 0.5}}}
    assert found.facts["last_metrics"] == {"step": 7, "loss/real": 1.0}
    assert found.facts["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert open_model(output).checksum == open_model(workdir).checksum == found.facts["parameters_sha256"]


def test_converting_what_is_no_run_or_to_where_nothing_can_be_written_is_one_message(saved, tmp_path, capsys):
    assert run_command("convert", f"--workdir={tmp_path / 'none'}", f"--output={tmp_path / 'a.safetensors'}") == 2
    assert "no such workdir" in capsys.readouterr().err
    output = tmp_path / "a.safetensors"
    (tmp_path / "file").touch()
    flags = (f"--workdir={saved[0]}", f"--output={output}", f"--metrics={tmp_path / 'file'}")
    assert run_command("convert", *flags) == 2
    assert "file: is no JSON" in capsys.readouterr().err
    assert not output.exists()
    output = tmp_path / "file" / "a.safetensors"
    assert run_command("convert", f"--workdir={saved[0]}", f"--output={output}") == 2
    assert "cannot write here" in capsys.readouterr().err


def test_a_truncated_or_damaged_exported_checkpoint_is_refused(model_path, tmp_path):
    content = model_path.read_bytes()
    path = tmp_path / "model.safetensors"
    for damaged in (content[: len(content) // 2], content[:100], b"", b"\xff" * 64 + content[64:]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"model.safetensors: cannot be read as safetensors .* damaged"):
            exported.read(path)
    with pytest.raises(UserError, match="no such file"):
        exported.read(tmp_path / "none.safetensors")


def test_an_exported_checkpoint_that_lacks_a_parameter_a_partition_or_its_config_is_refused(run, model_path, tmp_path):
    path = tmp_path / "model.safetensors"
    flat, metadata = safetensors.numpy.load_file(model_path), {"config": exported.to_json(run.config)}
    safetensors.numpy.save_file({k: v for k, v in flat.items() if k != "shifters/left"}, path, metadata)
    with pytest.raises(UserError, match=r"shifters/left: found nothing, expected \(3, 32, 8\)"):
        exported.read_params(path, like(run, "shifters"))
    safetensors.numpy.save_file({k: v for k, v in flat.items() if "shifters" not in k}, path, metadata)
    with pytest.raises(UserError, match=r"has no partition 'shifters'; it holds .*backbone"):
        exported.read_params(path, like(run, "shifters"))
    safetensors.numpy.save_file({**flat, "shifters/gate": np.zeros(3, np.float32)}, path, metadata)
    with pytest.raises(UserError, match=r"shifters/gate: found \(3,\), expected nothing"):
        exported.read_params(path, like(run, "shifters"))
    safetensors.numpy.save_file(flat, path)
    with pytest.raises(UserError, match="not an exported checkpoint"):
        open_model(path)
    safetensors.numpy.save_file(flat, path, {"config": json.dumps({"nonsense": 1})})
    with pytest.raises(UserError, match=r"model.safetensors: .*config.nonsense"):
        open_model(path)


def test_an_exported_checkpoint_is_written_in_one_step(run, model_path, tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    path.write_bytes(model_path.read_bytes())
    monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space"):
        write_exported(path, run.config, seed=1)
    assert path.read_bytes() == model_path.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_reading_leaves_a_workdir_as_it_is(run, saved):
    workdir, _ = saved
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    workdirs.read_params(workdir, like(run, "shifters"))
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before
