"""Runs tasks in separate processes, so that a task that crashes or hangs affects no other task."""

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
"""Seconds allowed for a process to start, in addition to the time limit of its task."""

_DIED = "the process that worked on it died: out of memory, or a crash in a library"


@dataclasses.dataclass(frozen=True)
class Lost:
    """Replaces the result of a task that produced none; ``reason`` says why."""

    reason: str


def run(
    function: Callable[[Any], Any], tasks: Iterable[Any], workers: int, seconds: float
) -> Iterator[tuple[Any, Any | Lost]]:
    """Calls ``function`` with every task, in worker processes.

    A task whose process dies is retried once at the end, when no other task takes memory.

    Args:
      function: picklable, like the tasks and the results; an exception that it raises ends the iteration and is re-raised here.
      tasks: arguments for ``function``, one per call.
      workers: number of processes.
      seconds: time limit of a task.

    Yields:
      (task, its result or ``Lost``), in order of completion.
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
    """Makes this process exit when its parent does, even after kill -9, and leaves Ctrl-C to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


class _Worker:
    """A process and its current task."""

    def __init__(self, function: Callable[[Any], Any], seconds: float):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, function), daemon=True)
        self._process.start()
        theirs.close()  # so that the connection closes when the process ends
        self._seconds, self._start = seconds, _START

    def assign(self, task: Any, first: bool) -> None:
        """Sends the process a task; ``first`` states that it is the task's first try."""
        self.task, self.first = task, first
        self.until = time.monotonic() + self._seconds + self._start
        self._start = 0.0
        self.connection.send(task)

    def outcome(self) -> Any | Lost:
        """Returns the result of a worker listed by ``_ended``; without a result, ends the process and returns ``Lost``."""
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
        """Kills the process and closes the connection."""
        self._process.kill()
        self._process.join()
        self.connection.close()


def _ended(busy: list[_Worker]) -> list[_Worker]:
    """Waits until a worker has a result, has died or has exceeded its time limit, and returns all such workers."""
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
