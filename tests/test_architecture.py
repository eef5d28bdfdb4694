"""Imports point down the floors of ``docs/architecture.md``, and the files that the documents name exist."""

import ast
import graphlib
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "realiz3d_jax"
FLOORS = (
    ("train", "prepare", "sample", "evaluate", "report", "convert", "bake"),
    ("training", "preparation", "reporting"),
    ("sampling",),
    ("checkpoints",),
    ("config",),
    ("method", "data", "metrics", "sharding"),
    ("models", "diffusion", "geometry"),
    ("errors", "files", "progress", "startup", "views"),
)
GROUND = FLOORS[-1]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "tests/README.md",
]


def imports(path: pathlib.Path) -> set[str]:
    """The rooms of the package that a module imports from, wherever in it."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {f"{node.module}.{name.name}" for name in node.names}
    rooms = {module.split(".")[1] for module in modules if module.startswith("realiz3d_jax.")}
    return rooms - {"__version__"}


def test_every_room_has_a_floor():
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert rooms - {"__init__"} <= set(FLOOR)


@pytest.mark.parametrize("room", FLOOR)
def test_imports_point_down(room):
    paths = [PACKAGE / f"{room}.py", *(PACKAGE / room).rglob("*.py")]
    upward = {
        (str(path.relative_to(PACKAGE)), other)
        for path in paths
        if path.is_file()
        for other in imports(path) - {room}
        if FLOOR[other] <= FLOOR[room] and not (room in GROUND and other in GROUND)
    }
    assert not upward


def test_no_module_imports_itself_by_way_of_others():
    paths = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    graph = {}
    for name, path in paths.items():
        nodes = [
            node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom) and node.module
        ]
        found = {module for node in nodes for module in (node.module, *(f"{node.module}.{a.name}" for a in node.names))}
        graph[name] = (found & set(paths)) - {name}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names them


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_a_document_names_exist(document):
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    linked = [document.parent / link for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)]
    named = re.findall(r"`((?:[\w.]+/)+[\w.]+\.(?:py|md|sh|txt|css|html|yml))`", text)
    homes = (ROOT, PACKAGE, ROOT / "tests", document.parent)
    gone = [str(path) for path in linked if not path.exists()]
    gone += [name for name in named if not any((home / name).exists() for home in homes)]
    assert not gone
