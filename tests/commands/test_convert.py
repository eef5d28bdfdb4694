"""Pipelines become ours and go back, bit for bit, in little memory; what cannot be leaves a message and no folder."""

import dataclasses
import errno
import json
import os
import pathlib
import shutil

import huggingface_hub
import huggingface_hub.errors as hub_errors
import jax
import pixart_reference
import pytest
import safetensors.numpy
import torch
from autoencoder_reference import SMALL as VAE
from huggingface_hub.utils import filter_repo_objects
from pixart_reference import SMALL as CONFIG
from pixart_reference import original_names
from published_pipeline import convert, export, largest_file, names, write_pipeline
from worlds import assert_same, run_command

from realiz3d_jax.checkpoints import converted, exported
from realiz3d_jax.checkpoints.importers import huggingface
from realiz3d_jax.errors import UserError
from realiz3d_jax.models import presets
from realiz3d_jax.models.t5 import T5Config
from realiz3d_jax.models.vae import VAEConfig

WEIGHTS = huggingface.WEIGHTS
MADE = ["text_encoder.safetensors", "tokenizer", "transformer.safetensors", "vae.safetensors"]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> pathlib.Path:
    """A pipeline of small random models in the Hugging Face layout."""
    folder = write_pipeline(tmp_path_factory.mktemp("source") / "pipeline")
    (folder / "tokenizer" / "special_tokens_map.json").write_text("{}")
    return folder


@pytest.fixture
def copied(pipeline, tmp_path) -> pathlib.Path:
    """The same, to be damaged."""
    return shutil.copytree(pipeline, tmp_path / "pipeline")


# From other projects


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_part_of_a_pipeline_is_what_the_importers_read(pipeline, tmp_path, capsys, dtype):
    output = tmp_path / "new" / "converted"
    assert convert(pipeline, output, f"--dtype={dtype}", "--verify") == 0
    printed = capsys.readouterr().out
    assert names(output) == MADE
    expected = {part: huggingface.import_model(pipeline / part, dtype) for part in huggingface.KINDS}
    transformer = exported.read(output / "transformer.safetensors")
    assert_same(transformer.params, {"backbone": expected["transformer"].params})
    assert transformer.config.model == dataclasses.replace(
        CONFIG, dtype="bfloat16", remat="attention", positions="view"
    )
    assert transformer.config.codec.autoencoder == VAE
    assert transformer.facts["command"] == "python -m realiz3d_jax.convert --source pipeline"
    for part, kind in (("vae", VAEConfig), ("text_encoder", T5Config)):
        found = converted.read(output / f"{part}.safetensors", kind)
        assert_same(found.params, expected[part].params)
        config = dataclasses.replace(expected[part].config, dtype=dtype if part == "text_encoder" else "float32")
        assert found.config == config
        assert converted.read_header(output / f"{part}.safetensors", kind) == (config, found.facts)
        assert found.facts["parameters_sha256"] == huggingface.checksum(found.params)
    for imported in expected.values():
        assert {str(leaf.dtype) for leaf in jax.tree.leaves(imported.params)} == {dtype}
        assert imported.facts["parameters_sha256"] in printed
        assert f"{imported.facts['parameters']:,}" in printed
    assert "made, verified" in printed
    assert names(output / "tokenizer") == ["special_tokens_map.json", "spiece.model"]
    copied, original = (folder / "tokenizer" / "spiece.model" for folder in (output, pipeline))
    assert copied.read_bytes() == original.read_bytes()


def test_parts_that_are_not_there_are_not_made(copied, tmp_path):
    for part in ("transformer", "text_encoder", "tokenizer"):
        shutil.rmtree(copied / part)
    assert convert(copied, tmp_path / "out") == 0
    assert names(tmp_path / "out") == ["vae.safetensors"]


def test_the_original_pth_is_converted_by_the_name_of_its_preset(pipeline, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(presets.PIXART, "small", CONFIG)
    source = tmp_path / "PixArt.pth"
    torch.save({"state_dict": original_names(pixart_reference.make_reference(CONFIG, seed=0))}, source)
    assert convert(source, tmp_path / "out", "--preset=small") == 0
    expected = huggingface.import_model(pipeline / "transformer", "float32")
    assert_same(exported.read(tmp_path / "out" / "transformer.safetensors").params["backbone"], expected.params)
    assert convert(source, tmp_path / "other") == 2
    assert "a file needs --preset" in capsys.readouterr().err


def shard(folder: pathlib.Path) -> None:
    shutil.rmtree(folder)
    pixart_reference.make_reference(CONFIG, seed=0).save_pretrained(folder, max_shard_size="20KB")
    truncate(next(folder.glob("*00002*.safetensors")))


def truncate(path: pathlib.Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def change(path: pathlib.Path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def quantise(path: pathlib.Path, dtype: torch.dtype) -> None:
    tensors = safetensors.torch.load_file(path)
    safetensors.torch.save_file(tensors | {"proj_out.bias": tensors["proj_out.bias"].to(dtype)}, path)


DAMAGES = {
    "a file": (
        lambda folder: truncate(folder / "vae" / WEIGHTS),
        rf"vae/{WEIGHTS}: cannot be read as safetensors .* truncated or damaged",
    ),
    "a shard": (
        lambda folder: shard(folder / "transformer"),
        r"transformer/.*00002-of-.*safetensors: cannot be read as safetensors .* truncated or damaged",
    ),
    "CLIP": (
        lambda folder: change(folder / "text_encoder" / "config.json", architectures=["CLIPTextModel"]),
        r"text_encoder/config.json: describes a CLIPTextModel; expected one of PixArtTransformer2DModel, .*T5EncoderModel",
    ),
    "another part": (
        lambda folder: shutil.copytree(folder / "vae", folder / "transformer", dirs_exist_ok=True),
        r"transformer/config.json: describes a AutoencoderKL; expected PixArtTransformer2DModel, SD3Transformer2DModel",
    ),
    "another width": (
        lambda folder: change(folder / "transformer" / "config.json", attention_head_dim=16),
        rf"transformer/{WEIGHTS}: \d+ tensors do not match this model; is it another checkpoint or preset\?\n"
        r"  pos_embed.proj.weight is \[24, 4, 2, 2\]; expected \[32, 4, 2, 2\]\n(.*\n)+"
        r"  proj_out.weight is \[32, 24\]; expected \[32, 32\]\n",
    ),
    "no tokenizer": (
        lambda folder: (folder / "tokenizer" / "spiece.model").unlink(),
        r"pipeline/tokenizer: found no tokenizer; expected tokenizer.json or spiece.model",
    ),
    "half a tokenizer": (
        lambda folder: truncate(folder / "tokenizer" / "spiece.model"),
        r"pipeline/tokenizer: spiece.model cannot be read .*expected the tokenizer of a T5",
    ),
    "integers": (
        lambda folder: quantise(folder / "transformer" / WEIGHTS, torch.int8),
        r"proj_out.bias has dtype int8; expected float32, .*Quantised weights cannot be converted",
    ),
    "8 bits": (
        lambda folder: quantise(folder / "transformer" / WEIGHTS, torch.float8_e4m3fn),
        r"proj_out.bias has dtype F8_E4M3, .*Quantised weights cannot be converted",
    ),
    "everything": (
        lambda folder: [shutil.rmtree(folder / part) for part in names(folder)],
        r"pipeline: found nothing; expected the folder of a pipeline, with one or more of transformer, vae, text_encoder",
    ),
    "the folder": (shutil.rmtree, r"pipeline: found no such folder; expected the folder of a pipeline"),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_what_is_damaged_or_of_another_model_is_one_message_and_leaves_nothing(copied, tmp_path, what, capsys):
    damage, message = DAMAGES[what]
    damage(copied)
    assert convert(copied, tmp_path / "out") == 2
    with pytest.raises(UserError, match=message):
        raise UserError(capsys.readouterr().err)
    assert set(names(tmp_path)) <= {"pipeline"}


def test_a_dtype_that_is_not_kept_is_refused(pipeline, tmp_path, capsys):
    assert convert(pipeline, tmp_path / "out", "--dtype=int8") == 2
    assert "--dtype=int8: value should be one of <float32|bfloat16>" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["transformer", "vae"])
def test_a_disk_that_fills_is_one_message_with_the_bytes_that_are_needed(copied, tmp_path, part, capsys):
    for other in set(names(copied)) - {part}:
        shutil.rmtree(copied / other)
    size = 4 * huggingface.import_model(copied / part, "float32").facts["parameters"]
    with largest_file(size - 1):
        assert convert(copied, tmp_path / "out") == 2
    message = capsys.readouterr().err
    assert f"out/{part}.safetensors: cannot be written" in message
    assert f"File too large (os error {errno.EFBIG})" in message or "File too large)" in message
    assert f"expected room for {size:,} bytes" in message
    assert names(tmp_path) == ["pipeline"]


def test_a_disk_that_fills_with_the_last_file_leaves_nothing(pipeline, tmp_path, monkeypatch, capsys):
    def full(*paths):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", full)
    assert convert(pipeline, tmp_path / "out") == 2
    assert "out/tokenizer: cannot be written (No space left on device); expected room for " in (capsys.readouterr().err)
    assert names(tmp_path) == []


def test_only_what_the_command_made_is_replaced_and_only_by_a_whole_conversion(copied, tmp_path, monkeypatch, capsys):
    output = tmp_path / "out"
    output.mkdir()
    assert convert(copied, output) == 0
    before = {path: path.read_bytes() for path in output.glob("*.safetensors")}
    shutil.copytree(copied / "transformer", tmp_path / "theirs")
    (copied / "transformer" / "config.json").write_text("{")
    assert convert(copied, output) == 2
    assert {path: path.read_bytes() for path in output.glob("*.safetensors")} == before
    shutil.rmtree(copied / "transformer")
    with monkeypatch.context() as patch:
        patch.setattr(converted, "write", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            convert(copied, output)
    assert names(output) == MADE
    capsys.readouterr()
    assert convert(copied, output) == 0
    assert "out: replaced an earlier conversion" in capsys.readouterr().out
    assert names(output) == [name for name in MADE if name != "transformer.safetensors"]
    assert names(tmp_path) == ["out", "pipeline", "theirs"]

    (output / "notes.txt").touch()
    for folder, strange in ((output, "notes.txt"), (tmp_path / "theirs", WEIGHTS), (output / "notes.txt", "notes.txt")):
        assert convert(copied, folder) == 2
        assert f"{folder}: found {strange}, expected no folder or one made by" in capsys.readouterr().err
    assert (tmp_path / "theirs" / WEIGHTS).exists()


def test_a_conversion_does_not_take_the_place_of_an_export_nor_an_export_that_of_a_conversion(
    pipeline, tmp_path, capsys
):
    assert convert(pipeline, tmp_path / "out") == 0
    assert export(tmp_path / "out" / "transformer.safetensors", tmp_path / "exported") == 0
    for attempt in (
        lambda: convert(pipeline, tmp_path / "exported"),
        lambda: export(tmp_path / "out" / "transformer.safetensors", tmp_path / "out"),
    ):
        capsys.readouterr()
        assert attempt() == 2
        assert "only that is replaced" in capsys.readouterr().err


def test_the_folder_of_one_model_is_distinguished_from_that_of_a_pipeline(pipeline, tmp_path, capsys):
    assert convert(pipeline / "vae", tmp_path / "out") == 2
    assert "is the folder of a single model; expected the folder of a pipeline" in capsys.readouterr().err


def test_verification_finds_a_bit_that_the_disk_changed(pipeline, tmp_path, monkeypatch, capsys):
    write = converted.write

    def write_badly(path, *given):
        write(path, *given)
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)

    monkeypatch.setattr(converted, "write", write_badly)
    assert convert(pipeline, tmp_path / "out", "--verify") == 2
    assert "vae.safetensors: the file has SHA-256" in capsys.readouterr().err
    assert names(tmp_path) == []


def test_a_converted_file_that_is_damaged_or_something_else_is_refused(pipeline, tmp_path):
    assert convert(pipeline, tmp_path / "out") == 0
    path = tmp_path / "out" / "vae.safetensors"
    with pytest.raises(UserError, match=r"vae.safetensors: holds a model of VAEConfig; expected T5Config"):
        converted.read(path, T5Config)
    with pytest.raises(UserError, match=r"transformer.safetensors: is not a converted model of this version"):
        converted.read(tmp_path / "out" / "transformer.safetensors", VAEConfig)
    with pytest.raises(UserError, match=rf"{WEIGHTS}: is not a converted model of this version"):
        converted.read_header(pipeline / "vae" / WEIGHTS, VAEConfig)
    with pytest.raises(UserError, match=r"none.safetensors: there is no such file"):
        converted.read_header(tmp_path / "none.safetensors", VAEConfig)
    tensors = safetensors.numpy.load_file(path)
    del tensors["quant/bias"]
    with safetensors.safe_open(path, framework="numpy") as file:
        safetensors.numpy.save_file(tensors, tmp_path / "less.safetensors", file.metadata())
    with pytest.raises(
        UserError, match=r"less.safetensors: quant/bias is missing; expected the arrays of this version"
    ):
        converted.read(tmp_path / "less.safetensors", VAEConfig)
    truncate(path)
    for read in (converted.read, converted.read_header):
        with pytest.raises(UserError, match=r"vae.safetensors: cannot be read as safetensors .* truncated"):
            read(path, VAEConfig)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "nothing to convert; give one of --source, --hub, --export, --workdir"),
        (["--source=a"], "--source needs --output"),
        (["--export=a"], "--export needs --workdir"),
        (["--export=a", "--workdir=b", "--dtype=bfloat16"], "--export does not go with --dtype"),
        (["--source=a", "--hub=b", "--output=c"], "--source does not go with --hub"),
        (["--source=a", "--output=b", "--metrics=c"], "--source does not go with --metrics; it takes dtype, output"),
        (["--source=a", "--output=b", "--preset=pixart_sigma"], "--source a: a file needs --preset"),
    ],
)
def test_flags_of_different_uses_do_not_mix(flags, message, capsys):
    assert run_command("convert", *flags) == 2
    assert message in capsys.readouterr().err


# From the Hub


def test_of_a_repository_only_what_is_converted_is_fetched(pipeline, tmp_path, monkeypatch):
    fetched = []
    repository = {
        f"transformer/{WEIGHTS}": True,
        "transformer/diffusion_pytorch_model.fp16.safetensors": False,
        "transformer/config.json": True,
        "text_encoder/model-00001-of-00002.safetensors": True,
        "text_encoder/model.safetensors.index.json": True,
        "text_encoder/pytorch_model.bin": False,
        "tokenizer/spiece.model": True,
        "scheduler/scheduler_config.json": False,
        "README.md": False,
    }

    def fetch(name, allow_patterns, ignore_patterns):
        assert name == "owner/name"
        fetched.extend(filter_repo_objects(repository, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns))
        return str(pipeline)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert run_command("convert", "--hub=owner/name", f"--output={tmp_path / 'out'}") == 0
    assert fetched == [name for name, wanted in repository.items() if wanted]
    facts = exported.read(tmp_path / "out" / "transformer.safetensors").facts
    assert facts["command"] == "python -m realiz3d_jax.convert --hub owner/name"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (hub_errors.GatedRepoError, r"you have not accepted its licence, .* https://huggingface.co/owner/name"),
        (hub_errors.RepositoryNotFoundError, r"the Hub has no such repository. Fix the name"),
        (hub_errors.LocalEntryNotFoundError, r"cannot be fetched \(LocalEntryNotFoundError: refused\).*--source"),
        (ConnectionError, r"cannot be fetched \(ConnectionError: refused\).*--source"),
    ],
)
def test_a_repository_that_cannot_be_fetched_is_one_message(tmp_path, monkeypatch, capsys, kind, message):
    error = kind.__new__(kind)
    error.args = ("refused",)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **b: (_ for _ in ()).throw(error))
    assert run_command("convert", "--hub=owner/name", f"--output={tmp_path / 'out'}") == 2
    with pytest.raises(UserError, match=rf"owner/name: {message}"):
        raise UserError(capsys.readouterr().err)
    assert names(tmp_path) == []


def test_what_is_no_name_of_a_repository_is_refused_without_a_network(tmp_path, capsys):
    assert run_command("convert", "--hub=a/b/c", f"--output={tmp_path / 'out'}") == 2
    assert "a/b/c: the Hub has no such repository" in capsys.readouterr().err
