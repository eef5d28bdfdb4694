"""The rooms of the package stand on floors, and imports point down."""

import ast
import graphlib
import pathlib
from collections.abc import Iterator

import pytest

import realiz3d_jax

ROOT = pathlib.Path(realiz3d_jax.__file__).parent
FLOORS = (
    {"train", "sample", "evaluate", "report", "prepare", "convert", "bake"},
    {"training", "preparation", "reporting"},
    {"sampling"},
    {"checkpoints"},
    {"config"},
    {"data", "metrics", "sharding", "method"},
    {"geometry", "models", "diffusion"},
    {"errors", "files", "progress", "startup", "views"},
)
"""Commands, one room for each verb, and the spine under them; rooms of one floor know nothing of each other."""
SPINE = {("files", "errors")}
"""Within the lowest floor."""


def modules() -> dict[str, pathlib.Path]:
    """The files of the package by module, without its name: "training.step"."""
    paths = sorted(ROOT.rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imported(path: pathlib.Path, known: set[str]) -> Iterator[str]:
    """The modules of the package that a file imports, wherever in the file it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == realiz3d_jax.__name__:
            module = node.module.partition(".")[2]
            for alias in node.names:
                inner = f"{module}.{alias.name}".lstrip(".")
                yield inner if inner in known else module
        elif isinstance(node, ast.Import):
            yield from (a.name.partition(".")[2] for a in node.names if a.name.startswith(f"{realiz3d_jax.__name__}."))


IMPORTS = {name: set(imported(path, set(modules()))) - {name, ""} for name, path in modules().items()}


@pytest.mark.parametrize("name", [name for name in IMPORTS if name != "__init__"])
def test_imports_point_down(name: str):
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    room = name.split(".")[0]
    assert room in floor, f"{name}: its room stands on no floor"
    for other in {module.split(".")[0] for module in IMPORTS[name]} - {room}:
        below = floor[other] > floor[room] or (room, other) in SPINE
        assert below, f"{name} imports {other}, which does not stand below {room}"


def test_no_module_imports_itself_by_way_of_others():
    graphlib.TopologicalSorter(IMPORTS).prepare()  # raises CycleError, which names them
