"""Backbones by name: the shapes benchmark's, and published ones (read by ``checkpoints.importers.pixart``)."""

import dataclasses

from realiz3d_jax.models.dit import DiTConfig

_SHAPES = DiTConfig(
    width=128,
    depth=8,
    heads=4,
    patch_size=4,
    in_channels=3,
    out_channels=6,
    caption_channels=64,
    sample_size=32,
    base_size=8,
    scan_unroll=8,
    skip_frozen_backward=False,
)
"""The shapes benchmark in pixel space: 32 px views of 8 x 8 tokens. Unrolled: faster than a scan at this size on CPUs."""

_PIXART = DiTConfig(
    width=1152,
    depth=28,
    heads=16,
    patch_size=2,
    in_channels=4,
    out_channels=8,
    caption_channels=4096,
    sample_size=64,
    base_size=32,
    positions="view",
    dtype="bfloat16",
    remat="attention",
)
"""PixArt-XL/2 at 512 px, with the positions that its weights were trained with: those of a single picture."""


def _pixart(pixels: int, scale: float, size_conditions: int = 0) -> DiTConfig:
    latent = pixels // 8
    return dataclasses.replace(
        _PIXART, sample_size=latent, base_size=latent // 2, position_scale=scale, size_conditions=size_conditions
    )


PRESETS: dict[str, DiTConfig] = {
    "shapes": _SHAPES,
    # The same at a minimal size, for tests and for trying out a change.
    "tiny": dataclasses.replace(_SHAPES, width=32, depth=3, heads=2, scan_unroll=1, skip_frozen_backward=True),
}

PIXART: dict[str, DiTConfig] = {
    "pixart_alpha_256": _pixart(256, 1.0),
    "pixart_alpha": _pixart(512, 1.0),
    "pixart_alpha_1024": _pixart(1024, 2.0, size_conditions=8),
    "pixart_sigma_256": _pixart(256, 0.5),
    "pixart_sigma": _pixart(512, 1.0),
    "pixart_sigma_1024": _pixart(1024, 2.0),
    "pixart_sigma_2k": _pixart(2048, 4.0),
}
"""PixArt's models, by the image size that they were trained for; alpha at 1024 px is conditioned on an image's size."""
