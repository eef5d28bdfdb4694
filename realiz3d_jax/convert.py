"""Makes a release of a run: ``python -m realiz3d_jax.convert --workdir runs/stage2 --output model.safetensors``.

A release holds the partitions that sampling needs (averaged where they were trained), the run's config and how it was made.
"""

import dataclasses
import json
import pathlib

import jax
from absl import flags

from realiz3d_jax import errors, files
from realiz3d_jax.errors import UserError
from realiz3d_jax.reporting.inputs import read_figures
from realiz3d_jax.training import checkpoint, platform, release
from realiz3d_jax.training.config import DataConfig, InitConfig
from realiz3d_jax.training.pretrained import open_model

_WORKDIR = flags.DEFINE_string("workdir", None, "A run of realiz3d_jax.train.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "The .safetensors to write.", required=True)
_METRICS = flags.DEFINE_string(
    "metrics", None, "The metrics.json of realiz3d_jax.evaluate of samples of the run, for the release's facts."
)
_COMMAND = flags.DEFINE_string("command", "", "The command that made the run, for the release's facts.")


def main(argv: list[str]) -> None:
    """The command."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; everything is given as --flag=value.")
    platform.start()
    workdir, output = pathlib.Path(_WORKDIR.value), pathlib.Path(_OUTPUT.value)
    model = open_model(workdir)
    facts = {
        "command": _COMMAND.value or f"python -m realiz3d_jax.train, stage {model.config.stage}",
        "seed": model.config.seed,
        "step": checkpoint.latest_step(workdir),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(model.params)),
        "parameters_sha256": model.checksum,
        "last_metrics": _last_metrics(workdir),
    }
    if _METRICS.value:
        rows = read_figures(_METRICS.value).rows
        facts["figures"] = {row: {k: v for k, v in figures.items() if k != "items"} for row, figures in rows.items()}
    files.writable_directory(output.parent)
    data = dataclasses.replace(model.config.data, directory=DataConfig().directory)
    config = dataclasses.replace(model.config, init=InitConfig(), data=data)  # no paths of the machine that trained it
    release.write(output, release.Release(jax.device_get(model.params), config, facts))
    print(
        f"{output}: {facts['parameters']:,} parameters after {facts['step']} steps, {output.stat().st_size / 1e6:.1f} MB"
    )


def _last_metrics(workdir: pathlib.Path) -> dict[str, float]:
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return json.loads(lines[-1]) if lines else {}


if __name__ == "__main__":
    errors.run(main)
