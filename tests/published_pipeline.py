"""A pipeline of small random models in the Hugging Face layout, and the command that converts it."""

import contextlib
import pathlib
import resource

import pixart_reference
from autoencoder_reference import SMALL as VAE
from autoencoder_reference import make_reference as make_autoencoder
from pixart_reference import SMALL as CONFIG
from transformers import T5Config as TheirT5Config
from transformers import T5EncoderModel
from worlds import run_command, write_tokenizer

from realiz3d_jax.models.vae import VAEConfig


def write_pipeline(folder: pathlib.Path, vocabulary: int = 160, autoencoder: VAEConfig = VAE) -> pathlib.Path:
    """Writes the pipeline as it would be downloaded, and returns ``folder``."""
    pixart_reference.make_reference(CONFIG, seed=0).save_pretrained(folder / "transformer")
    make_autoencoder(autoencoder).save_pretrained(folder / "vae")
    sizes = {"d_model": 20, "d_kv": 4, "d_ff": 12, "num_layers": 2, "num_heads": 2, "vocab_size": vocabulary}
    T5EncoderModel(TheirT5Config(**sizes, feed_forward_proj="gated-gelu")).save_pretrained(folder / "text_encoder")
    write_tokenizer(folder / "tokenizer")
    return folder


def convert(source: pathlib.Path, output: pathlib.Path, *flags: str) -> int:
    """Runs ``convert`` from a folder to a folder, and returns its exit status."""
    return run_command("convert", f"--source={source}", f"--output={output}", *flags)


def export(source: pathlib.Path, output: pathlib.Path) -> int:
    """Runs ``convert`` from a checkpoint to a folder for diffusers, and returns its exit status."""
    return run_command("convert", f"--workdir={source}", f"--export={output}")


@contextlib.contextmanager
def largest_file(size: int):
    """No file may grow beyond ``size`` bytes, as on a disk that is full then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def names(folder: pathlib.Path) -> list[str]:
    """The names in a folder, in order."""
    return sorted(path.name for path in folder.iterdir())
