"""From a downloaded pipeline to trained stages, samples and back: a small random one in the published layout, all the way."""

import dataclasses
import json
import pathlib
import shutil
import signal
import time

import jax
import numpy as np
import parity
import pixart_reference
import pytest
from autoencoder_reference import SMALL as SMALL_VAE
from diffusers import PixArtTransformer2DModel
from pixart_reference import SMALL as CONFIG
from published_pipeline import write_pipeline
from worlds import World, assert_same, command, load_config, random_params, run_command

from benchmarks import noise
from realiz3d_jax.checkpoints import bases
from realiz3d_jax.checkpoints import converted as converted_files
from realiz3d_jax.checkpoints.encoders import Encoders
from realiz3d_jax.checkpoints.workdirs import flatten
from realiz3d_jax.config.schema import TrainConfig
from realiz3d_jax.data import encoded, pipeline, records
from realiz3d_jax.errors import UserError
from realiz3d_jax.models import control as control_embedding
from realiz3d_jax.models import dit, vae
from realiz3d_jax.preparation import encoding
from realiz3d_jax.preparation.shapes import datasets
from realiz3d_jax.sampling import pretrained
from realiz3d_jax.training import loop, setup
from realiz3d_jax.training.state import new_state

TOKENS = 64
VAE = dataclasses.replace(SMALL_VAE, scale=0.13025)


@dataclasses.dataclass(frozen=True)
class Converted:
    """A converted pipeline, and data that was made and encoded with it."""

    folder: pathlib.Path
    data: pathlib.Path

    def config(self, stage: str, **changes) -> TrainConfig:
        """A stage of ``configs/STAGE.py:pixart_sigma`` with the small models' sizes."""
        sizes = {f"model.{name}": value for name, value in dataclasses.asdict(CONFIG).items()}
        sizes |= {f"codec.autoencoder.{name}": value for name, value in dataclasses.asdict(VAE).items()}
        data = {"size": 32, "text_channels": 20, "text_tokens": TOKENS, "directory": str(self.data)}
        data |= {"encoders": str(self.folder), "batch_grids": 8}
        named = {name.replace("__", "."): value for name, value in changes.items()}
        start = {"init.source": str(self.folder), "steps": 4, "log.samples_every": 0, "log.metrics_every": 2}
        changes = {**sizes, **{f"data.{name}": value for name, value in data.items()}, **start, **named}
        return load_config(stage, changes, size="pixart_sigma")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> pathlib.Path:
    """The pipeline as it would be downloaded."""
    return write_pipeline(tmp_path_factory.mktemp("source") / "pipeline", 192, VAE)


@pytest.fixture(scope="module")
def converted(source, world: World, tmp_path_factory) -> Converted:
    """Converted, with self-generated images of its own, and encoded."""
    folder = tmp_path_factory.mktemp("pretrained") / "small"
    data = shutil.copytree(world.data, tmp_path_factory.mktemp("data") / "data")
    shutil.rmtree(data / "shapes_generated")
    assert run_command("convert", f"--source={source}", f"--output={folder}") == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "HELD_OUT_COUNT", {})
        flags = [f"--base={folder}", f"--directory={data}"]
        shorten_captions(folder)
        assert run_command("prepare", "--self-generate", "--count=4", *flags) == 0
        assert run_command("prepare", "--encode", "--size=32", *flags) == 0
    return Converted(folder, data)


def shorten_captions(folder: pathlib.Path) -> None:
    """The exported checkpoint with the test's longest caption, which ``convert`` takes from the kind of PixArt."""
    from realiz3d_jax.checkpoints import exported

    held = exported.read(folder / "transformer.safetensors")
    config = dataclasses.replace(held.config, data=dataclasses.replace(held.config.data, text_tokens=TOKENS))
    exported.write(folder / "transformer.safetensors", dataclasses.replace(held, config=config))


def test_a_published_base_is_asked_for_images_at_the_positions_that_its_weights_know(converted: Converted, source):
    """Each of the four that are drawn together is the picture that diffusers predicts alone; on a canvas none is."""
    base = pretrained.open_model(converted.folder)
    reference = PixArtTransformer2DModel.from_pretrained(source / "transformer").eval()
    random = np.random.default_rng(0)
    latents = random.standard_normal((4, 16, 16, 4), dtype=np.float32)
    inputs = {
        "timestep": np.array([900, 600, 300, 20]),
        "text": random.standard_normal((4, 7, 20), dtype=np.float32),
        "text_mask": np.arange(7)[None] < np.array([[7], [3], [5], [1]]),
    }
    expected = pixart_reference.predict_reference(reference, latents, **inputs)[..., :4]
    captions = {"states": inputs["text"][None], "mask": inputs["text_mask"][None]}

    def error(positions: str) -> float:
        config = dataclasses.replace(base.model.config, dtype="float32", positions=positions)
        model = dataclasses.replace(base.model, config=config)
        nowhere = np.zeros(config.depth, np.int32)
        found = model.predict(base.params, latents[None], inputs["timestep"][None], captions, domain=nowhere)[0]
        return float(np.abs(found - expected).max() / np.abs(expected).max())

    assert base.model.config.positions == "view"
    assert error(base.model.config.positions) < 1e-4
    assert error("canvas") > 1e-2
    assert bases.find(str(converted.folder)).on_grids()["model"].positions == "canvas"


def test_encoded_records_hold_the_moments_and_the_states_that_the_encoders_give(converted: Converted):
    config = converted.config("stage1")
    asset = records.open_split(converted.data, "shapes_assets", "train")[3]
    held = records.open_split(converted.data, "shapes_assets_encoded", "train", 32)[3]
    params = Encoders(config).open_codec_params(setup.sharding.make_device_mesh(config.devices))
    pixels = asset["synthetic"].astype(np.float32) / 127.5 - 1
    expected = jax.jit(lambda p, x: vae.encode(VAE, p, x))(params, pixels)
    np.testing.assert_allclose(held["synthetic"], expected, rtol=2e-3, atol=2e-3)  # float16
    maps = pipeline.control_maps(asset["normal"], asset["position"], asset["mask"]) * 2 - 1
    for place, picture in enumerate(np.split(maps, 2, axis=-1)):
        expected = jax.jit(lambda p, x: vae.encode(VAE, p, x))(params, picture)
        np.testing.assert_allclose(np.split(held["control"], 2, axis=-1)[place], expected, rtol=2e-3, atol=2e-3)
    states = Encoders(config).open_text().encode([asset["caption"]])
    assert len(held["caption_states"]) == states["mask"].sum() <= TOKENS
    np.testing.assert_allclose(held["caption_states"], states["states"][states["mask"]], rtol=1e-3, atol=1e-3)
    assert held["caption"] == asset["caption"]


def test_the_null_caption_of_encoded_data_is_the_encoded_empty_text(converted: Converted):
    config = converted.config("stage1")
    found = encoded.null_caption(converted.data, "shapes", 32, Encoders(config).identity, TOKENS)
    expected = Encoders(config).open_text().encode([""])
    np.testing.assert_array_equal(found["mask"], expected["mask"][0])
    assert found["mask"].sum() == 1
    np.testing.assert_allclose(found["states"], expected["states"][0], rtol=1e-3, atol=1e-3)


def test_self_generated_images_are_prompted_with_view_and_background_and_stored_without(converted: Converted):
    held = records.open_split(converted.data, "shapes_generated", "train", 32)
    assert len(held) == 16
    assert held.metadata["view_prompt"] == "{caption}, {view} view, white background"
    assert "view" not in held[0]["caption"]
    assert held.metadata["sampling"]["guidance_scale"] == 4.5
    assert (held.metadata["sampling"]["sampler"], held.metadata["sampling"]["steps"]) == ("dpm++", 20)


@pytest.fixture(scope="module")
def stage1(converted: Converted, tmp_path_factory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("runs") / "stage1"
    loop.train(converted.config("stage1"), workdir)
    return workdir


@pytest.fixture(scope="module")
def stage2(converted: Converted, stage1, tmp_path_factory) -> pathlib.Path:
    workdir = tmp_path_factory.mktemp("runs") / "stage2"
    changes = {"init__source": str(stage1), "method__real_warmup_steps": 0, "log__samples_every": 4}
    loop.train(converted.config("stage2", **changes), workdir)
    return workdir


def test_both_stages_train_on_encoded_data_and_each_trains_its_part(converted: Converted, stage1, stage2):
    base = dict(flatten(pretrained.open_model(converted.folder).params["backbone"]))
    first = dict(flatten(pretrained.open_model(stage1).params["backbone"]))
    assert_same(first, base)
    second = dict(flatten(pretrained.open_model(stage2).params["backbone"]))
    assert any(not np.array_equal(second[path], base[path]) for path in base)
    lines = [json.loads(line) for line in (stage2 / "metrics.jsonl").read_text().splitlines()]
    losses = [value for line in lines for name, value in line.items() if "loss" in name]
    assert losses
    assert np.isfinite(losses).all()


def test_sampling_decodes_latents_and_takes_prompts_and_meshes(converted: Converted, stage2, tmp_path, capsys):
    flags = ["--steps=2", "--batch=1", "--limit=1", f"--data={converted.data}", f"--output={tmp_path / 'out'}"]
    assert run_command("sample", f"--workdir={stage2}", *flags) == 0
    assert "1 item, 0 problems" in capsys.readouterr().out
    away = [f"--workdir={stage2}", f"--encoders={tmp_path}", *flags[:-1], f"--output={tmp_path / 'other'}"]
    assert run_command("sample", *away) == 2
    error = capsys.readouterr().err
    assert "does not exist; expected the folder of a converted text-to-image model" in error
    assert "--encoders DIR" in error


def test_a_model_is_sampled_with_the_encoders_that_it_was_trained_with(converted: Converted, stage2, tmp_path, capsys):
    other = with_another_autoencoder(converted.folder, tmp_path / "other")
    flags = ["--steps=2", "--batch=1", "--limit=1", f"--data={converted.data}", f"--output={tmp_path / 'out'}"]
    assert run_command("sample", f"--workdir={stage2}", f"--encoders={other}", *flags) == 2
    assert "but the model was trained with those of" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*"))


def test_a_converted_folder_can_be_moved_and_named_as_the_base(converted: Converted, stage1, tmp_path, capsys):
    moved = shutil.copytree(converted.folder, tmp_path / "moved away")
    config = pretrained.read_config(moved)
    assert config.data.encoders == str(moved)
    arguments = [f"--config.data.text_tokens={TOKENS}", f"--config.data.directory={converted.data}", "--config.steps=3"]
    arguments += [f"--workdir={tmp_path / 'run'}", "--config.log.metrics_every=1", "--config.data.batch_grids=8"]
    assert run_command("train", f"--config=configs/stage1.py:{moved}", *arguments) == 0


def test_weights_are_refused_where_they_would_mean_something_else(converted: Converted):
    for field, value, before in (("base_size", 16, 8), ("position_scale", 1.0, 0.5)):
        config = converted.config("stage1", **{f"model.{field}": value})
        with pytest.raises(
            UserError, match=f"was trained with model.{field} {before}, but config.model.{field} is {value}"
        ):
            setup.make_run(config).initial_state()


def test_a_prompt_of_more_tokens_than_the_model_knows_is_refused(converted: Converted):
    encoder = Encoders(converted.config("stage1")).open_text()
    encoder.check("a red cone")
    with pytest.raises(UserError, match=r"found \d+ tokens, expected at most 64; shorten it"):
        encoder.check("a red cone " * 20)


def with_another_autoencoder(folder: pathlib.Path, path: pathlib.Path) -> pathlib.Path:
    """A copy of a converted model whose autoencoder has another checksum."""
    shutil.copytree(folder, path)
    held = converted_files.read(path / "vae.safetensors", vae.VAEConfig)
    facts = {**held.facts, "parameters_sha256": "0" * 64}
    converted_files.write(path / "vae.safetensors", held.config, held.params, facts)
    return path


def test_a_trained_backbone_goes_back_to_diffusers_which_computes_the_same(stage2, tmp_path):
    """In the texturing task with twelve input channels: noisy latents, and the latents of normals and positions."""
    assert run_command("convert", f"--workdir={stage2}", f"--export={tmp_path / 'out'}") == 0
    reference = PixArtTransformer2DModel.from_pretrained(tmp_path / "out").eval()
    assert reference.config.in_channels == 12
    model = pretrained.open_model(stage2)
    random = np.random.default_rng(0)
    latents, control = (random.standard_normal((2, 16, 16, size), dtype=np.float32) for size in (4, 8))
    inputs = {
        "timestep": np.array([999, 20]),
        "text": random.standard_normal((2, 7, 20), dtype=np.float32),
        "text_mask": np.arange(7)[None] < np.array([[7], [3]]),
    }
    both = np.concatenate([latents, control], axis=-1)
    expected = pixart_reference.predict_reference(reference, both, **inputs)
    tokens = control_embedding.apply("texture", CONFIG, model.params["control"], control[:, None])
    captions = {"states": inputs["text"][:, None], "mask": inputs["text_mask"][:, None]}
    found = dit.apply(
        CONFIG, model.params["backbone"], latents[:, None], inputs["timestep"][:, None], captions, control_tokens=tokens
    )[:, 0]
    what = "PixArt, converted, trained in two stages, exported with 12 input channels: output"
    parity.check(what, "diffusers from_pretrained", found, expected, 1e-4)
    assert np.std(model.params["control"]["kernel"]) > 0, "the control was trained"


def test_encoding_is_the_same_on_two_hosts_and_after_a_kill(converted: Converted, tmp_path):
    data = tmp_path / "data"
    for name in ("shapes_assets", "shapes_generated"):
        shutil.copytree(converted.data / name, data / name)
    arguments = ["--encode", f"--base={converted.folder}", f"--directory={data}"]
    process = command("realiz3d_jax.prepare", *arguments)
    for _ in range(600):
        if list(data.glob(".prepare/*/*.npz")) or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    config = pretrained.read_config(converted.folder)
    import threading

    second = threading.Thread(target=encoding.encode, args=(data, config), kwargs={"host": 1, "hosts": 2})
    second.start()
    encoding.encode(data, config, host=0, hosts=2)
    second.join()
    for name in ("shapes_assets_encoded", "shapes_generated_encoded"):
        for split, held in records.open_all(converted.data, name, 32).items():
            again = records.open_split(data, name, split, 32)
            assert len(again) == len(held)
            for one, other in zip(again, held, strict=True):
                assert_same(one, other)
    assert not (data / ".prepare").exists()


def test_data_of_another_encoder_or_another_longest_caption_is_refused(converted: Converted, tmp_path):
    with pytest.raises(UserError, match=r"text_tokens is 64; expected 20, by config.data"):
        setup.make_run(converted.config("stage1", data__text_tokens=20))
    other = with_another_autoencoder(converted.folder, tmp_path / "other")
    with pytest.raises(
        UserError, match=r"autoencoder is [0-9a-f]{64}; expected 0{64}.*encode again by\n.*prepare --encode"
    ):
        setup.make_run(converted.config("stage1", data__encoders=str(other)))
    with pytest.raises(UserError, match=r"vae.safetensors does not exist; expected the folder of a converted"):
        setup.make_run(converted.config("stage1", data__encoders=str(tmp_path / "nowhere")))
    scaled = converted.config("stage1", codec__autoencoder__scale=0.18215)
    with pytest.raises(UserError, match=r"has 0.13025 for config.codec.autoencoder.scale; expected 0.18215"):
        setup.make_run(scaled)


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_a_stage_takes_real_steps_at_the_full_width_of_pixart(stage: str):
    """Two of the 28 blocks, on views of 64 px: ``benchmarks.whole_step`` takes the whole model's."""
    changes = {
        "model.depth": 2,
        "model.sample_size": 8,
        "data.size": 64,
        "data.batch_grids": 1,
        "optimizer.warmup_steps": 0,
    }
    config = load_config(stage, {**changes, "init.partitions": ()}, size="pixart_sigma")
    run = setup.make_run(config, jax.devices()[:1], empty_caption=noise.caption(config))
    before = random_params(config)
    state = jax.jit(lambda params: new_state(params, run.stage, run.step_config.optimizer))(before)
    for kind in run.stage.iterations:
        state, metrics = run.steps[kind.name](state, run.put(noise.batch(config, kind)))
        assert bool(metrics["finite"])
    moved = {
        name: any(not np.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, (before[name], after)), strict=True))
        for name, after in jax.device_get(state.params).items()
    }
    assert moved == {name: name in run.stage.trainable for name in run.stage.partitions}


def test_without_real_images_the_command_that_makes_them_is_told(converted: Converted, world: World, tmp_path, capsys):
    shutil.copytree(world.data / "shapes_assets", tmp_path / "shapes_assets")
    assert run_command("prepare", "--encode", f"--base={converted.folder}", f"--directory={tmp_path}") == 2
    error = capsys.readouterr().err
    assert f"--self-generate --base {converted.folder} --directory {tmp_path}" in error


def test_a_model_of_pixels_has_nothing_to_encode(capsys):
    assert run_command("prepare", "--encode") == 2
    assert "works on pixels and words directly" in capsys.readouterr().err
