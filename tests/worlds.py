"""A small world for tests: data of a few objects, models of the ``tiny`` size with random parameters, configs of them."""

import dataclasses
import functools
import importlib
import importlib.util
import io
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import pytest
import sentencepiece

from realiz3d_jax import errors
from realiz3d_jax.checkpoints import exported
from realiz3d_jax.config import schema as configs
from realiz3d_jax.config.schema import TrainConfig
from realiz3d_jax.data import records
from realiz3d_jax.errors import UserError
from realiz3d_jax.preparation import builders
from realiz3d_jax.preparation.shapes import datasets
from realiz3d_jax.training import setup
from realiz3d_jax.training.optimizer import AdamState

REPOSITORY = pathlib.Path(__file__).parent.parent
OBJECTS = 10
HELD_OUT = {"validation": 2, "test": 3}


@dataclasses.dataclass(frozen=True)
class World:
    """Folders and files that every test may read and none may change.

    Attributes:
      data: a folder with the three datasets; the self-generated images are noise.
      base: an exported checkpoint of a base model.
    """

    data: pathlib.Path
    base: pathlib.Path


def make_world(folder: pathlib.Path) -> World:
    """Makes the world; a few seconds."""
    data = folder / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "HELD_OUT_COUNT", HELD_OUT)
        datasets.prepare(data, "shapes_assets", 32, count=OBJECTS, workers=1)
        datasets.prepare(data, "shapes_photos", 32, count=OBJECTS, workers=1)
    assets = records.open_split(data, "shapes_assets", "train")
    random = np.random.default_rng(0)

    def generated():
        for number, asset in enumerate(assets):
            for view in range(4):
                image = random.integers(0, 256, (32, 32, 3), np.uint8)
                uid = f"generated_{number}_{view}"
                yield {"uid": uid, "caption": asset["caption"], "view": view, "image": image}, {}

    builders.write(data, "shapes_generated", 32, {"train": generated}, {"count": OBJECTS})
    base = folder / "base.safetensors"
    write_exported(base, load_config("base", {"data.directory": str(data)}))
    return World(data, base)


def load_config(file: str, changes: Mapping[str, Any] | None = None, size: str = "tiny") -> TrainConfig:
    """``configs/FILE.py:SIZE`` with ``changes`` by dotted key, as the command reads it; eight devices can split its batches."""
    spec = importlib.util.spec_from_file_location(f"config_{file}", REPOSITORY / "configs" / f"{file}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    values = module.get_config(size)
    values.update_from_flattened_dict({"data.batch_grids": 8, "data.batch_of": "run", **(changes or {})})
    return configs.from_config_dict(values)


def stage_changes(world: World, **changes: Any) -> dict[str, Any]:
    """Overrides that put Stage 1 or Stage 2 into the world; a dot in a key is written as two underscores."""
    named = {key.replace("__", "."): value for key, value in changes.items()}
    return {"data.directory": str(world.data), "init.source": str(world.base), "data.batch_grids": 2, **named}


def random_params(config: TrainConfig, seed: int = 0, partitions: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Random parameters of a config's stage: no layer is left at its zero initialisation, where gradients would be zero."""
    model = setup.make_model(config)
    partitions = partitions or setup.find_stage(model, config.stage).partitions
    return random_like(jax.eval_shape(lambda: model.init(partitions, jax.random.key(0))), seed)


def random_like(shapes: Any, seed: int = 0) -> Any:
    """Random numbers in the place of a tree's leaves."""
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: np.float32(0.1 * random.normal(size=leaf.shape)), shapes)


def write_exported(path: pathlib.Path, config: TrainConfig, seed: int = 0) -> None:
    """An exported checkpoint with random parameters."""
    exported.write(path, exported.ExportedCheckpoint(random_params(config, seed), config, {"seed": seed}))


def adam_state(opt_state: Any) -> AdamState:
    """Moments and counts of everything that trains, whichever of the optimizer's transformations keeps them."""
    is_adam = lambda part: isinstance(part, AdamState)  # noqa: E731
    found = [part for part in jax.tree.leaves(opt_state, is_leaf=is_adam) if is_adam(part)]
    return AdamState(
        *({name: tree for part in found for name, tree in part[at].items() if jax.tree.leaves(tree)} for at in range(3))
    )


def leaves(tree: Any) -> dict[str, np.ndarray]:
    """The leaves by their path, on the host."""
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path): np.array(leaf) for path, leaf in flat}


def write_tokenizer(folder: pathlib.Path) -> pathlib.Path:
    """A small ``spiece.model`` like T5's in a folder of its own, 60 pieces and the hundred extra ids; returns the folder."""
    corpus = (
        "a red cone stands on a blue cube, front view",
        "a small green torus behind a large yellow sphere, back view",
    )
    model = io.BytesIO()
    options = {"vocab_size": 60, "hard_vocab_limit": False, "num_threads": 1, "minloglevel": 2}
    numbers = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus * 5), model_writer=model, **options, **numbers
    )
    folder.mkdir(parents=True)
    (folder / "spiece.model").write_bytes(model.getvalue())
    return folder


def encoded(encoder, captions: list[str], grids: int):
    """The captions of that many grids, as many for each: arrays [grids, groups, ...]."""
    return {name: array.reshape(grids, -1, *array.shape[1:]) for name, array in encoder.encode(captions).items()}


def assert_same(found: Any, expected: Any) -> None:
    """Two trees have the same leaves, bit for bit."""
    found, expected = leaves(found), leaves(expected)
    assert sorted(found) == sorted(expected)
    different = [path for path in expected if found[path].tobytes() != expected[path].tobytes()]
    assert not different


def command(module: str, *arguments: str, **options: Any) -> subprocess.Popen:
    """Starts ``python -m realiz3d_jax.MODULE`` as a user does, on one device."""
    quick = "--xla_backend_optimization_level=0"  # as in conftest, but for the number of devices
    environment = {**os.environ, "XLA_FLAGS": quick, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [sys.executable, "-m", f"realiz3d_jax.{module}", *arguments],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run_command(module: str, *arguments: str) -> int:
    """Runs a command within this process, on a command line; returns its exit status, messages go to stderr.

    The command is imported again, so that its flags have their defaults and no settings of an earlier call.
    """
    name = f"realiz3d_jax.{module}"
    argv = [name, *arguments]
    try:
        imported = sys.modules.get(name)
        loaded = importlib.reload(imported) if imported else importlib.import_module(name)
        parse = getattr(loaded, "parse", functools.partial(errors.parse_flags, flag_values=loaded.FLAGS))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", argv)  # config_flags looks for overrides there
            loaded.main(parse(argv))
        return 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except SystemExit as error:
        return error.code
