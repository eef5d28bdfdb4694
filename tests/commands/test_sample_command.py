"""The command ``sample``: what it writes, that it can be made again, and what it does about bad items."""

import json
import pathlib
import types

import numpy as np
import pytest
from PIL import Image
from worlds import World, load_config, random_params, run_command

from realiz3d_jax.checkpoints import exported
from realiz3d_jax.data import records
from realiz3d_jax.geometry.assets.asset import Asset, load_asset
from realiz3d_jax.geometry.mesh import gltf_to_world
from realiz3d_jax.sampling import items, run

STEPS, BATCH = 3, 2
VIEWS = [f"view_{azimuth:03d}.png" for azimuth in (0, 90, 180, 270)]
MAPS = ["control.npz", "mask.png", "normal.png", "position.png"]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, pathlib.Path]:
    """An exported checkpoint for each task, whose shifters are large enough to be seen after three steps."""
    folder = tmp_path_factory.mktemp("models")
    paths = {}
    for task in ("texture", "text_to_multiview"):
        config = load_config("stage2", {"task": task})
        params = random_params(config)
        params["shifters"]["left"] *= 30
        paths[task] = folder / f"{task}.safetensors"
        exported.write(paths[task], exported.ExportedCheckpoint(params, config, {}))
    return paths


@pytest.fixture
def sample(world: World, models):
    """Runs the command with few steps, without textures unless they are asked for; returns its exit status."""

    def run(output: pathlib.Path, *arguments: str, task: str = "texture", textured: bool = False) -> int:
        fixed = (f"--output={output}", f"--data={world.data}", f"--steps={STEPS}", f"--batch={BATCH}")
        fixed += () if textured else ("--texture-size=0",)
        flags = (f"--task={task.replace('_', '-')}", f"--workdir={models[task]}")
        return run_command("sample", *fixed, *flags, *arguments)

    return run


@pytest.fixture(scope="module")
def assets(world):
    return records.open_split(world.data, "shapes_assets", "test")


def pictures(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".png", ".npz")}


def test_an_item_is_four_views_their_grid_the_control_maps_and_what_made_it(sample, assets, models, tmp_path):
    mesh = assets.path / assets[0]["mesh"]
    assert sample(tmp_path / "out", f"--mesh={mesh}", "--prompt=a red cone", "--seed=7") == 0
    (folder,) = (tmp_path / "out").iterdir()
    assert folder.name == mesh.stem
    assert sorted(path.name for path in folder.iterdir()) == sorted([*VIEWS, *MAPS, "grid.png", "item.json"])
    views = [np.array(Image.open(folder / name)) for name in VIEWS]
    assert {view.shape for view in views} == {(32, 32, 3)}
    grid = np.array(Image.open(folder / "grid.png"))
    np.testing.assert_array_equal(grid, np.vstack([np.hstack(views[:2]), np.hstack(views[2:])]))
    with np.load(folder / "control.npz") as exact:
        for name in ("normal", "position", "mask"):
            np.testing.assert_array_equal(exact[name], assets[0][name])
    item = json.loads((folder / "item.json").read_text())
    assert item["caption"] == "a red cone"
    assert item["seed"] == 7
    assert item["domain"] == "real"
    assert item["mesh"]["path"] == str(mesh.resolve())
    assert item["sampling"]["steps"] == STEPS
    assert item["sampling"]["block_max"] == 0.3
    assert item["sampling"]["timestep_max"] == 950
    assert item["model"]["source"] == str(models["texture"])


def test_the_views_are_baked_onto_the_mesh_in_its_own_coordinates(sample, assets, tmp_path, capsys):
    mesh = assets.path / assets[0]["mesh"]
    assert sample(tmp_path / "out", f"--mesh={mesh}", "--prompt=a red cone", textured=True) == 0
    (folder,) = (tmp_path / "out").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*VIEWS, *MAPS, "grid.png", "item.json", "textured.glb"]
    )
    before, after = load_asset(mesh), load_asset(folder / "textured.glb")
    np.testing.assert_array_equal(after.mesh.vertices[after.mesh.faces], before.mesh.vertices[before.mesh.faces])
    assert (after.mesh.scale, after.mesh.offset.tolist()) == (before.mesh.scale, before.mesh.offset.tolist())
    assert after.parts[0].material.texture.pixels.shape == (512, 512, 4)
    again = tmp_path / "again.glb"
    assert run_command("bake", f"--mesh={mesh}", f"--views={folder}", f"--output={again}") == 0
    assert again.read_bytes() == (folder / "textured.glb").read_bytes()
    item = json.loads((folder / "item.json").read_text())
    assert item["texture"] == {"size": 512, "harmonise": False}
    assert 0 < item["baked"]["overlap"] < item["baked"]["coverage"] < 1
    assert "texturing: 1/1" in capsys.readouterr().err


def test_the_control_of_a_mesh_in_any_format_is_the_training_map_bit_for_bit(sample, assets, tmp_path):
    record = assets[0]
    mesh = assets.path / record["mesh"]
    lines = [{"mesh": str(mesh)}, {"mesh": "solid.obj"}, {"mesh": "solid.ply", "up": "y"}, {"mesh": "z.ply"}]
    for line in lines:
        if line["mesh"] != str(mesh):
            write_exactly(tmp_path / line["mesh"], load_asset(mesh), z_up=line["mesh"] == "z.ply")
    manifest = tmp_path / "prompts.jsonl"
    manifest.write_text("\n".join(json.dumps({"prompt": record["caption"], **line}) for line in lines))
    assert sample(tmp_path / "out", f"--manifest={manifest}") == 0
    for folder in sorted((tmp_path / "out").iterdir()):
        with np.load(folder / "control.npz") as exact:
            assert sorted(exact.files) == ["mask", "normal", "position"]
            for name in exact.files:
                assert exact[name].dtype == record[name].dtype
                np.testing.assert_array_equal(exact[name], record[name], err_msg=f"{folder.name} {name}")
    assert json.loads((tmp_path / "out" / "item_0002" / "item.json").read_text())["mesh"]["up"] == "y"


def write_exactly(path: pathlib.Path, asset: Asset, z_up: bool) -> None:
    """The asset's parts, to the last bit, as OBJ or PLY."""
    corners = [part.faces + first for part, first in zip(asset.parts, firsts(asset), strict=True)]
    arrays = [np.concatenate([getattr(part, name) for part in asset.parts]) for name in ("vertices", "normals")]
    vertices, normals = ((gltf_to_world(array) if z_up else array).tolist() for array in arrays)
    faces = np.concatenate(corners).tolist()
    if path.suffix == ".obj":
        lines = [f"{key} {x!r} {y!r} {z!r}" for key, rows in (("v", vertices), ("vn", normals)) for x, y, z in rows]
        lines += ["f " + " ".join(f"{corner + 1}//{corner + 1}" for corner in face) for face in faces]
    else:
        properties = "".join(f"property float {name}\n" for name in ("x", "y", "z", "nx", "ny", "nz"))
        lines = [f"ply\nformat ascii 1.0\nelement vertex {len(vertices)}\n{properties}element face {len(faces)}"]
        lines += ["property list uchar int vertex_indices\nend_header"]
        lines += [" ".join(map(repr, position + normal)) for position, normal in zip(vertices, normals, strict=True)]
        lines += [" ".join(map(str, [3, *face])) for face in faces]
    path.write_text("\n".join(lines) + "\n")


def firsts(asset: Asset) -> list[int]:
    return np.cumsum([0, *(len(part.vertices) for part in asset.parts[:-1])]).tolist()


def skip_baking(monkeypatch) -> None:
    """Items get an empty file in the place of the textured mesh."""
    baked = types.SimpleNamespace(coverage=0.5, overlap=0.2)
    monkeypatch.setattr(run, "texture_asset", lambda *_, size, harmonise: (b"", baked))


def test_each_mesh_of_a_manifest_is_read_and_unwrapped_once(sample, assets, tmp_path, monkeypatch):
    calls = []

    def counted(function):
        def call(*arguments):
            calls.append(function.__name__)
            return function(*arguments)

        return call

    for name in ("load_asset", "unwrap"):
        monkeypatch.setattr(run, name, counted(getattr(run, name)))
    skip_baking(monkeypatch)
    meshes = [str(assets.path / assets[number]["mesh"]) for number in (0, 1, 0)]
    manifest = tmp_path / "prompts.jsonl"
    manifest.write_text("\n".join(json.dumps({"prompt": "a red cone", "mesh": mesh}) for mesh in meshes))
    assert sample(tmp_path / "out", f"--manifest={manifest}", textured=True) == 0
    assert sorted(calls) == ["load_asset"] * 2 + ["unwrap"] * 2
    seeds = [json.loads(path.read_text())["seed"] for path in sorted((tmp_path / "out").glob("*/item.json"))]
    assert seeds == [0, 1, 2]
    assert len(list((tmp_path / "out").glob("*/textured.glb"))) == 3


def test_where_baking_fails_the_views_are_kept_and_the_problem_is_printed_each_time(
    sample, assets, tmp_path, monkeypatch, capsys
):
    def failing(asset):
        if asset.name.endswith("bad.glb"):
            raise MemoryError("too many charts")
        return unwrap(asset)

    unwrap = run.unwrap
    monkeypatch.setattr(run, "unwrap", failing)
    for name in ("bad", "good"):
        (tmp_path / f"{name}.glb").write_bytes((assets.path / assets[0]["mesh"]).read_bytes())
    manifest = tmp_path / "prompts.jsonl"
    lines = [{"prompt": "a red cone", "mesh": f"{name}.glb", "uid": name} for name in ("bad", "good")]
    manifest.write_text("\n".join(map(json.dumps, lines)))
    for _ in range(2):
        assert sample(tmp_path / "out", f"--manifest={manifest}", textured=True) == 1
        printed = capsys.readouterr()
        assert "2 items, 1 problem" in printed.out
        assert (
            "bad: the views were written, but they could not be baked (MemoryError('too many charts'))" in printed.err
        )
    assert (tmp_path / "out" / "good" / "textured.glb").exists()
    assert sorted(path.name for path in (tmp_path / "out" / "bad").iterdir()) == sorted(
        [*VIEWS, *MAPS, "grid.png", "item.json"]
    )


def test_a_split_is_textured_only_where_that_is_asked_for(sample, tmp_path, monkeypatch):
    skip_baking(monkeypatch)
    assert sample(tmp_path / "plain", "--limit=1", textured=True) == 0
    assert not list((tmp_path / "plain").glob("*/textured.glb"))
    assert sample(tmp_path / "textured", "--limit=1", "--texture-size=512", "--harmonise") == 0
    assert len(list((tmp_path / "textured").glob("*/textured.glb"))) == 1


def test_an_item_is_made_again_bit_for_bit_from_its_json_in_another_company(sample, tmp_path):
    """The split's second and third item are drawn in a batch of two and one of one; alone, each gives the same bytes."""
    assert sample(tmp_path / "split", "--seed=3", "--eta=1.0", "--guidance-scale=2.0") == 0
    folders = sorted((tmp_path / "split").iterdir())
    assert len(folders) == 3
    for number, folder in enumerate(folders[1:]):
        item = json.loads((folder / "item.json").read_text())
        again = tmp_path / f"again{number}"
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in item["sampling"].items()]
        flags += [f"--prompt={item['caption']}", f"--mesh={item['mesh']['path']}", f"--seed={item['seed']}"]
        assert sample(again, *flags, f"--batch={item['batch']}", f"--domain={item['domain']}") == 0
        (same,) = again.iterdir()
        assert pictures(same) == pictures(folder)
    assert len({(folder / "grid.png").read_bytes() for folder in folders}) == 3


def test_real_and_synthetic_differ_and_shifting_all_blocks_makes_them_equal(sample, assets, tmp_path):
    mesh = f"--mesh={assets.path / assets[0]['mesh']}"
    grids = {}
    for name, flags in {
        "real": ["--domain=real", "--block-max=0", "--timestep-max=1000"],
        "synthetic": ["--domain=synthetic", "--block-max=0", "--timestep-max=1000"],
        "all blocks": ["--domain=real", "--block-max=1.0", "--timestep-max=1000"],
        "all timesteps": ["--domain=real", "--block-max=0", "--timestep-max=0"],
        "the paper's": ["--domain=real"],
    }.items():
        assert sample(tmp_path / name, mesh, "--prompt=a red cone", *flags) == 0
        grids[name] = next((tmp_path / name).glob("*/grid.png")).read_bytes()
    assert grids["all blocks"] == grids["all timesteps"] == grids["synthetic"]
    assert len({grids["real"], grids["synthetic"], grids["the paper's"]}) == 3


def test_a_model_that_knows_no_domains_records_none_and_can_be_asked_for_none(sample, assets, tmp_path, capsys):
    config = load_config("syn_only")
    exported.write(tmp_path / "syn_only.safetensors", exported.ExportedCheckpoint(random_params(config), config, {}))
    flags = (f"--workdir={tmp_path / 'syn_only.safetensors'}", "--limit=1")
    assert sample(tmp_path / "out", *flags) == 0
    (path,) = (tmp_path / "out").glob("*/item.json")
    assert json.loads(path.read_text())["domain"] is None
    assert items.read(path.parent).domain is None
    assert sample(tmp_path / "out", *flags) == 0, "the same request is done already"
    capsys.readouterr()
    for domain in ("real", "synthetic"):
        assert sample(tmp_path / domain, *flags, f"--domain={domain}") == 2
        assert f"--domain={domain}: " in (error := capsys.readouterr().err)
        assert "'syn_only', which knows no domains: it has one look. Leave --domain out." in error
        assert not (tmp_path / domain).exists()


def test_seed_prompt_and_mesh_each_change_the_images(sample, assets, tmp_path):
    meshes = [f"--mesh={assets.path / assets[number]['mesh']}" for number in (0, 1)]
    grids = set()
    for number, flags in enumerate(
        [
            [meshes[0], "--prompt=a red cone"],
            [meshes[0], "--prompt=a red cone", "--seed=1"],
            [meshes[0], "--prompt=a blue cube"],
            [meshes[1], "--prompt=a red cone"],
        ]
    ):
        assert sample(tmp_path / str(number), *flags) == 0
        grids.add(next((tmp_path / str(number)).glob("*/grid.png")).read_bytes())
    assert len(grids) == 4


def test_words_that_the_model_was_not_taught_are_named_once(sample, assets, tmp_path, capsys):
    lines = [{"prompt": prompt} for prompt in ("a wooden cone", "a wooden Chair", "a red cone")]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert sample(tmp_path / "out", f"--manifest={tmp_path / 'prompts.jsonl'}", task="text_to_multiview") == 0
    assert capsys.readouterr().err.count("had the words 'wooden', 'chair', so they change the views at random") == 1
    assert sample(tmp_path / "known", "--prompt=a small red cone", task="text_to_multiview") == 0
    assert "at random" not in capsys.readouterr().err


def test_text_to_multiview_needs_no_mesh(sample, tmp_path, capsys):
    assert sample(tmp_path / "out", "--prompt=a red cone", task="text_to_multiview") == 0
    folder = tmp_path / "out" / "item_0000"
    assert sorted(path.name for path in folder.iterdir()) == sorted([*VIEWS, "grid.png", "item.json"])
    assert len({(folder / name).read_bytes() for name in VIEWS}) == 4
    assert sample(tmp_path / "texture", "--prompt=a red cone") == 1
    assert "needs a mesh" in capsys.readouterr().err


def test_a_manifest_finishes_its_good_lines_and_reports_the_bad_ones_by_number(sample, assets, tmp_path, capsys):
    mesh = assets.path / assets[0]["mesh"]
    (tmp_path / "broken.glb").write_bytes(mesh.read_bytes()[:200])
    (tmp_path / "good.glb").write_bytes(mesh.read_bytes())
    good = {"prompt": "a red cone", "mesh": "good.glb"}
    lines = [
        json.dumps(good),
        "not json",
        "",
        json.dumps({**good, "uid": "../escape"}),
        json.dumps({**good, "seeds": 1}),
        json.dumps({**good, "seed": "one"}),
        json.dumps({**good, "seed": -1}),
        json.dumps({"mesh": "good.glb"}),
        "[1]",
        json.dumps({**good, "uid": "chosen", "seed": 5}),
        json.dumps({**good, "uid": "chosen", "seed": 6}),
        json.dumps({**good, "mesh": "broken.glb", "uid": "broken"}),
        json.dumps({**good, "mesh": "none.glb", "uid": "missing"}),
        json.dumps({**good, "prompt": "red " * 40, "uid": "long"}),
        json.dumps({"prompt": "a red cone", "uid": "bare"}),
        json.dumps({**good, "uid": "u" * 300}),
        json.dumps({**good, "up": "x"}),
    ]
    manifest = tmp_path / "prompts.jsonl"
    manifest.write_text("\n".join(lines))
    assert sample(tmp_path / "out", f"--manifest={manifest}", "--seed=100") == 1
    printed = capsys.readouterr()
    assert "2 items, 14 problems" in printed.out
    for number in (2, 4, 5, 6, 7, 8, 9, 11, 16, 17):
        assert printed.err.count(f"{manifest}:{number}: ") == 1, number
    for number in (1, 3, 10):
        assert f"{manifest}:{number}: " not in printed.err
    for name in ("broken.glb", "none.glb", "'red red", "bare"):
        assert name in printed.err
    assert "Traceback" not in printed.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["chosen", "item_0000"]
    described = {
        name: json.loads((tmp_path / "out" / name / "item.json").read_text()) for name in ("chosen", "item_0000")
    }
    assert described["chosen"]["seed"] == 5, "the first of two lines with one uid is kept"
    assert described["item_0000"]["seed"] == 100
    assert not (tmp_path / "escape").exists()


def test_what_is_there_is_left_as_it_is(sample, assets, tmp_path, capsys):
    mesh = f"--mesh={assets.path / assets[0]['mesh']}"
    assert sample(tmp_path / "out", mesh, "--prompt=a red cone") == 0
    (folder,) = (tmp_path / "out").iterdir()
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    assert sample(tmp_path / "out", mesh, "--prompt=a red cone") == 0, "the same request is done already"
    assert "1 item, 0 problems" in capsys.readouterr().out
    assert sample(tmp_path / "out", mesh, "--prompt=a red cone", "--seed=1") == 1
    assert "made with another seed; it was left as it is" in capsys.readouterr().err
    assert sample(tmp_path / "out", mesh, "--prompt=a red cone", "--texture-size=1024") == 1
    assert "made with another texture; it was left as it is" in capsys.readouterr().err
    assert sample(tmp_path / "out", mesh, "--prompt=a red cone", "--up=z") == 1
    assert "made with another mesh; it was left as it is" in capsys.readouterr().err
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()} == before
    foreign = tmp_path / "foreign" / folder.name
    foreign.mkdir(parents=True)
    (foreign / "thesis.txt").write_text("precious")
    assert sample(tmp_path / "foreign", mesh, "--prompt=a red cone") == 1
    assert "is not an item of this command" in capsys.readouterr().err
    assert [path.name for path in foreign.iterdir()] == ["thesis.txt"]


def test_a_model_of_another_task_or_without_control_is_refused_before_anything_is_written(
    sample, world, models, tmp_path, capsys
):
    assert sample(tmp_path / "out", "--prompt=a", f"--workdir={models['text_to_multiview']}") == 2
    error = capsys.readouterr().err
    assert "was trained for the task 'text_to_multiview', not 'texture'" in error
    assert "--config configs/stage2.py --config.task=texture" in error
    assert sample(tmp_path / "out", "--prompt=a", f"--workdir={world.base}") == 2
    assert "takes no control; expected one after Stage 2" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_views_that_no_mesh_controls_are_not_baked(sample, tmp_path, capsys):
    flags = ("--prompt=a red cone", "--texture-size=512")
    assert sample(tmp_path / "out", *flags, task="text_to_multiview") == 2
    assert "views that no mesh controls cannot be baked" in capsys.readouterr().err


def test_a_file_name_that_is_no_folder_name_still_gives_an_item(sample, assets, tmp_path):
    mesh = tmp_path / "my chair (1).glb"
    mesh.write_bytes((assets.path / assets[0]["mesh"]).read_bytes())
    assert sample(tmp_path / "out", f"--mesh={mesh}", "--prompt=a chair") == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["my_chair_1_"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--steps=0"], 2, "steps: found 0, expected 1 to 1000"),
        (["--block-max=1.5"], 2, "block_max: found 1.5, expected a fraction of the blocks, 0 to 1"),
        (["--timestep-max=2000"], 2, "timestep_max: found 2000"),
        (["--eta=2"], 2, "eta: found 2.0, expected 0 to 1"),
        (["--guidance-scale=nan"], 2, "guidance_scale: found nan, expected a finite number"),
        (["--domain=cartoon"], 2, "domain"),
        (["--mesh=a.glb"], 2, "--mesh was given without --prompt"),
        (["--manifest=a.jsonl", "--prompt=a"], 2, "expected one of the two ways"),
        (["--manifest=/nowhere/a.jsonl"], 2, "/nowhere/a.jsonl: cannot be read"),
        (["--workdir=/nowhere"], 2, "/nowhere: there is no such workdir or exported checkpoint"),
        (["--data=/nowhere"], 2, "python -m realiz3d_jax.prepare --dataset shapes_assets --directory /nowhere"),
        (["--seed=4294967296", "--prompt=a"], 2, "seed: found 4294967296, expected 0 to 4294967295"),
        (["--seed=4294967295"], 2, "seed: found 4294967297, expected 0 to 4294967295"),
        (["--up=z"], 2, "--up was given without --mesh or --manifest"),
        (["--harmonise"], 2, "--harmonise was given, but no texture is made"),
        (["--mesh=a.fbx", "--prompt=a"], 1, "a.fbx: cannot read this asset"),
        (["surplus"], 2, "unexpected argument 'surplus'"),
    ],
)
def test_a_mistake_in_the_flags_is_named(sample, tmp_path, capsys, arguments, status, message):
    assert sample(tmp_path / "out", *arguments) == status
    assert message in capsys.readouterr().err


def test_an_empty_manifest_is_a_mistake(sample, tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text("\n \n")
    assert sample(tmp_path / "out", f"--manifest={tmp_path / 'a.jsonl'}") == 2
    assert "a.jsonl: is empty; expected one JSON object a line" in capsys.readouterr().err


def test_an_output_that_is_a_file_is_refused(sample, tmp_path, capsys):
    (tmp_path / "out").write_text("precious")
    assert sample(tmp_path / "out", "--limit=1") == 2
    assert "cannot write here" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "precious"
