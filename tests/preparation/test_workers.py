"""Tasks in processes: what crashes or hangs is lost alone."""

import multiprocessing
import os
import pathlib
import time

import pytest

from realiz3d_jax.preparation import workers


def work(task: tuple[str, str]) -> str:
    kind, folder = task
    if kind == "crash":
        os._exit(1)
    if kind == "hang":
        time.sleep(600)
    if kind == "crash once" and not (mark := pathlib.Path(folder, "mark")).exists():
        mark.touch()
        os._exit(1)
    if kind == "raise":
        raise ValueError("out of range")
    return kind


def test_what_crashes_or_hangs_is_lost_alone_and_a_crash_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "_START", 20.0)
    kinds = ["a", "crash", "b", "hang", "crash once", "c"]
    results = {
        task[0]: result for task, result in workers.run(work, [(kind, str(tmp_path)) for kind in kinds], 2, seconds=1.0)
    }
    assert {kind: results[kind] for kind in ("a", "b", "c", "crash once")} == {
        kind: kind for kind in ("a", "b", "c", "crash once")
    }
    assert "died" in results["crash"].reason
    assert results["hang"] == workers.Lost("took more than 1 s")
    assert not multiprocessing.active_children()


def test_an_exception_is_raised_where_the_results_are_read():
    with pytest.raises(ValueError, match="out of range"):
        list(workers.run(work, [("raise", "")], 1, seconds=30.0))
    assert not multiprocessing.active_children()
