"""The command ``train``: what interrupts a run does not change what comes out of it."""

import dataclasses
import json
import pathlib
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import HELD_OUT, REPOSITORY, World, assert_same, command, leaves, load_config, run_command, stage_changes

from realiz3d_jax import files
from realiz3d_jax.checkpoints import exported, workdirs
from realiz3d_jax.data import records
from realiz3d_jax.data.pipeline import control_maps
from realiz3d_jax.method.domains import Domain
from realiz3d_jax.sampling.generator import Generator
from realiz3d_jax.sampling.pretrained import open_model
from realiz3d_jax.training import loop, monitoring, previews, setup
from realiz3d_jax.training.checkpoint import Checkpoints
from realiz3d_jax.training.setup import Run
from realiz3d_jax.views import VIEW_WORDS

STEPS, CHECKPOINT_EVERY, METRICS_EVERY = 40, 15, 4
SECONDS = 500
"""A machine that is busy otherwise is no failure."""

RUNNING: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def nothing_is_left_running():
    yield
    while RUNNING:
        process = RUNNING.pop()
        if process.poll() is None:
            process.kill()
            process.communicate()


def settings(world: World, stage: str, source: pathlib.Path) -> dict[str, object]:
    changes = {
        "init__source": str(source),
        "steps": STEPS,
        "log__checkpoint_every": CHECKPOINT_EVERY,
        "log__metrics_every": METRICS_EVERY,
    }
    if stage == "stage2":
        changes["method__real_warmup_steps"] = 3
    return stage_changes(world, **changes)


def start(world: World, stage: str, source: pathlib.Path, workdir: pathlib.Path) -> subprocess.Popen:
    overrides = [f"--config.{key}={value}" for key, value in settings(world, stage, source).items()]
    RUNNING.append(command("train", f"--config=configs/{stage}.py:tiny", f"--workdir={workdir}", *overrides))
    return RUNNING[-1]


def finish(process: subprocess.Popen) -> str:
    _, error = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, error
    return error


def lines(workdir: pathlib.Path) -> list[dict]:
    path = workdir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_until(process: subprocess.Popen, happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def kill_between_checkpoints(process: subprocess.Popen, workdir: pathlib.Path, after: int) -> None:
    """kill -9 once metrics of a step behind ``after`` are there: some steps behind a checkpoint, some before the next."""

    def written() -> bool:
        path = workdir / "metrics.jsonl"
        return path.exists() and any(f'"step": {step}, ' in path.read_text() for step in range(after + 1, STEPS))

    wait_until(process, written)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was killed before its end"
    assert workdirs.latest_step(workdir) < STEPS


def final_state(world: World, stage: str, source: pathlib.Path, workdir: pathlib.Path):
    run = setup.make_run(load_config(stage, settings(world, stage, source)), jax.devices()[:1])
    with Checkpoints(workdir, run.config) as checkpoints:
        assert checkpoints.latest() == STEPS
        return checkpoints.restore(run.abstract_state)


def assert_every_step_is_told_once(workdir: pathlib.Path, reference: pathlib.Path) -> None:
    logged = lines(workdir)
    assert [line["step"] for line in logged] == np.cumsum([line["steps"] for line in logged]).tolist()
    assert logged[-1]["step"] == STEPS
    # The losses of intervals that both runs have are the same.
    losses = [
        {
            (line["step"], line["steps"]): {key: value for key, value in line.items() if key.startswith("loss")}
            for line in lines(folder)
        }
        for folder in (workdir, reference)
    ]
    common = losses[0].keys() & losses[1].keys()
    assert len(common) >= 6
    assert all(losses[0][interval] == losses[1][interval] for interval in common)


@pytest.fixture(scope="module")
def first(world, tmp_path_factory) -> pathlib.Path:
    """Stage 1, undisturbed."""
    workdir = tmp_path_factory.mktemp("stage1") / "run"
    finish(start(world, "stage1", world.base, workdir))
    return workdir


def test_stage_1_killed_and_resumed_ends_with_the_same_bits(world, first, tmp_path):
    workdir = tmp_path / "run"
    process = start(world, "stage1", world.base, workdir)
    kill_between_checkpoints(process, workdir, after=CHECKPOINT_EVERY)
    finish(start(world, "stage1", world.base, workdir))
    states = [final_state(world, "stage1", world.base, folder) for folder in (workdir, first)]
    assert_same(states[0][0], states[1][0])
    assert states[0][1] == states[1][1]
    assert_every_step_is_told_once(workdir, first)


def test_stage_2_stopped_then_killed_and_resumed_ends_with_the_same_bits(world, first, tmp_path):
    """SIGTERM saves at the step that it finds and exits with 143; what is resumed is killed, and resumed again."""
    undisturbed = start(world, "stage2", first, tmp_path / "undisturbed")
    workdir = tmp_path / "run"
    process = start(world, "stage2", first, workdir)
    wait_until(process, lambda: bool(lines(workdir)))
    process.terminate()
    _, error = process.communicate(timeout=SECONDS)
    assert process.returncode == 143, error
    stopped = workdirs.latest_step(workdir)
    assert f"stopped on request; saved step {stopped}" in error
    assert 0 < stopped < STEPS
    assert lines(workdir)[-1]["step"] == stopped, "what was done is logged before it is left"

    process = start(world, "stage2", first, workdir)
    kill_between_checkpoints(process, workdir, after=max(stopped, CHECKPOINT_EVERY))
    finish(start(world, "stage2", first, workdir))
    finish(undisturbed)
    states = [final_state(world, "stage2", first, folder) for folder in (workdir, tmp_path / "undisturbed")]
    assert_same(states[0][0], states[1][0])
    assert states[0][1] == states[1][1]
    assert_every_step_is_told_once(workdir, tmp_path / "undisturbed")


def test_a_run_leaves_its_config_its_curves_and_its_last_checkpoint(world, first):
    config = load_config("stage1", settings(world, "stage1", world.base))
    base = exported.checksum(open_model(world.base).params)
    assert workdirs.read_config(first) == dataclasses.replace(
        config, data=dataclasses.replace(config.data, base_sha256=base)
    )
    assert json.loads((first / "config.json").read_text())["init"]["source"] == str(world.base)
    assert list((first / "tensorboard").iterdir())
    assert [line["step"] for line in lines(first)] == [4, 8, 12, 15, 16, 20, 24, 28, 30, 32, 36, 40]
    last = lines(first)[-1]
    for name in ("synthetic", "real"):
        assert np.isfinite(last[f"loss/{name}"])
        assert last[f"gradient_norm/{name}"] > 0
        assert any(key.startswith(f"loss_by_timestep/{name}_") for key in last)
    assert last["skipped_steps"] == 0
    assert last["images_per_second"] == pytest.approx(8 * last["steps_per_second"])
    run = setup.make_run(config, jax.devices()[:1])
    flops = [monitoring.iteration_flops(config, run.stage, kind, 4) for kind in run.stage.iterations]
    assert last["flops_per_second"] == pytest.approx(np.mean(flops) * last["steps_per_second"])


# In this process, on one device


@pytest.fixture
def here(monkeypatch):
    """``train`` within this process: on one device, and SIGTERM handled as before afterwards."""
    monkeypatch.setattr(loop, "make_run", lambda config: setup.make_run(config, jax.devices()[:1]))
    before = signal.getsignal(signal.SIGTERM)
    yield monkeypatch
    signal.signal(signal.SIGTERM, before)


def train(world: World, workdir: pathlib.Path, **changes) -> int:
    flags = {
        **settings(world, "stage1", world.base),
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    overrides = [f"--config.{key}={value}" for key, value in flags.items()]
    return run_command("train", f"--config={REPOSITORY}/configs/stage1.py:tiny", f"--workdir={workdir}", *overrides)


def test_too_many_steps_that_are_not_finite_end_the_run_and_what_was_saved_is_finite(world, here, tmp_path, capsys):
    put, taken = Run.put, []

    def poisoned(run: Run, batch):
        taken.append(batch)
        if len(taken) in (3, 4, 11, 12, 13):
            batch = {**batch, "captions": {**batch["captions"], "states": batch["captions"]["states"] * np.nan}}
        return put(run, batch)

    here.setattr(Run, "put", poisoned)
    assert train(world, tmp_path / "run", abort_after=3) == 3
    error = capsys.readouterr().err
    assert "steps in a row had a loss or gradient that is not finite (the limit is config.abort_after = 3)" in error
    assert "Traceback" not in error
    logged = lines(tmp_path / "run")
    assert sum(line["skipped_steps"] for line in logged) == 2 + 3, "two in a row are none too many, three are"
    named = {entry["step"]: entry["records"] for line in logged for entry in line.get("skipped", [])}
    assert {3, 4, 11, 12, 13} <= set(named)
    assert not {1, 2, 5, 10} & set(named)
    assert all(records for records in named.values())
    run = setup.make_run(load_config("stage1", settings(world, "stage1", world.base)), jax.devices()[:1])
    with Checkpoints(tmp_path / "run", run.config) as checkpoints:
        state, _ = checkpoints.restore(run.abstract_state)
    assert all(np.isfinite(leaf).all() for leaf in leaves(state).values())


def test_a_finished_run_is_left_alone_and_a_longer_one_goes_on_at_a_rate_that_is_said(
    world, here, first, tmp_path, capsys
):
    workdir = tmp_path / "run"
    shutil.copytree(first, workdir)
    assert train(world, workdir) == 0
    assert lines(workdir) == lines(first)
    assert train(world, workdir, steps=STEPS * 2) == 2
    assert "'cosine' learning rate would jump from 0 to 0.0015; expected 40" in capsys.readouterr().err
    assert lines(workdir) == lines(first)
    constant = {"optimizer__schedule": "constant", "optimizer__learning_rate": 1e-5}
    assert train(world, workdir, steps=STEPS + 2, **constant) == 0
    assert f"config.steps: {STEPS} -> {STEPS + 2}" in capsys.readouterr().err
    assert json.loads((workdir / f"config_until_{STEPS}.json").read_text())["steps"] == STEPS
    assert workdirs.latest_step(workdir) == STEPS + 2
    assert lines(workdir)[:-1] == lines(first)
    assert lines(workdir)[-1]["steps"] == 2


def test_a_run_that_is_further_than_asked_for_is_refused(world, here, first, capsys):
    assert train(world, first, steps=STEPS - 5) == 2
    error = capsys.readouterr().err
    assert f"config.steps: found {STEPS - 5}, but the checkpoint in the workdir is already at step {STEPS}" in error


def test_a_workdir_of_another_model_is_refused_and_left_as_it_is(world, here, first, capsys):
    before = {path: path.stat().st_mtime_ns for path in (first / "checkpoints").rglob("*")}
    logged = (first / "metrics.jsonl").read_text()
    assert train(world, first, method__rank=4) == 2
    error = capsys.readouterr().err
    assert "holds another model" in error
    assert "shifters/left: found (3, 32, 8), expected (3, 32, 4)" in error
    assert {path: path.stat().st_mtime_ns for path in (first / "checkpoints").rglob("*")} == before
    assert (first / "metrics.jsonl").read_text() == logged


def test_a_workdir_of_another_stage_or_one_that_is_trained_in_is_refused(world, here, first, tmp_path, capsys):
    flags = [f"--config.{key}={value}" for key, value in stage_changes(world).items()]
    config = f"--config={REPOSITORY}/configs/base.py:tiny"
    assert run_command("train", config, f"--workdir={first}", "--config.data.batch_grids=2", flags[0]) == 2
    error = capsys.readouterr().err
    assert "holds a run of stage 'stage1' of the method 'realiz3d'" in error
    assert "but this config is for stage 'pretrain' of 'pretraining'" in error
    (tmp_path / "run").mkdir()
    with files.only_one(tmp_path / "run" / "lock", "free"):
        assert train(world, tmp_path / "run") == 2
    assert f"{tmp_path / 'run'}: another process trains here" in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_settings_that_change_within_a_run_are_listed_and_the_old_ones_kept(world, here, first, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(first, workdir)
    changes = {"optimizer__learning_rate": 0.125, "steps": STEPS + 1, "log__metrics_every": 1}
    assert train(world, workdir, **changes) == 0
    error = capsys.readouterr().err
    assert f"continuing from step {STEPS} with changed settings" in error
    logged = dict(re.findall(r"  config\.(.*): .* -> (.*)", error))
    assert logged == {"optimizer.learning_rate": "0.125", "steps": f"{STEPS + 1}"}
    assert json.loads((workdir / f"config_until_{STEPS}.json").read_text())["optimizer"]["learning_rate"] != 0.125
    now = json.loads((workdir / "config.json").read_text())
    assert (now["optimizer"]["learning_rate"], now["workdir"]) == (0.125, str(workdir))


# What is logged


def monitor_of(tmp_path, devices, first: int = 0) -> tuple[monitoring.Monitor, setup.Run]:
    run = setup.make_run(load_config("stage1", {"data.batch_grids": 2}), jax.devices()[:1])
    return monitoring.Monitor(tmp_path, run.config, run.stage, devices, 4, first), run


@pytest.mark.parametrize(("stage", "domains"), [("stage2", 2), ("syn_only", 1)])
def test_samples_show_every_domain_that_the_stage_trains(stage, domains, world):
    changes = stage_changes(world, init__partitions=("backbone",))
    run = setup.make_run(load_config(stage, changes), jax.devices()[:1])
    picture = previews.Previews(run)(run.initial_state().sampling_params())
    assert (picture.dtype, picture.shape) == (np.uint8, (domains * 64, HELD_OUT["validation"] * 64, 3))


@pytest.mark.parametrize(("stage", "views"), [("stage1", True), ("stage2", False)])
def test_samples_are_of_held_out_captions_under_their_control_once_a_control_trains(stage, views, world, monkeypatch):
    asked = []

    def draw(self, params, captions, seeds, domain, control=None):
        asked.append((captions, list(seeds), domain, control))
        return np.full((len(captions), 4, 32, 32, 3), 100 + domain, np.uint8)

    monkeypatch.setattr(Generator, "__call__", draw)
    run = setup.make_run(load_config(stage, stage_changes(world)), jax.devices()[:1])
    picture = previews.Previews(run)({})
    held = records.open_split(world.data, "shapes_assets", "validation")
    expected = [record["caption"] for record in held]
    captions = [[f"{text}, {word} view" for word in VIEW_WORDS] if views else [text] for text in expected]
    assert [call[:3] for call in asked] == [(captions, [0, 1], domain) for domain in (Domain.SYNTHETIC, Domain.REAL)]
    for _, _, domain, control in asked:
        assert (picture[64 * domain : 64 * (domain + 1)] == 100 + domain).all()
        if views:
            assert control is None
        else:
            maps = [control_maps(record["normal"], record["position"], record["mask"]) for record in held]
            np.testing.assert_array_equal(control, np.stack(maps))


def test_samples_are_put_into_tensorboard_and_change_nothing_of_the_training(world, tmp_path, monkeypatch):
    seen = []

    def preview(params):
        seen.append(jax.device_get(params))
        return np.zeros((4, 4, 3), np.uint8)

    monkeypatch.setattr(loop, "Previews", lambda run: preview)
    changes = {**settings(world, "stage1", world.base), "steps": 2, "log.metrics_every": 1, "data.batch_grids": 8}
    losses = []
    for every in (1, 0):
        workdir = tmp_path / f"every_{every}"
        overrides = [f"--config.{key}={value}" for key, value in {**changes, "log.samples_every": every}.items()]
        assert run_command("train", "--config=configs/stage1.py:tiny", f"--workdir={workdir}", *overrides) == 0
        events = b"".join(path.read_bytes() for path in (workdir / "tensorboard").iterdir())
        assert events.count(b"\x89PNG") == 3 * every, "before the first step and after each"
        losses.append(
            [{key: value for key, value in line.items() if key.startswith("loss")} for line in lines(workdir)]
        )
    assert losses[0] == losses[1]
    kinds = [name for line in losses[0] for name in line if name.startswith("loss/")]
    assert kinds == ["loss/synthetic", "loss/real"], "the first step is of the stage's first kind"
    shapes = setup.make_run(load_config("stage1", changes)).abstract_state.params
    averaged, last = (workdirs.read_params(tmp_path / "every_1", shapes, averaged) for averaged in (True, False))
    assert_same(seen[-1], averaged)
    assert not np.array_equal(averaged["shifters"]["left"], last["shifters"]["left"])


def metrics_of(loss: float, finite: bool = True, in_a_row: int = 0) -> dict:
    buckets = {"bucket_loss": np.array([loss, 0, 3 * loss, 0]), "bucket_count": np.array([1, 0, 3, 0])}
    return {
        "loss": jnp.float32(loss),
        "gradient_norm": 2 * loss,
        **buckets,
        "finite": finite,
        "skipped_in_a_row": in_a_row,
    }


def test_averages_are_of_finite_steps_by_kind_and_every_step_is_written_once_and_late(tmp_path):
    monitor, run = monitor_of(tmp_path, jax.devices()[:1])
    synthetic, real = run.stage.iterations
    with monitor:
        for step, (kind, metrics) in enumerate(
            [
                (synthetic, metrics_of(1.0)),
                (real, metrics_of(5.0)),
                (synthetic, metrics_of(3.0)),
                (real, metrics_of(np.nan, finite=False, in_a_row=1)),
            ],
            start=1,
        ):
            monitor.record(step, kind, metrics, np.array([step, step]))
        assert monitor.flush() is None, "one interval late"
        monitor.record(5, synthetic, metrics_of(7.0), np.array([5]))
        written = monitor.flush()
        assert written["loss/synthetic"] == 2.0
        assert written["loss/real"] == 5.0
        assert (written["gradient_norm/synthetic"], written["gradient_norm/real"]) == (4.0, 10.0)
        assert written["loss_by_timestep/synthetic_0"] == 2.0
        assert written["loss_by_timestep/synthetic_2"] == 2.0
        assert "loss_by_timestep/synthetic_1" not in written
        assert written["skipped_in_a_row"] == 1, "the longest row, also if it has ended since"
        monitor.record(6, synthetic, metrics_of(9.0), np.array([6]))
        monitor.flush(final=True)
        assert monitor.flush(final=True) is None, "nothing is written twice"
    logged = lines(tmp_path)
    assert [(line["step"], line["steps"]) for line in logged] == [(4, 4), (5, 1), (6, 1)]
    assert logged[0]["skipped"] == [{"step": 4, "records": [4]}]


class Queued:
    """A loss that the device has at a time of its own; the clock is the test's."""

    def __init__(self, clock: list[float], at: float):
        self.clock, self.at = clock, at

    def is_ready(self) -> bool:
        return self.clock[0] >= self.at

    def __array__(self, *unused, **options):
        self.clock[0] = max(self.clock[0], self.at)  # waits
        return np.float32(1.0)


@pytest.mark.parametrize("ahead", [0.0, 0.99])
def test_rates_are_those_of_the_device_whether_python_waits_for_it_or_runs_ahead(tmp_path, monkeypatch, ahead):
    """A step takes 2 s on the device; three intervals of two, then one step alone."""
    clock = [0.0]
    monkeypatch.setattr(monitoring.time, "perf_counter", lambda: clock[0])
    monitor, run = monitor_of(tmp_path, jax.devices()[:1])
    kind = run.stage.iterations[0]
    with monitor:
        for step in range(1, 8):
            metrics = {**metrics_of(1.0), "loss": Queued(clock, 2.0 * step)}
            clock[0] = max(clock[0], 2.0 * step * (1 - ahead))
            monitor.record(step, kind, metrics, np.array([0]))
            if step % 2 == 0:
                monitor.flush()
        monitor.flush(final=True)
    assert [line["steps"] for line in lines(tmp_path)] == [2, 2, 2, 1]
    assert [line["steps_per_second"] for line in lines(tmp_path)] == pytest.approx([0.5] * 4)


def test_what_a_killed_run_wrote_too_much_or_by_half_is_dropped(tmp_path):
    whole = "".join(json.dumps({"step": step, "skipped": [{"step": step}]}) + "\n" for step in (5, 10, 15))
    (tmp_path / "metrics.jsonl").write_text(whole + '{"step": 20, "skipped": [{"step": 20}')
    with monitor_of(tmp_path, jax.devices()[:1], first=10)[0]:
        pass
    assert [line["step"] for line in lines(tmp_path)] == [5, 10]


def test_utilisation_is_logged_where_the_peak_is_known(tmp_path):
    class Chip:
        def __init__(self, kind: str):
            self.device_kind = kind

    assert monitoring.peak_flops([Chip("TPU v5 lite")] * 4) == 4 * 197e12
    assert monitoring.peak_flops([Chip("TPU v5p")]) == 459e12
    assert monitoring.peak_flops([Chip("NVIDIA H100 80GB HBM3"), Chip("cpu")]) is None
    monitor, run = monitor_of(tmp_path, [Chip("NVIDIA A100-SXM4-40GB")])
    with monitor:
        monitor.record(1, run.stage.iterations[0], metrics_of(1.0), np.array([0]))
        written = monitor.flush(final=True)
    flops = monitoring.iteration_flops(run.config, run.stage, run.stage.iterations[0], 4)
    assert written["flops_per_second"] == pytest.approx(flops * written["steps_per_second"])
    assert written["mfu"] == pytest.approx(written["flops_per_second"] / 312e12)
