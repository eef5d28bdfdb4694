"""Files: written so that a reader never sees half of one (made beside its place, then renamed), and JSON read and checked."""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import safetensors

from realiz3d_jax.errors import UserError


@contextlib.contextmanager
def only_one(path: pathlib.Path, message: str) -> Iterator[None]:
    """Holds the lock file ``path``, which the system lets go of when this process ends, however it ends.

    Raises:
      UserError: with ``message``, if another process holds it.
    """
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(message) from error
        yield


def writable_directory(path: str | os.PathLike[str]) -> pathlib.Path:
    """Makes ``path`` a directory that can be written to, and returns it.

    Raises:
      UserError: the directory can't be made or written to.
    """
    path = pathlib.Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(
            f"{path}: cannot write here ({error.strerror}); expected a directory that can be made and written to. "
            "Choose another directory or correct its permissions."
        ) from error
    return path


@contextlib.contextmanager
def writing(path: str | os.PathLike[str], size: int) -> Iterator[None]:
    """Around a block that does nothing but write ``size`` bytes to ``path``.

    Raises:
      UserError: the system would not take them: the disk is full, or a limit on the size of files or a quota is reached.
    """
    try:
        yield
    except (OSError, safetensors.SafetensorError) as error:
        there = next(folder for folder in pathlib.Path(path).parents if folder.exists())
        raise UserError(
            f"{path}: cannot be written ({getattr(error, 'strerror', None) or error}); expected room for {size:,} bytes, "
            f"found {shutil.disk_usage(there).free:,} free. Make room, raise the limit or choose another folder."
        ) from error


@contextlib.contextmanager
def new_file(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """A file to write that takes the place of ``path`` only when the block ends without an exception."""
    path = pathlib.Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        yield pathlib.Path(temporary)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Replaces the file ``path`` by ``content`` in one step."""
    with new_file(path) as new:
        new.write_bytes(content)


def write_text(path: str | os.PathLike[str], content: str) -> None:
    """Replaces the file ``path`` by ``content`` (UTF-8) in one step."""
    write_bytes(path, content.encode())


@contextlib.contextmanager
def new_directory(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """A directory to fill that takes the place of ``path`` only when the block ends without an exception."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    os.chmod(temporary, 0o755)
    try:
        yield temporary
        if path.exists():
            old = temporary.with_name(f"{temporary.name}.old")
            os.replace(path, old)
            os.replace(temporary, path)
            shutil.rmtree(old)
        else:
            os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def read_json(path: pathlib.Path, command: str) -> dict[str, Any]:
    """The JSON object in a file that ``command`` writes.

    Raises:
      UserError: it is missing, or not a JSON object; the message gives the command.
    """
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); expected what this writes:\n  {command}"
        ) from error
    except ValueError as error:
        raise UserError(f"{path}: is no JSON ({error}); expected what this writes:\n  {command}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: found a {type(content).__name__}, expected an object, as this writes:\n  {command}")
    return content
