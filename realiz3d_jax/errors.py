"""The one exception that a user is meant to read, and how commands end with it."""

import sys
from collections.abc import Callable

from absl import app


class UserError(Exception):
    """Something from outside the program is wrong: a file, a flag, a configuration, a checkpoint.

    The message names the thing and the field, what was found, what was expected, and the mend. Commands print it
    without a traceback and exit with status 2.
    """


def run(main: Callable[[list[str]], None]) -> None:
    """Runs a command's ``main`` under absl; a ``UserError`` becomes one message on stderr and exit status 2."""

    def guarded(argv: list[str]) -> None:
        try:
            main(argv)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)

    app.run(guarded)
