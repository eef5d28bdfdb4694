"""Makes the datasets: ``python -m realiz3d_jax.prepare --dataset shapes_assets``, ``... --assets FOLDER --collection NAME``,
``... --render-set FOLDER --render-format FORMAT --collection NAME``, ``... --self-generate``, ``... --encode``.

An interrupted command resumes when it is run again; existing datasets are left unchanged.
"""

import dataclasses
import functools
import json
import pathlib
import shlex
import time
from collections.abc import Callable
from typing import Any

import jax
import rich.console
import rich.markup
import rich.table
from absl import flags

from realiz3d_jax import errors, startup
from realiz3d_jax.config import flag
from realiz3d_jax.config.schema import build, is_latent
from realiz3d_jax.data import records
from realiz3d_jax.errors import UserError
from realiz3d_jax.preparation.assets import beam, listing, rendering
from realiz3d_jax.preparation.encoding import encode
from realiz3d_jax.preparation.render_sets import conversion
from realiz3d_jax.preparation.render_sets.formats import FORMATS
from realiz3d_jax.preparation.self_generation import self_generate
from realiz3d_jax.preparation.shapes import datasets, objects
from realiz3d_jax.sampling import pretrained
from realiz3d_jax.sampling.pretrained import SHIPPED, open_model

FLAGS = flags.FlagValues()
_DATASET = flags.DEFINE_string(
    "dataset",
    None,
    "Dataset to make: shapes_photos (for pre-training the base model), "
    "shapes_assets (meshes, geometry maps and renders) or shapes_generated (see --self-generate).",
    flag_values=FLAGS,
)
_DIRECTORY = flags.DEFINE_string("directory", "datasets", "Root folder of the datasets.", flag_values=FLAGS)
_ASSETS = flags.DEFINE_string(
    "assets",
    None,
    "Your own assets to render: a folder (GLB, glTF, OBJ, PLY, STL, OFF; searched recursively) or a manifest "
    "(CSV or JSON lines: mesh, caption, uid, up). Needs --collection.",
    flag_values=FLAGS,
)
_RENDER_SET = flags.DEFINE_string(
    "render-set", None, "Folder of a published render set. Needs --render-format and --collection.", flag_values=FLAGS
)
_RENDER_FORMAT = flags.DEFINE_enum("render-format", None, list(FORMATS), "Format of --render-set.", flag_values=FLAGS)
_CAPTIONS = flags.DEFINE_string(
    "captions",
    None,
    "Captions, JSON or CSV; for --assets by default captions.json or captions.csv in the folder.",
    flag_values=FLAGS,
)
_UP = flags.DEFINE_enum(
    "up", None, ["y", "z"], "Up axis of the assets, if it differs from their format's default.", flag_values=FLAGS
)
_BEAM = flags.DEFINE_string(
    "beam",
    None,
    "Render --assets with Apache Beam (requirements-beam.txt) and these pipeline options, such as --runner=DirectRunner.",
    flag_values=FLAGS,
)
_CONFIG = flag.define("Render settings, configs/data/render.py[:RIG]; by default the four standard views.", FLAGS)
_COLLECTION = flags.DEFINE_string(
    "collection",
    records.SHAPES,
    "Prefix of the datasets' names: the shapes benchmark, or your own collection.",
    flag_values=FLAGS,
)
_SIZE = flags.DEFINE_integer(
    "size", 32, f"Pixels along a side of a view: {', '.join(map(str, records.SIZES))}.", flag_values=FLAGS
)
_COUNT = flags.DEFINE_integer(
    "count",
    None,
    "Objects in the training split, or training captions to self-generate from (held-out ones are added); by default "
    + ", ".join(f"{count} for {name}" for name, count in datasets.DEFAULT_COUNT.items())
    + ".",
    flag_values=FLAGS,
)
_SEED = flags.DEFINE_integer("seed", objects.SEED, "Seed of the objects.", flag_values=FLAGS)
_SELF_GENERATE = flags.DEFINE_bool(
    "self-generate",
    False,
    "Make the real training images: the base model draws the captions of the collection's assets.",
    flag_values=FLAGS,
)
_ENCODE = flags.DEFINE_bool(
    "encode",
    False,
    "Encode the collection's assets and self-generated images for training --base, a converted text-to-image model: "
    "images and maps by its autoencoder, captions by its text encoder.",
    flag_values=FLAGS,
)
_BASE = flags.DEFINE_string(
    "base",
    str(SHIPPED["base"]),
    "Base model for --self-generate and --encode: a workdir, an exported checkpoint, or a folder of realiz3d_jax.convert.",
    flag_values=FLAGS,
)
_ENCODERS = flags.DEFINE_string(
    "encoders",
    "",
    "Folder with the text encoder and the autoencoder of --base, if it differs from the one in its config.",
    flag_values=FLAGS,
)
_WORKERS = flags.DEFINE_integer("workers", None, "Processes; by default one per core.", flag_values=FLAGS)

_MOST_ROWS = 40
"""Maximum number of rows in the table of skipped assets."""


def _shapes(dataset: str) -> str:
    """Makes one of the shapes datasets; returns a message for the user."""
    start = time.monotonic()
    path, made = datasets.prepare(
        _DIRECTORY.value, dataset, _SIZE.value, count=_COUNT.value, seed=_SEED.value, workers=_WORKERS.value
    )
    return _message(path, dataset, made, start)


def _render_config() -> rendering.RenderConfig:
    if _COLLECTION.value == records.SHAPES:
        raise UserError(
            "--collection=NAME: is required with --assets and --render-set, as the name of your datasets (shapes is the "
            "benchmark's); training reads them with --config.data.collection=NAME."
        )
    if _CONFIG.value is None:
        return rendering.RenderConfig()
    return build(rendering.RenderConfig, _CONFIG.value.to_dict(), "config")


def _render_set() -> str:
    """Imports a published render set; returns a message for the user."""
    start, config = time.monotonic(), _render_config()
    if _RENDER_FORMAT.value is None:
        raise UserError(f"--render-format: is required with --render-set; expected one of {', '.join(FORMATS)}.")
    path, made = conversion.prepare(
        _DIRECTORY.value,
        _COLLECTION.value,
        _RENDER_SET.value,
        _RENDER_FORMAT.value,
        listing.read_captions(_CAPTIONS.value) if _CAPTIONS.value else {},
        _SIZE.value,
        config,
        _COUNT.value,
        _WORKERS.value,
    )
    metadata = _metadata(path)
    if metadata["rig"] is None:
        errors.warn(
            f"the objects of {_RENDER_SET.value} lack views of the rig, so their {metadata['views']} views are kept "
            "unchanged: they serve Stage 1, but make no grids. To choose another rig: --config configs/data/render.py:RIG."
        )
    return _message_with_skipped(path, made, start)


def _assets() -> str:
    """Renders a team's own assets; returns a message for the user."""
    start, config = time.monotonic(), _render_config()
    entries, skipped = listing.list_assets(_ASSETS.value, _CAPTIONS.value, _UP.value)
    if not entries:
        _print_skipped([(one.asset, one.reason) for one in skipped], "")
        raise UserError(f"{_ASSETS.value}: none of its assets can be used.")
    entries = entries[: _COUNT.value]
    unnamed = [entry for entry in entries if not entry.caption]
    if unnamed:
        first, beside = unnamed[0], " or ".join(listing.CAPTION_FILES)
        errors.warn(
            f"{len(unnamed)} of {len(entries)} assets have no caption and use their file's name, such as "
            f"{first.caption_or_name()!r} for {first.path.name}; captions come from --captions, or from {beside} in the folder."
        )
    where = _DIRECTORY.value, _COLLECTION.value, entries, _SIZE.value, config
    if _BEAM.value is None:
        path, made = rendering.prepare(*where, _WORKERS.value, skipped)
    else:
        path, made = beam.prepare(*where, shlex.split(_BEAM.value), skipped)
    return _message_with_skipped(path, made, start)


def _metadata(path: pathlib.Path) -> dict[str, Any]:
    return json.loads((path / "metadata.json").read_text())


def _message_with_skipped(path: pathlib.Path, made: bool, start: float) -> str:
    """Returns a message about a collection's assets, after printing a table of the skipped ones."""
    lost = [(one["item"], one["reason"]) for one in _metadata(path).get("skipped", [])]
    if lost:
        _print_skipped(lost, f": skipped in {path / 'metadata.json'}")
    seconds = time.monotonic() - start
    dataset = records.dataset_name(_COLLECTION.value, "assets")
    count = sum(map(len, records.open_all(_DIRECTORY.value, dataset, _SIZE.value).values()))
    message = _message(path, dataset, made, start)
    return f"{message} {60 * count / seconds:.1f} objects per minute." if made else message


def _print_skipped(lost: list[tuple[str, str]], where: str) -> None:
    table = rich.table.Table("asset", "why it is left out", title=f"{len(lost)} left out", title_justify="left")
    for row in lost[:_MOST_ROWS]:
        table.add_row(*map(rich.markup.escape, row))
    console = rich.console.Console(stderr=True)
    console.print(table)
    if len(lost) > _MOST_ROWS:
        console.print(f"and {len(lost) - _MOST_ROWS} more{where}", markup=False)


def _generated() -> str:
    """Makes the self-generated images; returns a message for the user."""
    start = time.monotonic()
    base = open_model(_BASE.value, _ENCODERS.value, jax.local_devices())
    hosts = {"host": jax.process_index(), "hosts": jax.process_count()}
    path, made = self_generate(_DIRECTORY.value, base, _COUNT.value, _SEED.value, collection=_COLLECTION.value, **hosts)
    return _message(path, records.dataset_name(_COLLECTION.value, "generated"), made, start)


def _encoded() -> str:
    """Encodes the training data; returns a message for the user."""
    config = pretrained.read_config(_BASE.value, _ENCODERS.value)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, collection=_COLLECTION.value))
    if not is_latent(config):
        raise UserError(
            f"--base={_BASE.value}: works on pixels and words directly, so there is nothing to encode; expected published "
            "weights converted by realiz3d_jax.convert."
        )
    start = time.monotonic()
    made = encode(_DIRECTORY.value, config, host=jax.process_index(), hosts=jax.process_count())
    seconds, lines, total = time.monotonic() - start, [], 0
    for path, now in made.values():
        count = sum(
            len(held) for held in records.open_all(_DIRECTORY.value, path.parent.parent.name, config.data.size).values()
        )
        size = sum(file.stat().st_size for file in path.iterdir())
        lines.append(
            f"{path}: {'encoded' if now else 'already exists,'} {count} records, {size / count / 1e3:,.0f} kB each."
        )
        total += count * now
    if total:
        lines.append(f"{total / seconds:.2f} records/s, {seconds:.0f} s in total.")
    return "\n".join(lines)


def _message(path: pathlib.Path, dataset: str, made: bool, start: float) -> str:
    splits = records.open_all(_DIRECTORY.value, dataset, int(path.parent.name))
    content = ", ".join(f"{split} {len(held)}" for split, held in splits.items())
    if not made:
        return f"{path}: {dataset} already exists ({content}); nothing to do."
    return f"{path}: made {dataset} ({content}) in {time.monotonic() - start:.0f} s."


DATASETS: dict[str, Callable[[], str]] = {
    "shapes_photos": functools.partial(_shapes, "shapes_photos"),
    "shapes_assets": functools.partial(_shapes, "shapes_assets"),
    "shapes_generated": _generated,
    "encoded": _encoded,
    "assets": _assets,
    "render_set": _render_set,
}
"""Functions that make each dataset; they read the flags and return a message to print."""

_SHAPES = [name for name in DATASETS if name.startswith(records.SHAPES)]


def main(argv: list[str]) -> None:
    """Runs the command."""
    if len(argv) > 1:
        raise UserError(f"argument {argv[1]!r}: unexpected; expected flags only, such as --dataset shapes_photos.")
    if _SELF_GENERATE.value and _DATASET.value not in (None, "shapes_generated"):
        raise UserError(f"--self-generate makes shapes_generated; --dataset={_DATASET.value} was given as well.")
    if _ENCODE.value and (_SELF_GENERATE.value or _DATASET.value):
        raise UserError("--encode encodes existing datasets; expected neither --dataset nor --self-generate with it.")
    dataset = "shapes_generated" if _SELF_GENERATE.value else "encoded" if _ENCODE.value else _DATASET.value
    own = [name for name, flag in (("assets", _ASSETS), ("render_set", _RENDER_SET)) if flag.value]
    if own and (dataset or len(own) > 1):
        raise UserError(
            "--assets and --render-set make your own dataset; expected one of them, without --dataset, --self-generate and "
            "--encode."
        )
    if _DATASET.value is not None and _DATASET.value not in _SHAPES:
        raise UserError(f"--dataset={_DATASET.value}: unknown; expected one of {', '.join(_SHAPES)}.")
    if not own and dataset is None:
        raise UserError(
            "nothing was requested; expected --dataset, --assets, --render-set, --self-generate or --encode."
        )
    dataset = own[0] if own else dataset
    startup.start(split_cpu=True)
    print(DATASETS[dataset]())


parse = flag.parse(_CONFIG, FLAGS)

if __name__ == "__main__":
    errors.run(main, FLAGS, parse)
