"""The figures of a set of objects, from renders whose quality is known."""

import itertools
import json

import jax
import numpy as np
import pytest

from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.cameras import STANDARD
from realiz3d_jax.metrics import domain_score
from realiz3d_jax.metrics.evaluation import evaluate_views
from realiz3d_jax.metrics.metric import Item, Line, Metric
from realiz3d_jax.preparation.shapes import examples


@pytest.fixture(scope="module")
def renders(tmp_path_factory) -> list[dict]:
    folder = tmp_path_factory.mktemp("meshes")
    found = []
    for index in range(6):
        example, attached = examples.asset_example("test", index, 32, 0)
        path = folder / f"{index}.glb"
        path.write_bytes(next(iter(attached.values())))
        found.append({**example, "path": path})
    return found


@pytest.fixture(scope="module")
def classifier() -> domain_score.Classifier:
    return domain_score.Classifier(domain_score.init(jax.random.key(0), 3), ("a", "b", "c"), {})


def items(renders: list[dict], look: str = "synthetic", mesh: bool = True) -> list[Item]:
    return [Item(r["uid"], r["caption"], r[look], STANDARD, r["path"] if mesh else None) for r in renders]


def features(renders: list[dict], look: str, classifier: domain_score.Classifier) -> np.ndarray:
    return domain_score.evaluate(classifier.params, np.concatenate([r[look] for r in renders]))[1]


def test_true_synthetic_renders_have_the_true_outline_and_agree_with_one_another(renders, classifier):
    references = {"base": features(renders, "real", classifier), "real": features(renders, "synthetic", classifier)}
    figures = evaluate_views(items(renders), references, classifier)
    assert figures["count"] == {"objects": 6, "views": 24}
    assert figures["silhouette_iou"]["mean"] > 0.98
    assert figures["consistency"]["overlap"]["psnr"] > 20
    assert figures["consistency"]["whole"]["psnr"] > 25
    assert 0.5 < figures["consistency"]["overlap"]["fraction"] < 1.0
    assert figures["fid_real"] == pytest.approx(0.0, abs=1e-3)  # the same images
    assert figures["fid_base"] > 0.05  # in the features of a network that knows nothing
    assert set(figures["kid_base"]) == {"mean", "std"}


def test_every_figure_can_be_written_as_json(renders, classifier):
    text = json.dumps(evaluate_views(items(renders), {}, classifier), allow_nan=False)
    assert json.loads(text)["items"][0]["name"] == renders[0]["uid"]


def test_views_of_another_object_lose_outline_and_consistency(renders, classifier):
    straight = evaluate_views(items(renders), {}, classifier)
    exchanged = [
        Item(r["uid"], r["caption"], o["synthetic"], STANDARD, r["path"]) for r, o in itertools.pairwise(renders)
    ]
    swapped = evaluate_views(exchanged, {}, classifier)
    assert swapped["silhouette_iou"]["mean"] < straight["silhouette_iou"]["mean"] - 0.2
    assert swapped["consistency"]["whole"]["psnr"] < straight["consistency"]["whole"]["psnr"] - 8
    assert swapped["consistency"]["overlap"]["psnr"] < straight["consistency"]["overlap"]["psnr"] - 8


def test_views_without_a_mesh_are_judged_by_looks_alone(renders, classifier):
    figures = evaluate_views(items(renders, mesh=False), {}, classifier)
    assert figures["silhouette_iou"] is None
    assert figures["consistency"] is None
    assert 0.0 <= figures["domain_score"]["mean"] <= 1.0


def test_each_row_is_the_mean_of_its_own_views(renders, classifier):
    figures = evaluate_views(items(renders, "real"), {}, classifier)
    means = [domain_score.probability_real(classifier.params, render["real"]).mean() for render in renders]
    np.testing.assert_allclose([row["domain_score"] for row in figures["items"]], means, rtol=1e-4)
    assert figures["domain_score"]["mean"] == pytest.approx(np.mean(means), rel=1e-4)


def test_a_broken_mesh_is_named(renders, classifier, tmp_path):
    path = tmp_path / "broken.glb"
    path.write_bytes(b"glTF")
    broken = [Item("one", "", renders[0]["synthetic"], STANDARD, path)]
    with pytest.raises(UserError, match=r"broken\.glb"):
        evaluate_views(broken, {}, classifier)


def test_a_metric_that_is_added_is_computed_and_shown(renders, classifier):
    line = Line("Nothing", "Always 0.", 1, 1, lambda row: row["nothing"])
    nothing = Metric(
        "Tests", (line,), lambda one: {"nothing": [0.0] * len(one.item.views)}, lambda *_: {"nothing": 0.0}
    )
    figures = evaluate_views(items(renders), {}, classifier, metrics=[nothing])
    assert (figures["nothing"], line.value(figures)) == (0.0, 0.0)
    assert [row["nothing"] for row in figures["items"]] == [[0.0] * 4] * 6
    assert line.value({"nothing": None}) is None
