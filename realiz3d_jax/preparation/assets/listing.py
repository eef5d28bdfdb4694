"""Which assets are meant, what they are called and what they show: a folder or a manifest, and captions beside them."""

import csv
import dataclasses
import json
import os
import pathlib
import re
import zlib
from collections.abc import Iterable
from typing import Any

from realiz3d_jax import errors
from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.assets.asset import FORMATS

CAPTION_FILES = ("captions.json", "captions.csv")
"""Where the captions of a folder are looked for if nothing else is said."""

_OTHER_FORMATS = (
    ".fbx",
    ".blend",
    ".dae",
    ".3ds",
    ".3mf",
    ".usd",
    ".usda",
    ".usdc",
    ".usdz",
    ".abc",
    ".x3d",
    ".wrl",
    ".max",
    ".ma",
    ".mb",
)
_COLUMNS = ("mesh", "caption", "uid", "up")
_LONGEST_UID = 100


@dataclasses.dataclass(frozen=True)
class ListedAsset:
    """An asset of a folder or a manifest, before its file is read.

    Attributes:
      uid: its name, letters, digits, "_", "-" and "." only.
      path: of the file.
      caption: what it shows; None if nobody says.
      up: "y" or "z", the axis that is up in the file; None for what its format means.
    """

    uid: str
    path: pathlib.Path
    caption: str | None = None
    up: str | None = None

    def caption_or_name(self) -> str:
        """The caption, or what the file's name says: "old_armChair-2" is "old arm chair 2"."""
        if self.caption:
            return self.caption
        words = re.sub(r"([a-z])([A-Z])", r"\1 \2", self.path.stem)
        return " ".join(re.sub(r"[\W_]+", " ", words).lower().split()) or self.path.stem


@dataclasses.dataclass(frozen=True)
class Skipped:
    """An asset that is left out: its path, or its place in a manifest, and why."""

    asset: str
    reason: str


def list_assets(
    source: str | os.PathLike[str], captions: str | os.PathLike[str] | None = None, up: str | None = None
) -> tuple[list[ListedAsset], list[Skipped]]:
    """The assets of a folder, or of a manifest, in the order of their uids.

    A folder is searched with all below it; an asset is called by its path in it, "/" becoming "_". A manifest is a CSV file
    with the columns mesh, caption, uid and up, or has one JSON object with these keys a line; only mesh is needed, and is
    relative to the manifest. Captions are a JSON object {asset: caption}, a JSON list of objects, one such a line, or a CSV
    file with the columns asset and caption; an asset is named by its uid, its path in the folder, its file's name, or that
    without its ending.

    Args:
      source: the folder or the manifest.
      captions: the file of captions; for a folder one of ``CAPTION_FILES`` in it by default.
      up: of files that say nothing and whose format means nothing else.

    Returns:
      the assets; and what is left out already, such as files of the same uid.

    Raises:
      UserError: there is no such folder or file, it holds no asset, or it cannot be read.
    """
    source = pathlib.Path(source)
    if source.is_dir():
        found, skipped = _search(source)
        named = [ListedAsset(_uid(path.relative_to(source)), path.absolute(), None, up) for path in found]
        beside = [source / name for name in CAPTION_FILES if (source / name).is_file()]
        captions = captions or (beside[0] if beside else None)
    elif source.suffix.lower() in FORMATS:
        raise UserError(f"{source}: is one asset; expected a folder of assets, or a manifest of them.")
    elif source.is_file():
        named, skipped = _of_manifest(source, up)
    else:
        raise UserError(
            f"{source}: there is no such folder or file; expected a folder of assets, or a manifest of them."
        )
    if not named and not skipped:
        raise UserError(f"{source}: found no assets; expected files that end in {', '.join(FORMATS)}.")
    entries: dict[str, ListedAsset] = {}
    for entry in named:
        if entry.uid in entries:
            reason = f"has the uid {entry.uid!r} of {entries[entry.uid].path}; rename one, or give uids in a manifest"
            skipped.append(Skipped(str(entry.path), reason))
        else:
            entries[entry.uid] = entry
    if captions is not None:
        told = read_captions(captions)
        folder = (source if source.is_dir() else source.parent).absolute()
        unused = set(told) - {name for entry in entries.values() for name in _names(entry, folder)}
        if unused:
            errors.warn(f"{captions}: captions that name no asset: {len(unused)}, such as {min(unused)!r}.")
        entries = {uid: _with_caption(entry, told, folder) for uid, entry in entries.items()}
    return [entries[uid] for uid in sorted(entries)], skipped


def read_captions(path: str | os.PathLike[str]) -> dict[str, str]:
    """Captions by what they name, see ``list_assets``.

    Raises:
      UserError: the file cannot be read, or is of none of these forms.
    """
    path = pathlib.Path(path)
    captions: dict[str, str] = {}
    for where, row in _rows(path, pairs=True):
        name = next((row[key] for key in ("asset", "uid", "mesh", "path", "file") if row.get(key)), None)
        if not isinstance(name, str) or not isinstance(row.get("caption"), str):
            raise UserError(f"{where}: found {str(row)[:80]}; expected an asset and its caption, both texts.")
        captions[name] = row["caption"].strip()
    return captions


def _of_manifest(path: pathlib.Path, up: str | None) -> tuple[list[ListedAsset], list[Skipped]]:
    entries, skipped = [], []
    for where, row in _rows(path):
        row = {key: value for key, value in row.items() if value not in (None, "")}
        unknown = sorted(set(row) - set(_COLUMNS))
        bad = [key for key in row if not isinstance(row[key], str)]
        if unknown or bad or "mesh" not in row or row.get("up", "y") not in ("y", "z"):
            found = f"key {unknown[0]!r}" if unknown else str(row)[:80]
            skipped.append(
                Skipped(where, f"found {found}; expected {', '.join(_COLUMNS)}, all texts, up y or z, mesh always")
            )
            continue
        mesh = (path.parent / row["mesh"]).absolute()
        uid = plain_name(row["uid"]) if "uid" in row else _uid(pathlib.Path(row["mesh"]))
        if mesh.is_file():
            entries.append(ListedAsset(uid, mesh, row.get("caption"), row.get("up", up)))
        else:
            skipped.append(Skipped(where, f"{mesh} is not there"))
    return entries, skipped


def _rows(path: pathlib.Path, pairs: bool = False) -> list[tuple[str, dict[str, Any]]]:
    """The rows of a CSV file, a JSON file, or one of JSON lines, each with its place for messages.

    ``pairs`` says that a JSON object in a file by itself holds assets and their captions; else it is a row.
    """
    if not path.exists():
        raise UserError(f"{path}: is not there; expected a JSON or CSV file.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error}); expected JSON or CSV.") from error
    if path.suffix.lower() == ".csv":
        rows: Iterable[Any] = csv.DictReader(text.splitlines(), restkey="more than the columns")
        return [(f"{path}, row {number + 1}", row) for number, row in enumerate(rows)]
    try:
        values = json.loads(text)
    except json.JSONDecodeError:
        values = [_json_line(path, number, line) for number, line in enumerate(text.splitlines()) if line.strip()]
    if isinstance(values, dict) and pairs and set(values) != {"asset", "caption"}:
        values = [{"asset": name, "caption": caption} for name, caption in values.items()]
    values = [values] if isinstance(values, dict) else values
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise UserError(
            f"{path}: found {text.strip()[:60]!r}; expected JSON objects, or CSV in a file that ends in .csv."
        )
    return [(f"{path}, item {number + 1}", value) for number, value in enumerate(values)]


def _json_line(path: pathlib.Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{number + 1}: not JSON ({error.msg} at column {error.colno}).") from error


def _names(entry: ListedAsset, folder: pathlib.Path) -> tuple[str, ...]:
    """What a file of captions may call an asset."""
    relative = entry.path.relative_to(folder).as_posix() if entry.path.is_relative_to(folder) else str(entry.path)
    return entry.uid, relative, relative.removesuffix(entry.path.suffix), entry.path.name, entry.path.stem


def _with_caption(entry: ListedAsset, captions: dict[str, str], folder: pathlib.Path) -> ListedAsset:
    caption = next((captions[name] for name in _names(entry, folder) if captions.get(name)), entry.caption)
    return dataclasses.replace(entry, caption=caption)


def _search(folder: pathlib.Path) -> tuple[list[pathlib.Path], list[Skipped]]:
    """The assets in a folder and below, in order, and what looks like one but cannot be taken."""
    found, skipped = [], []

    def unreadable(error: OSError) -> None:
        skipped.append(Skipped(str(error.filename), f"cannot be searched ({error.strerror})"))

    for place, _, names in os.walk(folder, onerror=unreadable):
        for path in (pathlib.Path(place, name) for name in names):
            kind = path.suffix.lower()
            if kind in _OTHER_FORMATS:
                skipped.append(Skipped(str(path), f"{kind} is not read; export it as GLB"))
            elif kind in FORMATS and not _is_text(str(path)):
                name = os.fsencode(path).decode(errors="replace")
                skipped.append(Skipped(name, "its name is no UTF-8; rename it"))
            elif kind in FORMATS and path.is_symlink() and not path.exists():
                skipped.append(Skipped(str(path), "is a link to nothing"))
            elif kind in FORMATS and path.is_file():
                found.append(path)
    return sorted(found), sorted(skipped, key=lambda one: one.asset)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _uid(path: pathlib.Path) -> str:
    return plain_name("_".join(part for part in path.with_suffix("").parts if part not in ("..", ".", "/")))


def plain_name(name: str) -> str:
    """A name of plain letters; one that is too long or has others ends in a checksum, so that two of them stay two."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name)
    plain = plain if re.match(r"[A-Za-z0-9_]", plain) else f"_{plain}"
    if plain == name and len(plain) <= _LONGEST_UID:
        return plain
    return f"{plain[: _LONGEST_UID - 9]}_{zlib.crc32(name.encode()):08x}"
