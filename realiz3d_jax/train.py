"""Trains one stage: ``python -m realiz3d_jax.train --config configs/stage2.py [--workdir DIR] [--config.KEY=VALUE ...]``.

A run that finds checkpoints in its workdir goes on from the newest one. Exit status: 0 when the stage is finished, 143 after
SIGTERM (a checkpoint has been saved; start it again), 3 when too many steps in a row were not finite, 2 for a mistake in
what was asked.
"""

import pathlib
import sys

from absl import flags

from realiz3d_jax import errors, startup
from realiz3d_jax.config import flag
from realiz3d_jax.config.schema import from_config_dict
from realiz3d_jax.errors import UserError
from realiz3d_jax.training.loop import NonFiniteError, train

FLAGS = flags.FlagValues()
_CONFIG = flag.define("A file of configs/, FILE.py or FILE.py:SIZE.", FLAGS)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where the run lives; the config's own workdir by default.", flag_values=FLAGS
)


def main(argv: list[str]) -> None:
    """Runs the command."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; settings are given as --config.KEY=VALUE.")
    config = from_config_dict(_CONFIG.value)
    startup.start()
    try:
        train(config, pathlib.Path(_WORKDIR.value or config.workdir))
    except NonFiniteError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(3)


parse = flag.parse(_CONFIG, FLAGS)

if __name__ == "__main__":
    flags.mark_flag_as_required("config", FLAGS)
    errors.run(main, FLAGS, parse)
