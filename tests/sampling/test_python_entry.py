"""The Python entry: what ``import realiz3d_jax`` offers, without flags, and that it gives what the commands give."""

import ast
import os
import pathlib
import pkgutil
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
from worlds import REPOSITORY, World, load_config, random_params, run_command

import realiz3d_jax as r3d
from realiz3d_jax.checkpoints import exported
from realiz3d_jax.data import records
from realiz3d_jax.geometry.cameras import STANDARD
from realiz3d_jax.preparation.shapes import objects
from realiz3d_jax.sampling import run, vocabulary

STEPS = 2


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, pathlib.Path]:
    """A tiny exported checkpoint for each task, with random parameters."""
    folder = tmp_path_factory.mktemp("models")
    paths = {task: folder / f"{task}.safetensors" for task in ("texture", "text_to_multiview")}
    for task, path in paths.items():
        config = load_config("stage2", {"task": task})
        exported.write(path, exported.ExportedCheckpoint(random_params(config), config, {}))
    return paths


@pytest.fixture(scope="module")
def meshes(world: World) -> list[pathlib.Path]:
    held = records.open_split(world.data, "shapes_assets", "test")
    return [held.path / record["mesh"] for record in held]


def files_of(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def in_a_new_process(program: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "XLA_FLAGS": ""}
    arguments = [sys.executable, "-c", program]
    return subprocess.run(arguments, env=environment, check=True, capture_output=True, text=True, timeout=120).stdout


def test_the_lines_of_the_readme_run(world, meshes, tmp_path, monkeypatch):
    (lines,) = re.findall(
        r"```python\n(import realiz3d_jax as r3d\n.*?)```", (REPOSITORY / "README.md").read_text(), re.S
    )
    assert len(lines.strip().splitlines()) <= 10
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chair.glb").write_bytes(meshes[0].read_bytes())
    found = {}
    exec(re.sub(r"seed=0", f"seed=0, steps={STEPS}", lines), found)
    assert sorted(files_of(tmp_path / "out" / "chair")) == sorted(
        ["item.json", "grid.png", "control.npz", "normal.png", "position.png", "mask.png", "textured.glb"]
        + [f"view_{azimuth:03d}.png" for azimuth in (0, 90, 180, 270)]
    )
    assert found["views"].shape == (4, 32, 32, 3)
    assert (tmp_path / "chair_textured.glb").read_bytes() == found["result"].textured
    assert 0 < found["metrics"]["silhouette_iou"]["mean"] <= 1


def test_a_textured_mesh_is_bit_for_bit_what_the_command_writes(models, meshes, tmp_path):
    model = r3d.open_model(models["texture"])
    result = model.texture(meshes[0], "a red cone", seed=7, guidance_scale=2.0, steps=STEPS, harmonise=True)
    result.save(tmp_path / "python" / meshes[0].stem)
    flags = ("--prompt=a red cone", "--seed=7", "--guidance-scale=2", f"--steps={STEPS}", "--harmonise", "--batch=1")
    where = (f"--workdir={models['texture']}", f"--mesh={meshes[0]}", f"--output={tmp_path / 'command'}")
    assert run_command("sample", *where, *flags) == 0
    written = files_of(tmp_path / "command" / meshes[0].stem)
    assert "textured.glb" in written
    assert files_of(tmp_path / "python" / meshes[0].stem) == written
    assert result.geometry.mask.shape == (4, 32, 32)
    assert len(result.cameras) == 4
    assert len(repr(result)) < 5_000, "arrays and files are left out"


def test_a_list_is_drawn_in_batches_as_the_command_draws_a_manifest(models, tmp_path):
    prompts = ["a red cone", "a blue cube", "a green torus"]
    model = r3d.open_model(models["text_to_multiview"])
    results = model.draw_all(prompts, seeds=[4, 5, 6], batch=2, steps=STEPS)
    (tmp_path / "prompts.jsonl").write_text("\n".join(f'{{"prompt": "{prompt}"}}' for prompt in prompts))
    where = (f"--workdir={models['text_to_multiview']}", "--task=text-to-multiview", f"--output={tmp_path / 'out'}")
    flags = (f"--manifest={tmp_path / 'prompts.jsonl'}", "--seed=4", "--batch=2", f"--steps={STEPS}")
    assert run_command("sample", *where, *flags) == 0
    for number, result in enumerate(results):
        result.save(tmp_path / "python" / f"item_{number:04d}")
        assert files_of(tmp_path / "python" / f"item_{number:04d}") == files_of(tmp_path / "out" / f"item_{number:04d}")
    assert len({result.views.tobytes() for result in results}) == 3


def test_results_come_in_the_order_of_the_meshes_and_an_asset_is_as_good_as_its_file(models, meshes):
    model = r3d.open_model(models["texture"])
    asset, other = r3d.load_asset(meshes[0]), meshes[1]
    three = model.texture_all(
        [asset, other, asset], ["red", "green", "blue"], seeds=[1, 1, 1], steps=STEPS, texture_size=0
    )
    files = model.texture_all(
        [meshes[0], other, meshes[0]], ["red", "green", "blue"], seeds=[1, 1, 1], steps=STEPS, texture_size=0
    )
    assert [result.description["caption"] for result in three] == ["red", "green", "blue"]
    for result, same in zip(three, files, strict=True):
        np.testing.assert_array_equal(result.views, same.views)
        np.testing.assert_array_equal(result.geometry.mask, same.geometry.mask)
        assert result.textured is None
    np.testing.assert_array_equal(three[0].geometry.mask, three[2].geometry.mask)
    assert (three[0].geometry.mask != three[1].geometry.mask).any()
    assert len({result.description["uid"] for result in three}) == 3


def test_results_views_and_folders_are_measured_alike(models, meshes, tmp_path):
    model = r3d.open_model(models["texture"])
    result = model.texture(meshes[0], "a red cone", steps=STEPS, texture_size=0)
    folder = result.save(tmp_path / "items" / "one")
    measured = {
        name: r3d.compute_metrics([given])
        for name, given in (
            ("result", result),
            ("folder", folder),
            ("folders", tmp_path / "items"),
            ("views", result.views),
        )
    }
    assert measured["result"] == measured["folder"] == measured["folders"]
    assert measured["views"]["domain_score"] == measured["result"]["domain_score"]
    assert measured["views"]["silhouette_iou"] is None
    with pytest.warns(UserWarning, match="FID and KID rest on 1 object,"):
        compared = r3d.compute_metrics([result], references={"itself": result.views, "stored": tmp_path / "items"})
    assert compared["fid_itself"] == compared["fid_stored"] == pytest.approx(0.0, abs=1e-3)


def test_where_baking_fails_the_views_are_kept_and_a_warning_says_why(models, meshes, monkeypatch):
    def failing(asset):
        raise MemoryError("too many charts")

    monkeypatch.setattr(run, "unwrap", failing)
    with pytest.warns(UserWarning, match=r"could not be baked \(MemoryError\('too many charts'\)\)"):
        result = r3d.open_model(models["texture"]).texture(meshes[0], "red", steps=STEPS)
    assert result.textured is None
    assert result.views.shape == (4, 32, 32, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model, mesh, _: model.draw("red"), "was trained for the task 'texture', not 'text_to_multiview'"),
        (lambda model, mesh, _: model.texture(mesh, " "), "prompt: found ' '; say what to show"),
        (lambda model, mesh, _: model.texture("none.glb", "red"), "none.glb: cannot read this asset"),
        (lambda model, mesh, _: model.texture(mesh, "red " * 40), "found 40 words, expected at most 19"),
        (lambda model, mesh, _: model.texture(mesh, "red", seed=-1), "seed: found -1, expected 0 to 4294967295"),
        (
            lambda model, mesh, _: model.texture(mesh, "red", step=3),
            "step: unknown setting of the sampler; expected sampler",
        ),
        (lambda model, mesh, _: model.texture(mesh, "red", steps=0), "steps: found 0, expected 1 to 1000"),
        (
            lambda model, mesh, _: model.texture(mesh, "red", domain="cartoon"),
            "domain: found 'cartoon', expected 'real' or",
        ),
        (
            lambda model, mesh, _: model.texture(mesh, "red", texture_size=100),
            "texture_size=100: expected one of 0, 512",
        ),
        (
            lambda model, mesh, _: model.texture(mesh, "red", texture_size=0, harmonise=True),
            "harmonise was given, but no",
        ),
        (lambda model, mesh, _: model.texture(5, "red"), "mesh: found 5, expected a file or an asset"),
        (lambda model, mesh, _: model.texture(mesh, 5), "prompt: found 5; say what to show"),
        (lambda model, mesh, _: model.texture_all([mesh], ["red", "blue"]), "found 1 meshes, 2 prompts and 2 seeds"),
        (lambda model, mesh, _: model.texture_all([mesh], "red"), "prompts: found the text 'red', expected a list"),
        (lambda model, mesh, _: model.texture_all([mesh], ["red"], batch=0), "batch: found 0, expected 1 or more"),
        (lambda model, mesh, _: r3d.open_model(task="cartoon"), "task: found 'cartoon', expected 'texture' or"),
        (lambda model, mesh, _: r3d.compute_metrics([]), "results: found none"),
        (
            lambda model, mesh, _: r3d.compute_metrics([np.zeros((4, 3))]),
            r"results: found float64\[4, 3\]; expected views",
        ),
        (
            lambda model, mesh, tmp: r3d.bake_texture(mesh, VIEWS, STANDARD, tmp / "a.obj"),
            "expected the name of a .glb",
        ),
        (lambda model, mesh, tmp: r3d.bake_texture(mesh, VIEWS, STANDARD, mesh), "is the asset itself"),
        (lambda model, mesh, tmp: r3d.bake_texture(mesh, VIEWS, STANDARD[:2]), "found 4 views and 2 cameras"),
        (
            lambda model, mesh, tmp: r3d.bake_texture(mesh, VIEWS, texture_size=100),
            "texture_size=100: expected one of 512",
        ),
    ],
)
def test_a_mistake_is_named_before_anything_is_drawn(models, meshes, tmp_path, monkeypatch, call, message):
    monkeypatch.setattr(run, "draw_all", None)
    with pytest.raises(r3d.UserError, match=message):
        call(r3d.open_model(models["texture"]), meshes[0], tmp_path)


VIEWS = np.zeros((4, 32, 32, 3), np.uint8)


def test_a_folder_that_exists_is_left_as_it_is(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    result = r3d.Result(VIEWS, STANDARD, ("view_000.png",), None, None, {})
    with pytest.raises(r3d.UserError, match="already exists; it was left as it is"):
        result.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_words_that_a_model_was_not_taught_are_named(models, meshes):
    model = r3d.open_model(models["texture"])
    with pytest.warns(UserWarning, match="no caption of its training had the words 'wooden', 'chair', so"):
        model.texture(meshes[0], "a red wooden Chair, wooden", steps=STEPS, texture_size=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.texture(meshes[0], "a small red cone", steps=STEPS, texture_size=0)


def test_the_known_words_are_those_of_the_benchmarks_captions():
    captions = [objects.make_object(split, index).caption for split in ("train", "test") for index in range(400)]
    assert {word for caption in captions for word in re.findall(r"[a-z0-9]+", caption)} == vocabulary.WORDS


def test_all_commands_are_imported_together_with_flags_of_their_own_and_the_package_alone_imports_little():
    commands = ("sample", "bake", "evaluate", "report", "prepare", "convert", "train")
    program = f"""
import sys
import realiz3d_jax
assert not {{"jax", "numpy", "absl"}} & set(sys.modules)
from realiz3d_jax import {", ".join(commands)}
from absl import flags
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized()
defined = flags.FLAGS.flags_by_module_dict()
print([name for name in defined if "realiz3d_jax" in name])
print(sample.FLAGS["output"] is not bake.FLAGS["output"])
"""
    assert in_a_new_process(program).split("\n")[:2] == ["[]", "True"]


def test_the_first_use_configures_jax_as_the_commands_do():
    settings = ("threefry_partitionable", "compilation_cache_dir", "persistent_cache_min_compile_time_secs")
    show = f"import jax; print(jax.device_count(), [getattr(jax.config, f'jax_{{name}}') for name in {settings}])"
    entry = in_a_new_process(f"import realiz3d_jax as r3d; r3d.open_model(); {show}")
    start = "from realiz3d_jax import startup; startup"
    assert entry == in_a_new_process(f"{start}.start(split_cpu=True); {show}")
    used = in_a_new_process(f"import jax; jax.devices(); {start}.configure(split_cpu=True); {show}")
    assert used.split()[0] == "1"
    assert used.split()[1:] == entry.split()[1:]


def test_public_names_are_found_and_typed_and_none_is_that_of_a_module():
    assert sorted(r3d.__all__) == list(r3d.__all__) == sorted(r3d._HOMES)
    tree = ast.parse(pathlib.Path(r3d.__file__).read_text())
    (typed,) = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {alias.name: node.module.removeprefix("realiz3d_jax.") for node in typed.body for alias in node.names}
    assert imported == r3d._HOMES
    assert not set(r3d.__all__) & {module.name for module in pkgutil.iter_modules(r3d.__path__)}
    for name in r3d.__all__:
        assert callable(getattr(r3d, name))
    assert set(r3d.__all__) <= set(dir(r3d))
    with pytest.raises(AttributeError, match="no attribute 'textures'"):
        r3d.textures  # noqa: B018
