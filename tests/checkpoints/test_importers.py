"""Other projects' checkpoints: read, turned and written back without a changed bit, or refused in one clear error."""

import dataclasses
import json
import os
import pathlib

import autoencoder_reference
import jax
import ml_dtypes
import numpy as np
import parity
import pixart_reference
import pytest
import safetensors.numpy
import torch
from diffusers import PixArtTransformer2DModel
from pixart_reference import SMALL, original_names
from transformers import T5Config as TheirT5Config
from transformers import T5EncoderModel
from worlds import assert_same

from realiz3d_jax.checkpoints.importers import huggingface, tensor_files
from realiz3d_jax.errors import UserError
from realiz3d_jax.models.t5 import T5Config


@pytest.fixture(scope="module")
def reference() -> PixArtTransformer2DModel:
    return pixart_reference.make_reference(SMALL, seed=0)


@pytest.fixture(scope="module")
def folder(reference, tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("source") / "transformer"
    reference.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def imported(folder) -> huggingface.Imported:
    return huggingface.import_model(folder, "float32")


def test_a_folder_of_diffusers_gives_its_config_and_its_numbers(imported, reference):
    assert imported.config == SMALL
    state = {name: tensor.numpy() for name, tensor in reference.state_dict().items()}
    assert_same(imported.params, pixart_reference.convert(SMALL, state))
    assert imported.facts["parameters"] == sum(parameter.numel() for parameter in reference.parameters())


def test_what_is_exported_is_loaded_by_diffusers_and_computes_the_same(imported, tmp_path):
    """Other numbers than those imported, as after training; and back without a changed bit."""
    trained = jax.tree.map(lambda leaf: leaf + np.float32(0.01), imported.params)
    folder = huggingface.export_transformer(tmp_path / "exported", SMALL, trained)
    model = PixArtTransformer2DModel.from_pretrained(folder).eval()
    random = np.random.default_rng(0)
    inputs = {
        "latents": random.standard_normal((2, 16, 16, 4), dtype=np.float32),
        "timestep": np.array([999, 20]),
        "text": random.standard_normal((2, 7, 20), dtype=np.float32),
        "text_mask": np.arange(7)[None] < np.array([[7], [3]]),
    }
    expected = pixart_reference.predict_reference(model, **inputs)
    found = pixart_reference.run_ours(SMALL, trained, **inputs | {"latents": inputs["latents"][:, None]})[:, 0]
    parity.check("DiT, exported and loaded by diffusers: output", "diffusers from_pretrained", found, expected, 1e-5)
    again = huggingface.import_model(folder, "float32")
    assert again.config == SMALL
    assert_same(again.params, trained)


def test_weights_are_written_back_bit_for_bit(imported, reference, tmp_path):
    folder = huggingface.export_transformer(tmp_path / "exported", SMALL, imported.params)
    found = safetensors.numpy.load_file(folder / huggingface.WEIGHTS)
    expected = {name: tensor.numpy() for name, tensor in reference.state_dict().items()}
    assert set(found) == set(expected)
    for name, array in expected.items():
        what = "DiT, weights imported and written back"
        parity.check(what, "diffusers PixArtTransformer2DModel", found[name], array, 0.0)


def test_shards_give_what_one_file_gives(imported, reference, tmp_path):
    reference.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert_same(huggingface.import_model(tmp_path, "float32").params, imported.params)
    next(tmp_path.glob("*00002*.safetensors")).unlink()
    with pytest.raises(UserError, match=r"names 1 missing files: .*00002"):
        huggingface.import_model(tmp_path, "float32")


@pytest.mark.parametrize("wrapped", [True, False])
def test_the_original_pth_gives_the_same_parameters(imported, reference, tmp_path, wrapped):
    state = original_names(reference)
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, tmp_path / "PixArt.pth")
    found = huggingface.import_model(tmp_path / "PixArt.pth", "float32", SMALL)
    assert_same(found.params, imported.params)


def test_a_pth_reads_every_layout_and_dtype_of_a_tensor(tmp_path):
    whole = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    saved = {"part": whole[1:3, 2:], "turned": whole.T, "half": whole.bfloat16(), "number": torch.tensor(7)}
    torch.save(saved, tmp_path / "a.pth")
    with tensor_files.open_checkpoint(tmp_path / "a.pth") as tensors:
        assert tensors.shapes == {name: tuple(tensor.shape) for name, tensor in saved.items()}
        for name, tensor in saved.items():
            np.testing.assert_array_equal(tensors.read(name).astype(np.float32), tensor.float().numpy())
        assert tensors.read("half").dtype == ml_dtypes.bfloat16


def test_a_pth_executes_nothing(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'executed'}",)

    torch.save({"a": Evil()}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"a\.pth: cannot be read as a PyTorch checkpoint \(it names .*system"):
        huggingface.import_model(tmp_path / "a.pth", "float32", SMALL)
    assert not (tmp_path / "executed").exists()


def test_in_bfloat16_every_number_is_rounded_once(folder, imported):
    found = huggingface.import_model(folder, "bfloat16")
    assert_same(found.params, jax.tree.map(lambda leaf: leaf.astype(ml_dtypes.bfloat16), imported.params))


def test_every_tensor_that_is_missing_surplus_or_misshapen_is_told_at_once(folder, tmp_path):
    tensors = safetensors.numpy.load_file(folder / huggingface.WEIGHTS)
    del tensors["proj_out.bias"], tensors["transformer_blocks.2.attn1.to_k.weight"]
    tensors["lora"] = np.zeros(3, np.float32)
    tensors["scale_shift_table"] = np.zeros((2, 25), np.float32)
    safetensors.numpy.save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(UserError) as caught:
        huggingface.import_model(tmp_path / "a.safetensors", "float32", SMALL)
    message = str(caught.value)
    assert "a.safetensors: 4 tensors do not match this model" in message
    assert "transformer_blocks.2.attn1.to_k.weight is missing; expected [24, 24]" in message
    assert "proj_out.bias is missing; expected [32]" in message
    assert "scale_shift_table is [2, 25]; expected [2, 24]" in message
    assert "lora [3] is surplus" in message


def test_a_folder_that_is_no_such_model_or_damaged_is_refused(folder, tmp_path):
    def broken(content: str | None = None, **changes) -> pathlib.Path:
        values = json.loads((folder / "config.json").read_text()) | changes
        (tmp_path / "config.json").write_text(content if content is not None else json.dumps(values))
        return tmp_path

    load = lambda path: huggingface.import_model(path, "float32")  # noqa: E731
    with pytest.raises(UserError, match=r"none/config.json: cannot be read"):
        load(tmp_path / "none")
    with pytest.raises(
        UserError, match=r"config.json: describes a UNet2D; expected one of PixArtTransformer2DModel, SD3"
    ):
        load(broken(_class_name="UNet2D"))
    with pytest.raises(UserError, match=r"config.json: has no 'num_layers'"):
        load(
            broken(
                '{"_class_name": "PixArtTransformer2DModel", "sample_size": 8, "patch_size": 2, '
                '"num_attention_heads": 2, "attention_head_dim": 2}'
            )
        )
    with pytest.raises(UserError, match=r"config.json: Expecting"):
        load(broken("{"))
    with pytest.raises(UserError, match=r"found none; expected one checkpoint"):
        load(broken())
    content = (folder / huggingface.WEIGHTS).read_bytes()
    (tmp_path / huggingface.WEIGHTS).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"cannot be read as safetensors .* truncated or damaged"):
        load(broken())
    (tmp_path / "a.pth").write_bytes(b"no zip")
    with pytest.raises(UserError, match=r"a.pth: cannot be read as a PyTorch checkpoint"):
        huggingface.import_model(tmp_path / "a.pth", "float32", SMALL)


@pytest.mark.parametrize(
    "changes", [{"size_conditions": 8}, {"position_scale": 2.0}, {"sample_size": 128, "base_size": 64}]
)
def test_a_config_survives_its_way_to_diffusers_and_back(changes):
    config = dataclasses.replace(SMALL, **changes)
    assert huggingface.pixart.config_of(huggingface.pixart.json_of(config)) == config


def test_each_kind_of_model_is_known_by_the_class_in_its_folder(tmp_path):
    vae = autoencoder_reference.make_reference(autoencoder_reference.SMALL)
    vae.save_pretrained(tmp_path / "vae")
    assert huggingface.import_model(tmp_path / "vae", "float32").config == autoencoder_reference.SMALL
    text = T5EncoderModel(
        TheirT5Config(
            d_model=8, d_kv=4, d_ff=12, num_layers=2, num_heads=2, vocab_size=30, feed_forward_proj="gated-gelu"
        )
    )
    text.save_pretrained(tmp_path / "text_encoder")
    found = huggingface.import_model(tmp_path / "text_encoder", "bfloat16")
    assert found.config == T5Config(8, 2, 2, 4, 12, 30)
    assert found.params["embedding"]["embedding"].dtype == ml_dtypes.bfloat16


def test_an_autoencoder_of_before_2023_gives_the_same_parameters(tmp_path):
    vae = autoencoder_reference.make_reference(autoencoder_reference.SMALL)
    vae.save_pretrained(tmp_path)
    expected = huggingface.import_model(tmp_path, "float32").params
    path = tmp_path / huggingface.WEIGHTS
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, tensor in safetensors.numpy.load_file(path).items():
        for new, old in names.items():
            name = name.replace(f"attentions.0.{new}", f"attentions.0.{old}")
        tensors[name] = tensor
    assert "encoder.mid_block.attentions.0.proj_attn.weight" in tensors
    safetensors.numpy.save_file(tensors, path)
    assert_same(huggingface.import_model(tmp_path, "float32").params, expected)
