"""What a backbone is, and finding one by its name.

A backbone is one module of this folder. It defines ``Config``, a frozen dataclass whose field ``name`` is the module's name,
and with it

    PARTS: Parts
    init(config, key) -> params
    apply(config, params, latents, timestep, captions, *, block_shift, control_tokens, frozen_blocks, freeze_input,
          freeze_shared)
    flops(config, views, groups, text_tokens) -> float

as in ``models/dit.py``. ``captions`` is the dict of arrays [B, G, ...] that the text encoder gives; a backbone reads what it
knows of it. It takes ``block_shift: [L, B|1, D]`` and knows nothing of domains.
"""

import dataclasses
import importlib
import pkgutil
from types import ModuleType
from typing import Any, Protocol

from realiz3d_jax.errors import UserError

Params = dict[str, Any]
Captions = dict[str, Any]
"""``states`` float32[..., T, C], ``mask`` bool[..., T] (True for tokens that count), ``pooled`` float32[..., P]."""


class Config(Protocol):
    """What every backbone's config states, whatever else it does."""

    name: str
    width: int
    depth: int
    patch_size: int
    in_channels: int
    sample_size: int
    positions: str
    dtype: str
    residual_dtype: str
    attention: str


@dataclasses.dataclass(frozen=True)
class Parts:
    """What training has to know of a backbone's parameters; all but ``split`` name top-level ones.

    Attributes:
        stacked: entry i of their leading axis belongs to block i.
        last: belong to the last block as a whole.
        input: feed block 0 and nothing else.
        shared: feed all blocks.
        split: (path, axis): which axis of a parameter may be split over devices, None if none may; the paths are regular
            expressions, and every parameter is matched by exactly one. Always an axis of width: never the stacked one, and
            never one that is fused from several meanings, which would be cut across.
    """

    stacked: tuple[str, ...]
    input: tuple[str, ...]
    shared: tuple[str, ...]
    split: tuple[tuple[str, int | None], ...]
    last: tuple[str, ...] = ()


def of(config: Config) -> ModuleType:
    """The backbone whose config this is."""
    return importlib.import_module(type(config).__module__)


def config_class(name: str) -> type:
    """The ``Config`` of the backbone called ``name``.

    Raises:
        UserError: there is none.
    """
    package = importlib.import_module("realiz3d_jax.models")
    modules = [
        importlib.import_module(f"{package.__name__}.{found.name}") for found in pkgutil.iter_modules(package.__path__)
    ]
    known = {module.Config.name: module.Config for module in modules if hasattr(module, "PARTS")}
    if name not in known:
        raise UserError(f"config.model.name: found {name!r}, expected one of {', '.join(known)}.")
    return known[name]
