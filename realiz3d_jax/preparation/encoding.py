"""Encodes datasets ahead of training: images and maps to moments, captions to text states (see ``data.encoded``).

Training on encoded datasets needs neither autoencoder nor text encoder. Each host encodes its own chunks. A record depends
only on its source and the encoders, so interrupted and multi-host runs write the same bytes as one uninterrupted run.
"""

import dataclasses
import io
import os
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from realiz3d_jax import sharding
from realiz3d_jax.checkpoints.encoders import Encoders
from realiz3d_jax.config.schema import TrainConfig
from realiz3d_jax.data import encoded, records
from realiz3d_jax.data.pipeline import control_maps
from realiz3d_jax.errors import UserError
from realiz3d_jax.method.interface import Params
from realiz3d_jax.models.codec import Codec
from realiz3d_jax.models.text import TextEncoder
from realiz3d_jax.preparation import making
from realiz3d_jax.sharding import DeviceConfig

_CHUNK = 8
"""Records per chunk: the most work that a killed process can lose, and the content of one file."""


@dataclasses.dataclass(frozen=True)
class _Opened:
    codec: Codec
    codec_params: Params
    text: TextEncoder
    device_mesh: Mesh

    def images(self, images: np.ndarray) -> np.ndarray:
        """Moments float16[n, V, h, w, 2 C] of images uint8[n, V, H, W, 3], one item per device at a time."""
        return self._moments(_encode, images)

    def control(self, maps: np.ndarray) -> np.ndarray:
        """Moments float16[n, V, h, w, 4 C] of control maps float32[n, V, H, W, 6]."""
        return self._moments(_encode_control, maps)

    def states(self, captions: list[str]) -> list[np.ndarray]:
        """Text states float16[tokens, C] of each caption, cut to its true length."""
        found = self.text.encode(captions)
        return [_half(states[mask]) for states, mask in zip(found["states"], found["mask"], strict=True)]

    def _moments(self, function: Callable, arrays: np.ndarray) -> np.ndarray:
        where = NamedSharding(self.device_mesh, PartitionSpec(self.device_mesh.axis_names))
        devices, parts = self.device_mesh.size, []
        for start in range(0, len(arrays), devices):
            part = arrays[start : start + devices]
            missing = np.repeat(part[-1:], devices - len(part), axis=0)  # one shape: one compilation, same bits
            full = jax.device_put(np.concatenate([part, missing]), where)
            parts.append(np.asarray(function(self.codec, self.codec_params, full))[: len(part)])
        return _half(np.concatenate(parts))


def encode(
    directory: str | os.PathLike[str],
    config: TrainConfig,
    devices: list[jax.Device] | None = None,
    *,
    host: int = 0,
    hosts: int = 1,
) -> dict[str, tuple[pathlib.Path, bool]]:
    """Encodes the assets and the self-generated images of a collection.

    Args:
      directory: root folder of the datasets.
      config: names the collection, the size and the encoders.
      devices: devices to encode on; this host's by default.
      host, hosts: index of this process and number of processes; all share ``directory``.

    Returns:
      for each dataset, (its folder, True if it was made by this call and False if it already existed).

    Raises:
      UserError: a dataset or an encoder is missing, or the encoded dataset already exists from other encoders.
    """
    data, encoders = config.data, Encoders(config)
    identity = encoders.identity
    names = {kind: records.dataset_name(data.collection, kind) for kind in encoded.ENCODED}
    images = records.dataset_path(directory, names["generated"], data.size)
    if not images.is_dir():
        raise UserError(
            f"{images}: the real images do not exist. Make them by\n  python -m realiz3d_jax.prepare --self-generate "
            f"--base {data.encoders} --directory {directory}"
        )
    sources = {kind: records.open_all(directory, name, data.size) for kind, name in names.items()}
    opened: list[_Opened] = []  # opened for the first missing chunk, since all may exist
    made = {}
    for kind, splits in sources.items():

        def fill(
            missing: list[making.Chunk], advance: Callable[..., None], kind: str = kind, splits: Any = splits
        ) -> None:
            if missing and not opened:
                opened.append(_open(encoders, devices or jax.local_devices()))
            for chunk in missing:
                split, start, stop, _ = chunk
                items = list(_ENCODE[kind](opened[0], [splits[split][index] for index in range(start, stop)]))
                if split == "train" and start == 0:
                    items[0][1][encoded.NULL_CAPTION] = _npy(opened[0].states([""])[0])
                making.save_chunk(chunk, items)
                advance(len(items))

        source = {key: value for key, value in splits["train"].metadata.items() if key not in records.CONVENTIONS}
        request = {**identity, "text_tokens": data.text_tokens, "views": splits["train"].views, "source": source}
        counts = {split: len(held) for split, held in splits.items()}
        has_maps = {"normal", "position"} <= splits["train"].names
        made[names[kind]] = making.make(
            directory,
            encoded.name_of(names[kind]),
            data.size,
            request,
            counts,
            fill,
            rig=records.rig_of(splits["train"].metadata),
            without=() if has_maps or kind == "generated" else ("control",),
            chunk=_CHUNK,
            host=host,
            hosts=hosts,
        )
    return made


def _open(encoders: Encoders, devices: list[jax.Device]) -> _Opened:
    device_mesh = sharding.make_device_mesh(DeviceConfig(), devices)
    return _Opened(
        encoders.config.codec, encoders.open_codec_params(device_mesh), encoders.open_text(devices), device_mesh
    )


def _assets(using: _Opened, items: list[dict[str, Any]]) -> Iterable[tuple[dict[str, Any], dict[str, bytes]]]:
    images = using.images(np.stack([item["synthetic"] for item in items]))
    controls: list[dict[str, np.ndarray]] = [{} for _ in items]
    if "normal" in items[0]:
        maps = np.stack([control_maps(item["normal"], item["position"], item["mask"]) for item in items])
        controls = [{"control": control} for control in using.control(maps)]
    columns = zip(items, images, controls, using.states([item["caption"] for item in items]), strict=True)
    for item, image, control, states in columns:
        named = {"uid": item["uid"], "caption": item["caption"]}
        yield {**named, "caption_states": states, "synthetic": image, **control}, {}


def _generated(using: _Opened, items: list[dict[str, Any]]) -> Iterable[tuple[dict[str, Any], dict[str, bytes]]]:
    images = using.images(np.stack([item["image"][None] for item in items]))[:, 0]
    for item, image, states in zip(items, images, using.states([item["caption"] for item in items]), strict=True):
        yield {**item, "caption_states": states, "image": image}, {}


_ENCODE = {"assets": _assets, "generated": _generated}


@jax.jit(static_argnums=0)
def _encode(codec, params, images):
    return codec.encode(params, images)


@jax.jit(static_argnums=0)
def _encode_control(codec, params, maps):
    return codec.encode_control(params, maps)


def _half(array: np.ndarray) -> np.ndarray:
    """Casts to float16, whose range suffices for the outputs of sound encoders.

    Raises:
      UserError: a value is outside the range of float16.
    """
    with np.errstate(over="ignore"):
        half = np.asarray(array, np.float16)
    if not np.isfinite(half).all():
        raise UserError(
            f"an encoder returned {np.abs(array).max()}; expected finite numbers below 65,504. Its weights are damaged, or "
            "overflow in the dtype that they were converted to: convert them again with --dtype float32."
        )
    return half


def _npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()
