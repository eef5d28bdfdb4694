"""Metrics of generated objects beside those of the shapes benchmark's true renders, and the classifier that scores both."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from realiz3d_jax import errors, progress
from realiz3d_jax.data import records
from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.cameras import Camera, matching_views
from realiz3d_jax.metrics import domain_score
from realiz3d_jax.metrics.evaluation import evaluate_views
from realiz3d_jax.metrics.metric import Item

ASSETS = "shapes_assets"
"""The dataset with the true renders of the objects in both looks."""

SPLITS = ("validation", "test")
"""The splits whose objects are held out from training."""

_LEAST_ACCURACY = 0.98


def check_split(data: str, split: str, names: Iterable[str], size: int) -> None:
    """Raises UserError if objects are of another split than the one that they are compared with.

    Args:
      data: the folder with the datasets.
      split: whose true renders the objects are compared with.
      names: of the objects.
      size: pixels along a side of a view.
    """
    for other in SPLITS:
        held = records.open_split(data, ASSETS, other, size) if other != split else ()
        if strays := sorted(set(names) & {record["uid"] for record in held}):
            raise UserError(
                f"--split={split}: {len(strays)} of the sampled objects, such as {strays[0]}, are of the split "
                f"{other!r} of shapes_assets; expected objects of the split whose renders they are compared with. Give "
                f"--split={other}, and evaluate samples of the two splits in separate calls."
            )


def compare(
    samples: Mapping[str, Sequence[Item]],
    split: records.Records,
    features: Mapping[str, np.ndarray],
    classifier: domain_score.Classifier,
) -> dict[str, dict[str, Any]]:
    """Metrics of sampled folders, and of the true renders of those of their objects that the split holds.

    Folders with items of other cameras than the split's are not compared with its renders, which show other views.

    Args:
      samples: the items of each folder, by its name.
      split: true renders.
      features: float32[m, F] of images to compare with, by name; "real" are those of the split.
      classifier: scores realism.

    Returns:
      a row of ``evaluate_views`` for each folder and each look of the true renders.
    """
    cameras, rows, comparable = _cameras(split), {}, set()
    for name, evaluated in samples.items():
        same = all(matching_views(cameras, item.cameras) is not None for item in evaluated)
        compared = {key: values for key, values in features.items() if same or key != "real"}
        if not same:
            errors.warn(
                f"--samples: {name} has other cameras than the renders of shapes_assets; its silhouettes and consistency are "
                "evaluated with its own cameras, and it is not compared with the true renders."
            )
        rows[name] = evaluate_views(evaluated, compared, classifier, description=name)
        comparable |= {item.name for item in evaluated} if same else set()
    return rows | _true_renders(split, comparable, features, classifier)


def _true_renders(
    split: records.Records, names: set[str], features: Mapping[str, np.ndarray], classifier: domain_score.Classifier
) -> dict[str, dict[str, Any]]:
    """Rows of the true renders of the objects called ``names``, where the split holds them."""
    found = [record for record in split if record["uid"] in names]
    cameras, rows = _cameras(split), {}
    for look in ("synthetic", "real") if found else ():
        evaluated = [Item(r["uid"], r["caption"], r[look], cameras, split.path / r["mesh"]) for r in found]
        # The real renders are themselves what "real" stands for: a distance to them would say nothing.
        compared = {name: values for name, values in features.items() if (name, look) != ("real", "real")}
        rows[f"true {look} renders"] = evaluate_views(evaluated, compared, classifier, description=f"true {look}")
    return rows


def _cameras(split: records.Records) -> tuple[Camera, ...]:
    """The cameras of the true renders, which all objects share."""
    rig = records.rig_of(split.metadata)
    if rig is None:
        raise UserError(f"{split.path}: its objects have cameras of their own; expected the renders of one rig.")
    return rig.cameras()


def train_classifier(data: str, size: int, seed: int, steps: int) -> domain_score.Classifier:
    """Trains the classifier that tells the two looks of the benchmark apart, and tests it on unseen objects.

    Its facts get ``held_out_accuracy`` and ``held_out_images``.

    Args:
      data: the folder with the datasets.
      size: pixels along a side of a view.
      seed: of the training.
      steps: of the training.

    Raises:
      UserError: its accuracy is too low for evaluation.
    """
    training, held_out = _looks(data, ["train"], size), _looks(data, SPLITS, size)
    classifier = domain_score.train(*training, seed=seed, steps=steps)
    accuracy = domain_score.accuracy(classifier.params, *held_out[:2])
    classifier.facts.update(held_out_accuracy=accuracy, held_out_images=len(held_out[0]))
    print(f"held-out accuracy {accuracy:.4f} on {len(held_out[0])} images of unseen objects")
    if accuracy < _LEAST_ACCURACY:
        raise UserError(
            f"the classifier is right in {accuracy:.1%} of the held-out images; expected at least {_LEAST_ACCURACY:.0%}. It "
            "was not written. Give more --steps, or more objects (realiz3d_jax.prepare --count)."
        )
    return classifier


def _looks(data: str, splits: Sequence[str], size: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Both looks of all objects of some splits: images uint8[n, H, W, 3], real bool[n], n captions."""
    images, real, captions = [], [], []
    for name in splits:
        split = records.open_split(data, ASSETS, name, size)
        for record in progress.track(split, f"reading {name}"):
            for look in ("synthetic", "real"):
                views = record[look]
                images.append(views)
                real += [look == "real"] * len(views)
                captions += [record["caption"]] * len(views)
    return np.concatenate(images), np.array(real), captions
