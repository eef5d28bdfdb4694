"""What a stage starts from: finished, of the same meaning, and of the base model that made its real images."""

import dataclasses
import pathlib
import shutil

import jax
import pytest
from worlds import World, load_config, random_params, stage_changes, write_exported

from realiz3d_jax.checkpoints import exported
from realiz3d_jax.config.schema import TrainConfig
from realiz3d_jax.data import records
from realiz3d_jax.diffusion.rectified_flow import RectifiedFlow
from realiz3d_jax.errors import UserError
from realiz3d_jax.preparation import builders
from realiz3d_jax.sampling.pretrained import open_model
from realiz3d_jax.training import setup
from realiz3d_jax.training.checkpoint import Checkpoints
from realiz3d_jax.training.state import new_state


def config_of(world: World, stage: str, **changes) -> TrainConfig:
    return load_config(stage, stage_changes(world, data__batch_grids=1, **changes))


def save_run(config: TrainConfig, workdir: pathlib.Path, step: int) -> None:
    """A workdir whose newest checkpoint is of ``step``."""
    run = setup.make_run(config, jax.devices()[:1])
    state = new_state(random_params(config), run.stage, run.step_config.optimizer)
    with Checkpoints(workdir, run.config) as checkpoints:
        checkpoints.save(step, state, {}, force=True)


@pytest.fixture(scope="module")
def stage1(world, tmp_path_factory) -> pathlib.Path:
    """A run of 600 steps that stands at step 40."""
    workdir = tmp_path_factory.mktemp("runs") / "stage1"
    save_run(config_of(world, "stage1"), workdir, 40)
    return workdir


def start(config: TrainConfig) -> None:
    setup.make_run(config, jax.devices()[:1]).initial_state()


def test_a_run_that_has_not_come_to_its_end_is_taken_over_only_where_that_is_meant(world, stage1):
    with pytest.raises(UserError, match=r"its run is at step 40 of 600.*--config.init.unfinished=true"):
        start(config_of(world, "stage2", init__source=str(stage1)))
    start(config_of(world, "stage2", init__source=str(stage1), init__unfinished=True))


def test_shifts_are_used_at_the_positions_that_they_were_learned_at_and_a_base_at_any(world, stage1):
    changes = {"init__source": str(stage1), "init__unfinished": True, "model__positions": "view"}
    with pytest.raises(
        UserError, match=r"was trained with model.positions 'canvas', but config.model.positions is 'view'"
    ):
        start(config_of(world, "stage2", **changes))
    start(config_of(world, "stage1", model__positions="view"))


def test_a_base_of_another_prediction_is_refused_and_one_of_other_random_timesteps_is_not(world, tmp_path):
    stored = RectifiedFlow(prediction="x", logit_mean=-0.8)
    base = dataclasses.replace(load_config("base", stage_changes(world)), diffusion=stored)
    write_exported(tmp_path / "base.safetensors", base)
    config = config_of(world, "stage1", init__source=str(tmp_path / "base.safetensors"))
    with pytest.raises(UserError, match=r"was trained with diffusion.prediction 'x', but .* is 'velocity'"):
        start(dataclasses.replace(config, diffusion=RectifiedFlow()))
    start(dataclasses.replace(config, diffusion=dataclasses.replace(stored, logit_mean=0.5)))


def test_a_run_without_a_source_starts_from_fresh_partitions(world):
    start(config_of(world, "stage2", init__source=""))


@pytest.mark.parametrize("steps", [40, 41])
def test_a_run_that_ends_within_its_warm_up_is_refused(world, steps: int):
    changes = config_of(world, "stage2", steps=steps, method__real_warmup_steps=40)
    if steps == 41:
        setup.make_run(changes, jax.devices()[:1])
        return
    with pytest.raises(
        UserError, match=r"config.steps: found 40, but the first 40 steps .* all real, so it would run no synth"
    ):
        setup.make_run(changes, jax.devices()[:1])


def with_images_of(world: World, base: str, folder: pathlib.Path) -> pathlib.Path:
    """The world's data with self-generated images that say which base model made them."""
    data = shutil.copytree(world.data, folder)
    shutil.rmtree(data / "shapes_generated")
    images = list(records.open_split(world.data, "shapes_generated", "train"))
    splits = {"train": lambda: ((image, {}) for image in images)}
    builders.write(data, "shapes_generated", 32, splits, {"base": base})
    return data


def test_the_real_images_must_be_those_of_the_base_model_that_training_starts_from(world, tmp_path):
    own = open_model(world.base).checksum
    ours, others = (with_images_of(world, base, tmp_path / base[:4]) for base in (own, "0123" * 16))
    for stage in ("stage1", "stage2"):
        changes = {}
        if stage == "stage2":  # takes its base's word from Stage 1
            changes["init__source"] = str(tmp_path / "stage1")
            save_run(config_of(world, "stage1", steps=40, data__directory=str(ours)), tmp_path / "stage1", 40)
        run = setup.make_run(config_of(world, stage, data__directory=str(ours), **changes), jax.devices()[:1])
        assert run.config.data.base_sha256 == own
        run.open_streams()
        run = setup.make_run(config_of(world, stage, data__directory=str(others), **changes), jax.devices()[:1])
        with pytest.raises(UserError, match=r"metadata.json: base is 0123012301230123\.\.\., but this training"):
            run.open_streams()
    other = tmp_path / "other.safetensors"
    write_exported(other, load_config("base"), seed=1)
    run = setup.make_run(
        config_of(world, "stage1", data__directory=str(ours), init__source=str(other)), jax.devices()[:1]
    )
    with pytest.raises(UserError, match="but this training starts from the base model"):
        run.open_streams()


def test_the_checksum_of_a_base_is_that_of_its_parameters_wherever_they_lie(world):
    config, params = exported.read_on_host(world.base)
    assert exported.checksum(params) == open_model(world.base).checksum
    changed = random_params(config, seed=1)
    assert exported.checksum(changed) != exported.checksum(params)
