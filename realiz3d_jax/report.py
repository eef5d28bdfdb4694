"""Shows a result: ``python -m realiz3d_jax.report --metrics metrics.json --samples real --samples synthetic --output a.html``.

Writes one self-contained HTML file: the metrics of ``realiz3d_jax.evaluate``, the evaluated pictures beside the control and
the true renders, the training curves of ``--runs``, and the commands that reproduce them. Its pictures link to a folder beside
it (``report_objects`` for ``report.html``) with one page per object: every map and view at full size, and for items with a
``textured.glb`` a turntable and a 3D viewer. No page needs a network.
"""

import pathlib

from absl import flags

from realiz3d_jax import errors, startup
from realiz3d_jax.errors import UserError
from realiz3d_jax.reporting import build

FLAGS = flags.FlagValues()
_METRICS = flags.DEFINE_string(
    "metrics", None, "JSON file written by realiz3d_jax.evaluate.", required=True, flag_values=FLAGS
)
_SAMPLES = flags.DEFINE_multi_string(
    "samples", [], "Evaluated folder of samples; repeat for several columns.", flag_values=FLAGS
)
_RUNS = flags.DEFINE_multi_string(
    "runs", [], "Workdir of realiz3d_jax.train, for its training curves; may be repeated.", flag_values=FLAGS
)
_OUTPUT = flags.DEFINE_string("output", None, "HTML file to write.", required=True, flag_values=FLAGS)
_DATA = flags.DEFINE_string(
    "data", "datasets", "Dataset folder of realiz3d_jax.prepare, for the true renders.", flag_values=FLAGS
)
_SPLIT = flags.DEFINE_enum(
    "split", "test", ["validation", "test"], "Split from which the objects are taken.", flag_values=FLAGS
)
_OBJECTS = flags.DEFINE_integer("objects", 12, "Maximum number of objects to show.", lower_bound=1, flag_values=FLAGS)
_PAGES = flags.DEFINE_integer(
    "pages", 12, "Maximum number of objects with a page of their own.", lower_bound=0, flag_values=FLAGS
)


def main(argv: list[str]) -> None:
    """Runs the command."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; everything is given as --flag=value.")
    if not _SAMPLES.value:
        raise UserError("--samples is missing; expected the folders that --metrics evaluates.")
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
