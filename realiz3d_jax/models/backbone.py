"""The contract of a backbone, and the lookup of one by its name.

A backbone is one module of this folder, such as ``models/dit.py``. It defines ``Config``, a frozen dataclass whose field
``name`` is the module's name, and with it everything that ``Backbone`` lists. ``captions`` is the dict of arrays [B, G, ...]
that the text encoder gives; a backbone reads the entries that it knows. It takes ``block_shift: [L, B|1, D]`` and knows nothing
of domains.
"""

import dataclasses
import importlib
import pkgutil
from typing import Any, ClassVar, Protocol, TypeVar, cast

import jax

from realiz3d_jax.errors import UserError

Params = dict[str, Any]
Captions = dict[str, Any]
"""``states`` float32[..., T, C], ``mask`` bool[..., T] (True for tokens that count), ``pooled`` float32[..., P]."""


class Config(Protocol):
    """The fields that every backbone's config has, whatever else it holds.

    Attributes:
      name: the backbone's module.
      width: D, a multiple of 4 and of ``heads``.
      depth: L, the number of blocks.
      heads: K.
      patch_size: side of a token, in latent pixels.
      in_channels: C of the latents.
      caption_channels: of the text encoder's states.
      sample_size: side of one view, in latent pixels.
      positions: "canvas" or "view", see ``embeddings.grid_position_features``.
      dtype: of the matrix products, "float32" or "bfloat16".
      residual_dtype: of the tokens between blocks, likewise.
      attention: back end, see ``attention.BACKENDS``.
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    @property
    def name(self) -> str: ...
    @property
    def width(self) -> int: ...
    @property
    def depth(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def patch_size(self) -> int: ...
    @property
    def in_channels(self) -> int: ...
    @property
    def caption_channels(self) -> int: ...
    @property
    def sample_size(self) -> int: ...
    @property
    def positions(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def residual_dtype(self) -> str: ...
    @property
    def attention(self) -> str: ...


ConfigT = TypeVar("ConfigT", bound=Config)
_ConfigT = TypeVar("_ConfigT", bound=Config, contravariant=True)


@dataclasses.dataclass(frozen=True)
class Parts:
    """The roles of a backbone's parameters in training; all but ``split`` name top-level ones.

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


class Backbone(Protocol[_ConfigT]):
    """The members of a backbone's module.

    Attributes:
      PARTS: the roles of its parameters.
    """

    @property
    def PARTS(self) -> Parts: ...

    def init(self, config: _ConfigT, key: jax.Array) -> Params:
        """Fresh float32 parameters, those of the blocks stacked [L, ...]."""
        ...

    def apply(
        self,
        config: _ConfigT,
        params: Params,
        latents: jax.Array,
        timestep: jax.Array,
        captions: Captions,
        *,
        block_shift: jax.Array | None = None,
        control_tokens: jax.Array | None = None,
        frozen_blocks: jax.Array | None = None,
        freeze_input: bool = False,
        freeze_shared: bool = False,
    ) -> jax.Array:
        """The prediction float32[B, V, h, w, C or more] for latents float[B, V, h, w, C]; arguments as in ``dit.apply``."""
        ...

    def flops(self, config: _ConfigT, views: int, groups: int, text_tokens: int) -> float:
        """Operations of the forward pass of one grid."""
        ...


def of(config: ConfigT) -> Backbone[ConfigT]:
    """The backbone that ``config`` belongs to."""
    return cast(Backbone[ConfigT], importlib.import_module(type(config).__module__))


def config_class(name: str) -> type[Config]:
    """The ``Config`` of the backbone called ``name``.

    Raises:
      UserError: no backbone has this name.
    """
    package = importlib.import_module("realiz3d_jax.models")
    modules = [
        importlib.import_module(f"{package.__name__}.{found.name}") for found in pkgutil.iter_modules(package.__path__)
    ]
    known = {module.Config.name: module.Config for module in modules if hasattr(module, "PARTS")}
    if name not in known:
        raise UserError(f"config.model.name: found {name!r}, expected one of {', '.join(known)}.")
    return known[name]
