"""The interface between a method and the training loop, the step and the sampler, which know no method by name.

A method is one file of this folder with a frozen dataclass ``Method`` (its fields are the options that a config may set) that
satisfies the protocol below. ``load(name, options)`` finds it.
"""

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

import jax
import numpy as np

from realiz3d_jax.errors import UserError
from realiz3d_jax.method.domains import Domain
from realiz3d_jax.method.plans import BlockPlan, inference_plan, uniform_plan

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Iteration:
    """One kind of training iteration, by its properties that are known before tracing. Every kind is compiled once.

    Attributes:
      name: the name of its metrics.
      stream: the data stream that feeds it, a key of ``data.pipeline.STREAMS``.
      domain: the domain of its images.
      joint: whether the views of a grid attend to one another; otherwise each view is an independent image.
      control: whether the control is given; otherwise it is null.
      freeze_input: whether the inputs of block 0 (patch, control and camera embeddings) are neither differentiated nor updated.
      freeze_shared: whether the parts that all blocks share (timestep, modulation, caption) are neither differentiated nor
        updated.
      draw_plan: draws the iteration's plan from a key and the number of blocks; None trains every block, in ``domain``.
    """

    name: str
    stream: str
    domain: Domain
    joint: bool = False
    control: bool = False
    freeze_input: bool = False
    freeze_shared: bool = False
    draw_plan: Callable[[jax.Array, int], BlockPlan] | None = None

    def plan(self, key: jax.Array, depth: int) -> BlockPlan:
        """The plan of one iteration."""
        return uniform_plan(self.domain, depth) if self.draw_plan is None else self.draw_plan(key, depth)


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of training.

    Attributes:
      partitions: the parameter partitions that exist.
      trainable: the partitions that train, at least one.
      iterations: the one or two kinds of iterations that alternate.
      second_fraction: the fraction of the steps that are of the second kind, placed by an exact rule from the step number
        (error diffusion), never at random.
      second_warmup: the number of first steps that are all of the second kind.
    """

    partitions: tuple[str, ...]
    trainable: tuple[str, ...]
    iterations: tuple[Iteration, ...]
    second_fraction: float = 0.0
    second_warmup: int = 0

    def _seconds_before(self, step: int) -> int:
        warmup = min(step, self.second_warmup)
        return warmup + int((step - warmup) * self.second_fraction + 1e-9)

    def iteration(self, step: int) -> Iteration:
        """The kind of iteration of step number ``step``, from 0."""
        return self.iterations[self._seconds_before(step + 1) - self._seconds_before(step)]


class Method(Protocol):
    """A way of fine-tuning a base model into a multi-view generator.

    Attributes:
      knows_domains: whether its models draw different images in different domains.
    """

    knows_domains: ClassVar[bool]

    def stages(self) -> Mapping[str, Stage]:
        """The stages by name, in their order."""
        ...

    def init(self, depth: int, width: int, key: jax.Array) -> Params:
        """Fresh parameters of the method's own partitions (neither ``backbone`` nor ``control``)."""
        ...

    def shifts(self, params: Params) -> jax.Array | None:
        """The shift of the tokens before each block in each domain, float32[2, L, D]; None adds nothing."""
        ...

    def inference_plan(
        self, timesteps: np.ndarray, depth: int, domain: Domain, block_max: float, timestep_max: int
    ) -> np.ndarray:
        """The domain of each block at each of S sampling steps, int32[S, L]."""
        ...


class DomainFree:
    """The members of a method without domains: every plan is the same, and the tokens are not shifted."""

    knows_domains: ClassVar[bool] = False

    def init(self, depth: int, width: int, key: jax.Array) -> Params:
        """No parameters: the method has no partitions of its own."""
        return {}

    def shifts(self, params: Params) -> None:
        """None: the tokens are not shifted."""

    def inference_plan(
        self, timesteps: np.ndarray, depth: int, domain: Domain, block_max: float, timestep_max: int
    ) -> np.ndarray:
        """The same plan for every request."""
        return inference_plan(timesteps, depth, Domain.SYNTHETIC)


def names() -> list[str]:
    """The names of the methods: the modules of this folder that define a ``Method`` of their own."""
    package = importlib.import_module("realiz3d_jax.method")
    modules = {module.name: f"{package.__name__}.{module.name}" for module in pkgutil.iter_modules(package.__path__)}
    found = {name: getattr(importlib.import_module(path), "Method", Method) for name, path in modules.items()}
    return [name for name, method in found.items() if method.__module__ == modules[name] and method is not Method]


def load(name: str, options: Mapping[str, Any]) -> Method:
    """The method called ``name`` with ``options`` for its fields.

    Raises:
      UserError: no method has this name, it has no such option, or an option's value has another type than its default.
    """
    if name not in names():
        raise UserError(f"config.method.name: found {name!r}, expected one of {', '.join(names())}.")
    method_class = importlib.import_module(f"realiz3d_jax.method.{name}").Method
    known = {field.name: type(field.default) for field in dataclasses.fields(method_class)}
    for option, value in options.items():
        if option not in known:
            raise UserError(
                f"config.method.{option}: the method {name!r} has no such option; it has {', '.join(sorted(known)) or 'none'}."
            )
        if type(value) is not known[option] and not (known[option] is float and type(value) is int):
            raise UserError(
                f"config.method.{option}: found {value!r}, expected a value of type {known[option].__name__}."
            )
    return method_class(**options)
