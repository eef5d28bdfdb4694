"""The folder of object pages beside a report: which objects have a page, the file names, and writing the pages."""

import hashlib
import os
import pathlib
import urllib.parse
from collections.abc import Sequence

from realiz3d_jax import errors, files, progress
from realiz3d_jax.data.records import Records
from realiz3d_jax.errors import UserError
from realiz3d_jax.metrics.stored import StoredMetrics
from realiz3d_jax.reporting import object_page
from realiz3d_jax.reporting.inputs import Samples, TrainingRun, common_objects
from realiz3d_jax.reporting.object_page import VIEWER, ObjectPage
from realiz3d_jax.reporting.textured import Rendering
from realiz3d_jax.sampling.requests import as_uid

_VENDORED = pathlib.Path(object_page.__file__).with_name("model_viewer")
_BESIDE = {VIEWER: _VENDORED / VIEWER, "model-viewer-LICENSE.txt": _VENDORED / "LICENSE"}
"""Files beside pages with a viewer: name in the folder, and source."""

_MARK = b'<meta name="generator" content="realiz3d_jax.report">'


def folder_of(output: pathlib.Path) -> pathlib.Path:
    """Returns the folder of a report's object pages: ``report_objects`` beside ``report.html``."""
    return output.with_name(f"{output.stem}_objects")


def links(folders: Sequence[Samples], output: pathlib.Path, limit: int) -> dict[str, str]:
    """Returns, by uid, the links from the report to the pages of the first ``limit`` objects that all folders have.

    Raises:
      UserError: the folder of the pages holds files that are not pages of a report.
    """
    if not folders or not limit:
        return {}
    _check_ours(folder_of(output))
    name = folder_of(output).name
    return {uid: urllib.parse.quote(f"{name}/{_file(uid)}") for uid in common_objects(folders)[:limit]}


def write(
    uids: Sequence[str],
    output: pathlib.Path,
    metrics: StoredMetrics,
    folders: Sequence[Samples],
    runs: Sequence[TrainingRun],
    held_out: Records | None,
    rendering: Rendering,
) -> None:
    """Writes the pages of ``uids`` atomically, replacing existing pages, and warns about meshes that cannot be shown.

    Args:
      uids: objects to write.
      output: file of the report.
      metrics, folders, runs: contents of the report.
      held_out: the benchmark's split, for the true renders; None if unavailable.
      rendering: render settings of the pictures.

    Raises:
      UserError: an image is missing or damaged; existing pages are unchanged.
    """
    truth = {record["uid"]: record for record in held_out} if held_out is not None else {}
    report = urllib.parse.quote(os.path.join("..", output.name))
    names = ["", *map(_file, uids), ""]
    with files.new_directory(folder_of(output)) as new:
        needed = False
        for number, uid in enumerate(progress.track(uids, "object pages"), 1):
            before, after = names[number - 1], names[number + 1]
            page = ObjectPage(uid, metrics, folders, runs, truth.get(uid), report, before, after, rendering)
            content, problems = object_page.render(page)
            for problem in problems:
                errors.warn(f"{problem} The object's page shows this message; other pages are unaffected.")
            (new / names[number]).write_bytes(content.encode())
            needed = needed or VIEWER in content
        for name, source in _BESIDE.items() if needed else ():
            (new / name).write_bytes(source.read_bytes())


def _file(uid: str) -> str:
    """Returns the file name of an object's page, safe in every file system and URL."""
    plain = as_uid(uid)
    return f"{plain}.html" if plain == uid else f"{plain[:80]}-{hashlib.sha256(uid.encode()).hexdigest()[:8]}.html"


def _check_ours(folder: pathlib.Path) -> None:
    """Raises ``UserError`` if replacing ``folder`` would remove files that this module has not written."""
    if not folder.exists():
        return
    paths = sorted(folder.iterdir()) if folder.is_dir() else [folder]
    strange = [path for path in paths if path.name not in _BESIDE and not _is_page(path)]
    if strange:
        raise UserError(
            f"{strange[0]}: is not a page of a report; expected no file, or pages of an earlier report, which are "
            "replaced. Move it, or write the report under another name."
        )


def _is_page(path: pathlib.Path) -> bool:
    if path.suffix != ".html" or not path.is_file():
        return False
    with path.open("rb") as file:
        return _MARK in file.read(500)
