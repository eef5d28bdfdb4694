"""Realiz3D in JAX: photorealistic, 3D-consistent multi-view generation by domain-aware learning.

The axis legend, used in every signature and shape comment of the package:

    B  batch (grids)          V  views of a grid        G  groups of a grid
    H  height, pixels         W  width, pixels          C  channels
    N  tokens of a view       D  width of the backbone  K  attention heads
    T  text tokens            L  blocks                 R  rank of a low-rank map

A *group* is a set of views that attend to one another and share a caption and a timestep: ``G = 1`` is the joint
multi-view mode, ``G = V`` the single-image mode.

Importing the package, or any module of it, touches no device. ``open_model`` and its companions (``sampling/api.py``) are
imported when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from realiz3d_jax.config.schema import SamplingConfig
    from realiz3d_jax.errors import UserError
    from realiz3d_jax.geometry.assets.asset import Asset, load_asset
    from realiz3d_jax.geometry.cameras import Camera, orbit
    from realiz3d_jax.sampling.api import Model, bake_texture, compute_metrics, open_model
    from realiz3d_jax.sampling.run import Result

__version__ = "0.1.0"

__all__ = [
    "Asset",
    "Camera",
    "Model",
    "Result",
    "SamplingConfig",
    "UserError",
    "bake_texture",
    "compute_metrics",
    "load_asset",
    "open_model",
    "orbit",
]

_HOMES = {
    "Asset": "geometry.assets.asset",
    "Camera": "geometry.cameras",
    "Model": "sampling.api",
    "Result": "sampling.run",
    "SamplingConfig": "config.schema",
    "UserError": "errors",
    "bake_texture": "sampling.api",
    "compute_metrics": "sampling.api",
    "load_asset": "geometry.assets.asset",
    "open_model": "sampling.api",
    "orbit": "geometry.cameras",
}
"""The module of each public name. None of them is called like a module of the package, which would take its place."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
