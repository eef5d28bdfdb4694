"""Shows a result: ``python -m realiz3d_jax.report --metrics metrics.json --samples real --samples synthetic --output a.html``.

Writes one HTML file with everything in it: the figures of ``realiz3d_jax.evaluate``, the pictures that they judge beside the
control and the true renders, the training curves of ``--runs``, and the commands that make it all again. From its pictures,
links lead to a folder beside it (``report_objects`` of ``report.html``) with a page for each object: every map and view at
full size, and for items with a ``textured.glb`` a turntable and a viewer in 3D. None of them needs a network.
"""

import pathlib

from absl import flags

from realiz3d_jax import errors, startup
from realiz3d_jax.errors import UserError
from realiz3d_jax.reporting import build

FLAGS = flags.FlagValues()
_METRICS = flags.DEFINE_string(
    "metrics", None, "The JSON file of realiz3d_jax.evaluate.", required=True, flag_values=FLAGS
)
_SAMPLES = flags.DEFINE_multi_string(
    "samples", [], "A folder that it judged; give one for each column of pictures.", flag_values=FLAGS
)
_RUNS = flags.DEFINE_multi_string(
    "runs", [], "A workdir of realiz3d_jax.train, for its curves; may be given several times.", flag_values=FLAGS
)
_OUTPUT = flags.DEFINE_string("output", None, "The HTML file to write.", required=True, flag_values=FLAGS)
_DATA = flags.DEFINE_string(
    "data", "datasets", "The folder that realiz3d_jax.prepare filled, for the true renders.", flag_values=FLAGS
)
_SPLIT = flags.DEFINE_enum("split", "test", ["validation", "test"], "Where the objects are from.", flag_values=FLAGS)
_OBJECTS = flags.DEFINE_integer("objects", 12, "The most objects to show.", lower_bound=1, flag_values=FLAGS)
_PAGES = flags.DEFINE_integer(
    "pages", 12, "The most objects that get a page of their own.", lower_bound=0, flag_values=FLAGS
)


def main(argv: list[str]) -> None:
    """Runs the command."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; everything is given as --flag=value.")
    if not _SAMPLES.value:
        raise UserError("--samples is missing; expected the folders that --metrics judges.")
    startup.start()
    summary = build.write_report(
        _METRICS.value,
        _SAMPLES.value,
        _RUNS.value,
        pathlib.Path(_OUTPUT.value),
        data=_DATA.value,
        data_needed=bool(_DATA.present),
        split=_SPLIT.value,
        objects=_OBJECTS.value,
        pages=_PAGES.value,
    )
    print(summary)


if __name__ == "__main__":
    errors.run(main, FLAGS)
