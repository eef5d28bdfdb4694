"""Training streams: shuffled and decoded records in batches of grids, resumable from a single integer.

Every stream is global shuffle -> decode -> grid of V views -> strided slice of this host -> batch. The position of a stream is
``next_index``, the number of batches taken so far; it does not depend on the number of hosts.

    photos            single captioned photos, some of them replaced by renders, for pre-training
    synthetic_images  single synthetic views of arbitrary objects
    real_images       single self-generated photos
    synthetic_grids   the four synthetic views of one object, with their control
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import grain
import jax
import numpy as np

from realiz3d_jax.data import encoded, records
from realiz3d_jax.data.config import DataConfig
from realiz3d_jax.models.text import TextEncoder
from realiz3d_jax.views import VIEW_WORDS, VIEWS

Example = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class StreamConfig:
    """Settings of a stream.

    Attributes:
      data: datasets, their cameras, and the views that form a grid.
      encoder: text encoder; None reads the datasets of ``prepare --encode``, which hold encoded captions.
      geometry: whether normal and position maps are the control.
    """

    data: DataConfig
    encoder: TextEncoder | None
    geometry: bool = True

    def open(self, kind: str, split: str = "train") -> records.Records:
        """Opens a split of the dataset of a kind, in encoded form if there is no text encoder."""
        return records.open_split(self.data.directory, self._name(kind), split, self.data.size)

    def splits(self, kind: str) -> list[str]:
        """Names of the splits of the dataset of a kind."""
        return list(records.open_all(self.data.directory, self._name(kind), self.data.size))

    def _name(self, kind: str) -> str:
        return records.dataset_name(self.data.collection, kind if self.encoder else encoded.name_of(kind))

    def open_grids(self, split: str = "train") -> records.Records:
        """Opens a split of the assets, and checks that it has the configured rig and the required maps."""
        held = self.open("assets", split)
        maps = ("normal", "position") if self.encoder else ("control",)
        records.check_views(held, self.data.rig, maps if self.geometry else ())
        return held

    def grid(self, record: Example) -> Example:
        """``image`` and ``control`` of an asset's record."""
        views = list(self.data.views)
        control = np.zeros((VIEWS, 0), np.float32)
        if self.geometry and self.encoder:
            control = control_maps(*(record[name][views] for name in ("normal", "position", "mask")))
        elif self.geometry:
            control = record["control"][views]
        return {"image": record["synthetic"][views], "control": control}

    def captions(self, example: Example) -> dict[str, np.ndarray]:
        """Encoded caption of an example, arrays [T, ...]."""
        if self.encoder:
            return _encoded(self.encoder, example["caption"])
        return encoded.padded(example["caption_states"], self.data.text_tokens)


def prompt(caption: str, view: int | None = None, render: bool = False) -> str:
    """Prompt of a caption for the base model.

    Args:
      caption: description of the object.
      view: index of the viewpoint to name in the prompt; None names none.
      render: whether to ask for the synthetic look.
    """
    text = f"flat render of {caption}" if render else caption
    return text if view is None else f"{text}, {VIEW_WORDS[view]} view"


def control_maps(normal: np.ndarray, position: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Control of the texturing task: normals and positions in [0, 1], exactly 0 on the background.

    The values are unsigned: a channel averages about 1/2 on the object, so a linear embedding sees the silhouette.

    Args:
      normal, position: uint16[V, H, W, 3], ``value / 65535`` is ``n / 2 + 0.5`` or ``p + 0.5``.
      mask: uint8[V, H, W], 1 on the object.

    Returns:
      float32[V, H, W, 6].
    """
    maps = np.concatenate([normal, position], axis=-1).astype(np.float32) / 65535.0
    return maps * mask[..., None].astype(np.float32)


def _shuffled_numbers(count: int, seed: int) -> grain.MapDataset:
    return grain.MapDataset.range(count).seed(seed).shuffle().repeat()


def _image_grids(images: grain.MapDataset, config: StreamConfig) -> grain.MapDataset:
    """Groups V independent captioned images into a grid (G = V); examples have ``image``, ``caption`` and ``record``."""

    def encode(example: Example) -> Example:
        return {
            "image": example["image"],
            "captions": config.captions(example),
            "record": np.int64(example["record"]),
        }

    def stack(examples: Sequence[Example]) -> Example:
        return jax.tree.map(lambda *leaves: np.stack(leaves), *examples)

    return images.map(encode).batch(VIEWS, batch_fn=stack)


def _photos(config: StreamConfig, seed: int) -> grain.MapDataset:
    source = config.open("photos")

    def draw(number: int, random: np.random.Generator) -> Example:
        record, view = source[int(number) // VIEWS], int(number) % VIEWS
        render = random.random() < config.data.render_fraction
        named_view = view if random.random() < 0.75 else None
        return {
            "image": record["synthetic" if render else "real"][view],
            "caption": prompt(record["caption"], named_view, render),
            "record": number // VIEWS,
        }

    return _image_grids(_shuffled_numbers(VIEWS * len(source), seed).random_map(draw), config)


def _synthetic_images(config: StreamConfig, seed: int) -> grain.MapDataset:
    source = config.open("assets")
    views = source.views

    def view(number: int) -> Example:
        record = source[int(number) // views]
        return {**record, "image": record["synthetic"][int(number) % views], "record": number // views}

    return _image_grids(_shuffled_numbers(views * len(source), seed).map(view), config)


def _real_images(config: StreamConfig, seed: int) -> grain.MapDataset:
    source = config.open("generated")
    images = _shuffled_numbers(len(source), seed).map(lambda number: {**source[int(number)], "record": number})
    return _image_grids(images, config)


def _synthetic_grids(config: StreamConfig, seed: int) -> grain.MapDataset:
    source = config.open_grids()

    def grid(number: int) -> Example:
        record = source[int(number)]
        return {
            **config.grid(record),
            "captions": jax.tree.map(lambda array: array[None], config.captions(record)),
            "record": np.array([number], np.int64),
        }

    return _shuffled_numbers(len(source), seed).map(grid)


STREAMS: dict[str, Callable[[StreamConfig, int], grain.MapDataset]] = {
    "photos": _photos,
    "synthetic_images": _synthetic_images,
    "real_images": _real_images,
    "synthetic_grids": _synthetic_grids,
}


class Stream(Protocol):
    """Endless iterator over batches of numpy arrays, with a position that can be saved and restored."""

    def __next__(self) -> dict[str, np.ndarray]: ...

    def get_state(self) -> dict[str, int]: ...

    def set_state(self, state: dict[str, int]) -> None: ...


def open_stream(
    name: str,
    config: StreamConfig,
    seed: int,
    batch_grids: int,
    *,
    host: int = 0,
    hosts: int = 1,
    threads: int = 2,
) -> Stream:
    """Opens a stream: this host's part of global batches.

    Each batch holds ``image`` uint8[B, V, H, W, 3] (encoded: moments float16[B, V, h, w, 2 C]), ``captions`` (``states``
    float32[B, G, T, Ct], encoded float16, ``mask`` bool[B, G, T] and any further outputs of the encoder), ``record``
    int64[B, G] (indices of the records) and, for grids of one object, ``control`` float32[B, V, H, W, 6] (encoded:
    float16[B, V, h, w, 4 C]; without geometry float32[B, V, 0]).

    Args:
      name: a key of ``STREAMS``.
      config: settings of the data.
      seed: seed of the order and the random draws.
      batch_grids: grids of a global batch, over all hosts.
      host: index of this host.
      hosts: number of hosts.
      threads: threads that read records.

    Raises:
      UserError: the data is missing or damaged (see ``records.open_split``).
    """
    dataset = STREAMS[name](config, zlib.crc32(f"{seed} {name}".encode()))  # every stream has its own order
    dataset = dataset.slice(slice(host, None, hosts)).batch(
        batch_grids // hosts, drop_remainder=True
    )  # the dataset is endless; only full batches are counted
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4)
    return iter(dataset.to_iter_dataset(options))


@functools.lru_cache(maxsize=65536)
def _encoded(encoder: TextEncoder, caption: str) -> dict[str, np.ndarray]:
    return {name: array[0] for name, array in encoder.encode([caption]).items()}
