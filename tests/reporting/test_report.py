"""The command ``report``: one page that shows what the figures say, needs nothing else, and refuses what does not fit."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from report_inputs import COMMAND, SIZE, UIDS, make_inputs

from realiz3d_jax.errors import UserError
from realiz3d_jax.reporting import build, charts

ENVIRONMENT = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[2])}


@pytest.fixture
def world(tmp_path: pathlib.Path) -> pathlib.Path:
    return make_inputs(tmp_path)


@pytest.fixture
def show(world: pathlib.Path):
    """Writes the report on the world; returns the page."""

    def run(objects: int = 12, metrics: str = "metrics.json", **data) -> str:
        output = world / "out" / "report.html"
        samples, runs = [str(world / "real"), str(world / "synthetic")], [str(world / "stage1")]
        data = {"data": str(world / "no_data"), **data}
        build.write_report(str(world / metrics), samples, runs, output, objects=objects, **data)
        return output.read_text()

    return run


def test_the_page_is_whole_in_itself_and_the_same_each_time(show):
    page = show()
    assert page == show()
    assert "<script" not in page
    assert not re.findall(r'src="(?!data:image/png;base64,)', page)
    assert set(re.findall(r'href="([^"]*)"', page)) == {f"report_objects/{uid}.html" for uid in UIDS}
    assert "http" not in page
    assert COMMAND in page
    assert "url(" not in page
    assert page.count("data:image/png;base64,") == 3 * 3  # control and two modes of three objects
    assert "a &lt;red&gt; cone &amp; a torus" in page
    assert not re.search(r"\$[a-z]", page)


def test_the_best_figure_is_sought_among_the_sampled_rows_only(show):
    page = show()
    score, fid = (re.search(rf"<tr><th[^>]*>{label}.*?</tr>", page).group() for label in ("Real score", "FID, real"))
    assert re.findall(r"<strong>(.*?)</strong>", score) == ["0.875"]  # the true real renders have 0.969
    assert re.findall(r"<strong>(.*?)</strong>", fid) == ["1.25"]
    assert "0.969" in score
    assert "PSNR" not in page  # nothing to say of consistency


def test_each_picture_stands_above_its_own_figures(show):
    page = show(objects=2)
    assert page.count('<section class="object">') == 2
    assert "The first 2 of 3 objects" in page
    assert page.count("real <b>0.88</b> · IoU <b>0.85</b>") == 2
    assert page.count("real <b>0.12</b> · IoU <b>0.85</b>") == 2


def test_curves_show_every_kind_of_iteration_and_the_parameters_that_train(show):
    page = show()
    run = re.search(r'<section class="run">.*?</section>', page, re.DOTALL).group()
    assert run.count("<svg") == 3
    assert "real <b>0.0333</b>" in run
    assert "synthetic <b>0.0167</b>" in run
    # Eight shifters: two vectors of width 128 and two maps between 128 and rank 8.
    assert "18.4 k of 2.33 M parameters train (shifters)" in run
    assert 8 * (2 * 128 + 2 * 128 * 8) == 18_432


def test_the_command_of_a_run_names_what_its_config_file_does_not_say(show, world):
    command = re.search(r"python -m realiz3d_jax.train[^\n]*", show()).group()
    words = shlex.split(command)
    assert words[3:7] == ["--config", "configs/stage1.py", "--workdir", str(world / "stage1")]
    assert "--config.steps=60" in words
    assert "--config.method.rank=8" not in words


def test_a_run_that_is_being_written_is_shown_up_to_its_last_whole_line(show, world):
    with (world / "stage1" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 80, "loss/re')
    assert "60 of 60 steps" in show()


def empty_metrics(world: pathlib.Path) -> None:
    (world / "metrics.json").write_text("")


def no_rows(world: pathlib.Path) -> None:
    (world / "metrics.json").write_text('{"command": "a", "size": 32, "classifier": {"seed": 0}, "rows": {}}')


def rename_row(world: pathlib.Path) -> None:
    content = json.loads((world / "metrics.json").read_text())
    content["rows"]["other"] = content["rows"].pop("real")
    (world / "metrics.json").write_text(json.dumps(content))


def lose_item(world: pathlib.Path) -> None:
    (world / "real" / "b_2" / "item.json").unlink()


def empty_folder(world: pathlib.Path) -> None:
    for uid in UIDS:
        (world / "real" / uid / "item.json").unlink()


def break_view(world: pathlib.Path) -> None:
    (world / "synthetic" / "c_3" / "view_270.png").write_bytes(b"\x89PNG")


def shrink_view(world: pathlib.Path) -> None:
    Image.new("RGB", (8, 8)).save(world / "real" / "a_1" / "view_000.png")


def lose_log(world: pathlib.Path) -> None:
    (world / "stage1" / "metrics.jsonl").unlink()


def empty_log(world: pathlib.Path) -> None:
    (world / "stage1" / "metrics.jsonl").write_text("")


def break_log(world: pathlib.Path) -> None:
    path = world / "stage1" / "metrics.jsonl"
    path.write_text("nonsense\n" + path.read_text())


def lose_config(world: pathlib.Path) -> None:
    (world / "stage1" / "config.json").unlink()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (empty_metrics, r"metrics\.json: is no JSON"),
        (no_rows, r"metrics\.json: rows is \{\}; expected a non-empty dict"),
        (rename_row, r"metrics\.json: has no row for .*real; it has synthetic, true real renders, other"),
        (lose_item, r"metrics\.json: row 'real' evaluates 3 objects, but .*real holds 2 \('b_2'"),
        (empty_folder, r"real: no items .* in it"),
        (break_view, r"c_3/view_270\.png: cannot be read as an image"),
        (shrink_view, r"real/a_1: found views of 8 x 8, 32 x 32, 32 x 32, 32 x 32 pixels, expected 32 x 32"),
        (lose_log, r"metrics\.jsonl: cannot be read"),
        (empty_log, r"metrics\.jsonl: holds no metrics"),
        (break_log, r"metrics\.jsonl: line 1 is 'nonsense'"),
        (lose_config, r"config\.json: cannot be read"),
    ],
)
def test_what_does_not_fit_is_named_and_an_earlier_page_stays(show, world, harm, message):
    (world / "out").mkdir()
    (world / "out" / "report.html").write_text("earlier")
    harm(world)
    with pytest.raises(UserError, match=message):
        show()
    assert (world / "out" / "report.html").read_text() == "earlier"
    assert [path.name for path in (world / "out").iterdir()] == ["report.html"]


def test_missing_figures_are_named_with_the_command_that_makes_them(show):
    with pytest.raises(UserError, match=r"gone\.json: cannot be read .*\n  python -m realiz3d_jax.evaluate"):
        show(metrics="gone.json")


def test_a_logarithmic_axis_puts_equal_ratios_at_equal_distances():
    points = [(1, 1.0), (2, 0.1), (3, 0.01), (4, 0.0)]
    drawn = charts.line_chart("loss", "loss", [charts.Series("real", "real", points)], logarithmic=True)
    heights = [float(y) for y in re.findall(r"[\d.]+,([\d.]+)", re.search(r'points="(.*?)"', drawn).group(1))]
    assert len(heights) == 3  # the zero cannot be shown
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.2)


def test_dots_at_one_place_are_spread_and_stay_at_their_value():
    drawn = charts.strip_chart("score", "score", [("real", "real", [0.5] * 5 + [1.0])], 0.0)
    dots = [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', drawn)]
    assert len(set(dots)) == 6
    assert len({x for x, _ in dots}) == 2


def test_data_that_was_asked_for_must_be_there(show):
    with pytest.raises(UserError, match=r"no_data/shapes_assets/32/[\d.]+: the dataset shapes_assets does not exist"):
        show(data_needed=True)


def test_of_a_split_of_the_benchmark_the_true_renders_and_the_sampling_command_are_shown(show, world, monkeypatch):
    views = np.zeros((4, SIZE, SIZE, 3), np.uint8)
    split = [{"uid": uid, "real": views, "synthetic": views} for uid in (*UIDS, "d_4")]
    monkeypatch.setattr(build.records, "open_split", lambda *arguments: split)
    page = show(data_needed=True)
    assert page.count("data:image/png;base64,") == 3 * 5
    assert page.count("true real render</figcaption>") == page.count("true flat render</figcaption>") == 3
    assert page.count("real <b>0.97</b>") == 3  # the figures know the true real renders, and not the flat ones
    words = shlex.split(re.search(r"python -m realiz3d_jax.sample[^\n]*real\n", page).group())
    given = dict(zip(words[3::2], words[4::2], strict=True))
    assert given["--workdir"] == "runs/stage2"
    assert (given["--seed"], given["--limit"], given["--domain"], given["--block-max"]) == ("0", "3", "real", "0.3")


def test_samples_of_a_model_that_knows_no_domains_are_called_by_their_folder(tmp_path, monkeypatch):
    inputs = make_inputs(tmp_path, domain=None)
    views = np.zeros((4, SIZE, SIZE, 3), np.uint8)
    split = [{"uid": uid, "real": views, "synthetic": views} for uid in UIDS]
    monkeypatch.setattr(build.records, "open_split", lambda *arguments: split)
    samples, output = [str(inputs / "real"), str(inputs / "synthetic")], tmp_path / "report.html"
    build.write_report(str(inputs / "metrics.json"), samples, [], output, data_needed=True)
    page = output.read_text()
    assert "<figcaption>real</figcaption>" in page
    assert "mode" not in re.search(r'<section class="object">.*</section>', page, re.DOTALL).group()
    command = re.search(r"python -m realiz3d_jax.sample[^\n]*real\n", page).group()
    assert "--domain" not in command


def test_the_command_writes_the_page(world):
    command = [sys.executable, "-m", "realiz3d_jax.report", "--metrics", str(world / "metrics.json")]
    command += ["--output", str(world / "report.html"), "--samples", str(world / "real")]
    subprocess.run(command, check=True, capture_output=True, cwd=world, env=ENVIRONMENT)
    assert (world / "report.html").read_text().count("data:image/png;base64,") == 2 * 3
