"""Imports models in the Hugging Face layout (a folder with ``config.json`` and weights), and exports transformers to it.

Weights are read and converted tensor by tensor. A new kind of model needs one module beside this one and one line in
``IMPORTERS``.
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
"""Importers by our config class."""

DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
WEIGHTS = "diffusion_pytorch_model.safetensors"
"""File name of a model's weights in diffusers."""
SHIFTS = "domain_shifts.safetensors"
"""File beside ``WEIGHTS`` for a model with domains or viewpoints, see ``export_transformer``."""

KINDS: dict[str, tuple[type, ...]] = {
    "transformer": (DiTConfig, MMDiTConfig),
    "vae": (VAEConfig,),
    "text_encoder": (T5Config,),
}
"""Config classes of the models that each folder of a pipeline may hold."""
TOKENIZER = "tokenizer"
_TOKENIZER_FILES = ("tokenizer.json", "spiece.model")
"""Each of these files is a complete T5 tokenizer."""


@dataclasses.dataclass(frozen=True)
class Imported:
    """An imported model, in host memory.

    Attributes:
      config: config of our model.
      params: parameters, with the structure that the model's ``init`` returns.
      facts: source, number of parameters, SHA-256 of the parameters.
    """

    config: Any
    params: mapping.Params
    facts: dict[str, Any]


def import_model(source: str | os.PathLike[str], dtype: str, config: Any = None) -> Imported:
    """Reads a model.

    Args:
      source: folder of the model, or a checkpoint file.
      dtype: dtype of the parameters, a key of ``DTYPES``.
      config: our config, required for a single file; by default that of the folder's ``config.json``.

    Raises:
      UserError: the model is missing, damaged, or does not match the config.
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
    """Returns the SHA-256 of all parameters, in the order of their paths."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        digest.update(tensor_files.as_bytes(leaf))
    return digest.hexdigest()


def find_parts(source: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns our configs of the models in a pipeline's folder, by ``KINDS``; only their ``config.json`` files are read.

    Raises:
      UserError: there is no model, one is of another kind, or a text encoder lacks its tokenizer.
    """
    source = pathlib.Path(source)
    if (source / "config.json").is_file() and not (source / "model_index.json").is_file():
        raise UserError(
            f"{source}: is the folder of a single model; expected the folder of a pipeline, which contains it. If this folder "
            f"is called {' or '.join(KINDS)}, pass its parent; otherwise move it into a folder under one of these names."
        )
    configs = {part: read_config(source / part) for part in KINDS if (source / part).is_dir()}
    if not configs:
        found = ", ".join(sorted(path.name for path in source.iterdir())) if source.is_dir() else "no such folder"
        raise UserError(
            f"{source}: found {found or 'nothing'}; expected the folder of a pipeline, with one or more of {', '.join(KINDS)}."
        )
    for part, config in configs.items():
        if not isinstance(config, KINDS[part]):
            classes = ", ".join(IMPORTERS[kind].CLASSES[0] for kind in KINDS[part])
            raise UserError(
                f"{source / part / 'config.json'}: describes a {IMPORTERS[type(config)].CLASSES[0]}; expected {classes}. "
                "Is it the folder of another part?"
            )
    tokenizer = source / TOKENIZER
    if "text_encoder" in configs and not any((tokenizer / name).is_file() for name in _TOKENIZER_FILES):
        raise UserError(
            f"{tokenizer}: found no tokenizer; expected {' or '.join(_TOKENIZER_FILES)}, which the text encoder requires. "
            "Fetch that folder of the same repository, too."
        )
    return configs


def copy_tokenizer(source: pathlib.Path, new: pathlib.Path, output: pathlib.Path) -> None:
    """Copies the tokenizer files of a pipeline into the folder ``new``; errors name it ``output``."""
    found = [file for file in (source / TOKENIZER).iterdir() if file.is_file()]
    with files.writing(output / TOKENIZER, sum(file.stat().st_size for file in found)):
        (new / TOKENIZER).mkdir()
        for file in found:
            shutil.copyfile(file, new / TOKENIZER / file.name)


def download(repository: str) -> pathlib.Path:
    """Downloads the files that ``find_parts`` reads from a Hugging Face Hub repository into ``huggingface_hub``'s cache.

    Args:
      repository: name of the repository, OWNER/NAME.

    Returns:
      the downloaded folder.

    Raises:
      UserError: there is no network or no such repository, or its licence has not been accepted.
    """
    wanted = [f"{part}/{kind}" for part in KINDS for kind in ("*.json", "*.safetensors")] + [f"{TOKENIZER}/*"]
    try:
        return pathlib.Path(
            huggingface_hub.snapshot_download(
                repository, allow_patterns=wanted, ignore_patterns=["*.fp16.*", "*.non_ema.*"]
            )
        )
    except hub_errors.GatedRepoError as error:
        fix = f"Accept its licence at https://huggingface.co/{repository}, run 'hf auth login' and try again."
        reason, cause = "you have not accepted its licence, or are not logged in", error
    except (hub_errors.RepositoryNotFoundError, hub_errors.HFValidationError) as error:
        fix = "Fix the name (OWNER/NAME), or run 'hf auth login' if the repository is private."
        reason, cause = "the Hub has no such repository", error
    except Exception as error:  # network, disk and server errors of many types
        fix = "Try again, or fetch it where there is a network and pass its folder as --source."
        reason, cause = f"cannot be fetched ({type(error).__name__}: {textwrap.shorten(str(error), 160)})", error
    raise UserError(f"{repository}: {reason}. {fix}") from cause


def export_transformer(
    output: str | os.PathLike[str],
    config: Any,
    params: mapping.Params,
    *,
    control_kernel: np.ndarray | None = None,
    extras: Mapping[str, np.ndarray] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> pathlib.Path:
    """Writes a trained transformer as a folder that diffusers can load: ``config.json`` and ``WEIGHTS``.

    Args:
      output: folder to write; it appears atomically.
      config: config whose importer defines ``json_of`` and ``constants``.
      params: parameters of the transformer.
      control_kernel: float[e p p, D], kernel of control maps of e channels ("texture" in ``models.control``). The patch
        convolution is then written with ``in_channels`` = C + e, for noisy latents and encoded maps, concatenated.
      extras: arrays written beside the weights as ``SHIFTS``. ``shifts`` float32[2, L, D] are added to all (image) tokens
        before each block, for the synthetic and the real domain; ``views`` float32[4, D] are added to the embedded patches of
        the four viewpoints.
      facts: JSON values stored in the metadata of the files.

    Returns:
      the folder.

    Raises:
      UserError: the folder cannot be written.
    """
    importer, output = IMPORTERS[type(config)], pathlib.Path(output)
    values = importer.json_of(config)
    if control_kernel is not None:
        patch = params["patch_embedding"]
        values["in_channels"] += control_kernel.shape[0] // config.patch_size**2
        # Input channels are the outermost axis of the kernel's rows, so appended rows are further channels.
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
    """Returns our config of the model in a folder, from its ``config.json``.

    Raises:
      UserError: the file is missing, damaged, or describes an unsupported model.
    """
    path = pathlib.Path(folder) / "config.json"
    try:
        values: Mapping[str, Any] = json.loads(path.read_text())
        found = values.get("_class_name") or (values.get("architectures") or ["nothing"])[0]
        importers = [importer for importer in IMPORTERS.values() if found in importer.CLASSES]
        if not importers:
            known = ", ".join(importer.CLASSES[0] for importer in IMPORTERS.values())
            raise UserError(f"{path}: describes a {found}; expected one of {known}.")
        return importers[0].config_of(values)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); expected the folder of a model in the Hugging Face layout."
        ) from error
    except KeyError as error:
        raise UserError(f"{path}: has no {error}; it is damaged or describes another model. Fetch it again.") from error
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path}: {error}.") from error
