"""The report's pages of single objects: what they show, how they treat what is missing, and that a browser shows them."""

import hashlib
import html
import json
import pathlib
import re
import shutil

import browser
import numpy as np
import pytest
import trimesh
from PIL import Image
from report_inputs import UIDS, make_inputs
from sampled_items import RIGS

from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry import cameras
from realiz3d_jax.geometry.assets.asset import load_asset
from realiz3d_jax.geometry.assets.gltf_writer import write_textured_glb
from realiz3d_jax.geometry.mesh import Part, write_glb
from realiz3d_jax.geometry.texturing.baking import BakeOptions, bake
from realiz3d_jax.geometry.texturing.unwrap import unwrap
from realiz3d_jax.reporting import build, object_page, textured
from realiz3d_jax.reporting.textured import Rendering
from realiz3d_jax.reporting.turntable import Pictures
from realiz3d_jax.views import VIEW_WORDS

RED, BLUE = (0.8, 0.1, 0.1), (0.1, 0.2, 0.8)
SMALL = Rendering(frames=4, frame_size=64, still_size=32)


@pytest.fixture(scope="session")
def meshes(tmp_path_factory) -> pathlib.Path:
    """A red box before a blue one, 20 wide, away from the origin: as it came, and with a texture of its views."""
    folder = tmp_path_factory.mktemp("meshes")
    parts = []
    for color, shift in ((RED, -5.0), (BLUE, 5.0)):
        box = trimesh.creation.box((20.0, 10.0, 20.0))
        vertices = box.triangles.reshape(-1, 3) + np.array([100.0, shift, 7.0])
        faces = np.arange(len(vertices)).reshape(-1, 3)
        parts.append(Part(vertices, faces, np.repeat(box.face_normals, 3, axis=0), color))
    (folder / "input.glb").write_bytes(write_glb(parts))
    asset = unwrap(load_asset(folder / "input.glb"))
    views = np.stack([Pictures(asset).colors(camera, 64)[..., :3] for camera in cameras.STANDARD])
    texture = bake(asset.mesh, asset.uv, views, options=BakeOptions(size=256)).texture
    (folder / "textured.glb").write_bytes(write_textured_glb(asset, texture))
    return folder


@pytest.fixture
def world(tmp_path: pathlib.Path, meshes: pathlib.Path) -> pathlib.Path:
    """A report's inputs: all items are of the mesh, and those in real mode have a texture."""
    folder = make_inputs(tmp_path)
    shutil.copy(meshes / "input.glb", folder / "input.glb")
    mesh = folder / "input.glb"
    for path in folder.glob("*/*/item.json"):
        item = json.loads(path.read_text())
        item["mesh"] = {"path": str(mesh), "sha256": hashlib.sha256(mesh.read_bytes()).hexdigest()}
        path.write_text(json.dumps(item))
    for uid in UIDS:
        shutil.copy(meshes / "textured.glb", folder / "real" / uid / "textured.glb")
    return folder


def write(world: pathlib.Path, output: str = "out/report.html", **options) -> str:
    """Writes the report; returns what it tells."""
    samples = [str(world / "real"), str(world / "synthetic")]
    options = {"data": str(world / "no_data"), "rendering": SMALL, **options}
    return build.write_report(str(world / "metrics.json"), samples, [], world / output, **options)


def page(world: pathlib.Path, uid: str) -> str:
    return (world / "out" / "report_objects" / f"{uid}.html").read_text()


def rename(world: pathlib.Path, old: str, new: str) -> None:
    """Gives an object another uid, in its folders and in the figures."""
    for look in ("real", "synthetic"):
        folder = (world / look / old).rename(world / look / new)
        item = json.loads((folder / "item.json").read_text()) | {"uid": new}
        (folder / "item.json").write_text(json.dumps(item))
    metrics = world / "metrics.json"
    metrics.write_text(metrics.read_text().replace(json.dumps(old), json.dumps(new)))


def test_each_object_has_a_page_that_the_report_and_its_neighbours_lead_to(world):
    assert "pages of 3 objects in " in write(world)
    report = (world / "out" / "report.html").read_text()
    for uid in UIDS:
        # The caption, the control and the views of both modes.
        assert report.count(f'href="report_objects/{uid}.html"') == 4
    links = {uid: re.search(r'<nav class="trail".*?</nav>', page(world, uid)).group() for uid in UIDS}
    assert all('href="../report.html"' in link for link in links.values())
    assert re.findall(r'href="(\w+).html" rel="(\w+)"', links["a_1"]) == [("b_2", "next")]
    assert re.findall(r'href="(\w+).html" rel="(\w+)"', links["b_2"]) == [("a_1", "prev"), ("c_3", "next")]


def test_a_page_shows_shape_control_views_turntable_texture_and_viewer_and_loads_nothing_from_elsewhere(world):
    write(world)
    shown = page(world, "a_1")
    labels = re.findall(r'<div class="label"><h3>(?:<span[^>]*></span>)?([^<]*)</h3>', shown)
    assert labels == ["Input mesh", "Normals", "Real mode", "Synthetic mode"]
    assert shown.count('alt="real mode, ') == shown.count('alt="Input mesh, ') == 4
    assert len(re.findall(r'alt="a_1 from \d+ degrees"', shown)) == SMALL.frames
    assert "256 × 256 texels" in shown
    assert shown.count("<model-viewer") == 1
    assert "real <b>0.88</b> · IoU <b>0.85</b>" in shown
    assert 'camera-target="100m 7m ' in shown  # glTF's Y up
    links = set(re.findall(r'(?:src|href)="([^"]*)"', shown))
    beside = {link for link in links if not link.startswith("data:")}
    assert beside == {"../report.html", "b_2.html", object_page.VIEWER}
    assert "http" not in re.sub(r'"data:[^"]*"|http-equiv', "", shown)
    assert not re.search(r"\$[a-z]", shown.split("<script")[0])
    beside = {path.name for path in (world / "out" / "report_objects").iterdir()}
    assert beside == {f"{uid}.html" for uid in UIDS} | {object_page.VIEWER, "model-viewer-LICENSE.txt"}


def test_views_are_called_by_the_sides_that_they_show(world, meshes, tmp_path):
    rig, chosen = RIGS["four of six"]
    inputs = make_inputs(tmp_path / "six", rig=rig, chosen=chosen, mesh=meshes / "input.glb")
    write(inputs)
    shown = page(inputs, "a_1")
    heads = re.findall(r'<div class="head">([^<]*)</div>', shown)
    assert heads == ["", "front", "right side", "front, 90° above", "front, 90° below"]
    assert 'alt="Input mesh, front, 90° above"' in shown
    assert 'alt="real mode, right side"' in shown
    shutil.rmtree(inputs / "synthetic")
    shutil.copytree(world / "synthetic", inputs / "synthetic")
    write(inputs)
    heads = re.findall(r'<div class="head">([^<]*)</div>', page(inputs, "a_1"))
    assert heads[5:] == ["", *VIEW_WORDS]  # said again where they change


def test_the_input_mesh_is_drawn_as_the_views_see_it(meshes):
    asset = load_asset(meshes / "input.glb")
    seen = textured.clay_views(asset, cameras.Rig(width=2.2).cameras(), 64)[..., 3] > 127
    near = textured.clay_views(asset, cameras.STANDARD, 64)[..., 3] > 127
    assert seen.sum() == pytest.approx(near.sum() / 4, rel=0.1)


def test_the_pages_are_the_same_each_time(world):
    sums = []
    for _ in range(2):
        write(world)
        sums.append(hashlib.sha256(page(world, "b_2").encode()).hexdigest())
    assert sums[0] == sums[1]


def test_captions_and_names_are_text_whatever_is_in_them(world):
    name = """x"&'<i> é"""
    rename(world, "b_2", name)
    write(world)
    files = [path.name for path in (world / "out" / "report_objects").glob("x*.html")]
    assert len(files) == 1
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", files[0])
    assert f'href="report_objects/{files[0]}"' in (world / "out" / "report.html").read_text()
    assert f'href="{files[0]}"' in page(world, "c_3")
    shown = page(world, files[0].removesuffix(".html"))
    assert "<h1>a &lt;red&gt; cone &amp; a torus</h1>" in shown
    assert html.escape(name) in shown
    assert "<i>" not in shown
    assert "<red>" not in shown


def test_views_without_a_texture_have_a_page_that_says_how_to_make_it(world):
    (world / "real" / "a_1" / "textured.glb").unlink()
    write(world)
    shown = page(world, "a_1")
    assert "<model-viewer" not in shown
    assert "<script src" not in shown
    folder = world / "real" / "a_1"
    command = f"realiz3d_jax.bake --mesh {world / 'input.glb'} --views {folder} --output {folder / 'textured.glb'}"
    assert command in html.unescape(shown)
    assert shown.count('alt="real mode, ') == 4
    assert "<model-viewer" in page(world, "b_2")


def test_a_page_of_perspective_views_does_not_say_to_bake_them(meshes, tmp_path):
    inputs = make_inputs(tmp_path, rig=RIGS["perspective"][0], mesh=meshes / "input.glb")
    write(inputs)
    shown = page(inputs, "a_1")
    assert "realiz3d_jax.bake" not in shown
    assert 'alt="Input mesh, front, 15° above"' in shown


def test_a_damaged_mesh_is_reported_on_its_page_and_to_the_user_and_stops_no_other(world, capsys):
    (world / "real" / "a_1" / "textured.glb").write_bytes(b"glTF, but not for long")
    write(world)
    expected = r"warning: .*a_1/textured\.glb: "
    assert re.search(expected, capsys.readouterr().err)
    shown = page(world, "a_1")
    assert re.search(r'<p class="notice">[^<]*a_1/textured\.glb: ', shown)
    assert "<model-viewer" not in shown
    assert "<model-viewer" in page(world, "b_2")


def test_an_input_mesh_that_is_another_one_by_now_is_not_shown_as_the_input(world, meshes):
    (world / "input.glb").write_bytes((meshes / "textured.glb").read_bytes())
    (world / "real" / "a_1" / "textured.glb").unlink()
    write(world)
    assert f"input.glb: is not the mesh that {world / 'real' / 'a_1'} was made with" in page(world, "a_1")
    assert 'alt="Input mesh, ' not in page(world, "a_1")
    assert 'alt="Input mesh, ' in page(world, "b_2")  # its textured mesh has the same shape


def test_what_has_no_page_is_reported(world):
    printed = write(world, pages=1, objects=3)
    assert "2 objects have no page (--pages=3 writes them)" in printed
    report = (world / "out" / "report.html").read_text()
    assert "The first 1 of 3 have one." in report
    assert set(re.findall(r'href="([^"]*)"', report)) == {"report_objects/a_1.html"}
    assert "--pages 1" in report
    assert not (world / "out" / "report_objects" / "b_2.html").exists()
    write(world, pages=3, objects=1)
    assert re.search(r"Further objects: .*b_2\.html.*c_3\.html", (world / "out" / "report.html").read_text())


def test_without_pages_the_report_has_no_links(world):
    assert "pages of" not in write(world, pages=0)
    assert "href=" not in (world / "out" / "report.html").read_text()
    assert not (world / "out" / "report_objects").exists()


def test_a_folder_of_somebody_else_is_not_replaced(world):
    write(world)
    mine = world / "out" / "report_objects" / "mine.html"
    mine.write_text("<p>My own notes.")
    with pytest.raises(UserError, match=r"mine\.html: is not a page of a report.*Move it"):
        write(world)
    assert mine.read_text() == "<p>My own notes."


def test_a_damaged_view_leaves_an_earlier_report_and_its_pages(world):
    write(world)
    paths = [world / "out" / "report.html", world / "out" / "report_objects" / "a_1.html"]
    before = [path.stat().st_mtime_ns for path in paths]
    Image.new("RGB", (8, 8)).save(world / "real" / "b_2" / "normal.png")
    with pytest.raises(UserError, match=r"b_2/normal\.png: found 8 x 8 pixels"):
        write(world)
    assert [path.stat().st_mtime_ns for path in paths] == before
    assert sorted(path.name for path in (world / "out").iterdir()) == ["report.html", "report.png", "report_objects"]


def test_the_viewer_that_ships_is_the_published_one_under_its_licence():
    folder = pathlib.Path(object_page.__file__).with_name("model_viewer")
    sum_ = hashlib.sha256((folder / object_page.VIEWER).read_bytes()).hexdigest()
    assert sum_ == "d785423b1d046ea84a9f59ef6cf15f3077603e1bf938b01ced9b0240691884a2"
    assert sum_ in (folder / "README.md").read_text()
    assert "Apache License" in (folder / "LICENSE").read_text()


needs_browser = pytest.mark.skipif(
    browser.find() is None,
    reason=f"needs a Chromium: none of {', '.join(browser.NAMES)} is installed, and CHROMIUM is not set",
)


@needs_browser
def test_a_browser_without_a_network_shows_the_mesh_in_3d_and_turns_the_turntable(world, tmp_path):
    write(world)
    path = world / "out" / "report_objects" / "a_1.html"
    with browser.Browser(tmp_path / "profile", 1200, 1000) as page_shown:
        page_shown.open(path.as_uri())
        page_shown.wait("document.querySelector('model-viewer').dataset.state")
        assert page_shown.value("document.querySelector('model-viewer').dataset.state") == "loaded"
        page_shown.wait("document.querySelector('model-viewer').modelIsVisible")
        viewer = page_shown.picture("model-viewer")
        # Front and centre is the red box, under light; in the corner is the page.
        assert_color(viewer[len(viewer) // 2, len(viewer) // 2], RED, 0.25)
        assert viewer[3, 3].min() > 230
        assert 0.2 < np.mean(viewer[..., 1] < 120) < 0.8
        table = page_shown.picture(".turntable .strip")
        assert_color(table[len(table) // 2, len(table) // 2], RED, 0.02)
        page_shown.value(
            "(slider => { slider.value = 2; slider.dispatchEvent(new Event('input')); })(document.querySelector('input'))"
        )
        assert page_shown.value("document.querySelector('output').value") == "180°"
        back = page_shown.picture(".turntable .strip")
        assert_color(back[len(back) // 2, len(back) // 2], BLUE, 0.02)
        page_shown.value("document.querySelector('model-viewer').cameraOrbit = '180deg 78deg auto'")
        page_shown.value("document.querySelector('model-viewer').jumpCameraToGoal()")
        page_shown.wait("Math.abs(document.querySelector('model-viewer').getCameraOrbit().theta) > 3")
        turned = page_shown.picture("model-viewer")
        assert_color(turned[len(turned) // 2, len(turned) // 2], BLUE, 0.25)
        files = {url for url in page_shown.requests if not url.startswith("blob:")}
        assert files == {path.as_uri(), path.with_name(object_page.VIEWER).as_uri()}
        assert not page_shown.complaints


@needs_browser
def test_a_browser_without_webgl_says_so_and_shows_the_first_frame(world, tmp_path):
    write(world)
    with browser.Browser(tmp_path / "profile", 1200, 1000, "--disable-3d-apis") as page_shown:
        page_shown.open((world / "out" / "report_objects" / "a_1.html").as_uri())
        assert page_shown.value("document.querySelector('model-viewer').dataset.state") == "failed"
        assert "no WebGL 2" in page_shown.value("document.querySelector('.hint').textContent")
        viewer = page_shown.picture("model-viewer")
        assert_color(viewer[len(viewer) // 2, len(viewer) // 2], RED, 0.02)


def assert_color(pixel: np.ndarray, color: tuple[float, float, float], tolerance: float) -> None:
    np.testing.assert_allclose(pixel / 255, color, atol=tolerance)
