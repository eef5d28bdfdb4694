"""Tasks in processes of their own, where a task that crashes or hangs costs nobody but itself."""

import collections
import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

_START = 60.0
"""Seconds that a process may take to start, beside those of its task."""

_DIED = "the process that worked on it died: out of memory, or a crash in a library"


@dataclasses.dataclass(frozen=True)
class Lost:
    """In place of the result of a task that has none: why."""

    reason: str


def run(
    function: Callable[[Any], Any], tasks: Iterable[Any], workers: int, seconds: float
) -> Iterator[tuple[Any, Any | Lost]]:
    """Calls ``function`` with every task, in processes.

    A task whose process dies is tried once more at the end, when nothing else takes memory.

    Args:
      function: picklable, and so are the tasks and its results; an exception of it ends the iteration and is raised here.
      tasks: of any kind.
      workers: processes.
      seconds: that a task may take.

    Yields:
      (task, its result or ``Lost``), as they come.
    """
    waiting, second_tries = collections.deque(tasks), collections.deque()
    idle, busy = [], []
    try:
        while waiting or second_tries or busy:
            while (waiting and len(busy) < workers) or (second_tries and not waiting and not busy):
                worker = idle.pop() if idle else _Worker(function, seconds)
                first = bool(waiting)
                worker.assign((waiting if first else second_tries).popleft(), first)
                busy.append(worker)
            for worker in _ended(busy):
                outcome = worker.outcome()
                busy.remove(worker)
                if not isinstance(outcome, Lost):
                    idle.append(worker)
                elif outcome.reason == _DIED and worker.first:
                    second_tries.append(worker.task)
                    continue
                yield worker.task, outcome
    finally:
        for worker in idle + busy:
            worker.end()


def end_with_parent() -> None:
    """Ends this process with the one that started it: after kill -9 nobody else would, and Ctrl-C is for that one to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


class _Worker:
    """A process and the task that it has."""

    def __init__(self, function: Callable[[Any], Any], seconds: float):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, function), daemon=True)
        self._process.start()
        theirs.close()  # so that the connection ends when the process does
        self._seconds, self._start = seconds, _START

    def assign(self, task: Any, first: bool) -> None:
        self.task, self.first = task, first
        self.until = time.monotonic() + self._seconds + self._start
        self._start = 0.0
        self.connection.send(task)

    def outcome(self) -> Any | Lost:
        """The result, after ``_ended`` found that there is one, or why there is none; then the process is gone."""
        lost = Lost(f"took more than {self._seconds:g} s")
        if self.connection.poll():
            try:
                done, value = self.connection.recv()
            except EOFError:
                lost = Lost(_DIED)
            else:
                if not done:
                    raise value
                return value
        self.end()
        return lost

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()


def _ended(busy: list[_Worker]) -> list[_Worker]:
    """Waits until a worker has a result, is gone, or is over its time, and returns those that are."""
    patience = max(min(worker.until for worker in busy) - time.monotonic(), 0.0)
    ready = multiprocessing.connection.wait([worker.connection for worker in busy], patience)
    now = time.monotonic()
    return [worker for worker in busy if worker.connection in ready or worker.until <= now]


def _serve(connection: Any, function: Callable[[Any], Any]) -> None:
    end_with_parent()
    while True:
        try:
            connection.send((True, function(connection.recv())))
        except EOFError:
            return
        except Exception as error:
            connection.send((False, error))
