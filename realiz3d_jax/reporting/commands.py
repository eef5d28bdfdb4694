"""The commands that reproduce a report's contents, as far as configs and items record them."""

import dataclasses
import importlib.util
import pathlib
import shlex
from collections.abc import Sequence
from typing import Any

from realiz3d_jax.config.schema import TrainConfig, from_config_dict
from realiz3d_jax.data.records import Records
from realiz3d_jax.metrics.stored import StoredMetrics
from realiz3d_jax.reporting.inputs import Samples, TrainingRun

_CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
_INERT = {"workdir", "init.command"}
"""Settings that do not affect what a run computes; the workdir has its own flag."""


def train_command(run: TrainingRun) -> str | None:
    """Returns the command that trains ``run``: the config file of its stage and method, and all settings that differ.

    Returns None if no config file has exactly the run's settings.
    """
    wanted = _flatten(dataclasses.asdict(run.config))
    candidates = []
    for path in sorted(_CONFIGS.glob("*.py")):
        settings = _flatten(dataclasses.asdict(_load(path)))
        same = all(settings.get(key) == wanted.get(key) for key in ("stage", "method.name"))
        if same and set(settings) == set(wanted):
            changed = {key: value for key, value in wanted.items() if value != settings[key] and key not in _INERT}
            candidates.append((len(changed), path.name, changed))
    if not candidates:
        return None
    _, name, changed = min(candidates, key=lambda candidate: candidate[:2])
    words = ["python", "-m", "realiz3d_jax.train", "--config", f"configs/{name}", "--workdir", str(run.path)]
    return shlex.join(words + [f"--config.{key}={value}" for key, value in changed.items()])


def sample_command(samples: Samples, split: Records | None, split_name: str, data: str) -> str | None:
    """Returns the command that draws ``samples`` if they are the first objects of the benchmark's split, otherwise None.

    Args:
      samples: the sampled folder.
      split: records of the benchmark's split, or None.
      split_name: name of the split.
      data: folder of the datasets.
    """
    shared = {key: samples.common(key) for key in ("task", "sampling", "batch")}
    source, domains = samples.common("model", "source"), {item.domain for item in samples.items.values()}
    if split is None or None in (*shared.values(), source) or len(domains) > 1:
        return None
    first = [split[index]["uid"] for index in range(min(len(samples.items), len(split)))]
    if set(first) != set(samples.items):
        return None
    seeds = [samples.items[uid].description["seed"] for uid in first]
    if seeds != list(range(seeds[0], seeds[0] + len(first))):
        return None
    words = ["python", "-m", "realiz3d_jax.sample", "--task", shared["task"].replace("_", "-"), "--workdir", source]
    words += ["--split", split_name, *(["--domain", samples.domain] if samples.domain else [])]
    words += ["--seed", str(seeds[0]), *_data_flag(data)]
    words += ["--limit", str(len(first))] if len(first) < len(split) else []
    for name, value in {**shared["sampling"], "batch": shared["batch"]}.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join([*words, "--output", str(samples.path)])


def report_command(
    metrics: StoredMetrics, folders: Sequence[Samples], runs: Sequence[TrainingRun], options: Sequence[str], data: str
) -> str:
    """Returns the command that writes the report; ``options`` are appended to it."""
    words = ["python", "-m", "realiz3d_jax.report", "--metrics", str(metrics.path)]
    for folder in folders:
        words += ["--samples", str(folder.path)]
    for run in runs:
        words += ["--runs", str(run.path)]
    return shlex.join([*words, *_data_flag(data), *options])


def _data_flag(data: str) -> list[str]:
    return [] if data == "datasets" else ["--data", data]


def _load(path: pathlib.Path) -> TrainConfig:
    """Loads the config that a config file returns without arguments."""
    specification = importlib.util.spec_from_file_location(f"realiz3d_jax_config_{path.stem}", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return from_config_dict(module.get_config())


def _flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens nested dictionaries: ``{"a": {"b": 1}}`` becomes ``{"a.b": 1}``."""
    flat = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
