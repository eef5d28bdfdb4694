"""Builds a report from folders and files, and writes it."""

import pathlib
from collections.abc import Sequence

from realiz3d_jax import files
from realiz3d_jax.data import records
from realiz3d_jax.metrics.stored import read_metrics
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
    """Reads all inputs, checks that they are consistent, and writes the page atomically.

    Beside the page, a PNG of the same name shows the first few objects, and a folder holds one page per object.

    Args:
      metrics: the JSON file written by ``evaluate``.
      samples: one or more folders written by ``sample``; each becomes a column of pictures.
      runs: workdirs of ``train``.
      output: the HTML file to write.
      data: folder of the datasets, for the true renders.
      data_needed: whether missing datasets are an error.
      split: split of ``shapes_assets`` from which the objects are taken.
      objects: maximum number of objects to show.
      pages: maximum number of objects with a page of their own.
      rendering: render settings of the pictures on these pages.

    Returns:
      a one-line summary of the files written.

    Raises:
      UserError: an input is missing or damaged, or the inputs are inconsistent; ``output`` is unchanged.
    """
    stored = read_metrics(metrics)
    folders = [inputs.read_samples(folder, stored) for folder in dict.fromkeys(samples)]
    training = [inputs.read_run(run) for run in dict.fromkeys(runs)]
    held_out = None
    if data_needed or records.dataset_path(data, "shapes_assets", stored.size).exists():
        held_out = records.open_split(data, "shapes_assets", split, stored.size)
        shown = {uid for folder in folders for uid in folder.items}
        if not any(record["uid"] in shown for record in held_out):
            held_out = None
    links = object_pages.links(folders, output, pages)
    content = page.render(page.Report(stored, folders, training, held_out, split, objects, output, data, pages, links))
    picture = picture_of_objects.render_picture(stored, folders, held_out, min(objects, _PICTURED))
    files.writable_directory(output.parent)
    if links:
        object_pages.write(list(links), output, stored, folders, training, held_out, rendering or Rendering())
    files.write_text(output, content)
    files.write_bytes(output.with_suffix(".png"), picture)
    summary = f"{output}: {len(folders)} folders, {len(training)} runs, {len(content.encode()) / 1e6:.1f} MB"
    if links:
        summary += f"; pages of {len(links)} objects in {object_pages.folder_of(output)}"
    without = len(inputs.common_objects(folders)) - len(links)
    if without:
        summary += f"; {without} objects have no page (--pages={len(links) + without} writes them)"
    return summary
