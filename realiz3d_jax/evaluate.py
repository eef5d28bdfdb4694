"""Evaluates samples: ``python -m realiz3d_jax.evaluate --samples out/real --samples out/synthetic --output out.json``.

Each ``--samples`` is a folder that ``realiz3d_jax.sample`` wrote, and becomes a column of the table and a row of the JSON
file. For items of the benchmark's split, the true renders of the same objects in both looks are added: the scores of a perfect
result of either look. Items are evaluated with the cameras they state; those of other cameras than the benchmark's are not
compared with its true renders. ``--train-classifier`` instead trains the classifier that scores realism.
"""

import itertools
import json
import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import rich.console
import rich.table
from absl import flags

from realiz3d_jax import errors, files, startup
from realiz3d_jax.checkpoints.exported import PRETRAINED
from realiz3d_jax.data import records
from realiz3d_jax.errors import UserError
from realiz3d_jax.metrics import domain_score, evaluation
from realiz3d_jax.metrics.evaluation import LINES
from realiz3d_jax.metrics.metric import Line
from realiz3d_jax.sampling import benchmark, items

FLAGS = flags.FlagValues()
_SAMPLES = flags.DEFINE_multi_string("samples", [], "Folder of sampled items; may be repeated.", flag_values=FLAGS)
_OUTPUT = flags.DEFINE_string("output", None, "The JSON file to write.", flag_values=FLAGS)
_DATA = flags.DEFINE_string("data", "datasets", "Dataset folder of realiz3d_jax.prepare.", flag_values=FLAGS)
_SPLIT = flags.DEFINE_enum(
    "split", "test", list(benchmark.SPLITS), "Split whose real renders are the true real images.", flag_values=FLAGS
)
_BASE_IMAGES = flags.DEFINE_string(
    "base-images",
    "shapes_generated",
    "Images of the base model: shapes_generated (its split of the same captions), a folder of sampled items or PNGs, or none.",
    flag_values=FLAGS,
)
_CLASSIFIER = flags.DEFINE_string(
    "classifier",
    str(PRETRAINED / "shapes_classifier.safetensors"),
    "The domain classifier, to read or to write.",
    flag_values=FLAGS,
)
_TRAIN = flags.DEFINE_bool(
    "train-classifier", False, "Train the classifier on shapes_assets instead of evaluating.", flag_values=FLAGS
)
_SIZE = flags.DEFINE_integer(
    "size", 32, "Pixels along a side of a view, to train the classifier on.", flag_values=FLAGS
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the classifier's training.", flag_values=FLAGS)
_STEPS = flags.DEFINE_integer("steps", 3000, "Steps of the classifier's training.", lower_bound=1, flag_values=FLAGS)


def main(argv: list[str]) -> None:
    """Runs the command."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; everything is given as --flag=value.")
    startup.start()
    if _TRAIN.value:
        _train_classifier(pathlib.Path(_CLASSIFIER.value))
        return
    if not _SAMPLES.value or not _OUTPUT.value:
        raise UserError("--samples or --output is missing; expected folders to evaluate and a JSON file to write.")
    output = pathlib.Path(_OUTPUT.value)
    files.writable_directory(output.parent)
    _check_replaceable(output)
    classifier = domain_score.load(_CLASSIFIER.value)
    names = _short_names(_SAMPLES.value)
    read = [[items.to_evaluate(item) for item in items.read_all(folder)] for folder in _SAMPLES.value]
    samples = dict(zip(names, read, strict=True))
    size = evaluation.common_size(itertools.chain.from_iterable(read), "--samples")
    split = records.open_split(_DATA.value, benchmark.ASSETS, _SPLIT.value, size)
    benchmark.check_split(_DATA.value, _SPLIT.value, {item.name for evaluated in read for item in evaluated}, size)
    images = {"real": np.concatenate([record["real"] for record in split])}
    if _BASE_IMAGES.value != "none":
        images["base"] = _base_images(_BASE_IMAGES.value, size)
    features = {name: domain_score.evaluate(classifier.params, images[name])[1] for name in images}
    if caution := evaluation.caution(min(map(len, read))):
        errors.warn(caution)
    rows = benchmark.compare(samples, split, features, classifier)
    result = {
        "command": shlex.join(["python", "-m", "realiz3d_jax.evaluate", *sys.argv[1:]]),
        "size": size,
        "classifier": {"file": pathlib.Path(_CLASSIFIER.value).name, **classifier.facts},
        "references": {
            name: {"images": len(images[name]), "source": source}
            for name, source in (("real", f"{benchmark.ASSETS}, {_SPLIT.value}"), ("base", _BASE_IMAGES.value))
            if name in images
        },
        "rows": rows,
    }
    files.write_text(output, json.dumps(result, indent=2, allow_nan=False) + "\n")
    rich.console.Console().print(table(rows))
    print(f"{output}: {len(rows)} rows")


def _check_replaceable(output: pathlib.Path) -> None:
    """Raises UserError if ``output`` exists and was not written by this command."""
    if output.exists():
        try:
            json.loads(output.read_text())["rows"]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UserError(
                f"{output}: already exists and was not written by this command; it was left as it is. "
                "Choose another --output."
            ) from error


_ARROWS = {1: "↑", -1: "↓", 0: ""}


def table(rows: dict[str, dict[str, Any]]) -> rich.table.Table:
    """The metrics, to look at: a line for each, a column for each folder."""
    result = rich.table.Table(title="Realism, control and consistency")
    result.add_column("", no_wrap=True)
    for name in rows:
        result.add_column(name, justify="right")
    for group, lines in LINES.items():
        result.add_section()
        result.add_row(f"[bold]{group}")
        for line in lines:
            result.add_row(f"  {line.label} {_ARROWS[line.better]}", *[_cell(line, row) for row in rows.values()])
    return result


def _cell(line: Line, row: dict[str, Any]) -> str:
    """The value in a row, or a dash where the row has none."""
    value = line.value(row)
    return "-" if value is None else f"{value:.{line.digits}f}"


def _short_names(folders: Sequence[str]) -> list[str]:
    """The last parts of the paths, as few as tell the folders apart.

    Raises:
      UserError: a folder was given twice.
    """
    parts = [pathlib.Path(folder).resolve().parts for folder in folders]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise UserError("--samples: the same folder was given twice; expected each once.")


def _base_images(source: str, size: int) -> np.ndarray:
    """uint8[n, size, size, 3] of the dataset shapes_generated, of sampled items, or of the PNGs of a folder."""
    if source == "shapes_generated":
        return np.stack([record["image"] for record in records.open_split(_DATA.value, source, _SPLIT.value, size)])
    return items.read_pictures(source, size)


def _train_classifier(path: pathlib.Path) -> None:
    files.writable_directory(path.parent)
    classifier = benchmark.train_classifier(_DATA.value, _SIZE.value, _SEED.value, _STEPS.value)
    classifier.facts.update(
        command=shlex.join(
            ["python", "-m", "realiz3d_jax.evaluate", "--train-classifier"]
            + [f"--{flag.name}={flag.value}" for flag in (_SIZE, _SEED, _STEPS)]
        ),
    )
    domain_score.save(path, classifier)
    print(f"{path}: written")


if __name__ == "__main__":
    errors.run(main, FLAGS)
