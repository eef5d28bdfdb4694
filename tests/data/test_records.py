import concurrent.futures
import json
import multiprocessing
import shutil

import numpy as np
import pytest

from realiz3d_jax.data import records
from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry import cameras
from realiz3d_jax.geometry.assets.asset import load_asset
from realiz3d_jax.preparation.shapes import datasets, examples


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small shapes_assets set."""
    directory = tmp_path_factory.mktemp("datasets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "HELD_OUT_COUNT", {"validation": 2, "test": 3})
        datasets.prepare(directory, "shapes_assets", 32, count=6, workers=1)
    return directory


@pytest.fixture
def copy(made, tmp_path):
    """The same set, to spoil."""
    shutil.copytree(made, tmp_path / "datasets")
    return tmp_path / "datasets"


def test_a_record_is_what_was_rendered(made):
    split = records.open_split(made, "shapes_assets", "test")
    assert len(split) == 3
    for index in range(3):
        expected, attached = examples.asset_example("test", index, 32, seed=0)
        record = split[index]
        assert set(record) == set(expected) == set(records.SCHEMAS["assets"]) - {"up", "depth", "cameras"}
        for name, value in expected.items():
            np.testing.assert_array_equal(record[name], value)
            assert type(record[name]) is type(value)
        assert (split.path / record["mesh"]).read_bytes() == attached[record["mesh"]]
        assert len(load_asset(split.path / record["mesh"]).mesh.faces) > 0
    assert split[-1]["uid"] == "test_00002"


def test_a_set_states_its_conventions_and_how_it_was_made(made):
    metadata = records.open_split(made, "shapes_assets", "train").metadata
    assert metadata["count"] == 6
    assert metadata["size"] == 32
    assert metadata["rig"]["azimuths"] == [0, 90, 180, 270]
    assert metadata["rig"]["width"] == 1.1


def test_maps_are_stored_to_half_a_step_of_16_bits():
    generator = np.random.default_rng(0)
    mask = generator.random((4, 8, 8)) < 0.5
    normals = generator.standard_normal((4, 8, 8, 3))
    normals = np.where(mask[..., None], normals / np.linalg.norm(normals, axis=-1, keepdims=True), 0)
    positions = np.where(mask[..., None], generator.uniform(-0.5, 0.5, (4, 8, 8, 3)), 0)
    stored = records.encode_normals(normals, mask), records.encode_positions(positions, mask)
    assert all(array.dtype == np.uint16 and (array[~mask] == 32768).all() for array in stored)
    np.testing.assert_allclose(records.decode_normals(stored[0], mask), normals, atol=1 / 65535 + 1e-7)
    np.testing.assert_allclose(records.decode_positions(stored[1], mask), positions, atol=0.5 / 65535 + 1e-7)
    assert 0.5 / 65535 * 512 / cameras.ORTHO_WIDTH < 0.01  # pixels at 512


def test_threads_and_processes_read_the_same(made):
    split = records.open_split(made, "shapes_assets", "train")
    expected = [split[index]["caption"] for index in range(len(split))]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda index: split[index % 6]["caption"], range(60)))
    assert found == expected * 10
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(split.__getitem__, range(6)))[3]["caption"] == expected[3]


def error_of(directory, dataset="shapes_assets", split="train", size=32):
    with pytest.raises(UserError) as raised:
        records.open_split(directory, dataset, split, size)
    return str(raised.value)


def test_a_missing_set_is_answered_with_the_command_that_makes_it(tmp_path, made):
    message = error_of(tmp_path / "none", "shapes_photos")
    assert str(tmp_path / "none" / "shapes_photos" / "32" / "1.1.0") in message
    assert (
        f"python -m realiz3d_jax.prepare --dataset shapes_photos --directory {tmp_path / 'none'} --size 32" in message
    )
    assert "--size 64" in error_of(made, size=64)
    assert "--self-generate" in error_of(made, "shapes_generated")
    assert "expected COLLECTION_KIND" in error_of(made, "cats")
    assert "expected one of test, train, validation" in error_of(made, split="holdout")


def test_another_version_is_named(copy):
    folder = copy / "shapes_assets" / "32"
    (folder / "1.1.0").rename(folder / "0.9.0")
    message = error_of(copy)
    assert "holds version 0.9.0" in message
    assert "expected 1.1.0" in message


def test_a_half_written_set_does_not_load(copy):
    folder = copy / "shapes_assets" / "32"
    (folder / "1.1.0").rename(folder / "incomplete.ABCDEF_1.1.0")
    assert "does not exist" in error_of(copy)


@pytest.mark.parametrize("keep", [0, 0.5, 0.999])
def test_a_truncated_record_file_is_named(copy, keep):
    file = next((copy / "shapes_assets" / "32" / "1.1.0").glob("*-train.array_record*"))
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content))])
    message = error_of(copy)
    assert str(file) in message
    assert "0 readable records" in message
    assert "expected 6" in message
    assert "python -m realiz3d_jax.prepare --dataset shapes_assets" in message
    records.open_split(copy, "shapes_assets", "test")


def test_a_missing_record_file_and_broken_metadata_are_named(copy):
    folder = copy / "shapes_assets" / "32" / "1.1.0"
    metadata = json.loads((folder / "metadata.json").read_text())
    (folder / "metadata.json").write_text(json.dumps(metadata | {"positions": "float32"}))
    assert "positions is 'float32'; expected" in error_of(copy)
    (folder / "metadata.json").write_text(json.dumps(metadata))
    next(folder.glob("*-train.array_record*")).unlink()
    assert "record file is missing" in error_of(copy)
    (folder / "features.json").write_text("{")
    assert "cannot be read as a dataset" in error_of(copy)
