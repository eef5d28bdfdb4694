"""Models in the Hugging Face layout (a folder with ``config.json`` and weights) become ours, and a transformer goes back.

Weights are read and turned tensor by tensor. A new kind of model is one file beside this one and one line in ``IMPORTERS``.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import textwrap
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import huggingface_hub
import huggingface_hub.errors as hub_errors
import jax
import ml_dtypes
import numpy as np

from realiz3d_jax import files
from realiz3d_jax.checkpoints.importers import autoencoder_kl, mapping, pixart, sd3, t5, tensor_files
from realiz3d_jax.errors import UserError
from realiz3d_jax.models.dit import DiTConfig
from realiz3d_jax.models.mmdit import MMDiTConfig
from realiz3d_jax.models.t5 import T5Config
from realiz3d_jax.models.vae import VAEConfig

IMPORTERS: dict[type, ModuleType] = {DiTConfig: pixart, MMDiTConfig: sd3, VAEConfig: autoencoder_kl, T5Config: t5}
"""Our config's class -> the importer of that kind of model."""

DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
WEIGHTS = "diffusion_pytorch_model.safetensors"
"""What diffusers calls the file of a model."""
SHIFTS = "domain_shifts.safetensors"
"""What lies beside it if a model has domains or viewpoints, see ``export_transformer``."""

KINDS: dict[str, tuple[type, ...]] = {
    "transformer": (DiTConfig, MMDiTConfig),
    "vae": (VAEConfig,),
    "text_encoder": (T5Config,),
}
"""Folder of a pipeline -> our config's class of the models that it may hold."""
TOKENIZER = "tokenizer"
_TOKENIZER_FILES = ("tokenizer.json", "spiece.model")
"""Either is a whole T5 tokenizer."""


@dataclasses.dataclass(frozen=True)
class Imported:
    """A model on the host.

    Attributes:
      config: of our model.
      params: as the model's ``init`` makes them.
      facts: source, number of parameters, SHA-256 of the numbers.
    """

    config: Any
    params: mapping.Params
    facts: dict[str, Any]


def import_model(source: str | os.PathLike[str], dtype: str, config: Any = None) -> Imported:
    """Reads a model.

    Args:
      source: its folder, or a checkpoint file.
      dtype: one of ``DTYPES``.
      config: our config, which a file alone does not tell; by default that of the folder's ``config.json``.

    Raises:
      UserError: it is missing, damaged, or of another model.
    """
    config = config or read_config(source)
    importer = IMPORTERS[type(config)]
    like = jax.eval_shape(lambda: importer.init(config, jax.random.key(0)))
    with tensor_files.open_checkpoint(source) as tensors:
        table = importer.rules(config, tensors.shapes)
        params = mapping.import_params(
            str(tensors.path), table, like, tensors.shapes, tensors.read, DTYPES[dtype], importer.IGNORED
        )
        facts = {"source": tensors.path.name, "parameters": sum(leaf.size for leaf in jax.tree.leaves(params))}
    return Imported(config, params, {**facts, "parameters_sha256": checksum(params)})


def checksum(params: mapping.Params) -> str:
    """SHA-256 of all numbers, in the order of their paths."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        digest.update(tensor_files.as_bytes(leaf))
    return digest.hexdigest()


def find_parts(source: str | os.PathLike[str]) -> dict[str, Any]:
    """Our configs of the models in a pipeline's folder, by ``KINDS``; nothing but their ``config.json`` is read.

    Raises:
      UserError: there is none, one is of another kind of model, or a text encoder lacks its tokenizer.
    """
    source = pathlib.Path(source)
    if (source / "config.json").is_file() and not (source / "model_index.json").is_file():
        raise UserError(
            f"{source}: is the folder of one model; expected that of a pipeline, with the model's in it. If this one is "
            f"{' or '.join(KINDS)}, name the folder that it lies in; else put it into a folder under that name."
        )
    configs = {part: read_config(source / part) for part in KINDS if (source / part).is_dir()}
    if not configs:
        found = ", ".join(sorted(path.name for path in source.iterdir())) if source.is_dir() else "no such folder"
        raise UserError(
            f"{source}: found {found or 'nothing'}; expected the folder of a pipeline, with {', '.join(KINDS)} or some of them."
        )
    for part, config in configs.items():
        if not isinstance(config, KINDS[part]):
            classes = ", ".join(IMPORTERS[kind].CLASSES[0] for kind in KINDS[part])
            raise UserError(
                f"{source / part / 'config.json'}: is of a {IMPORTERS[type(config)].CLASSES[0]}; expected {classes}. "
                "Is it another part's folder?"
            )
    tokenizer = source / TOKENIZER
    if "text_encoder" in configs and not any((tokenizer / name).is_file() for name in _TOKENIZER_FILES):
        raise UserError(
            f"{tokenizer}: found no tokenizer; expected {' or '.join(_TOKENIZER_FILES)}, without which the text encoder beside "
            "it cannot be used. Fetch that folder of the same repository, too."
        )
    return configs


def copy_tokenizer(source: pathlib.Path, new: pathlib.Path, output: pathlib.Path) -> None:
    """Copies the tokenizer's files of a pipeline into the folder ``new``, which errors call ``output``."""
    found = [file for file in (source / TOKENIZER).iterdir() if file.is_file()]
    with files.writing(output / TOKENIZER, sum(file.stat().st_size for file in found)):
        (new / TOKENIZER).mkdir()
        for file in found:
            shutil.copyfile(file, new / TOKENIZER / file.name)


def download(repository: str) -> pathlib.Path:
    """Fetches what ``find_parts`` reads of a repository of the Hugging Face Hub into the cache of ``huggingface_hub``.

    Returns: the folder.
    Raises: UserError if there is no network or no such repository, or its licence has not been accepted.
    """
    wanted = [f"{part}/{kind}" for part in KINDS for kind in ("*.json", "*.safetensors")] + [f"{TOKENIZER}/*"]
    try:
        return pathlib.Path(
            huggingface_hub.snapshot_download(
                repository, allow_patterns=wanted, ignore_patterns=["*.fp16.*", "*.non_ema.*"]
            )
        )
    except hub_errors.GatedRepoError as error:
        mend = f"Accept its licence at https://huggingface.co/{repository}, run 'hf auth login' and try again."
        reason, cause = "its licence has not been accepted by you, or you are not logged in", error
    except (hub_errors.RepositoryNotFoundError, hub_errors.HFValidationError) as error:
        mend = "Mend the name (OWNER/NAME), or run 'hf auth login' if the repository is private."
        reason, cause = "the Hub has no such repository", error
    except Exception as error:  # of the network, the disk and the server, of many kinds
        mend = "Try again, or fetch it where there is a network and give its folder as --source."
        reason, cause = f"cannot be fetched ({type(error).__name__}: {textwrap.shorten(str(error), 160)})", error
    raise UserError(f"{repository}: {reason}. {mend}") from cause


def export_transformer(
    output: str | os.PathLike[str],
    config: Any,
    params: mapping.Params,
    *,
    control_kernel: np.ndarray | None = None,
    extras: Mapping[str, np.ndarray] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> pathlib.Path:
    """Writes a trained transformer as a folder that diffusers loads: ``config.json`` and ``WEIGHTS``.

    Args:
      config: of any importer with ``json_of`` and ``constants``.
      control_kernel: float[e p p, D], of control maps of e channels ("texture" in ``models.control``). The patch convolution
        is written for C + e input channels, which ``in_channels`` says: it takes noisy latents and encoded maps, concatenated.
      extras: written beside it as ``SHIFTS``. ``shifts`` float32[2, L, D] is what the domains, synthetic and real, add to
        all (image) tokens before each block; ``views`` float32[4, D] what the four viewpoints add to embedded patches.
      facts: into the metadata of the files.

    Returns: the folder, which appears in one step.
    Raises: UserError if it cannot be written.
    """
    importer, output = IMPORTERS[type(config)], pathlib.Path(output)
    values = importer.json_of(config)
    if control_kernel is not None:
        patch = params["patch_embedding"]
        values["in_channels"] += control_kernel.shape[0] // config.patch_size**2
        # Input channels are the outermost part of the kernel's rows, so more rows are more channels.
        kernel = np.concatenate([patch["kernel"], control_kernel])
        params = {**params, "patch_embedding": {**patch, "kernel": kernel}}
    tensors = mapping.export_params(importer.rules(config), params) | importer.constants(config)
    metadata = {"format": "pt", "facts": json.dumps(facts or {})}
    size = sum(tensor.nbytes for tensor in tensors.values())
    with files.new_directory(output) as new, files.writing(output / WEIGHTS, size):
        (new / "config.json").write_text(json.dumps(values, indent=2) + "\n")
        tensor_files.write_safetensors(new / WEIGHTS, tensors, metadata)
        if extras:
            tensor_files.write_safetensors(new / SHIFTS, extras, metadata)
    return output


def read_config(folder: str | os.PathLike[str]) -> Any:
    """Our config of the model in a folder, by its ``config.json``.

    Raises:
      UserError: it is missing, damaged, or of a model that is not imported.
    """
    path = pathlib.Path(folder) / "config.json"
    try:
        values: Mapping[str, Any] = json.loads(path.read_text())
        found = values.get("_class_name") or (values.get("architectures") or ["nothing"])[0]
        importers = [importer for importer in IMPORTERS.values() if found in importer.CLASSES]
        if not importers:
            known = ", ".join(importer.CLASSES[0] for importer in IMPORTERS.values())
            raise UserError(f"{path}: is of a {found}; expected one of {known}.")
        return importers[0].config_of(values)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); expected the folder of a model in the Hugging Face layout."
        ) from error
    except KeyError as error:
        raise UserError(f"{path}: has no {error}; it is of another model or damaged. Fetch it again.") from error
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path}: {error}.") from error
