"""The four views of a grid: how many, where their cameras stand, what prompts call them, and their order in one picture."""

import math
from typing import Any

import einops

AZIMUTHS = (0, 90, 180, 270)
"""Degrees, counter-clockwise seen from above, of the views in their order."""

VIEWS = len(AZIMUTHS)
"""V, the number of views of a grid."""

VIEW_WORDS = ("front", "right side", "back", "left side")
"""Names of the views in prompts and in reports, in the same order."""

ORDER = "(row column)"
"""How views fill a grid, as einops writes it: row-major, [0 90 / 180 270]."""


def to_grid(views: Any) -> Any:
    """One square picture [..., H, W, C] of views [..., V, h, w, C], NumPy or JAX; V is a square number."""
    side = math.isqrt(views.shape[-4])
    return einops.rearrange(views, f"... {ORDER} h w c -> ... (row h) (column w) c", row=side, column=side)


def to_views(grid: Any, views: int = VIEWS) -> Any:
    """The views [..., V, h, w, C] of one square picture [..., H, W, C]; the inverse of ``to_grid``."""
    side = math.isqrt(views)
    return einops.rearrange(grid, f"... (row h) (column w) c -> ... {ORDER} h w c", row=side, column=side)
