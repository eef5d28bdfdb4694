"""The one exception that a user is meant to read, and how commands end with it."""

import functools
import sys
from collections.abc import Callable
from typing import NoReturn

from absl import app, flags

HELP = {f"{dashes}{name}" for dashes in ("-", "--") for name in ("help", "helpshort", "helpfull", "?")}


class UserError(Exception):
    """Something from outside the program is wrong: a file, a flag, a configuration, a checkpoint.

    The message names the thing and the field, what was found, what was expected, and the fix. Commands print it
    without a traceback and exit with status 2.
    """


def parse_flags(argv: list[str], flag_values: flags.FlagValues = flags.FLAGS) -> list[str]:
    """Parses the flags of a command line and returns the rest of it.

    Args:
      argv: the program's name and its arguments.
      flag_values: the flags of one command, so that no two commands share any; absl's own are taken over from ``flags.FLAGS``.

    Raises:
      UserError: a flag is unknown or has a value that it can't take.
    """
    for name in flags.FLAGS:
        if name not in flag_values and name == flags.FLAGS[name].name:
            flag_values[name] = flags.FLAGS[name]
    try:
        rest = flag_values(argv)
    except flags.Error as error:
        raise UserError(f"{error}\nPass --help for the flags of this command.") from error
    flags.FLAGS.mark_as_parsed()
    return rest


def run(
    main: Callable[[list[str]], None],
    flag_values: flags.FlagValues = flags.FLAGS,
    parse: Callable[[list[str]], list[str]] | None = None,
) -> NoReturn:
    """Runs a command's ``main`` under absl; a ``UserError`` becomes one message on stderr and exit status 2.

    An interruption (Ctrl-C) ends it with one word and the exit status 130 that shells expect.

    Args:
      main: takes the arguments that are no flags.
      flag_values: the command's flags.
      parse: parses the flags of a command line and returns the rest of it; by default ``parse_flags``.
    """

    def guarded(argv: list[str]) -> None:
        try:
            main(argv)
        except UserError as error:
            _end(error)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)

    if flag_values is not flags.FLAGS:
        _show_in_help(flag_values)
    try:
        app.run(guarded, flags_parser=parse or functools.partial(parse_flags, flag_values=flag_values))
    except UserError as error:  # while parsing flags
        _end(error)
    except SystemExit as ended:  # absl calls a question for help a failure
        sys.exit(0 if ended.code == 1 and HELP & set(sys.argv) else ended.code)


def warn(message: str) -> None:
    """Tells the user of something that the program goes on without."""
    print(f"warning: {message}", file=sys.stderr, flush=True)


def _show_in_help(flag_values: flags.FlagValues) -> None:
    """Lets --help list a command's flags: absl prints the flags of the program that ``flags.FLAGS`` holds."""
    for flag in {flag_values[name] for name in flag_values}:
        flags.FLAGS[flag.name] = flag
        flags.FLAGS.register_flag_by_module(sys.argv[0], flag)


def _end(error: UserError) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
