"""Judges generated objects: ``python -m realiz3d_jax.evaluate --samples out/real --samples out/synthetic --output out.json``.

Each ``--samples`` is a folder that ``realiz3d_jax.sample`` wrote, and becomes a row of the table and of the JSON file. For
items of the benchmark's split, the true renders of the same objects in both looks make two more rows: what a perfect result of
either look would score. Items are judged by the cameras they state; those of other cameras than the benchmark's are not
compared with its true renders. ``--train-classifier`` makes the classifier that judges realism, once.
"""

import json
import pathlib
import shlex
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import rich.console
import rich.table
from absl import flags

from realiz3d_jax import errors, files, progress, startup
from realiz3d_jax.checkpoints.release import PRETRAINED
from realiz3d_jax.data import records
from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.cameras import matching_views
from realiz3d_jax.metrics import domain_score
from realiz3d_jax.metrics.evaluation import LINES, evaluate_views
from realiz3d_jax.metrics.metric import Item, Line
from realiz3d_jax.sampling import items

_SPLITS = ["validation", "test"]
_SAMPLES = flags.DEFINE_multi_string("samples", [], "A folder of sampled items; may be given several times.")
_OUTPUT = flags.DEFINE_string("output", None, "The JSON file to write.")
_DATA = flags.DEFINE_string("data", "datasets", "The folder that realiz3d_jax.prepare filled.")
_SPLIT = flags.DEFINE_enum("split", "test", _SPLITS, "Whose real renders are the true real images.")
_BASE_IMAGES = flags.DEFINE_string(
    "base-images",
    "shapes_generated",
    "Images of the base model: shapes_generated (its split of the same captions), a folder of sampled items or PNGs, or none.",
)
_CLASSIFIER = flags.DEFINE_string(
    "classifier", str(PRETRAINED / "shapes_classifier.safetensors"), "The domain classifier, to read or to write."
)
_TRAIN = flags.DEFINE_bool("train-classifier", False, "Make the classifier from shapes_assets instead of judging.")
_SIZE = flags.DEFINE_integer("size", 32, "Pixels along a side of a view, to train the classifier on.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the classifier's training.")
_STEPS = flags.DEFINE_integer("steps", 3000, "Of the classifier's training.", lower_bound=1)

_LEAST_ACCURACY = 0.98


def main(argv: list[str]) -> None:
    """The command."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; everything is given as --flag=value.")
    startup.start()
    if _TRAIN.value:
        _train_classifier(pathlib.Path(_CLASSIFIER.value))
        return
    if not _SAMPLES.value or not _OUTPUT.value:
        raise UserError("--samples or --output is missing; expected folders to judge and a JSON file to write.")
    output = pathlib.Path(_OUTPUT.value)
    files.writable_directory(output.parent)
    _check_replaceable(output)
    classifier = domain_score.load(_CLASSIFIER.value)
    samples = dict(zip(_short_names(_SAMPLES.value), map(_read_samples, _SAMPLES.value), strict=True))
    size = _common_size([item for judged in samples.values() for item in judged])
    split = records.open_split(_DATA.value, "shapes_assets", _SPLIT.value, size)
    _check_split({item.name for judged in samples.values() for item in judged}, size)
    images = {"real": np.concatenate([record["real"] for record in split])}
    if _BASE_IMAGES.value != "none":
        images["base"] = _base_images(_BASE_IMAGES.value, size)
    features = {name: domain_score.evaluate(classifier.params, images[name])[1] for name in images}
    rows = _sampled(samples, split, features, classifier)
    result = {
        "command": shlex.join(["python", "-m", "realiz3d_jax.evaluate", *sys.argv[1:]]),
        "size": size,
        "classifier": {"file": pathlib.Path(_CLASSIFIER.value).name, **classifier.facts},
        "references": {
            name: {"images": len(images[name]), "source": source}
            for name, source in (("real", f"shapes_assets, {_SPLIT.value}"), ("base", _BASE_IMAGES.value))
            if name in images
        },
        "rows": rows,
    }
    files.write_text(output, json.dumps(result, indent=2, allow_nan=False) + "\n")
    rich.console.Console().print(table(rows))
    print(f"{output}: {len(rows)} rows")


def _check_replaceable(output: pathlib.Path) -> None:
    """Raises UserError if ``output`` is there and was not written by this command."""
    if output.exists():
        try:
            json.loads(output.read_text())["rows"]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UserError(
                f"{output}: is there already and was not written by this command; it was left as it is. "
                "Choose another --output."
            ) from error


def _read_samples(folder: str) -> list[Item]:
    """What is judged of the items of a folder; raises UserError where one is damaged or its mesh gone or another one."""
    judged = []
    for item in items.read_all(folder):
        items.check_mesh(item)
        judged.append(Item(item.uid, item.caption, items.read_views(item), item.cameras, item.mesh, item.up))
    return judged


def _check_split(names: set[str], size: int) -> None:
    """Raises UserError if objects are of another split than the one that they shall be compared with."""
    for other in _SPLITS:
        held = records.open_split(_DATA.value, "shapes_assets", other, size) if other != _SPLIT.value else ()
        if strays := sorted(names & {record["uid"] for record in held}):
            raise UserError(
                f"--split={_SPLIT.value}: {len(strays)} of the sampled objects, such as {strays[0]}, are of the split "
                f"{other!r} of shapes_assets; expected objects of the split whose renders they are compared with. Give "
                f"--split={other}, and judge samples of the two splits in calls of their own."
            )


_ARROWS = {1: "↑", -1: "↓", 0: ""}


def table(rows: dict[str, dict[str, Any]]) -> rich.table.Table:
    """The figures, to look at: a line for each, a column for each folder."""
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


def _common_size(judged: Iterable[Item]) -> int:
    sizes: dict[int, str] = {}
    for item in judged:
        sizes.setdefault(item.views.shape[1], item.name)
    if len(sizes) > 1:
        found = ", ".join(f"{size} pixels ({name})" for size, name in sizes.items())
        raise UserError(f"--samples: found views of {found}; expected one size, since their figures do not compare.")
    return next(iter(sizes))


def _base_images(source: str, size: int) -> np.ndarray:
    """uint8[n, size, size, 3] of the dataset shapes_generated, of sampled items, or of the PNGs of a folder."""
    if source == "shapes_generated":
        return np.stack([record["image"] for record in records.open_split(_DATA.value, source, _SPLIT.value, size)])
    folder = pathlib.Path(source)
    paths = sorted(folder.glob("*/view_*.png")) or sorted(folder.glob("*.png"))
    if len(paths) < 2:
        raise UserError(f"--base-images={source}: found {len(paths)} PNGs, expected two or more, or sampled items.")
    images = [items.read_image(path) for path in paths]
    for path, image in zip(paths, images, strict=True):
        if image.shape[:2] != (size, size):
            raise UserError(
                f"{path}: found {image.shape[1]} x {image.shape[0]} pixels, expected {size} x {size}, "
                "as the samples have. Take images of one size."
            )
    return np.stack(images)


def _short_names(folders: Sequence[str]) -> list[str]:
    """The last parts of the paths, as few as tell the folders apart.

    Raises:
      UserError: a folder is there twice.
    """
    parts = [pathlib.Path(folder).resolve().parts for folder in folders]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise UserError("--samples: the same folder was given twice; expected each once.")


def _sampled(
    samples: dict[str, list[Item]],
    split: records.Records,
    features: dict[str, np.ndarray],
    classifier: domain_score.Classifier,
) -> dict[str, dict[str, Any]]:
    """Rows of the samples, and of the true renders of those of their objects that the split holds.

    Folders with items of other cameras than the split's are compared with none of its renders: these show other views.
    """
    cameras, rows, comparable = records.rig_of(split.metadata).cameras(), {}, set()
    for name, judged in samples.items():
        same = all(matching_views(cameras, item.cameras) is not None for item in judged)
        compared = {key: values for key, values in features.items() if same or key != "real"}
        if not same:
            errors.warn(
                f"--samples: {name} has other cameras than the renders of shapes_assets; its outlines and its consistency are "
                "judged by its own, and it is not compared with the true renders."
            )
        rows[name] = evaluate_views(judged, compared, classifier, description=name)
        comparable |= {item.name for item in judged} if same else set()
    return rows | _true_renders(split, comparable, features, classifier)


def _true_renders(
    split: records.Records, names: set[str], features: dict[str, np.ndarray], classifier: domain_score.Classifier
) -> dict[str, dict[str, Any]]:
    """Rows of the true renders of the objects called ``names``, where the split holds them."""
    found = [record for record in split if record["uid"] in names]
    cameras, rows = records.rig_of(split.metadata).cameras(), {}
    for look in ("synthetic", "real") if found else ():
        judged = [Item(r["uid"], r["caption"], r[look], cameras, split.path / r["mesh"]) for r in found]
        # The real renders are themselves what "real" stands for: a distance to them would say nothing.
        compared = {name: values for name, values in features.items() if (name, look) != ("real", "real")}
        rows[f"true {look} renders"] = evaluate_views(judged, compared, classifier, description=f"true {look}")
    return rows


def _train_classifier(path: pathlib.Path) -> None:
    files.writable_directory(path.parent)
    training = _looks(["train"])
    held_out = _looks(["validation", "test"])
    classifier = domain_score.train(*training, seed=_SEED.value, steps=_STEPS.value)
    accuracy = domain_score.accuracy(classifier.params, *held_out[:2])
    classifier.facts.update(
        command=shlex.join(
            ["python", "-m", "realiz3d_jax.evaluate", "--train-classifier"]
            + [f"--{flag.name}={flag.value}" for flag in (_SIZE, _SEED, _STEPS)]
        ),
        held_out_accuracy=accuracy,
        held_out_images=len(held_out[0]),
    )
    print(f"held-out accuracy {accuracy:.4f} on {len(held_out[0])} images of unseen objects")
    if accuracy < _LEAST_ACCURACY:
        raise UserError(
            f"{path}: not written, for the classifier is right in {accuracy:.1%} of the held-out images; expected at "
            f"least {_LEAST_ACCURACY:.0%}. Give more --steps, or more objects (realiz3d_jax.prepare --count)."
        )
    domain_score.save(path, classifier)
    print(f"{path}: written")


def _looks(splits: Sequence[str]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Both looks of all objects of some splits: images uint8[n, H, W, 3], real bool[n], n captions."""
    images, real, captions = [], [], []
    for name in splits:
        split = records.open_split(_DATA.value, "shapes_assets", name, _SIZE.value)
        for record in progress.track(split, f"reading {name}"):
            for look in ("synthetic", "real"):
                views = record[look]
                images.append(views)
                real += [look == "real"] * len(views)
                captions += [record["caption"]] * len(views)
    return np.concatenate(images), np.array(real), captions


if __name__ == "__main__":
    errors.run(main)
