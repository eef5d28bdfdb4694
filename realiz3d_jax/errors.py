"""The one exception that a user is meant to read, and how commands end with it."""

import sys
from collections.abc import Callable
from typing import NoReturn

from absl import app


class UserError(Exception):
    """Something from outside the program is wrong: a file, a flag, a configuration, a checkpoint.

    The message names the thing and the field, what was found, what was expected, and the mend. Commands print it
    without a traceback and exit with status 2.
    """


def run(
    main: Callable[[list[str]], None], parse: Callable[[list[str]], list[str]] = app.parse_flags_with_usage
) -> NoReturn:
    """Runs a command's ``main`` under absl; a ``UserError`` becomes one message on stderr and exit status 2.

    Args:
      main: takes the arguments that are no flags.
      parse: parses the flags of a command line and returns the rest of it.
    """

    def guarded(argv: list[str]) -> None:
        try:
            main(argv)
        except UserError as error:
            _end(error)

    try:
        app.run(guarded, flags_parser=parse)
    except UserError as error:  # while parsing flags
        _end(error)


def _end(error: UserError) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
