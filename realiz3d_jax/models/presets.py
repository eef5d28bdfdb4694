"""Backbones by name, for the config files: ``--config configs/stage2.py:NAME``."""

import dataclasses

from realiz3d_jax.errors import UserError
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

PRESETS: dict[str, DiTConfig] = {
    "shapes": _SHAPES,
    # The same with almost nothing in it, for tests and for trying a change out.
    "tiny": dataclasses.replace(_SHAPES, width=32, depth=3, heads=2, scan_unroll=1, skip_frozen_backward=True),
}


def preset(name: str) -> DiTConfig:
    """The backbone called ``name``.

    Raises:
      UserError: there is none.
    """
    if name not in PRESETS:
        raise UserError(f"--config FILE.py:{name}: there is no such size; expected one of {', '.join(PRESETS)}.")
    return PRESETS[name]
