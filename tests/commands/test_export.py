"""Models go back to the Hugging Face layout, where diffusers computes with them what ours compute."""

import dataclasses
import json
import pathlib

import ml_dtypes
import numpy as np
import pixart_reference
import pytest
import safetensors.numpy
from diffusers import PixArtTransformer2DModel, SD3Transformer2DModel
from pixart_reference import SMALL as CONFIG
from published_pipeline import convert, export, largest_file, names, write_pipeline
from saved_runs import POSITIONS, make_run, random_state
from sd3_reference import SMALL as SD3
from sd3_reference import make_reference as make_sd3
from worlds import assert_same, load_config, random_params, write_exported

from realiz3d_jax.checkpoints import exported
from realiz3d_jax.checkpoints.importers import huggingface
from realiz3d_jax.models import control, dit
from realiz3d_jax.sampling.pretrained import open_model
from realiz3d_jax.training import setup
from realiz3d_jax.training.checkpoint import Checkpoints

WEIGHTS = huggingface.WEIGHTS
MADE = ["text_encoder.safetensors", "tokenizer", "transformer.safetensors", "vae.safetensors"]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> pathlib.Path:
    """A pipeline of small random models in the Hugging Face layout."""
    return write_pipeline(tmp_path_factory.mktemp("source") / "pipeline")


def ours(config, params, latents, timestep, text, text_mask, control_tokens=None) -> np.ndarray:
    """The output of our transformer for single images, float32[images, h, w, out channels]."""
    captions = {"states": text[:, None], "mask": text_mask[:, None]}
    output = dit.apply(config, params, latents[:, None], timestep[:, None], captions, control_tokens=control_tokens)
    return np.asarray(output[:, 0])


def theirs(folder: pathlib.Path, latents, timestep, text, text_mask) -> np.ndarray:
    """The same of what diffusers makes of a folder."""
    model = PixArtTransformer2DModel.from_pretrained(folder).eval()
    cotangent = np.zeros((*latents.shape[:3], model.config.out_channels), np.float32)
    return pixart_reference.run_reference(model, latents, timestep, text, text_mask, cotangent)[0]


def draw_inputs(config: dit.DiTConfig) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "latents": random.standard_normal((2, config.sample_size, config.sample_size, config.in_channels), np.float32),
        "timestep": np.array([999, 20]),
        "text": random.standard_normal((2, 7, config.caption_channels), dtype=np.float32),
        "text_mask": np.arange(7)[None] < np.array([[7], [3]]),
    }


def test_a_pipeline_is_converted_opened_exported_and_computes_what_diffusers_computes(pipeline, tmp_path):
    assert convert(pipeline, tmp_path / "out") == 0
    path = tmp_path / "out" / "transformer.safetensors"
    model = open_model(path)
    assert model.checksum == exported.read(path).facts["parameters_sha256"]
    assert export(path, tmp_path / "exported") == 0
    inputs = draw_inputs(CONFIG)
    expected = theirs(tmp_path / "exported", **inputs)
    found = ours(CONFIG, model.params["backbone"], **inputs)  # in float32, as they computed it
    assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-4


@pytest.mark.parametrize("kind", ["PixArt", "PixArt with size conditions", "Stable Diffusion 3"])
def test_what_is_imported_and_exported_has_no_other_bit(tmp_path, kind):
    config = (
        SD3 if kind == "Stable Diffusion 3" else dataclasses.replace(CONFIG, size_conditions=8 * (kind != "PixArt"))
    )
    reference = make_sd3(SD3) if config is SD3 else pixart_reference.make_reference(config, seed=0)
    reference.save_pretrained(tmp_path / "theirs")
    imported = huggingface.import_model(tmp_path / "theirs", "float32")
    assert imported.config == config
    huggingface.export_transformer(tmp_path / "ours", imported.config, imported.params)
    expected, found = (safetensors.numpy.load_file(tmp_path / name / WEIGHTS) for name in ("theirs", "ours"))
    if config is SD3:  # a table that each computes
        tables = found.pop("pos_embed.pos_embed"), expected.pop("pos_embed.pos_embed")
        np.testing.assert_allclose(*tables, rtol=0, atol=2e-7)
    assert_same(found, expected)
    _, said = type(reference).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(said.values()), said


def test_the_two_layouts_of_stable_diffusion_3_are_inverse(tmp_path):
    config = huggingface.IMPORTERS[type(SD3)].config_of(huggingface.IMPORTERS[type(SD3)].json_of(SD3))
    assert config == SD3
    assert SD3Transformer2DModel.from_config(huggingface.IMPORTERS[type(SD3)].json_of(SD3)).config.out_channels == 4


def test_bfloat16_is_exported_as_it_is(pipeline, tmp_path):
    assert convert(pipeline, tmp_path / "out", "--dtype=bfloat16") == 0
    assert export(tmp_path / "out" / "transformer.safetensors", tmp_path / "exported") == 0
    expected = safetensors.numpy.load_file(pipeline / "transformer" / WEIGHTS)
    found = safetensors.numpy.load_file(tmp_path / "exported" / WEIGHTS)
    assert_same(found, {name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in expected.items()})


def test_a_controlled_model_is_exported_with_more_input_channels_and_its_shifts_beside_it(tmp_path, capsys):
    config = load_config("stage2")
    params = random_params(config)
    write_exported(tmp_path / "model.safetensors", config)
    assert export(tmp_path / "model.safetensors", tmp_path / "exported") == 0
    assert json.loads((tmp_path / "exported" / "config.json").read_text())["in_channels"] == 3 + 6
    inputs = draw_inputs(config.model)
    maps = np.random.default_rng(1).standard_normal((2, 1, 32, 32, 6), dtype=np.float32)
    tokens = control.apply("texture", config.model, params["control"], maps)
    concatenated = inputs | {"latents": np.concatenate([inputs["latents"], maps[:, 0]], axis=-1)}
    expected = theirs(tmp_path / "exported", **concatenated)
    uncontrolled = ours(config.model, params["backbone"], **inputs)
    found = ours(config.model, params["backbone"], **inputs, control_tokens=tokens)
    assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-4
    assert np.abs(uncontrolled - expected).max() / np.abs(expected).max() > 1e-2
    beside = safetensors.numpy.load_file(tmp_path / "exported" / huggingface.SHIFTS)
    assert_same(beside, {"shifts": setup.make_model(config).method.shifts(params)})
    assert beside["shifts"].shape == (2, config.model.depth, config.model.width)
    assert export(tmp_path / "model.safetensors", tmp_path / "exported") == 0
    assert "exported: replaced, config.json" in capsys.readouterr().out


def test_viewpoints_are_exported_as_what_they_add_to_the_patches(tmp_path):
    config = load_config("stage2", {"task": "text_to_multiview"})
    write_exported(tmp_path / "model.safetensors", config)
    assert export(tmp_path / "model.safetensors", tmp_path / "exported") == 0
    assert json.loads((tmp_path / "exported" / "config.json").read_text())["in_channels"] == 3
    beside = safetensors.numpy.load_file(tmp_path / "exported" / huggingface.SHIFTS)
    expected = control.apply("text_to_multiview", config.model, random_params(config)["control"], None)
    np.testing.assert_array_equal(beside["views"], expected[0, :, 0])


def test_of_a_run_the_averaged_backbone_is_exported(tmp_path):
    run = make_run()
    state = random_state(run)
    with Checkpoints(tmp_path / "run", run.config) as checkpoints:
        checkpoints.save(7, state, POSITIONS, force=True)
    assert export(tmp_path / "run", tmp_path / "exported") == 0
    found = safetensors.numpy.load_file(tmp_path / "exported" / WEIGHTS)
    np.testing.assert_array_equal(
        found["proj_out.weight"], np.asarray(state.ema["backbone"]["final"]["linear"]["kernel"]).T
    )


def test_what_is_no_run_or_cannot_be_written_is_not_exported(tmp_path, capsys):
    assert export(tmp_path / "none", tmp_path / "exported") == 2
    assert "none: there is no such workdir or exported checkpoint" in capsys.readouterr().err
    write_exported(tmp_path / "model.safetensors", load_config("base"))
    with largest_file(20_000):
        assert export(tmp_path / "model.safetensors", tmp_path / "exported") == 2
    assert f"exported/{WEIGHTS}: cannot be written (File too large); expected room for" in capsys.readouterr().err
    assert names(tmp_path) == ["model.safetensors"]


def load_weights(folder: pathlib.Path) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(folder / WEIGHTS)
