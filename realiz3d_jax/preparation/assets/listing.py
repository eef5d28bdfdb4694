"""Lists the assets of a folder or a manifest, with their uids and captions."""

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
"""Files in an asset folder that are searched for captions by default."""

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
      uid: unique name; letters, digits, "_", "-" and "." only.
      path: path of the file.
      caption: description of the asset; None if there is none.
      up: up axis of the file, "y" or "z"; None for the default of its format.
    """

    uid: str
    path: pathlib.Path
    caption: str | None = None
    up: str | None = None

    def caption_or_name(self) -> str:
        """Returns the caption, or otherwise the words of the file's name: "old_armChair-2" gives "old arm chair 2"."""
        if self.caption:
            return self.caption
        words = re.sub(r"([a-z])([A-Z])", r"\1 \2", self.path.stem)
        return " ".join(re.sub(r"[\W_]+", " ", words).lower().split()) or self.path.stem


@dataclasses.dataclass(frozen=True)
class Skipped:
    """An asset that is left out.

    Attributes:
      asset: its path, or its place in a manifest.
      reason: why it is left out.
    """

    asset: str
    reason: str


def list_assets(
    source: str | os.PathLike[str], captions: str | os.PathLike[str] | None = None, up: str | None = None
) -> tuple[list[ListedAsset], list[Skipped]]:
    """Lists the assets of a folder or a manifest, ordered by uid.

    A folder is searched recursively; an asset's uid is its path in the folder, with "/" replaced by "_". A manifest is a CSV
    file with the columns mesh, caption, uid and up, or a file with one JSON object with these keys per line; only mesh is
    required, and is relative to the manifest. Captions are a JSON object {asset: caption}, a JSON list of objects, one such
    object per line, or a CSV file with the columns asset and caption; an asset is named by its uid, its path in the folder,
    its file name, or its file name without the extension.

    Args:
      source: a folder or a manifest.
      captions: a caption file; for a folder, one of its ``CAPTION_FILES`` by default.
      up: up axis, "y" or "z", of assets for which neither the manifest nor the format states one.

    Returns:
      (the assets, the assets already known to be unusable, such as files with the same uid).

    Raises:
      UserError: the folder or file does not exist, holds no asset, or cannot be read.
    """
    source = pathlib.Path(source)
    if source.is_dir():
        found, skipped = _search(source)
        named = [ListedAsset(_uid(path.relative_to(source)), path.absolute(), None, up) for path in found]
        beside = [source / name for name in CAPTION_FILES if (source / name).is_file()]
        captions = captions or (beside[0] if beside else None)
    elif source.suffix.lower() in FORMATS:
        raise UserError(f"{source}: is a single asset; expected a folder of assets, or a manifest.")
    elif source.is_file():
        named, skipped = _of_manifest(source, up)
    else:
        raise UserError(f"{source}: there is no such folder or file; expected a folder of assets, or a manifest.")
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
        texts = read_captions(captions)
        folder = (source if source.is_dir() else source.parent).absolute()
        unused = set(texts) - {name for entry in entries.values() for name in _names(entry, folder)}
        if unused:
            errors.warn(f"{captions}: captions that name no asset: {len(unused)}, such as {min(unused)!r}.")
        entries = {uid: _with_caption(entry, texts, folder) for uid, entry in entries.items()}
    return [entries[uid] for uid in sorted(entries)], skipped


def read_captions(path: str | os.PathLike[str]) -> dict[str, str]:
    """Reads captions, keyed by the name that the file gives each asset; ``list_assets`` documents the formats.

    Raises:
      UserError: the file cannot be read, or has none of these formats.
    """
    path = pathlib.Path(path)
    captions: dict[str, str] = {}
    for where, row in _rows(path, pairs=True):
        name = next((row[key] for key in ("asset", "uid", "mesh", "path", "file") if row.get(key)), None)
        if not isinstance(name, str) or not isinstance(row.get("caption"), str):
            raise UserError(f"{where}: found {str(row)[:80]}; expected an asset and its caption, both strings.")
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
                Skipped(
                    where, f"found {found}; expected {', '.join(_COLUMNS)}, all strings; up is y or z; mesh is required"
                )
            )
            continue
        mesh = (path.parent / row["mesh"]).absolute()
        uid = plain_name(row["uid"]) if "uid" in row else _uid(pathlib.Path(row["mesh"]))
        if mesh.is_file():
            entries.append(ListedAsset(uid, mesh, row.get("caption"), row.get("up", up)))
        else:
            skipped.append(Skipped(where, f"{mesh} does not exist"))
    return entries, skipped


def _rows(path: pathlib.Path, pairs: bool = False) -> list[tuple[str, dict[str, Any]]]:
    """Reads the rows of a CSV, JSON or JSON-lines file, each with its place for messages.

    With ``pairs``, a file with a single JSON object maps assets to captions; otherwise the object is one row.
    """
    if not path.exists():
        raise UserError(f"{path}: does not exist; expected a JSON or CSV file.")
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
    """Returns the names by which a caption file may refer to an asset."""
    relative = entry.path.relative_to(folder).as_posix() if entry.path.is_relative_to(folder) else str(entry.path)
    return entry.uid, relative, relative.removesuffix(entry.path.suffix), entry.path.name, entry.path.stem


def _with_caption(entry: ListedAsset, captions: dict[str, str], folder: pathlib.Path) -> ListedAsset:
    caption = next((captions[name] for name in _names(entry, folder) if captions.get(name)), entry.caption)
    return dataclasses.replace(entry, caption=caption)


def _search(folder: pathlib.Path) -> tuple[list[pathlib.Path], list[Skipped]]:
    """Returns the assets below a folder, sorted, and files that look like assets but cannot be used."""
    found, skipped = [], []

    def unreadable(error: OSError) -> None:
        skipped.append(Skipped(str(error.filename), f"cannot be searched ({error.strerror})"))

    for place, _, names in os.walk(folder, onerror=unreadable):
        for path in (pathlib.Path(place, name) for name in names):
            kind = path.suffix.lower()
            if kind in _OTHER_FORMATS:
                skipped.append(Skipped(str(path), f"{kind} is not supported; export it as GLB"))
            elif kind in FORMATS and not _is_text(str(path)):
                name = os.fsencode(path).decode(errors="replace")
                skipped.append(Skipped(name, "its name is not UTF-8; rename it"))
            elif kind in FORMATS and path.is_symlink() and not path.exists():
                skipped.append(Skipped(str(path), "is a broken link"))
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
    """Returns a name of at most 100 letters, digits, "_", "-" and "."; a changed name ends in a checksum to stay unique."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", name)
    plain = plain if re.match(r"[A-Za-z0-9_]", plain) else f"_{plain}"
    if plain == name and len(plain) <= _LONGEST_UID:
        return plain
    return f"{plain[: _LONGEST_UID - 9]}_{zlib.crc32(name.encode()):08x}"
