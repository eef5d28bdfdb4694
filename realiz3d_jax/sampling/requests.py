"""Requests for the sampler: one prompt with its seed and, for texturing, the geometry that controls it."""

import dataclasses
import json
import os
import pathlib
import re

from realiz3d_jax.data import records
from realiz3d_jax.data.geometry_maps import Geometry
from realiz3d_jax.data.pipeline import StreamConfig
from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.assets.asset import Asset

_LONGEST_UID = 100


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
    """One item.

    Attributes:
      uid: the name of its output folder.
      prompt: its caption.
      seed: seed of its noise, 0 to 2^32 - 1.
      mesh: file of the mesh that controls it, or None.
      up: up axis of that file, "y" or "z"; None for the default of its format.
      geometry: its maps if a dataset already holds them; else they are rendered from ``mesh`` or ``asset``.
      asset: the mesh itself, in the place of a file.
    """

    uid: str
    prompt: str
    seed: int
    mesh: pathlib.Path | None = None
    up: str | None = None
    geometry: Geometry | None = None
    asset: Asset | None = None


def from_split(source: StreamConfig, split: str, seed: int) -> list[Request]:
    """The objects of a split of the assets that a model was trained on; item n has the seed ``seed + n``.

    Raises:
      UserError: the dataset is missing or has other views, or a seed is out of range.
    """
    data = source.data
    held = records.open_split(data.directory, records.dataset_name(data.collection, "assets"), split, data.size)
    records.check_views(held, data.rig, ("normal", "position") if source.geometry else ())
    _check_seed(seed + len(held) - 1)
    return [_of_record(record, held.path, list(data.views), seed + number) for number, record in enumerate(held)]


def _of_record(record: records.Example, folder: pathlib.Path, views: list[int], seed: int) -> Request:
    maps = [record[name][views] for name in ("normal", "position", "mask") if "normal" in record]
    return Request(
        uid=as_uid(record["uid"]),
        prompt=record["caption"],
        seed=seed,
        mesh=folder / record["mesh"] if "mesh" in record else None,
        up=record.get("up") or None,
        geometry=Geometry(*maps) if maps else None,
    )


def from_manifest(path: str | os.PathLike[str], seed: int, up: str | None = None) -> tuple[list[Request], list[str]]:
    """Reads a manifest: one JSON object a line, ``{"prompt": ..., "mesh": ..., "up": ..., "uid": ..., "seed": ...}``.

    ``prompt`` is needed; a relative ``mesh`` is relative to the manifest; ``uid`` is ``item_0000`` and so on, ``seed`` is
    ``seed`` plus the line's number, and ``up`` is ``up``, unless they are given. Empty lines are skipped.

    Returns:
      the requests of all good lines, and one message for each bad line.

    Raises:
      UserError: the file can't be read.
    """
    path = pathlib.Path(path)
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); expected a text file with one JSON object a line."
        ) from error
    if not any(line.strip() for line in lines):
        raise UserError(f'{path}: is empty; expected one JSON object a line, such as {{"prompt": "a red cone"}}.')
    requests, problems = {}, []
    for number, line in enumerate(lines):
        if line.strip():
            try:
                request = _parse_line(line, number, path.parent, seed, up)
                if request.uid in requests:
                    raise UserError(f"the uid {request.uid!r} occurs for the second time; the first one is kept.")
                requests[request.uid] = request
            except UserError as error:
                problems.append(f"{path}:{number + 1}: {error}")
    return list(requests.values()), problems


def _parse_line(line: str, number: int, folder: pathlib.Path, seed: int, up: str | None) -> Request:
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"not JSON ({error.msg} at column {error.colno}); expected an object with a prompt.") from error
    if not isinstance(values, dict):
        raise UserError(f'found {line.strip()[:40]!r}, expected an object such as {{"prompt": "a red cone"}}.')
    kinds = {"prompt": str, "mesh": str, "up": str, "uid": str, "seed": int}
    for key, value in values.items():
        if key not in kinds:
            raise UserError(f"unknown key {key!r}; expected {', '.join(kinds)}.")
        if type(value) is not kinds[key]:
            raise UserError(f"{key}: found {value!r}, expected {kinds[key].__name__}.")
    if not values.get("prompt", "").strip():
        raise UserError('"prompt" is missing or empty.')
    return make_request(
        uid=values.get("uid", f"item_{number:04d}"),
        prompt=values["prompt"],
        seed=values.get("seed", seed + number),
        mesh=folder / values["mesh"] if "mesh" in values else None,
        up=values.get("up", up),
    )


def make_request(uid: str, prompt: str, seed: int, mesh: pathlib.Path | None = None, up: str | None = None) -> Request:
    """A request whose values have been checked.

    Raises:
      UserError: the name is no folder's name, the seed is out of range, or ``up`` is no axis.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", uid) or len(uid) > _LONGEST_UID:
        raise UserError(
            f"uid: found {uid[: _LONGEST_UID + 1]!r}, expected at most {_LONGEST_UID} letters, digits, '_', '-' and '.' "
            "(it names the output folder)."
        )
    if up not in (None, "y", "z"):
        raise UserError(f'up: found {up!r}, expected "y" or "z".')
    _check_seed(seed)
    return Request(uid, prompt, seed, mesh, up)


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**32:
        raise UserError(f"seed: found {seed}, expected 0 to {2**32 - 1}.")


def as_uid(name: str) -> str:
    """A file's name as the name of an item, which is plain enough for a folder anywhere."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name)
    plain = plain if re.match(r"[A-Za-z0-9_]", plain) else f"_{plain}"
    return plain[:_LONGEST_UID]
