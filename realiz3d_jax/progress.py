"""Progress that a person can read: a bar with the time left on a terminal, a line every so often elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeVar

import rich.console
import rich.progress

Item = TypeVar("Item")

_LINE_EVERY_SECONDS = 15.0


_shown: list[rich.progress.Progress] = []
"""The display on the terminal, at most one; nested bars are its lines until they are full."""


@contextlib.contextmanager
def bar(description: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
    """Shows the progress of ``total`` items, ``done`` of which are already complete.

    Yields ``advance(count=1, note="")``: ``note`` is a short text shown at the end of the line.
    """
    if sys.stderr.isatty():
        inner = bool(_shown)
        with _display() as progress:
            task = progress.add_task(description, total=total, completed=done, note="")

            def advance(count: int = 1, note: str = "") -> None:
                fields: dict[str, Any] = {"note": note} if note else {}
                progress.update(task, advance=count, **fields)

            yield advance
            if inner:
                progress.remove_task(task)
        return
    lines = _Lines(description, total, done)
    yield lines.advance
    lines.close()


@contextlib.contextmanager
def _display() -> Iterator[rich.progress.Progress]:
    """The terminal's current display, or a new one; rich refuses a second."""
    if _shown:
        yield _shown[0]
        return
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TextColumn("left"),
        rich.progress.TimeRemainingColumn(),
        rich.progress.TextColumn("{task.fields[note]}"),
    )
    with rich.progress.Progress(*columns, console=rich.console.Console(stderr=True)) as progress:
        _shown.append(progress)
        try:
            yield progress
        finally:
            _shown.remove(progress)


def track(items: Collection[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Iterates over ``items`` (``total`` of them) under a progress bar."""
    with bar(description, len(items) if total is None else total) as advance:
        for item in items:
            yield item
            advance()


class _Lines:
    """The same without a terminal: one line at most every ``_LINE_EVERY_SECONDS``, and one at the end."""

    def __init__(self, description: str, total: int, done: int):
        self._description, self._total, self._done = description, total, done
        self._first, self._note = done, ""
        self._start = self._last = time.monotonic()
        self._second: float | None = None

    def advance(self, count: int = 1, note: str = "") -> None:
        self._done += count
        self._note = note or self._note
        now = time.monotonic()
        if self._second is None:  # the first thing often compiles, and says nothing of the time that others take
            self._second, self._first = now, self._done
        if now - self._last >= _LINE_EVERY_SECONDS:
            self._last = now
            rate = (now - self._second) / max(self._done - self._first, 1)
            self._print(f"{rate * (self._total - self._done):.0f} s left" if rate else f"{now - self._start:.0f} s")

    def close(self) -> None:
        self._print(f"{time.monotonic() - self._start:.0f} s")

    def _print(self, timing: str) -> None:
        text = f"{self._description}: {self._done}/{self._total}, {timing}"
        print(f"{text}, {self._note}" if self._note else text, file=sys.stderr, flush=True)
