"""The base models from which training starts, by name, for the config files: ``--config configs/stage2.py:NAME``.

A base holds everything that its training stages share: the backbone, the diffusion process, the encoders of images and
captions, the sampling settings, and the source of the weights. A new base model is one entry in ``BASES``.
"""

import dataclasses
import pathlib
from typing import Any

from realiz3d_jax.checkpoints import exported
from realiz3d_jax.config.schema import InitConfig, LogConfig, OptimizerConfig, SamplingConfig
from realiz3d_jax.data.config import DataConfig
from realiz3d_jax.diffusion.ddpm import DDPM
from realiz3d_jax.diffusion.process import Process
from realiz3d_jax.diffusion.rectified_flow import RectifiedFlow
from realiz3d_jax.errors import UserError
from realiz3d_jax.models import backbone
from realiz3d_jax.models.codec import AutoencoderCodec, Codec, PixelCodec
from realiz3d_jax.models.mmdit import MMDiTConfig
from realiz3d_jax.models.presets import PIXART, PRESETS
from realiz3d_jax.models.vae import VAEConfig

SHIPPED_BASE = exported.PRETRAINED / "shapes_base.safetensors"

_SD_SCALE, _SDXL_SCALE = 0.18215, 0.13025
_LONGEST_CAPTION = {_SD_SCALE: 120, _SDXL_SCALE: 300}
"""Maximum number of caption tokens, by autoencoder scale: PixArt-alpha uses Stable Diffusion's, PixArt-Sigma SDXL's."""

PAPER_BATCH = {"batch_grids": 8, "batch_of": "device"}
"""The paper trains on 64 GPUs with a "batch size 8", interpreted here as eight grids per GPU, 512 in total."""

_REPOSITORIES = {
    "pixart_alpha_256": "PixArt-alpha/PixArt-XL-2-256x256",
    "pixart_alpha": "PixArt-alpha/PixArt-XL-2-512x512",
    "pixart_alpha_1024": "PixArt-alpha/PixArt-XL-2-1024-MS",
    "pixart_sigma_256": "PixArt-alpha/PixArt-Sigma-XL-2-256x256",
    "pixart_sigma": "PixArt-alpha/PixArt-Sigma-XL-2-512-MS",
    "pixart_sigma_1024": "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
    "pixart_sigma_2k": "PixArt-alpha/PixArt-Sigma-XL-2-2K-MS",
}
"""Repositories on the Hugging Face Hub."""

GRID_POSITIONS = "canvas"
"""Positions used in all training on grids, Stage 1 included: a tile has the positions of its place in the 2x2 canvas in both
modes, since otherwise its position would distinguish real from synthetic samples. A published base was trained on single
images ("view") only, so its own images are drawn at those positions, and it learns the canvas in Stage 2. In Stage 1 its
frozen backbone receives unfamiliar positions; the shifts absorb this equally in both domains, and are then used at the
positions at which they were learned."""

VIEW_PROMPT = "{caption}, {view} view, white background"
"""Prompt that asks a published model for a view of an isolated object, as in the synthetic renders."""


@dataclasses.dataclass(frozen=True)
class Base:
    """A base model.

    Attributes:
      model: the backbone, at the positions for which the base's weights were trained.
      init: source of Stage 1's backbone.
      runs: folder of the runs that start from this base.
      diffusion: the diffusion process.
      codec: the encoder of images.
      data: the data settings.
      sampling: the sampling settings.
      published: True for weights published by others, trained in an autoencoder's latents; the paper's settings then apply.
    """

    model: backbone.Config
    init: InitConfig
    runs: str = "runs"
    diffusion: Process = dataclasses.field(default_factory=DDPM)
    codec: Codec = dataclasses.field(default_factory=PixelCodec)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    sampling: SamplingConfig = dataclasses.field(default_factory=SamplingConfig)
    published: bool = False

    def settings(self, **data: Any) -> dict[str, Any]:
        """Returns the fields of the base's own ``TrainConfig``; ``data`` replaces fields of ``DataConfig``."""
        return {
            "model": self.model,
            "diffusion": self.diffusion,
            "codec": self.codec,
            "data": dataclasses.replace(self.data, **data),
            "sampling": self.sampling,
        }

    def on_grids(self, **data: Any) -> dict[str, Any]:
        """Returns the ``settings`` of a stage that trains on grids of views."""
        model = dataclasses.replace(self.model, positions=GRID_POSITIONS)
        return self.settings(**data) | {"model": model}

    def fine_tuning(self) -> dict[str, Any]:
        """Returns ``on_grids`` with the training settings that all methods share, so that results differ by method alone."""
        if self.published:  # the paper's settings
            return self.on_grids(**PAPER_BATCH) | {
                "viewpoints": "latents",
                "steps": 4_700,  # ten epochs of 120,000 assets in batches of 512, and as many steps on real images
                "optimizer": OptimizerConfig(learning_rate=5e-5, weight_decay=0.0),
                "log": LogConfig(metrics_every=50, samples_every=5_000, checkpoint_every=1_000),
            }
        return self.on_grids(batch_grids=4) | {
            "steps": 1_600,
            "ema_decay": 0.995,
            "timestep_weight_cap": 100.0,
            "optimizer": OptimizerConfig(
                learning_rate=1e-3, control_factor=10.0, schedule="cosine", warmup_steps=100, weight_decay=0.0
            ),
            "log": LogConfig(metrics_every=25, samples_every=800, checkpoint_every=400),
        }


def find(name: str) -> Base:
    """Returns the base called ``name``, or the one in the folder ``name`` that was written by ``realiz3d_jax.convert``.

    Raises:
      UserError: there is no such base or folder.
    """
    if (pathlib.Path(name) / exported.TRANSFORMER).is_file():
        held = exported.read_config(name)
        base = published(held.model, held.codec.autoencoder, name, diffusion=held.diffusion)
        return dataclasses.replace(base, data=dataclasses.replace(held.data, encoders=name))
    if name not in BASES:
        raise UserError(
            f"--config FILE.py:{name}: there is no such base model; expected one of {', '.join(BASES)}, or "
            "a folder written by realiz3d_jax.convert."
        )
    return BASES[name]


def _shapes() -> Base:
    """Returns the shapes benchmark's base model, whose weights are shipped."""
    command = (
        "python -m realiz3d_jax.train --config configs/base.py\n"
        f"  python -m realiz3d_jax.convert --workdir runs/base --output {SHIPPED_BASE}"
    )
    return Base(PRESETS["shapes"], InitConfig(str(SHIPPED_BASE), ("backbone",), command))


def _own(name: str, model: backbone.Config, **settings: Any) -> Base:
    """Returns a base for the shapes benchmark whose weights are trained by ``configs/base.py``."""
    command = f"python -m realiz3d_jax.train --config configs/base.py:{name}"
    return Base(model, InitConfig(f"runs/{name}/base", ("backbone",), command), f"runs/{name}", **settings)


def _flow(name: str, width: int, depth: int, heads: int) -> Base:
    """Returns a base for the shapes benchmark with Stable Diffusion 3's transformer and diffusion process."""
    model = MMDiTConfig(
        width=width,
        depth=depth,
        heads=heads,
        patch_size=4,
        in_channels=3,
        caption_channels=64,
        pooled_channels=64,
        sample_size=32,
        base_size=8,
        max_size=24,
    )
    return _own(name, model, diffusion=RectifiedFlow())


def autoencoder_of(name: str) -> VAEConfig:
    """Returns the autoencoder config of a PixArt model: Stable Diffusion's for alpha, SDXL's for Sigma."""
    return VAEConfig(scale=_SD_SCALE if "alpha" in name else _SDXL_SCALE)


def published(
    model: backbone.Config, autoencoder: VAEConfig, folder: str, command: str = "", diffusion: Process | None = None
) -> Base:
    """Returns a base with published weights.

    Args:
      model: config of the backbone.
      autoencoder: config of the autoencoder in whose latents it was trained.
      folder: folder written by ``realiz3d_jax.convert``.
      command: the command that writes the folder.
      diffusion: diffusion process of its training; DDPM by default.
    """
    model = dataclasses.replace(model, positions="view")  # it was trained on single images
    codec = AutoencoderCodec(autoencoder)
    data = DataConfig(
        size=model.sample_size * codec.factor,
        text_encoder="t5",
        text_channels=model.caption_channels,
        text_tokens=_LONGEST_CAPTION.get(autoencoder.scale, 300),
        encoders=folder,
        view_prompt=VIEW_PROMPT,
    )
    return Base(
        model,
        InitConfig(folder, ("backbone",), command),
        f"runs/{pathlib.Path(folder).name}",
        diffusion or DDPM(),
        codec,
        data,
        SamplingConfig(guidance_scale=4.5),
        published=True,
    )


def _pixart(name: str) -> Base:
    encoders = "PixArt-alpha/pixart_sigma_sdxlvae_T5_diffusers" if "sigma" in name else _REPOSITORIES["pixart_alpha"]
    wanted = dict.fromkeys((_REPOSITORIES[name], encoders))
    folder = f"pretrained/{name}"
    command = f"python -m realiz3d_jax.convert {' '.join(f'--hub {one}' for one in wanted)} --output {folder}"
    return published(PIXART[name], autoencoder_of(name), folder, command)


BASES: dict[str, Base] = {
    "shapes": _shapes(),
    "tiny": _own("tiny", PRESETS["tiny"]),
    "shapes_sd3": _flow("shapes_sd3", width=128, depth=6, heads=4),
    "tiny_sd3": _flow("tiny_sd3", width=32, depth=3, heads=2),
    **{name: _pixart(name) for name in PIXART},
}
"""Base models by name; ``tiny`` is a minimal ``shapes``, for tests and for trying out changes."""
