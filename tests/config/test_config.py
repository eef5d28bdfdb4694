"""What a user can get wrong before a run starts: one message that names it and its fix, an exit status, no traceback."""

import json
import pathlib
import re

import jax
import pytest
from worlds import REPOSITORY, World, command, load_config, run_command, stage_changes

from realiz3d_jax.checkpoints import exported
from realiz3d_jax.checkpoints.bases import BASES
from realiz3d_jax.config import schema as configs
from realiz3d_jax.training import setup

STAGE_2 = str(REPOSITORY / "configs" / "stage2.py")
NAMES = sorted(path.stem for path in (REPOSITORY / "configs").glob("*.py"))


def train(*arguments: str, file: str = f"{STAGE_2}:tiny") -> int:
    """The command, with a workdir that cannot be made: whatever should be found first is found, nothing ever trains."""
    fixed = [f"--config={file}", "--workdir=/dev/null/workdir", "--config.data.batch_grids=8"]
    return run_command("train", *fixed, *arguments)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", BASES)
def test_every_config_is_accepted_and_survives_json(name: str, size: str):
    config = load_config(name, size=size)
    assert configs.from_config_dict(json.loads(configs.to_json(config))) == config
    assert configs.from_config_dict(configs.config_dict(config)) == config


@pytest.mark.parametrize("size", ["pixart_sigma", "pixart_alpha"])
def test_the_settings_for_pixart_are_the_papers(size: str):
    for stage in ("stage1", "stage2"):
        config = load_config(stage, {"data.batch_grids": 8}, size=size)
        assert config.method["rank"] == 8
        assert config.optimizer.learning_rate == 5e-5
        assert (config.timestep_weight_cap, config.optimizer.control_factor) == (1.0, 1.0), "the plain loss, one rate"
        assert (config.data.size, config.model.sample_size, config.model.depth) == (512, 64, 28)
        assert (config.data.text_tokens, config.codec.autoencoder.scale) == {
            "pixart_sigma": (300, 0.13025),
            "pixart_alpha": (120, 0.18215),
        }[size]
        sampling = config.sampling
        assert (sampling.sampler, sampling.steps, sampling.guidance_scale) == ("ddim", 50, 4.5)
        assert (sampling.block_max, sampling.timestep_max) == (0.3, 950)
    assert (config.method["tau"], config.method["reassignment_probability"]) == (0.4, 0.1)
    model = setup.make_model(config)
    kernel = jax.eval_shape(lambda: model.init(("control",), jax.random.key(0)))["control"]["kernel"]
    assert config.model.in_channels + kernel.shape[0] // config.model.patch_size**2 == 12


@pytest.mark.parametrize("name", NAMES)
def test_every_config_says_what_it_is_and_what_it_needs(name: str):
    source = (REPOSITORY / "configs" / f"{name}.py").read_text()
    assert source.startswith('"""')
    assert "Needs" in source.split('"""')[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.nosuch=3"], "config.nosuch: there is no such key; config has stage, workdir"),
        (["--config.optimizer.lr=3"], "config.optimizer.lr: there is no such key; config.optimizer has learning_rate"),
        (["--config.optimizer.learning_rat=3"], r"no such key; .* Did you mean config.optimizer.learning_rate\?"),
        (["--config.optimiser.learning_rate=3"], "there is no such key: .*optimiser"),
        (["--config.method.taus=0.3"], "config.method.taus: the method 'realiz3d' has no such option; it has .*tau"),
        (
            ["--config.method.layer_aware=perhaps"],
            "config.method.layer_aware: found 'perhaps', expected a value of type bool",
        ),
        (["--config.method.tau=1.5"], "config.method.tau: found 1.5, expected 0 to 1"),
        (["--config.method.rank=0"], "config.method.rank: found 0, expected at least 1"),
        (["--config.method.name=realised"], "config.method.name: found 'realised', expected one of .*realiz3d"),
        (
            ["--config.method.name=model"],
            "config.method.name: found 'model', expected one of .*pretraining, .*syn_only",
        ),
        (["--config.stage=stage3"], "config.stage: found 'stage3', expected one of stage1, stage2"),
        (["--config.task=sculpting"], "config.task: found 'sculpting', expected one of texture, text_to_multiview"),
        (["--config.optimizer.schedule=linear"], "config.optimizer.schedule: found 'linear', expected one of constant"),
        (["--config.model.attention=flash"], "attention: found 'flash', expected one of xla"),
        (["--config.model.heads=5"], "config.model.width: found 32, expected a multiple of 4 and of model.heads = 5"),
        (
            ["--config.data.size=64"],
            "config.data.size: found 64, expected 32: model.sample_size = 32 times the codec's 1",
        ),
        (
            ["--config.data.text_channels=32"],
            "config.model.caption_channels: found 64, expected data.text_channels = 32",
        ),
        (["--config.data.batch_grids=0"], "config.data.batch_grids: found 0, expected at least 1"),
        (
            ["--config.data.batch_grids=3"],
            "config.data.batch_grids: found 3 in total, expected a multiple of the 8 devices",
        ),
        (["--config.log.metrics_every=0"], "config.log.metrics_every: found 0, expected at least 1"),
        (
            ["--config.model.residual_dtype=bf16"],
            "config.model.residual_dtype: found 'bf16', expected 'float32' or 'bfloat16'",
        ),
        (
            ["--config.data.batch_of=device", "--config.data.batch_grids=2", "--config.accumulation=4"],
            "config.data.batch_grids: found 2 on each device, expected a multiple of config.accumulation = 4",
        ),
        (["--config.steps=0"], "config.steps: found 0, expected at least 1"),
        (["--config.devices.fsdp=3"], "config.devices: data=-1, fsdp=3 does not fit 8 devices"),
        (["surplus"], "unexpected argument 'surplus'"),
        ([], "/dev/null/workdir: cannot write here"),
    ],
)
def test_a_mistake_in_a_setting_is_named_with_what_was_expected(arguments, message, capsys):
    assert train(*arguments) == 2
    error = capsys.readouterr().err
    assert error.count("error: ") == 1
    assert re.search(message, error), error


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.steps=many", "--config.steps=many"),
        ("--config.optimizer.learning_rate=fast", "--config.optimizer.learning_rate=fast"),
        ("--nosuch=3", "Unknown command line flag 'nosuch'"),
    ],
)
def test_a_value_of_another_type_is_refused_with_its_flag(argument, message, capsys):
    assert train(argument) == 2
    assert message in capsys.readouterr().err


def test_a_size_or_a_file_that_does_not_exist_is_named(capsys):
    assert train(file=f"{STAGE_2}:huge") == 2
    assert "huge: there is no such base model; expected one of shapes, tiny, " in capsys.readouterr().err
    for overrides in ([], ["--config.steps=3"]):
        assert train(*overrides, file="configs/nosuch.py") == 2
        assert "configs/nosuch.py" in capsys.readouterr().err


def test_an_option_of_the_method_that_the_file_does_not_mention_can_be_set(capsys):
    assert "layer_aware" not in load_config("stage2").method
    assert train("--config.method.layer_aware=False") == 2
    assert "/dev/null/workdir: cannot write here" in capsys.readouterr().err


def test_a_config_file_with_an_unknown_key_is_refused(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(
        "from realiz3d_jax.config.schema import config_dict\n"
        "import importlib.util\n"
        f"spec = importlib.util.spec_from_file_location('stage2', {STAGE_2!r})\n"
        "stage2 = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(stage2)\n"
        "def get_config():\n"
        "    config = stage2.get_config('tiny')\n"
        "    config.optimizer.momentum = 0.9\n"
        "    return config\n"
    )
    assert train(file=str(path)) == 2
    assert "config.optimizer.momentum: there is no such key" in capsys.readouterr().err


# What a run needs


def flags_of(world: World, tmp_path: pathlib.Path, **changes) -> list[str]:
    values = stage_changes(world, **{"data__batch_grids": 8, **changes})
    return [f"--workdir={tmp_path / 'run'}", *(f"--config.{key}={value}" for key, value in values.items())]


def run(stage: str, arguments: list[str]) -> int:
    return run_command("train", f"--config={REPOSITORY / 'configs' / stage}.py:tiny", *arguments)


@pytest.mark.parametrize(
    ("stage", "fix"),
    [
        ("base", "python -m realiz3d_jax.prepare --dataset shapes_photos"),
        ("stage1", "python -m realiz3d_jax.prepare --dataset shapes_assets"),
        ("stage2", "python -m realiz3d_jax.prepare --dataset shapes_assets"),
    ],
)
def test_a_missing_dataset_is_named_with_the_command_that_makes_it(world, tmp_path, capsys, stage, fix):
    assert run(stage, flags_of(world, tmp_path, data__directory=str(tmp_path / "none"))) == 2
    error = capsys.readouterr().err
    assert f"{fix} --directory {tmp_path / 'none'} --size 32" in error
    assert "Traceback" not in error


def test_missing_self_generated_images_are_named_with_their_command(world, tmp_path, capsys):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "shapes_assets").symlink_to(world.data / "shapes_assets")
    assert run("stage2", flags_of(world, tmp_path, data__directory=str(tmp_path / "data"))) == 2
    assert f"realiz3d_jax.prepare --self-generate --directory {tmp_path / 'data'}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stage", "fix"),
    [
        ("stage1", "python -m realiz3d_jax.train --config configs/base.py"),
        ("stage2", "python -m realiz3d_jax.train --config configs/stage1.py"),
        ("syn_only", "python -m realiz3d_jax.train --config configs/base.py"),
    ],
)
def test_a_missing_start_is_named_with_the_command_that_makes_it(world, tmp_path, capsys, stage, fix):
    source = str(tmp_path / "nowhere")
    assert run(stage, flags_of(world, tmp_path, init__source=source)) == 2
    error = capsys.readouterr().err
    assert f"config.init.source: {source} does not exist" in error
    assert fix in error


def test_a_start_without_a_complete_checkpoint_is_named_with_the_command_that_makes_it(world, tmp_path, capsys):
    (tmp_path / "stage1" / "checkpoints").mkdir(parents=True)
    assert run("stage2", flags_of(world, tmp_path, init__source=str(tmp_path / "stage1"))) == 2
    error = capsys.readouterr().err
    assert "no checkpoint is complete yet" in error
    assert "python -m realiz3d_jax.train --config configs/stage1.py" in error


def test_a_start_that_is_damaged_or_of_another_model_is_refused(world, tmp_path, capsys):
    assert run("stage1", flags_of(world, tmp_path, model__width=64)) == 2
    error = capsys.readouterr().err
    assert f"{world.base}: was trained with model.width 32, but config.model.width is 64" in error
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(world.base.read_bytes()[:1000])
    assert run("stage1", flags_of(world, tmp_path, init__source=str(damaged))) == 2
    assert f"{damaged}: cannot be read as safetensors" in capsys.readouterr().err
    assert not list((tmp_path / "run").rglob("metrics.jsonl")), "nothing was begun"


def test_a_workdir_that_is_a_file_is_refused_and_left_as_it_is(world, tmp_path, capsys):
    (tmp_path / "run").write_text("precious")
    assert run("stage1", flags_of(world, tmp_path)) == 2
    assert f"{tmp_path / 'run'}: cannot write here" in capsys.readouterr().err
    assert (tmp_path / "run").read_text() == "precious"


def test_the_command_as_a_user_runs_it_ends_with_one_line_and_no_traceback():
    started = [
        (2, "config.nosuch: there is no such key", command("train", f"--config={STAGE_2}:tiny", "--config.nosuch=1")),
        (2, "there is no such base model", command("train", f"--config={STAGE_2}:huge")),
    ]
    for status, message, process in started:
        output, error = process.communicate(timeout=240)
        assert process.returncode == status
        assert message in error
        assert "Traceback" not in error + output
        assert len(error.strip().splitlines()) <= 2


def test_exported_checkpoints_that_ship_hold_a_config_that_this_version_reads():
    for path in exported.PRETRAINED.glob("shapes_[bt]*.safetensors"):
        assert exported.read(path).config.model == load_config("base", size="shapes").model
