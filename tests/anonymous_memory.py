"""A process of its own that runs a command and tells how much memory it took: ``python tests/anonymous_memory.py COMMAND ...``.

Arguments are those of ``realiz3d_jax.COMMAND``, twice, with "--" between: the first run loads what every run loads and is not
counted. Prints {"baseline": bytes, "peak": bytes} of anonymous memory, which mapped files are no part of.
"""

import contextlib
import io
import json
import pathlib
import sys
import threading
import time

from worlds import run_command


def anonymous() -> int:
    """Bytes of anonymous memory that this process holds."""
    status = pathlib.Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) * 1024


def peak_of(action) -> tuple[int, int]:
    """Anonymous bytes before ``action``, and the most during it."""
    found, done = [anonymous()], threading.Event()

    def sample():
        while not done.is_set():
            found.append(anonymous())
            time.sleep(0.002)

    thread = threading.Thread(target=sample)
    thread.start()
    action()
    done.set()
    thread.join()
    return found[0], max(found)


def main() -> None:
    """The command."""
    command, *arguments = sys.argv[1:]
    split = arguments.index("--")
    with contextlib.redirect_stdout(io.StringIO()):
        assert run_command(command, *arguments[:split]) == 0
        baseline, peak = peak_of(lambda: run_command(command, *arguments[split + 1 :]))
    print(json.dumps({"baseline": baseline, "peak": peak}))


if __name__ == "__main__":
    main()
