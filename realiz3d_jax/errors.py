"""The one exception that a user is meant to read, and how commands end with it."""

import sys
from collections.abc import Callable
from typing import NoReturn

from absl import app, flags

HELP = {f"{dashes}{name}" for dashes in ("-", "--") for name in ("help", "helpshort", "helpfull", "?")}


class UserError(Exception):
    """Something from outside the program is wrong: a file, a flag, a configuration, a checkpoint.

    The message names the thing and the field, what was found, what was expected, and the mend. Commands print it
    without a traceback and exit with status 2.
    """


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags of a command line and returns the rest of it.

    Raises:
      UserError: a flag is unknown or has a value that it can't take.
    """
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        raise UserError(f"{error}\nPass --help for the flags of this command.") from error


def run(main: Callable[[list[str]], None], parse: Callable[[list[str]], list[str]] = parse_flags) -> NoReturn:
    """Runs a command's ``main`` under absl; a ``UserError`` becomes one message on stderr and exit status 2.

    So does an interruption (Ctrl-C), with the exit status 130 that shells expect.

    Args:
      main: takes the arguments that are no flags.
      parse: parses the flags of a command line and returns the rest of it.
    """

    def guarded(argv: list[str]) -> None:
        try:
            main(argv)
        except UserError as error:
            _end(error)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)

    try:
        app.run(guarded, flags_parser=parse)
    except UserError as error:  # while parsing flags
        _end(error)
    except SystemExit as ended:  # absl calls a question for help a failure
        sys.exit(0 if ended.code == 1 and HELP & set(sys.argv) else ended.code)


def warn(message: str) -> None:
    """Tells the user of something that the program goes on without."""
    print(f"warning: {message}", file=sys.stderr, flush=True)


def _end(error: UserError) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
