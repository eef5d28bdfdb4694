"""Judges generated objects: ``python -m realiz3d_jax.evaluate --samples out/real --samples out/synthetic --output out.json``.

Each ``--samples`` is a folder that ``realiz3d_jax.sample`` wrote, and becomes a row of the table and of the JSON file. For
items of the benchmark's split, the true renders of the same objects in both looks make two more rows: what a perfect result of
either look would score. ``--train-classifier`` makes the classifier that judges realism, once.
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
from PIL import Image

from realiz3d_jax import errors, files, progress
from realiz3d_jax.data import records
from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.assets import checksum
from realiz3d_jax.geometry.cameras import AZIMUTHS
from realiz3d_jax.metrics import domain_score
from realiz3d_jax.metrics.evaluation import Item, evaluate_views
from realiz3d_jax.training import platform
from realiz3d_jax.training.release import PRETRAINED

_SAMPLES = flags.DEFINE_multi_string("samples", [], "A folder of sampled items; may be given several times.")
_OUTPUT = flags.DEFINE_string("output", None, "The JSON file to write.")
_DATA = flags.DEFINE_string("data", "datasets", "The folder that realiz3d_jax.prepare filled.")
_SPLIT = flags.DEFINE_enum("split", "test", ["validation", "test"], "Whose real renders are the true real images.")
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
    platform.start()
    if _TRAIN.value:
        _train_classifier(pathlib.Path(_CLASSIFIER.value))
        return
    if not _SAMPLES.value or not _OUTPUT.value:
        raise UserError("--samples or --output is missing; expected folders to judge and a JSON file to write.")
    output = pathlib.Path(_OUTPUT.value)
    files.writable_directory(output.parent)
    _check_replaceable(output)
    classifier = domain_score.load(_CLASSIFIER.value)
    samples = dict(zip(_short_names(_SAMPLES.value), map(read_items, _SAMPLES.value), strict=True))
    size = _common_size([item for items in samples.values() for item in items])
    split = records.open_split(_DATA.value, "shapes_assets", _SPLIT.value, size)
    images = {"real": np.concatenate([record["real"] for record in split])}
    if _BASE_IMAGES.value != "none":
        images["base"] = _base_images(_BASE_IMAGES.value, size)
    features = {name: domain_score.evaluate(classifier.params, images[name])[1] for name in images}
    rows = {name: evaluate_views(items, features, classifier, description=name) for name, items in samples.items()}
    rows |= _true_renders(split, {item.name for items in samples.values() for item in items}, features, classifier)
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


def read_items(folder: str) -> list[Item]:
    """The items that ``sample`` wrote below ``folder``, in order of name.

    Raises:
      UserError: there are none, or an item lacks a view, holds a broken one, or its mesh is gone or another one.
    """
    places = sorted(place.parent for place in pathlib.Path(folder).glob("*/item.json"))
    if not places:
        raise UserError(
            f"{folder}: no items (folders with an item.json) in it; expected what this writes:\n"
            f"  python -m realiz3d_jax.sample --output {folder}"
        )
    return [_read_item(place) for place in places]


def table(rows: dict[str, dict[str, Any]]) -> rich.table.Table:
    """The figures, to look at: a line for each, a column for each folder."""
    lines = {
        "real score ↑": lambda row: f"{row['domain_score']['mean']:.3f}",
        "real score > 0.5 ↑": lambda row: f"{row['domain_score']['fraction']:.2f}",
        "FID, base images ↓": lambda row: f"{row['fid_base']:.2f}",
        "KID, base images ↓": lambda row: f"{row['kid_base']['mean']:.3f}",
        "FID, real renders ↓": lambda row: f"{row['fid_real']:.2f}",
        "KID, real renders ↓": lambda row: f"{row['kid_real']['mean']:.3f}",
        "silhouette IoU ↑": lambda row: f"{row['silhouette_iou']['mean']:.3f}",
        "consistency PSNR ↑": lambda row: f"{row['consistency']['whole']['psnr']:.2f}",
        "consistency SSIM ↑": lambda row: f"{row['consistency']['whole']['ssim']:.3f}",
        "overlap-only PSNR ↑": lambda row: f"{row['consistency']['overlap']['psnr']:.2f}",
        "overlap-only SSIM ↑": lambda row: f"{row['consistency']['overlap']['ssim']:.3f}",
        "overlap / foreground": lambda row: f"{row['consistency']['overlap']['fraction']:.2f}",
        "objects": lambda row: str(row["count"]["objects"]),
    }
    result = rich.table.Table(title="Realism, control and consistency")
    result.add_column("", no_wrap=True)
    for name in rows:
        result.add_column(name, justify="right")
    for label, figure in lines.items():
        result.add_row(label, *[_cell(figure, row) for row in rows.values()])
    return result


def _cell(figure: Any, row: dict[str, Any]) -> str:
    """A figure of a row, or a dash where the row has none."""
    try:
        return figure(row)
    except (KeyError, TypeError):  # the figure, or a part of it, is absent or None
        return "-"


def _read_item(place: pathlib.Path) -> Item:
    try:
        description = json.loads((place / "item.json").read_text())
        name, caption, mesh = (description[key] for key in ("uid", "caption", "mesh"))
        path = pathlib.Path(mesh["path"]) if mesh and description["task"] == "texture" else None
        up = mesh.get("up") if path else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{place / 'item.json'}: cannot be read ({type(error).__name__}: {error}); expected what "
            "realiz3d_jax.sample writes. Remove the folder and sample it again."
        ) from error
    if path is not None:
        if not path.is_file():
            raise UserError(f"{place / 'item.json'}: its mesh {path} is not there; put it back or sample again.")
        if checksum(path) != mesh["sha256"]:
            raise UserError(f"{path}: is not the mesh that {place} was made with; put that back or sample again.")
    views = [_read_image(place / f"view_{azimuth:03d}.png") for azimuth in AZIMUTHS]
    if len({view.shape for view in views}) > 1 or views[0].shape[0] != views[0].shape[1]:
        shapes = ", ".join(f"{view.shape[1]} x {view.shape[0]}" for view in views)
        raise UserError(f"{place}: found views of {shapes} pixels, expected squares of one size. Sample it again.")
    return Item(name, caption, np.stack(views), path, up)


def _read_image(path: pathlib.Path) -> np.ndarray:
    """uint8[H, W, 3]."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read as an image ({error}); expected a PNG. Make it again.") from error


def _common_size(items: Iterable[Item]) -> int:
    sizes: dict[int, str] = {}
    for item in items:
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
    images = [_read_image(path) for path in paths]
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


def _true_renders(
    split: records.Records, names: set[str], features: dict[str, np.ndarray], classifier: domain_score.Classifier
) -> dict[str, dict[str, Any]]:
    """Rows of the true renders of the objects called ``names``, where the split holds them."""
    found = [record for record in split if record["uid"] in names]
    rows = {}
    for look in ("synthetic", "real") if found else ():
        items = [Item(r["uid"], r["caption"], r[look], split.path / r["mesh"]) for r in found]
        # The real renders are themselves what "real" stands for: a distance to them would say nothing.
        compared = {name: values for name, values in features.items() if (name, look) != ("real", "real")}
        rows[f"true {look} renders"] = evaluate_views(items, compared, classifier, description=f"true {look}")
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
