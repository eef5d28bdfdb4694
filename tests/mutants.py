"""Silent faults, each of which some test must notice: python tests/mutants.py [WORDS]

One fault after the other is put into a copy of the tree and the tests that are named beside it are run: at least one has to
fail of it, and none without it. Exits 1 if a fault survives, or if the text that it changes is not there exactly once any
more. WORDS choose the faults whose entry holds them.

An entry of ``mutants.txt``: what goes wrong, the file below ``realiz3d_jax``, the text as it is, as it is with the fault, and
pytest's arguments, test files by name alone.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PARTS = ("realiz3d_jax", "tests", "configs", "benchmarks", "pyproject.toml")


def main(words: str) -> int:
    chosen = faults(words)
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder)
        for part in PARTS:
            (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, copy / part)
        sound = {tests: run(copy, tests) == 0 for tests in dict.fromkeys(fault[-1] for fault in chosen)}
        alive = [fault for fault in chosen if not noticed(copy, sound[fault[-1]], *fault)]
    print(f"{len(chosen)} faults, {len(alive)} not noticed")
    return 1 if alive or not chosen else 0


def faults(words: str) -> list[list[str]]:
    """The entries of the table that hold ``words``: what, file, old, new, tests."""
    blocks = (ROOT / "tests" / "mutants.txt").read_text().strip("\n").split("\n\n")
    return [block.split("\n") for block in blocks if words in block]


def noticed(copy: pathlib.Path, sound: bool, what: str, file: str, old: str, new: str, tests: str) -> bool:
    """Whether a test fails of the fault; tells of it. ``sound``: none fails without."""
    path = copy / "realiz3d_jax" / file
    text = path.read_text()
    verdict = "GONE" if text.count(old) != 1 else "" if sound else "UNSOUND"
    if not verdict:
        path.write_text(text.replace(old, new))
        status = run(copy, tests)
        path.write_text(text)
        verdict = {0: "SURVIVED", 1: "killed"}.get(status, f"STATUS {status}")
    print(f"{verdict:<9} {file}: {what}", flush=True)
    return verdict == "killed"


def find_tests(root: pathlib.Path, name: str) -> list[pathlib.Path]:
    """The test files of that name, in whichever folder of ``tests``; there should be one."""
    return list((root / "tests").rglob(name))


def run(copy: pathlib.Path, tests: str) -> int:
    """pytest's exit status: 0 if all pass, 1 if one fails, others if they cannot be run."""
    words = [str(*find_tests(copy, word)) if word.endswith(".py") else word for word in tests.split()]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *words]
    # No bytecode: of two faults of one length within a second Python would read the first one twice.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True).returncode


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:])))
