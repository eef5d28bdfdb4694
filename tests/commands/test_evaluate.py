"""The command ``evaluate``: from folders of items to metrics, and what it says of bad ones."""

import hashlib
import importlib
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from PIL import Image
from sampled_items import RIGS, SIDES, true_views, write_item

from realiz3d_jax import errors, evaluate
from realiz3d_jax.data import records
from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.assets.asset import load_asset
from realiz3d_jax.geometry.cameras import STANDARD_RIG, Rig
from realiz3d_jax.geometry.mesh import gltf_to_world
from realiz3d_jax.metrics import domain_score, evaluation
from realiz3d_jax.preparation.shapes import datasets

LARGE = 64
"""Pixels of views that are evaluated closely."""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> pathlib.Path:
    """A folder with a tiny shapes_assets of two sizes, whose test split has three objects."""
    directory = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "HELD_OUT_COUNT", {"validation": 1, "test": 3})
        for size in (32, LARGE):
            datasets.prepare(directory, "shapes_assets", size, count=2, workers=1)
    return directory


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("classifier") / "classifier.safetensors"
    params = jax.tree.map(np.asarray, domain_score.init(jax.random.key(0), 2))
    domain_score.save(path, domain_score.Classifier(params, ("red", "blue"), {"seed": 0}))
    return path


@pytest.fixture
def samples(data: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """Items as ``sample`` writes them, with the true synthetic renders as their views."""
    split = records.open_split(data, "shapes_assets", "test")
    for record in split:
        mesh = split.path / record["mesh"]
        write_item(tmp_path / "out" / record["uid"], record["uid"], record["synthetic"], mesh)
    return tmp_path / "out"


@pytest.fixture
def run_evaluate(data: pathlib.Path, classifier: pathlib.Path, tmp_path: pathlib.Path):
    """Runs the command on folders; returns what it wrote."""

    def run(
        *folders: pathlib.Path,
        base: str = "none",
        output: pathlib.Path = tmp_path / "metrics.json",
        split: str = "test",
    ) -> dict:
        values = {
            "split": split,
            "output": output,
            "data": data,
            "base-images": base,
            "classifier": classifier,
        }
        command = importlib.reload(evaluate)  # flags as they are by default
        flags = [f"--samples={folder}" for folder in folders] + [f"--{name}={value}" for name, value in values.items()]
        command.main(errors.parse_flags(["evaluate", *flags], command.FLAGS))
        return json.loads(output.read_text())

    return run


def test_each_folder_is_a_row_beside_the_true_renders_of_its_objects(run_evaluate, samples, tmp_path, capsys):
    shutil.copytree(samples, tmp_path / "half")
    shutil.rmtree(next((tmp_path / "half").iterdir()))
    result = run_evaluate(samples, tmp_path / "half", base=str(samples))
    assert list(result["rows"]) == ["out", "half", "true synthetic renders", "true real renders"]
    assert [row["count"]["objects"] for row in result["rows"].values()] == [3, 2, 3, 3]
    assert {name: reference["images"] for name, reference in result["references"].items()} == {"real": 12, "base": 12}
    assert result["references"]["real"]["source"] == "shapes_assets, test"
    out, true = result["rows"]["out"], result["rows"]["true synthetic renders"]
    assert out["fid_base"] == pytest.approx(0.0, abs=1e-3)
    assert out["fid_real"] > 10 * abs(out["fid_base"])
    for figure in ("domain_score", "silhouette_iou", "consistency", "fid_real"):
        assert out[figure] == true[figure]
    assert "fid_real" not in result["rows"]["true real renders"]
    printed = capsys.readouterr().out
    assert "Overlap-only PSNR" in printed
    assert f"{out['silhouette_iou']['mean']:.3f}" in printed


def test_distances_between_few_objects_are_given_with_a_caution(run_evaluate, samples, monkeypatch, capsys):
    run_evaluate(samples)
    assert (
        "warning: FID and KID rest on 3 objects, and change with each; expected 20 or more" in capsys.readouterr().err
    )
    monkeypatch.setattr(evaluation, "FEWEST_OBJECTS", 3)
    run_evaluate(samples)
    assert "FID and KID rest on" not in capsys.readouterr().err


def test_views_that_no_mesh_controlled_are_evaluated_by_looks_alone(run_evaluate, samples, data, tmp_path):
    record = records.open_split(data, "shapes_assets", "test")[0]
    mesh = next(data.rglob("*.glb"))
    write_item(tmp_path / "free" / "x", "x", record["real"], mesh, task="text_to_multiview")
    result = run_evaluate(tmp_path / "free")
    assert list(result["rows"]) == ["free"]  # no object of the split, so no true renders
    assert result["rows"]["free"]["consistency"] is None


def test_an_item_of_any_format_is_evaluated_as_that_of_its_glb(run_evaluate, samples, tmp_path):
    """The mesh again as an OBJ that has Z up, which only ``item.json`` says."""
    item = sorted(samples.iterdir())[0]
    shutil.copytree(item, tmp_path / "again" / item.name)
    description = json.loads((item / "item.json").read_text())
    parts = load_asset(description["mesh"]["path"]).parts
    lines, first = [], 1
    for part in parts:
        for key, array in (("v", part.vertices), ("vn", part.normals)):
            lines += [f"{key} {x!r} {y!r} {z!r}" for x, y, z in gltf_to_world(array).tolist()]
        lines += ["f {0}//{0} {1}//{1} {2}//{2}".format(*face) for face in (part.faces + first).tolist()]
        first += len(part.vertices)
    path = tmp_path / "solid.obj"
    path.write_text("\n".join(lines))
    description["mesh"] = {"path": str(path), "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "up": "z"}
    (tmp_path / "again" / item.name / "item.json").write_text(json.dumps(description))
    rows = run_evaluate(samples, tmp_path / "again")["rows"]
    assert rows["again"]["items"][0] == rows["out"]["items"][0]


def write_true(
    folder: pathlib.Path, data: pathlib.Path, rig: Rig, chosen: tuple[int, ...], change=None
) -> pathlib.Path:
    """Items of the test split with their true views under a rig; ``change`` gets the views of all, [3, 4, H, W, 3]."""
    split = records.open_split(data, "shapes_assets", "test", LARGE)
    meshes = [split.path / record["mesh"] for record in split]
    views = np.stack([true_views(mesh, LARGE, rig, chosen) for mesh in meshes])
    for record, mesh, drawn in zip(split, meshes, change(views) if change else views, strict=True):
        write_item(folder / record["uid"], record["uid"], drawn, mesh, rig, chosen)
    return folder


@pytest.mark.parametrize(("rig", "chosen"), RIGS.values(), ids=RIGS.keys())
def test_true_views_are_as_good_under_any_cameras_and_wrong_ones_are_not(run_evaluate, data, tmp_path, rig, chosen):
    changes = {
        "true": None,
        "permuted": lambda views: views[:, [1, 2, 3, 0]],
        "shifted": lambda views: np.roll(views, LARGE // 12, axis=3),
        "another object's": lambda views: views[[1, 2, 0]],
    }
    folders = [write_true(tmp_path / name, data, rig, chosen, change) for name, change in changes.items()]
    rows = run_evaluate(write_true(tmp_path / "standard", data, STANDARD_RIG, SIDES), *folders)["rows"]
    outline = {name: rows[name]["silhouette_iou"]["mean"] for name in ("standard", *changes)}
    whole = {name: rows[name]["consistency"]["whole"]["psnr"] for name in ("standard", *changes)}
    others = {name: rows[name]["consistency"]["overlap"]["psnr"] for name in ("standard", *changes)}
    assert outline["true"] > 0.97
    assert whole["true"] > whole["standard"] - 1
    assert others["true"] > others["standard"] - 3
    for name in ("permuted", "shifted", "another object's"):
        assert outline[name] < outline["true"] - 0.15
        assert whole[name] < whole["true"] - 6
        assert others[name] < others["true"] - 6


def test_views_of_other_cameras_are_not_compared_with_renders_that_show_others(
    run_evaluate, samples, data, tmp_path, capsys
):
    rig, chosen = RIGS["another width"]
    write_true(tmp_path / "wide", data, rig, chosen)
    rows = run_evaluate(tmp_path / "wide")["rows"]
    assert list(rows) == ["wide"]
    assert "fid_real" not in rows["wide"]
    assert "wide has other cameras than the renders of shapes_assets" in capsys.readouterr().err
    write_true(tmp_path / "standard", data, STANDARD_RIG, SIDES)
    rows = run_evaluate(tmp_path / "wide", tmp_path / "standard")["rows"]
    assert list(rows) == ["wide", "standard", "true synthetic renders", "true real renders"]
    assert [name for name, row in rows.items() if "fid_real" in row] == ["standard", "true synthetic renders"]


def test_items_from_before_they_stated_their_cameras_are_of_the_standard_rig(run_evaluate, samples, tmp_path):
    shutil.copytree(samples, tmp_path / "old")
    for path in (tmp_path / "old").glob("*/item.json"):
        found = json.loads(path.read_text())
        path.write_text(json.dumps({key: value for key, value in found.items() if key not in ("rig", "views")}))
    rows = run_evaluate(samples, tmp_path / "old")["rows"]
    assert rows["old"] == rows["out"]


def test_samples_of_another_split_are_refused_with_the_flag_that_names_theirs(run_evaluate, samples, data, tmp_path):
    with pytest.raises(
        UserError, match=r"3 of the sampled objects, such as test_\d+, are of the split 'test'.*--split=test"
    ):
        run_evaluate(samples, split="validation")
    record = records.open_split(data, "shapes_assets", "validation")[0]
    write_item(samples / record["uid"], record["uid"], record["real"], next(data.rglob("*.glb")))
    with pytest.raises(
        UserError, match=r"1 of the sampled objects, .*--split=validation, and evaluate samples of the two"
    ):
        run_evaluate(samples)
    write_item(tmp_path / "own" / "chair", "chair", record["real"], next(data.rglob("*.glb")))
    assert list(run_evaluate(tmp_path / "own", split="validation")["rows"]) == ["own"]


def break_view(item: pathlib.Path) -> None:
    (item / "view_090.png").write_bytes(b"\x89PNG")


def lose_view(item: pathlib.Path) -> None:
    (item / "view_180.png").unlink()


def shrink_view(item: pathlib.Path) -> None:
    Image.new("RGB", (16, 16)).save(item / "view_000.png")


def break_description(item: pathlib.Path) -> None:
    (item / "item.json").write_text('{"uid": "a"')


def lose_mesh(item: pathlib.Path) -> None:
    description = json.loads((item / "item.json").read_text())
    description["mesh"]["path"] = str(item / "gone.glb")
    (item / "item.json").write_text(json.dumps(description))


def exchange_mesh(item: pathlib.Path) -> None:
    description = json.loads((item / "item.json").read_text())
    description["mesh"]["sha256"] = "0" * 64
    (item / "item.json").write_text(json.dumps(description))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (break_view, r"view_090\.png: cannot be read as an image"),
        (lose_view, r"view_180\.png: cannot be read as an image"),
        (shrink_view, r"found views of 16 x 16, 32 x 32"),
        (break_description, r"item\.json: cannot be read"),
        (lose_mesh, r"gone\.glb is missing"),
        (exchange_mesh, r"is not the mesh that"),
    ],
)
def test_a_damaged_item_is_named_and_earlier_metrics_stay(run_evaluate, samples, tmp_path, harm, message):
    output = tmp_path / "metrics.json"
    output.write_text('{"rows": {}}')
    harm(sorted(samples.iterdir())[1])
    with pytest.raises(UserError, match=message):
        run_evaluate(samples, output=output)
    assert json.loads(output.read_text()) == {"rows": {}}


@pytest.mark.parametrize("content", ["precious", '{"prompt": "a red cone"}', "[]"])
def test_a_file_that_is_no_earlier_metrics_is_not_replaced(run_evaluate, samples, tmp_path, content):
    (tmp_path / "prompts.jsonl").write_text(content)
    with pytest.raises(UserError, match=r"prompts\.jsonl: already exists and was not written by this command"):
        run_evaluate(samples, output=tmp_path / "prompts.jsonl")
    assert (tmp_path / "prompts.jsonl").read_text() == content


def test_folders_without_items_and_folders_given_twice_are_refused(run_evaluate, samples, tmp_path):
    with pytest.raises(UserError, match=r"no items .* in it"):
        run_evaluate(tmp_path / "nothing")
    with pytest.raises(UserError, match="given twice"):
        run_evaluate(samples, samples)


def test_base_images_of_another_size_or_too_few_are_refused(run_evaluate, samples, tmp_path):
    with pytest.raises(UserError, match="found 0 PNGs"):
        run_evaluate(samples, base=str(tmp_path / "nothing"))
    (tmp_path / "base").mkdir()
    for name in "ab":
        Image.new("RGB", (64, 64)).save(tmp_path / "base" / f"{name}.png")
    with pytest.raises(UserError, match="found 64 x 64 pixels, expected 32 x 32"):
        run_evaluate(samples, base=str(tmp_path / "base"))
