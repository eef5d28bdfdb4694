"""Models in the Hugging Face layout (a folder with ``config.json`` and weights) become ours, and a transformer goes back.

Weights are read and turned tensor by tensor. A new kind of model is one file beside this one and one line in ``IMPORTERS``.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import jax
import ml_dtypes
import numpy as np
import safetensors.numpy

from realiz3d_jax import files
from realiz3d_jax.errors import UserError
from realiz3d_jax.importers import autoencoder_kl, checkpoints, mapping, pixart, sd3, t5
from realiz3d_jax.models.dit import DiTConfig
from realiz3d_jax.models.mmdit import MMDiTConfig
from realiz3d_jax.models.t5 import T5Config
from realiz3d_jax.models.vae import VAEConfig

IMPORTERS: dict[type, ModuleType] = {DiTConfig: pixart, MMDiTConfig: sd3, VAEConfig: autoencoder_kl, T5Config: t5}
"""Our config's class -> the importer of that kind of model."""

DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
WEIGHTS = "diffusion_pytorch_model.safetensors"
"""What diffusers calls the file of a model."""


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
    config = config or _config(pathlib.Path(source))
    importer = IMPORTERS[type(config)]
    like = jax.eval_shape(lambda: importer.init(config, jax.random.key(0)))
    with checkpoints.open_checkpoint(source) as tensors:
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
        digest.update(np.ascontiguousarray(leaf).view(np.uint8))
    return digest.hexdigest()


def export_transformer(output: str | os.PathLike[str], config: DiTConfig, params: mapping.Params) -> pathlib.Path:
    """Writes a trained transformer as a folder that diffusers loads; returns it."""
    with files.new_directory(output) as new:
        table = pixart.rules(config)
        tensors = dict(mapping.export_params(table, params))
        (new / "config.json").write_text(json.dumps(pixart.json_of(config), indent=2) + "\n")
        safetensors.numpy.save_file(tensors, new / WEIGHTS, {"format": "pt"})
    return pathlib.Path(output)


def _config(folder: pathlib.Path) -> Any:
    path = folder / "config.json"
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
