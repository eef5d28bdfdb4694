"""Converts models: imports other projects' weights, exports a run to one file, exports a backbone to diffusers.

    python -m realiz3d_jax.convert --source DIR --output DIR      imports a pipeline's folder (Hugging Face layout) or a .pth
    python -m realiz3d_jax.convert --hub OWNER/NAME --output DIR  downloads it first; several repositories complete one another
    python -m realiz3d_jax.convert --workdir RUN --output FILE    exports what sampling needs of a run, and how it was made
    python -m realiz3d_jax.convert --workdir RUN --export DIR     exports the trained backbone for diffusers

The first two write those of ``transformer.safetensors`` (an exported checkpoint, see ``checkpoints.exported``),
``vae.safetensors``, ``text_encoder.safetensors`` (see ``checkpoints.converted``) and ``tokenizer/`` that the source has. At
most one model and one tensor are in memory at a time.
"""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import rich.console
import rich.table
from absl import flags

from realiz3d_jax import errors, files, startup
from realiz3d_jax.checkpoints import bases, converted, exported, workdirs
from realiz3d_jax.checkpoints.exported import read_on_host
from realiz3d_jax.checkpoints.importers import huggingface
from realiz3d_jax.config.build import make_model
from realiz3d_jax.config.schema import InitConfig, TrainConfig
from realiz3d_jax.data.config import DataConfig
from realiz3d_jax.diffusion.process import process_class
from realiz3d_jax.errors import UserError
from realiz3d_jax.metrics.stored import read_metrics
from realiz3d_jax.models import control
from realiz3d_jax.models.presets import PIXART
from realiz3d_jax.models.t5 import T5Config
from realiz3d_jax.models.tokenizer import Tokenizer
from realiz3d_jax.sampling.pretrained import open_model

FLAGS = flags.FlagValues()
_SOURCE = flags.DEFINE_multi_string(
    "source",
    None,
    "Pipeline folder in the Hugging Face layout, or PixArt's original .pth. May be repeated; each part is taken from the "
    "first folder that has it.",
    flag_values=FLAGS,
)
_HUB = flags.DEFINE_multi_string(
    "hub", None, "Like --source, as a repository of the Hugging Face Hub: OWNER/NAME.", flag_values=FLAGS
)
_PRESET = flags.DEFINE_enum(
    "preset", None, list(PIXART), "Transformer in --source, if --source is a file.", flag_values=FLAGS
)
_DTYPE = flags.DEFINE_enum(
    "dtype",
    None,
    list(huggingface.DTYPES),
    "Dtype of the converted parameters; by default float32, and bfloat16 for the text encoder, which is never trained.",
    flag_values=FLAGS,
)
_VERIFY = flags.DEFINE_bool("verify", False, "Read the converted files again and compare checksums.", flag_values=FLAGS)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Run of realiz3d_jax.train; for --export, also an exported checkpoint.", flag_values=FLAGS
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "The .safetensors file to write for --workdir, or the folder for --source or --hub.",
    flag_values=FLAGS,
)
_EXPORT = flags.DEFINE_string(
    "export", None, "Folder to write for diffusers: config.json and weights.", flag_values=FLAGS
)
_METRICS = flags.DEFINE_string(
    "metrics",
    None,
    "The metrics.json of realiz3d_jax.evaluate for samples of the run, stored in the exported checkpoint.",
    flag_values=FLAGS,
)
_COMMAND = flags.DEFINE_string(
    "command", "", "Command that trained the run, stored in the exported checkpoint.", flag_values=FLAGS
)

_USES: dict[str, tuple[set[str], set[str]]] = {
    "source": ({"output"}, {"preset", "dtype", "verify"}),
    "hub": ({"output"}, {"dtype", "verify"}),
    "export": ({"workdir"}, set()),
    "workdir": ({"output"}, {"metrics", "command"}),
}
"""Required and optional flags of each use of the command, by the flag that selects the use."""


def main(argv: list[str]) -> None:
    """Runs the command."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; everything is given as --flag=value.")
    use = _find_use()
    startup.start()
    if use == "workdir":
        _write_exported(pathlib.Path(_WORKDIR.value), pathlib.Path(_OUTPUT.value))
    elif use == "export":
        _export(pathlib.Path(_WORKDIR.value), pathlib.Path(_EXPORT.value))
    elif use == "hub":
        command = " ".join([converted.COMMAND, *(f"--hub {name}" for name in _HUB.value)])
        _convert([huggingface.download(name) for name in _HUB.value], pathlib.Path(_OUTPUT.value), command)
    else:
        sources = [pathlib.Path(name) for name in _SOURCE.value]
        command = " ".join([converted.COMMAND, *(f"--source {source.name}" for source in sources)])
        _convert(sources, pathlib.Path(_OUTPUT.value), command)


def _find_use() -> str:
    known = {name for use, (needed, possible) in _USES.items() for name in {use} | needed | possible}
    given = {name for name in known if FLAGS[name].present}
    use = next((use for use in _USES if use in given), None)
    if use is None:
        raise UserError(f"nothing to convert; give one of {', '.join(f'--{use}' for use in _USES)}.")
    needed, possible = _USES[use]
    if missing := sorted(needed - given):
        raise UserError(f"--{use} needs --{missing[0]}.")
    if surplus := sorted(given - needed - possible - {use}):
        raise UserError(f"--{use} does not go with --{surplus[0]}; it takes {', '.join(sorted(needed | possible))}.")
    return use


# From other projects


def _convert(sources: list[pathlib.Path], output: pathlib.Path, command: str) -> None:
    """Converts a pipeline atomically."""
    if any(source.is_file() == (_PRESET.value is None) for source in sources[:1]):
        raise UserError(
            f"--source {sources[0]}: a file needs --preset to say which model it is, and a folder says so itself."
        )
    parts: dict[str, Any] = {}
    places: dict[str, pathlib.Path] = {}
    for source in sources:
        found = {"transformer": PIXART[_PRESET.value]} if source.is_file() else huggingface.find_parts(source)
        for part in [part for part in found if part not in parts]:
            parts[part], places[part] = found[part], source if source.is_file() else source / part
    if "text_encoder" in places:
        tokenizer = Tokenizer(places["text_encoder"].parent / huggingface.TOKENIZER)
        tokenizer.check_fits(parts["text_encoder"].vocabulary)
    replaced = converted.is_replaceable(output)
    files.writable_directory(output.parent)
    table = rich.table.Table(title=str(output))
    for name in ("part", "model", "tensors", "parameters", "dtype", "bytes", "SHA-256"):
        table.add_column(name, justify="left" if name in ("part", "model", "SHA-256") else "right", overflow="fold")
    with files.new_directory(output) as new:
        for part, config in parts.items():
            row = _convert_part(places[part], config, new / f"{part}.safetensors", output, command, parts)
            if _VERIFY.value:
                _verify(new / f"{part}.safetensors", config, row[-1])
            table.add_row(part, *row)
        if "text_encoder" in places:
            huggingface.copy_tokenizer(places["text_encoder"].parent, new, output)
    rich.console.Console(width=None if sys.stdout.isatty() else 160).print(table)
    print(f"{output}: {'replaced an earlier conversion' if replaced else 'made'}" + _VERIFY.value * ", verified")


def _convert_part(
    source: pathlib.Path,
    config: Any,
    path: pathlib.Path,
    output: pathlib.Path,
    command: str,
    parts: Mapping[str, Any],
) -> tuple[str, ...]:
    """Converts one of ``parts`` to ``path``, whose final folder is ``output``; returns its row of the table."""
    dtype = _DTYPE.value or ("bfloat16" if isinstance(config, T5Config) else "float32")
    if isinstance(config, T5Config):
        config = dataclasses.replace(config, dtype=dtype)  # it computes in the dtype in which it is stored
    imported = huggingface.import_model(source, dtype, config)
    leaves, facts = jax.tree.leaves(imported.params), {"command": command, **imported.facts}
    with files.writing(output / path.name, sum(leaf.nbytes for leaf in leaves)):
        if _is_exported(path):
            params = {"backbone": imported.params}
            exported.write(path, exported.ExportedCheckpoint(params, _base_config(parts, output), facts))
        else:
            converted.write(path, config, imported.params, facts)
    kind = huggingface.IMPORTERS[type(config)].CLASSES[0]
    numbers = (f"{len(leaves):,}", f"{facts['parameters']:,}", dtype, f"{path.stat().st_size:,}")
    return kind, *numbers, facts["parameters_sha256"]


def _verify(path: pathlib.Path, config: Any, expected: str) -> None:
    """Reads a converted file again and compares its checksum, after the source has left memory."""
    found = converted.checksum_on_disk(path, config, "backbone/" if _is_exported(path) else "")
    if found != expected:
        raise UserError(
            f"{path.name}: the file has SHA-256 {found}; expected {expected}, as in the source. "
            "The disk or the memory is faulty; convert again, elsewhere."
        )


def _is_exported(path: pathlib.Path) -> bool:
    return path.stem == "transformer"


def _base_config(parts: Mapping[str, Any], output: pathlib.Path) -> TrainConfig:
    """Returns the config stored with a converted transformer: that of a base model from which a stage can start."""
    model, autoencoder = parts["transformer"], parts.get("vae")
    if autoencoder is None:
        autoencoder = bases.autoencoder_of(_PRESET.value or "pixart_sigma")
    model = dataclasses.replace(model, dtype="bfloat16", remat="attention")  # training settings; parameters are float32
    process = process_class(huggingface.IMPORTERS[type(model)].PROCESS)()
    base = bases.published(model, autoencoder, str(output), diffusion=process)
    return TrainConfig(
        **base.settings(),
        stage="pretrain",
        workdir=base.runs,
        steps=1,
        method={"name": "pretraining"},
        init=InitConfig(),
    )


# To diffusers


def _export(source: pathlib.Path, output: pathlib.Path) -> None:
    """Writes the backbone of a run or an exported checkpoint as diffusers' files, with the method's additions beside it.

    ``huggingface.export_transformer`` documents the files.
    """
    replaced = converted.is_replaceable(output, exported=True)
    config, params = read_on_host(source)
    model, extras = make_model(config), {}
    kernel = params["control"]["kernel"] if "control" in params and config.task == "texture" else None
    if "control" in params and kernel is None:
        extras["views"] = np.asarray(control.apply(config.task, config.model, params["control"], None)[0, :, 0])
    if (shifts := model.method.shifts(params)) is not None:
        extras["shifts"] = np.asarray(shifts)
    files.writable_directory(output.parent)
    facts = {"command": f"{converted.COMMAND} --export", "stage": config.stage, "task": config.task}
    huggingface.export_transformer(
        output, config.model, params["backbone"], control_kernel=kernel, extras=extras, facts=facts
    )
    print(
        f"{output}: {'replaced' if replaced else 'made'}, {', '.join(sorted(path.name for path in output.iterdir()))}"
    )


# To one file


def _write_exported(workdir: pathlib.Path, output: pathlib.Path) -> None:
    """Writes an exported checkpoint: the partitions for sampling (averaged where trained), the config and the facts."""
    model = open_model(workdir)
    facts = {
        "command": _COMMAND.value or f"python -m realiz3d_jax.train, stage {model.config.stage}",
        "seed": model.config.seed,
        "step": workdirs.latest_step(workdir),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(model.params)),
        "parameters_sha256": model.checksum,
        "last_metrics": _last_metrics(workdir),
    }
    if _METRICS.value:
        rows = read_metrics(_METRICS.value).rows
        facts["figures"] = {row: {k: v for k, v in metrics.items() if k != "items"} for row, metrics in rows.items()}
    files.writable_directory(output.parent)
    data = dataclasses.replace(model.config.data, directory=DataConfig().directory)
    config = dataclasses.replace(model.config, init=InitConfig(), data=data)  # no paths of the machine that trained it
    exported.write(output, exported.ExportedCheckpoint(jax.device_get(model.params), config, facts))
    print(
        f"{output}: {facts['parameters']:,} parameters after {facts['step']} steps, {output.stat().st_size / 1e6:.1f} MB"
    )


def _last_metrics(workdir: pathlib.Path) -> dict[str, float]:
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return json.loads(lines[-1]) if lines else {}


if __name__ == "__main__":
    errors.run(main, FLAGS)
