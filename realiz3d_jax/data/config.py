"""Settings of the training data: datasets, views, batches and encoders."""

import dataclasses

from realiz3d_jax.geometry.cameras import STANDARD_RIG, Rig


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Settings of the training data.

    Attributes:
      directory: root of the datasets, the output of ``realiz3d_jax.prepare``.
      collection: prefix of the names of the datasets; "shapes" is the shapes benchmark.
      rig: cameras of the controlled views; a dataset with other cameras is rejected.
      views: indices of the four views of the rig that form a grid.
      size: pixels along a side of a view.
      batch_grids: grids of V views in a batch.
      batch_of: "run" if ``batch_grids`` counts the grids of all devices together, whose number must divide it, or "device" if
        it counts those of each.
      render_fraction: share of synthetic looks among the photos of pre-training.
      caption_dropout: probability of replacing a caption by the empty one, for classifier-free guidance.
      text_encoder: "words" (that of the shapes benchmark) or "t5".
      text_channels: width of the text encoder.
      text_tokens: its maximum caption length in tokens, begin or end token included.
      encoders: folder with text encoder and autoencoder, written by ``realiz3d_jax.convert``; empty for "words" and pixels.
      encoders_sha256: SHA-256 of the encoders that made the data; set by a run, and checked when sampling from it.
      base_sha256: SHA-256 of the base model that a run starts from; set by a run, whose real images must be made by that model.
      view_prompt: template of the prompts of the self-generated images of a view.
      threads: decoding threads per stream.
    """

    directory: str = "datasets"
    collection: str = "shapes"
    rig: Rig = STANDARD_RIG
    views: tuple[int, ...] = (0, 1, 2, 3)
    size: int = 32
    batch_grids: int = 8
    batch_of: str = "run"
    render_fraction: float = 0.15
    caption_dropout: float = 0.1
    text_encoder: str = "words"
    text_channels: int = 64
    text_tokens: int = 20
    encoders: str = ""
    encoders_sha256: str = ""
    base_sha256: str = ""
    view_prompt: str = "{caption}, {view} view"
    threads: int = 2
