"""From folders and files to a written report."""

import pathlib
from collections.abc import Sequence

from realiz3d_jax import files
from realiz3d_jax.data import records
from realiz3d_jax.metrics.figures import read_figures
from realiz3d_jax.reporting import inputs, object_pages, page
from realiz3d_jax.reporting import picture as picture_of_objects
from realiz3d_jax.reporting.textured import Rendering

_PICTURED = 6


def write_report(
    metrics: str,
    samples: Sequence[str],
    runs: Sequence[str],
    output: pathlib.Path,
    *,
    data: str = "datasets",
    data_needed: bool = False,
    split: str = "test",
    objects: int = 12,
    pages: int = 12,
    rendering: Rendering | None = None,
) -> str:
    """Reads everything, checks that it belongs together, and writes the page in one step.

    Beside the page, a PNG of the same name shows the first few objects, and a folder holds a page for each of them.

    Args:
      metrics: the JSON file of ``evaluate``.
      samples: folders of ``sample``, one or more; a column of pictures each.
      runs: workdirs of ``train``.
      data: the folder of the datasets, for the true renders.
      data_needed: whether it is an error if there are none.
      split: of ``shapes_assets``, where the objects are from.
      objects: the most to show.
      pages: the most that get a page of their own.
      rendering: how the pictures there are rendered.

    Returns:
      what was written, to tell the user.

    Raises:
      UserError: an input is missing or damaged, or they do not fit one another; ``output`` is as it was.
    """
    figures = read_figures(metrics)
    folders = [inputs.read_samples(folder, figures) for folder in dict.fromkeys(samples)]
    training = [inputs.read_run(run) for run in dict.fromkeys(runs)]
    held_out = None
    if data_needed or records.dataset_path(data, "shapes_assets", figures.size).exists():
        held_out = records.open_split(data, "shapes_assets", split, figures.size)
        shown = {uid for folder in folders for uid in folder.items}
        if not any(record["uid"] in shown for record in held_out):
            held_out = None
    links = object_pages.links(folders, output, pages)
    content = page.render(page.Report(figures, folders, training, held_out, split, objects, output, data, pages, links))
    picture = picture_of_objects.render_picture(figures, folders, held_out, min(objects, _PICTURED))
    files.writable_directory(output.parent)
    if links:
        object_pages.write(list(links), output, figures, folders, training, held_out, rendering or Rendering())
    files.write_text(output, content)
    files.write_bytes(output.with_suffix(".png"), picture)
    summary = f"{output}: {len(folders)} folders, {len(training)} runs, {len(content.encode()) / 1e6:.1f} MB"
    if links:
        summary += f"; pages of {len(links)} objects in {object_pages.folder_of(output)}"
    without = len(inputs.common_objects(folders)) - len(links)
    if without:
        summary += f"; {without} objects have no page, --pages={len(links) + without} gives them one"
    return summary
