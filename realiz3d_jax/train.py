"""Trains one stage: ``python -m realiz3d_jax.train --config configs/stage2.py [--workdir DIR] [--config.KEY=VALUE ...]``.

A run with checkpoints in its workdir resumes from the newest one. Exit status: 0 when the stage is finished, 143 after SIGTERM
(a checkpoint has been saved; run the command again to resume), 3 when too many consecutive steps were not finite, 2 for a
mistake in flags, config or files.
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
_CONFIG = flag.define("Config file, FILE.py or FILE.py:BASE, such as configs/stage2.py:tiny.", FLAGS)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; by default config.workdir.", flag_values=FLAGS)


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
