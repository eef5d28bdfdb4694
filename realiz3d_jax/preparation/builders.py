"""TFDS builders of the datasets: they store examples that are made elsewhere, as ArrayRecord, in order."""

import contextlib
import io
import os
import pathlib
import shutil
import tempfile
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import tensorflow_datasets as tfds

from realiz3d_jax.data import records
from realiz3d_jax.data.records import Example

Source = Callable[[], Iterable[tuple[Example, dict[str, bytes]]]]
"""Gives the examples of a split in order, each with the files that go with it, by path below the dataset's folder."""


class _RecordsBuilder(tfds.core.GeneratorBasedBuilder):
    """Stores ready examples; ``name`` of the subclass is the dataset's."""

    VERSION = tfds.core.Version(records.VERSION)
    url_infos: dict = {}  # noqa: RUF012 (nothing is downloaded; finding checksums wants a package that TFDS doesn't name)
    RELEASE_NOTES = {records.VERSION: "Sets state their cameras."}  # noqa: RUF012 (TFDS reads this attribute)

    def __init__(
        self,
        *,
        sources: dict[str, Any],
        names: Sequence[str],
        views: int,
        metadata: dict,
        finish: Callable[[], dict] | None,
        **kwargs,
    ):
        self._sources, self._names, self._views, self._metadata = sources, names, views, metadata
        self._finish = finish
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        size, kind = int(self.builder_config.name), records.kind_of(self.name)
        return tfds.core.DatasetInfo(
            builder=self,
            description=_TOLD[kind],
            features=records.features(kind, self._names, size, self._views),
            metadata=tfds.core.MetadataDict(records.CONVENTIONS | {"size": size} | self._metadata),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager) -> dict[str, Iterable]:
        del dl_manager
        if self._finish:
            return self._sources
        return {split: self._generate_examples(source) for split, source in self._sources.items()}

    def _process_pipeline_result(self, pipeline_result) -> None:
        del pipeline_result
        if self._finish:
            self.info.metadata.update(self._finish())

    def _generate_examples(self, source: Source) -> Iterable[tuple[int, Example]]:
        for key, (example, attached) in enumerate(source()):
            # TFDS writes into a folder beside the final one and renames it at the end; so these files appear with it.
            for name, content in attached.items():
                path = pathlib.Path(self.data_dir) / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
            yield key, example


_TOLD = {
    "photos": "Procedural objects in the real and the synthetic look, to pre-train a base model on.",
    "assets": "Renders of assets, with captions and geometry.",
    "generated": "Images that the base model made of the captions of the synthetic training set.",
    "assets_encoded": "Renders, geometry maps and captions of the assets, encoded.",
    "generated_encoded": "Images that the base model made and their captions, encoded.",
}


def write(
    directory: str | os.PathLike[str],
    dataset: str,
    size: int,
    sources: dict[str, Any],
    metadata: dict,
    *,
    without: Sequence[str] = (),
    beam_options: Any = None,
    finish: Callable[[], dict] | None = None,
) -> pathlib.Path:
    """Writes a dataset; it appears in its place whole or not at all. Returns its folder.

    Args:
      directory: where datasets are kept.
      dataset: its name.
      size: pixels along a side of a view.
      sources: the examples of each split, a ``Source``; or a transform of Beam, to (number, example).
      metadata: JSON values to store with it; ``rig``, or else ``views``, tells how many views there are.
      without: features of ``records.SCHEMAS`` that this set does not have.
      beam_options: of the pipeline, for transforms.
      finish: gives more to store, when the pipeline has run; for transforms.
    """
    path = records.dataset_path(directory, dataset, size)
    for leftover in path.parent.glob(f"incomplete.*_{path.name}"):
        shutil.rmtree(leftover)
    tfds.disable_progress_bar()
    kind, rig = records.kind_of(dataset), metadata.get("rig")
    # TFDS takes the dataset's name from the class.
    named = types.new_class(
        "Records", (_RecordsBuilder,), {"skip_registration": True}, lambda namespace: namespace.update(name=dataset)
    )
    builder = named(
        sources=sources,
        names=[name for name in records.SCHEMAS[kind] if name not in without],
        views=len(rig["azimuths"]) if rig else metadata.get("views", 0),
        metadata=metadata,
        finish=finish,
        config=tfds.core.BuilderConfig(name=str(size), description=f"Views of {size} x {size} pixels."),
        data_dir=os.fspath(directory),
        file_format="array_record",
    )
    # TFDS announces paths and unknown sizes on stdout, and makes a folder for downloads although there are none.
    with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as downloads:
        options = tfds.download.DownloadConfig(beam_options=beam_options)
        builder.download_and_prepare(download_dir=downloads, download_config=options)
    return path
