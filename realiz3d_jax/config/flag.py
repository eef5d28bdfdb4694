"""The flag --config FILE.py[:NAME], with --config.KEY=VALUE, of the commands that have one."""

import re
from collections.abc import Callable

from absl import flags
from ml_collections import config_flags

from realiz3d_jax import errors
from realiz3d_jax.config import renamed
from realiz3d_jax.errors import UserError


def define(description: str, flag_values: flags.FlagValues) -> flags.FlagHolder:
    """Defines the flag among those of a command; ``description`` is shown by --help."""
    return config_flags.DEFINE_config_file(
        "config", None, description, flag_values=flag_values, lock_config=False, accept_new_attributes=True
    )


def parse(flag: flags.FlagHolder, flag_values: flags.FlagValues) -> Callable[[list[str]], list[str]]:
    """Returns the parser of a command's flags; new keys are accepted, and the schema says which keys exist.

    The parser raises UserError if the config file is missing or cannot be read, or a setting is below an unknown key.
    """

    def parsed(argv: list[str]) -> list[str]:
        try:
            rest = errors.parse_flags(argv, flag_values)
            if flag.value is not None:
                flag.value.items()  # a file that could not be loaded says so only now
        except OSError as error:
            raise UserError(f"--config: {error}") from error
        except (AttributeError, KeyError) as error:
            reason = str(error.args[0])
            key = re.search(r"\w+", reason)
            hint = renamed.hint(key[0]) if key else ""
            raise UserError(hint or f"--config.KEY=VALUE: there is no such key: {reason}") from error
        return rest

    return parsed
