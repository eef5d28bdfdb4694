"""Views in, a textured asset in its own coordinates out."""

import re

import numpy as np
import pytest
from asset_files import cut_out
from PIL import Image
from sampled_items import SIX, true_views, write_item
from worlds import run_command

from realiz3d_jax.data import records
from realiz3d_jax.geometry.assets.asset import load_asset
from realiz3d_jax.geometry.cameras import STANDARD_RIG, Rig
from realiz3d_jax.geometry.mesh import world_to_gltf
from realiz3d_jax.geometry.render import RayScene
from realiz3d_jax.geometry.texturing import texture


@pytest.fixture
def case(world, tmp_path):
    """An object of the benchmark, its four flat renders as views, and their folder."""
    held = records.open_split(world.data, "shapes_assets", "test")
    for azimuth, view in zip((0, 90, 180, 270), held[0]["synthetic"], strict=True):
        Image.fromarray(view).resize((128, 128), Image.NEAREST).save(tmp_path / f"view_{azimuth:03d}.png")
    return held.path / held[0]["mesh"], tmp_path


def bake(mesh, folder, *flags: str) -> int:
    return run_command("bake", f"--mesh={mesh}", f"--views={folder}", f"--output={folder / 'out.glb'}", *flags)


def test_the_flat_colours_of_the_views_are_those_of_the_textured_asset(case, capsys):
    mesh, folder = case
    assert bake(mesh, folder, "--texture-size=512") == 0
    assert "4 views see" in capsys.readouterr().out
    before, after = load_asset(mesh), load_asset(folder / "out.glb")
    np.testing.assert_array_equal(after.mesh.vertices[after.mesh.faces], before.mesh.vertices[before.mesh.faces])
    origins = np.stack(np.meshgrid(np.linspace(-0.4, 0.4, 40), [-2.0], np.linspace(-0.4, 0.4, 40)), axis=-1).reshape(
        -1, 3
    )
    hits = RayScene(before.mesh).intersect(origins, np.array([0.0, 1.0, 0.0]))
    seen = np.flatnonzero(hits.face >= 0)
    assert len(seen) > 100
    expected, found = (asset.base_color(hits.face[seen], hits.barycentric[seen])[:, :3] for asset in (before, after))
    assert np.median(np.abs(found - expected).max(axis=1)) < 0.02
    assert np.mean(np.abs(found - expected).max(axis=1) < 0.1) > 0.9


def test_the_texture_is_as_large_as_the_views_need(case, capsys):
    mesh, folder = case
    assert texture.texture_size(32) == texture.texture_size(128) == 512
    assert texture.texture_size(129) == texture.texture_size(256) == 1024
    assert texture.texture_size(512) == texture.texture_size(4096) == 2048
    assert bake(mesh, folder) == 0
    assert "a texture of 512 x 512" in capsys.readouterr().out


def test_transparent_pixels_are_not_used(case):
    mesh, folder = case
    for path in folder.glob("view_*.png"):
        with Image.open(path) as image:
            pixels = np.dstack([np.asarray(image), np.full((128, 128), 255, np.uint8)])
        pixels[:, :64] = (0, 255, 0, 100)
        Image.fromarray(pixels).save(path)
    assert bake(mesh, folder) == 0
    after = load_asset(folder / "out.glb")
    colors = after.base_color(np.arange(len(after.mesh.faces)), np.full((len(after.mesh.faces), 3), 1 / 3))[:, :3]
    before = load_asset(mesh).mesh.face_color
    assert np.abs(colors - [0, 1, 0]).max(axis=1).min() > 0.2
    assert np.median(np.abs(colors - before).max(axis=1)) < 0.02


def test_what_is_up_in_the_file_is_as_the_flag_says(case):
    """The solid turned upright in a Y-up file, and lying in a file opened with Z up, is the same picture."""
    mesh, folder = case
    solid = load_asset(mesh).mesh
    corners = solid.vertices / solid.scale + solid.offset
    for up, vertices in (("y", world_to_gltf(corners)), ("z", corners)):
        lines = [f"v {x} {y} {z}" for x, y, z in vertices.tolist()]
        lines += ["f {} {} {}".format(*face) for face in (solid.faces + 1).tolist()]
        (folder / f"{up}.obj").write_text("\n".join(lines))
        assert bake(folder / f"{up}.obj", folder, f"--up={up}") == 0
        (folder / "out.glb").rename(folder / f"{up}.glb")
    first, second = (load_asset(folder / f"{up}.glb") for up in "yz")
    np.testing.assert_allclose(
        first.mesh.vertices[first.mesh.faces], second.mesh.vertices[second.mesh.faces], atol=1e-6
    )
    np.testing.assert_allclose(first.mesh.face_color, second.mesh.face_color, atol=0.02)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: [path.unlink() for path in folder.glob("*.png")], "found no views; expected view_000.png"),
        (
            lambda folder: (folder / "view_090.png").write_bytes(b"no picture"),
            "view_090.png: cannot be read as an image",
        ),
        (
            lambda folder: Image.new("RGB", (64, 64)).save(folder / "view_090.png"),
            "view_090.png 64 x 64.*expected square views of one size",
        ),
        (
            lambda folder: (folder / "view_450.png").write_bytes((folder / "view_090.png").read_bytes()),
            "view_450.png: is a view of the same camera as view_090.png",
        ),
        (
            lambda folder: Image.new("I;16", (32, 32)).save(folder / "view_090.png"),
            "16 bits a pixel",
        ),
        (
            lambda folder: [Image.new("RGBA", (32, 32)).save(path) for path in folder.glob("view_*.png")],
            "these views see nothing of the surface",
        ),
        (
            lambda folder: (folder / "view_090.png").rename(folder / "view_090_120.png"),
            "view_090_120.png: found an elevation of 120 degrees",
        ),
    ],
)
def test_views_that_cannot_be_used_are_named_and_nothing_is_written(case, damage, message, capsys):
    mesh, folder = case
    damage(folder)
    assert bake(mesh, folder) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (folder / "out.glb").exists()


def test_views_of_an_item_are_baked_by_the_cameras_that_it_states(case, tmp_path, capsys):
    """As by their names, where these tell the truth; without one of the views, too."""
    mesh, _ = case
    rig, chosen = Rig(azimuths=SIX.azimuths, elevations=SIX.elevations, width=1.3), (0, 1, 4, 5)
    item = tmp_path / "items" / "one"
    write_item(item, "one", true_views(mesh, 64, rig, chosen), mesh, rig, chosen)
    flags = ("--texture-size=512",)
    found = {}
    for name, given in {
        "stated": flags,
        "named": (*flags, "--view-width=1.3"),
        "narrow": (*flags, "--view-width=1.1"),
    }.items():
        assert bake(mesh, item, *given) == 0
        found[name] = load_asset(item / "out.glb").parts[0].material.texture.pixels.astype(int)
    assert np.abs(found["stated"] - found["named"]).max() <= 1
    assert np.abs(found["stated"] - found["narrow"]).max() > 100
    (item / "view_090.png").unlink()
    capsys.readouterr()
    assert bake(mesh, item, *flags) == 0
    assert "3 views see" in capsys.readouterr().out


def test_views_that_an_item_does_not_state_or_that_are_perspective_are_not_baked(case, tmp_path, capsys):
    mesh, _ = case
    for name, rig in (("flat", Rig(width=1.2)), ("deep", Rig(projection="perspective"))):
        write_item(tmp_path / "items" / name, name, true_views(mesh, 32, rig), mesh, rig)
    Image.new("RGB", (32, 32)).save(tmp_path / "items" / "flat" / "view_045.png")
    for name, message in (
        ("flat", "view_045.png: is no view of the item that item.json beside it describes; expected view_000.png"),
        ("deep", "item.json: these views are perspective"),
    ):
        assert bake(mesh, tmp_path / "items" / name) == 2
        assert message in capsys.readouterr().err
    assert bake(mesh, tmp_path / "items" / "flat", "--view-width=1.2") == 0
    assert "5 views see" in capsys.readouterr().out


def test_views_of_an_item_on_another_mesh_are_baked_with_a_caution_that_names_the_right_one(
    case, world, tmp_path, capsys
):
    mesh, _ = case
    write_item(tmp_path / "items" / "one", "one", true_views(mesh, 32, STANDARD_RIG), mesh)
    other = mesh.parent / next(path.name for path in sorted(mesh.parent.glob("test_*.glb")) if path != mesh)
    flags = ("--texture-size=512",)
    assert bake(mesh, tmp_path / "items" / "one", *flags) == 0
    assert "drawn for" not in capsys.readouterr().err
    assert bake(other, tmp_path / "items" / "one", *flags) == 0
    error = capsys.readouterr().err
    assert f"warning: {other}: is not the mesh that the views of" in error
    assert f"Give --mesh={mesh}, or sample again." in error
    assert bake(mesh, tmp_path / "items" / "one", *flags, "--up=z") == 0
    assert "were drawn with no --up, found --up=z" in capsys.readouterr().err


def test_the_asset_itself_is_never_replaced(case, capsys):
    mesh, folder = case
    before = mesh.read_bytes()
    assert run_command("bake", f"--mesh={mesh}", f"--views={folder}", f"--output={mesh}") == 2
    assert "is the asset itself" in capsys.readouterr().err
    assert mesh.read_bytes() == before


def test_what_an_asset_cuts_out_stays_cut_out(case, tmp_path):
    _, folder = case
    (tmp_path / "cut.glb").write_bytes(cut_out(0, "MASK"))
    before = load_asset(tmp_path / "cut.glb")
    assert bake(tmp_path / "cut.glb", folder) == 0
    after = load_asset(folder / "out.glb")
    assert [part.material.alpha_mode for part in after.parts] == [part.material.alpha_mode for part in before.parts]
    random = np.random.default_rng(0)
    face, weights = random.integers(0, len(before.mesh.faces), 500), random.dirichlet(np.full(3, 3.0), 500)
    difference = np.abs(after.base_color(face, weights)[:, 3] - before.base_color(face, weights)[:, 3])
    assert (difference < 0.02).mean() > 0.95
    assert 0.1 < before.base_color(face, weights)[:, 3].mean() < 0.9
