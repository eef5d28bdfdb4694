import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from tensorflow_datasets.core import shuffle

from realiz3d_jax import files
from realiz3d_jax.data import records
from realiz3d_jax.errors import UserError
from realiz3d_jax.preparation import builders, making
from realiz3d_jax.preparation.shapes import datasets

COUNT = 18
CHUNK = 3


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(making, "CHUNK", CHUNK)
    monkeypatch.setattr(datasets, "HELD_OUT_COUNT", {"validation": 1, "test": 2})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The files of a set that nothing interrupted."""
    directory = tmp_path_factory.mktemp("undisturbed")
    datasets.prepare(directory, "shapes_photos", 32, count=COUNT, workers=1)
    return contents(directory)


def contents(directory):
    files = (path for path in pathlib.Path(directory).rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def command(*flags):
    return subprocess.run(
        [sys.executable, "-m", "realiz3d_jax.prepare", *flags], capture_output=True, text=True, timeout=120, check=False
    )


def start(directory):
    """Starts making the set of ``undisturbed`` in a process group of its own."""
    code = (
        "from realiz3d_jax.preparation import making; from realiz3d_jax.preparation.shapes import datasets\n"
        f"making.CHUNK = {CHUNK}\n"
        f"if __name__ == '__main__': datasets.prepare({str(directory)!r}, 'shapes_photos', 32, count={COUNT}, workers=2)"
    )
    script = directory / "make.py"
    script.write_text(code)
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    return subprocess.Popen([sys.executable, str(script)], env=environment, stderr=subprocess.DEVNULL)


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_split_larger_than_the_memory_of_tfds_is_written_without_tensorflow(tmp_path, monkeypatch, undisturbed):
    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 1000)
    datasets.prepare(tmp_path, "shapes_photos", 32, count=COUNT, workers=1)
    assert contents(tmp_path) == undisturbed


def test_killed_in_the_middle_and_started_again_it_makes_the_same_bytes(tmp_path, undisturbed):
    process = start(tmp_path)
    work = tmp_path / ".prepare" / "shapes_photos-32-1.1.0"
    wait_until(lambda: list(work.glob("train-*.npz")))
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_until(lambda: not any(alive(child) for child in children))  # kill -9 leaves no worker behind
    with pytest.raises(UserError, match="does not exist"):
        records.open_split(tmp_path, "shapes_photos", "train")
    left = {path: path.stat().st_mtime_ns for path in work.glob("train-*.npz")}
    assert 0 < len(left) < COUNT // CHUNK
    rendered = []
    with pytest.MonkeyPatch.context() as patch:
        original = datasets._render_chunk
        patch.setattr(datasets, "_render_chunk", lambda *job: rendered.append(job[-1][-1]) or original(*job))
        datasets.prepare(tmp_path, "shapes_photos", 32, count=COUNT, workers=1)
    assert not set(rendered) & set(left)
    assert len(rendered) == COUNT // CHUNK - len(left)
    (tmp_path / "make.py").unlink()
    assert contents(tmp_path) == undisturbed


def interrupt(*arguments, **options):
    raise KeyboardInterrupt


def alive(process):
    try:
        return pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")")[-1].split()[0] != "Z"
    except OSError:
        return False


def test_interrupted_while_writing_it_leaves_nothing_that_loads_and_resumes(tmp_path, undisturbed, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(making, "_read_chunk", interrupt)
        with pytest.raises(KeyboardInterrupt):
            datasets.prepare(tmp_path, "shapes_photos", 32, count=COUNT, workers=1)
    with pytest.raises(UserError, match="does not exist"):
        records.open_split(tmp_path, "shapes_photos", "train")
    # What kill -9 would have left of TFDS' folder:
    leftover = tmp_path / "shapes_photos" / "32" / "incomplete.QWERTY_1.1.0"
    leftover.mkdir(parents=True)
    (leftover / "half").write_text("half")
    datasets.prepare(tmp_path, "shapes_photos", 32, count=COUNT, workers=1)
    assert contents(tmp_path) == undisturbed


def test_chunks_of_another_seed_are_not_taken_for_these(tmp_path, undisturbed, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(builders, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            datasets.prepare(tmp_path, "shapes_photos", 32, count=COUNT, seed=5, workers=1)
    assert list((tmp_path / ".prepare").rglob("*.npz"))
    datasets.prepare(tmp_path, "shapes_photos", 32, count=COUNT, workers=1)
    assert contents(tmp_path) == undisturbed


def test_a_set_that_is_there_is_left_alone_and_another_count_is_refused(tmp_path):
    flags = ("--dataset", "shapes_photos", "--directory", str(tmp_path), "--count", "2", "--workers", "1")
    first = command(*flags)
    assert first.returncode == 0, first.stderr
    assert "made shapes_photos (train 2)" in first.stdout
    assert "making shapes_photos: 2/2" in first.stderr
    before = contents(tmp_path)
    assert all(name.startswith("shapes_photos") for name in before)  # the work directory went
    second = command(*flags)
    assert second.returncode == 0
    assert "already exists (train 2); nothing to do" in second.stdout
    with pytest.raises(UserError, match="count=2, but count=3 was requested"):
        datasets.prepare(tmp_path, "shapes_photos", count=3)
    assert contents(tmp_path) == before


def test_bad_flags_are_answered_in_one_line(tmp_path):
    result = command("--dataset", "cats")
    assert result.returncode == 2
    assert "--dataset=cats: unknown; expected one of shapes_photos, shapes_assets" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    with pytest.raises(UserError, match="size 33: expected one of 32, 64"):
        datasets.prepare(tmp_path, "shapes_photos", size=33)
    with pytest.raises(UserError, match="count 0"):
        datasets.prepare(tmp_path, "shapes_photos", count=0)


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write here"):
        datasets.prepare(tmp_path / "file", "shapes_photos", count=1)


def test_two_processes_do_not_make_the_same_set_at_once(tmp_path):
    work = tmp_path / ".prepare" / "shapes_photos-32-1.1.0"
    work.mkdir(parents=True)
    with (
        files.only_one(work / "lock", "free"),
        pytest.raises(UserError, match="another process is making this dataset"),
    ):
        datasets.prepare(tmp_path, "shapes_photos", count=1, workers=1)
