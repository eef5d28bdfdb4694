"""The flag --config FILE.py[:NAME], with --config.KEY=VALUE, of the commands that have one."""

import re
from collections.abc import Callable

from absl import flags
from ml_collections import config_flags

from realiz3d_jax import errors
from realiz3d_jax.config import renamed
from realiz3d_jax.errors import UserError


def define(told: str) -> flags.FlagHolder:
    """The flag, with what its help says."""
    return config_flags.DEFINE_config_file("config", None, told, lock_config=False, accept_new_attributes=True)


def parse(flag: flags.FlagHolder) -> Callable[[list[str]], list[str]]:
    """What parses the flags of a command; that a new key is accepted leaves it to the schema to say which keys there are.

    It raises UserError if the config file is not there or cannot be read, or a setting is below a key that does not exist.
    """

    def parsed(argv: list[str]) -> list[str]:
        try:
            rest = errors.parse_flags(argv)
            if flag.value is not None:
                flag.value.items()  # a file that could not be loaded says so only now
        except OSError as error:
            raise UserError(f"--config: {error}") from error
        except (AttributeError, KeyError) as error:
            told = str(error.args[0])
            hint = renamed.hint(re.search(r"\w+", told)[0])
            raise UserError(f"--config.KEY=VALUE: there is no such key: {hint or told}") from error
        return rest

    return parsed
