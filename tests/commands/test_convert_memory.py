"""Conversions and exports hold the model that they make, and little else."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy
from pixart_reference import SMALL as CONFIG
from published_pipeline import convert
from worlds import REPOSITORY

from realiz3d_jax.checkpoints.importers import huggingface
from realiz3d_jax.models import dit

WEIGHTS = huggingface.WEIGHTS
MADE = ["text_encoder.safetensors", "tokenizer", "transformer.safetensors", "vae.safetensors"]


SLACK = 8e6


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> pathlib.Path:
    """Pipelines of one transformer: "large" of 211 MB of float32, and "small"."""
    folder = tmp_path_factory.mktemp("large")
    base = dataclasses.replace(CONFIG, width=512, heads=8, depth=12, caption_channels=64, sample_size=32, base_size=16)
    for name, config in (("large", base), ("small", dataclasses.replace(base, width=64, depth=1))):
        shapes = jax.eval_shape(lambda config=config: dit.init(config, jax.random.key(0)))
        random = np.random.default_rng(0)
        params = jax.tree.map(lambda leaf, random=random: random.random(leaf.shape, np.float32), shapes)
        huggingface.export_transformer(folder / name / "transformer", config, params)
    return folder


def added(*flags: str, small: tuple[str, ...]) -> float:
    """Bytes of anonymous memory that a conversion adds at its peak, in a process of its own."""
    script = REPOSITORY / "tests" / "anonymous_memory.py"
    command = [sys.executable, script, "convert", *small, "--", *flags]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    found = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    figures = json.loads(found.stdout)
    return figures["peak"] - figures["baseline"]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone says how much memory is anonymous")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_conversion_holds_the_model_that_it_makes_and_one_tensor(large, tmp_path, dtype):
    def flags(size: str) -> tuple[str, ...]:
        return f"--source={large / size}", f"--output={tmp_path / size}", f"--dtype={dtype}", "--verify"

    most = added(*flags("large"), small=flags("small"))
    model = (tmp_path / "large" / "transformer.safetensors").stat().st_size
    largest = max(tensor.nbytes for tensor in load_weights(large / "large" / "transformer").values())
    print(f"{dtype}: model {model / 1e6:.1f} MB, peak {most / 1e6:.1f} MB, largest tensor {largest / 1e6:.1f} MB")
    assert 0.9 * model < most < model + largest + SLACK


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone says how much memory is anonymous")
def test_an_export_holds_the_model_and_one_tensor(large, tmp_path):
    for size in ("large", "small"):
        assert convert(large / size, tmp_path / size) == 0

    def flags(size: str) -> tuple[str, ...]:
        return f"--workdir={tmp_path / size / 'transformer.safetensors'}", f"--export={tmp_path / f'{size}_out'}"

    most = added(*flags("large"), small=flags("small"))
    model = (tmp_path / "large" / "transformer.safetensors").stat().st_size
    largest = max(tensor.nbytes for tensor in load_weights(tmp_path / "large_out").values())
    assert 0.9 * model < most < model + largest + SLACK
    print(f"export: model {model / 1e6:.1f} MB, peak {most / 1e6:.1f} MB, largest tensor {largest / 1e6:.1f} MB")


def load_weights(folder: pathlib.Path) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(folder / WEIGHTS)
