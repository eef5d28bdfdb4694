"""Settings of the data: what a run reads, and in which batches."""

import dataclasses

from realiz3d_jax.geometry.cameras import STANDARD_RIG, Rig


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What is read, and in which batches.

    Attributes:
      directory: the folder that ``realiz3d_jax.prepare`` filled.
      collection: what its datasets' names begin with, "shapes" those of the shapes benchmark.
      rig: the cameras of the controlled views; a dataset of other cameras is refused.
      views: the four of the rig's views that make a grid.
      size: the side of one view, pixels.
      batch_grids: grids of V views in a batch.
      batch_of: whose batch that is: "run", of all devices together, whose number divides it, or "device", of each.
      render_fraction: the share of synthetic looks among the photos of pre-training.
      caption_dropout: the probability that a caption is replaced by the empty one, for classifier-free guidance.
      text_encoder: "words" (the shapes benchmark's own) or "t5".
      text_channels, text_tokens: its width and its longest caption, begin or end token included.
      encoders: the folder that ``realiz3d_jax.convert`` wrote, with text encoder and autoencoder; empty for "words" and pixels.
      encoders_sha256: of the encoders that a run's data was encoded with; a run sets it, and its samples are held to it.
      base_sha256: of the base model that a run starts from; a run sets it, and its real images must be that one's.
      view_prompt: how a caption is prompted for the self-generated images of a view.
      threads: decoding threads a stream.
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
