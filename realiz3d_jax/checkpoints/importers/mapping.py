"""From another project's tensors to this one's arrays and back, by one table of rules for a model.

A rule names one of our arrays, the tensors that it is made of, and an einops pattern between them. A pattern only moves
numbers, so one view of our array serves both ways: what is imported is written through it, what is exported is read through it.
No number changes and nothing is held twice. All that is wrong with a checkpoint is told in one error.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import einops
import jax
import ml_dtypes
import numpy as np

from realiz3d_jax.errors import UserError

Params = dict[str, Any]

_LAYER = "{layer}"

_FLOATS = tuple(np.dtype(kind) for kind in (np.float32, np.float16, np.float64, ml_dtypes.bfloat16))

SAME = ""
LINEAR = "outputs inputs -> inputs outputs"
CONVOLUTION = "outputs inputs height width -> height width inputs outputs"


@dataclasses.dataclass(frozen=True)
class Rule:
    """One of our arrays, and what it is made of.

    Attributes:
      ours: path in the parameters, "/" between keys.
      theirs: names of their tensors; "{layer}" stands for every layer, which ours stacks on a leading axis.
      pattern: einops, from theirs (several have a leading axis of their number) to ours without the layers' axis.
      sizes: of the pattern's axes that can't be inferred.
    """

    ours: str
    theirs: tuple[str, ...]
    pattern: str = SAME
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def stacked(self) -> bool:
        """Whether ours holds all layers."""
        return _LAYER in self.theirs[0]

    def names(self, layer: int) -> list[str]:
        """The tensors of one layer."""
        return [name.replace(_LAYER, str(layer)) for name in self.theirs]

    def to_theirs(self, array: np.ndarray) -> list[np.ndarray]:
        """The tensors of one layer, as views of ours; every pattern of a table permits that."""
        if self.pattern:
            theirs, ours = self.pattern.split("->")
            array = einops.rearrange(array, f"{ours} -> {theirs}", **self.sizes)
        return list(array) if len(self.theirs) > 1 else [array]


def linear(ours: str, theirs: str, pattern: str = LINEAR, bias: str = SAME, **sizes: int) -> tuple[Rule, Rule]:
    """The rules of a layer with ``kernel`` and ``bias``."""
    return (
        Rule(f"{ours}/kernel", (f"{theirs}.weight",), pattern, sizes),
        Rule(f"{ours}/bias", (f"{theirs}.bias",), bias, sizes if bias else {}),
    )


def import_params(
    where: str,
    rules: Iterable[Rule],
    like: Params,
    shapes: Mapping[str, Sequence[int]],
    read: Callable[[str], np.ndarray],
    dtype: np.dtype,
    ignored: Sequence[str] = (),
) -> Params:
    """Our parameters from their tensors; holds no more than all of ours and one of theirs.

    Args:
      where: what is read, for messages.
      like: tree of ShapeDtypeStruct, what the model's ``init`` would make.
      shapes: of every tensor that is there.
      read: a tensor by its name.
      dtype: of the result.
      ignored: tensors that may be there and say nothing.

    Raises:
      UserError: tensors are missing, surplus, of another shape (all such are counted and the first are named), or no floats.
    """
    rules = list(rules)
    targets = flatten(like)
    _check_table(rules, targets)
    problems, used = [], set(ignored)
    for rule in rules:
        target = targets[rule.ours]
        one = jax.ShapeDtypeStruct(target.shape[1:] if rule.stacked else target.shape, target.dtype)
        expected = [tuple(part.shape) for part in jax.eval_shape(rule.to_theirs, one)]
        for layer in _layers(rule, target):
            for name, shape in zip(rule.names(layer), expected, strict=True):
                used.add(name)
                if name not in shapes:
                    problems.append(f"{name} is missing; expected {list(shape)}")
                elif tuple(shapes[name]) != shape:
                    problems.append(f"{name} is {list(shapes[name])}; expected {list(shape)}")
    problems += [f"{name} {list(shapes[name])} is surplus" for name in shapes if name not in used]
    if problems:
        listed = "\n  ".join(problems)
        raise UserError(
            f"{where}: {len(problems)} tensors are not those of this model; is it another checkpoint or preset?\n  {listed}"
        )
    made = {}
    for rule in rules:
        target = targets[rule.ours]
        array = made[rule.ours] = np.empty(target.shape, dtype)
        for layer in _layers(rule, target):
            views = rule.to_theirs(array[layer] if rule.stacked else array)
            for name, view in zip(rule.names(layer), views, strict=True):
                view[...] = _floats(where, name, read(name))
    return jax.tree.unflatten(jax.tree.structure(like), [made[path] for path in targets])


def export_params(rules: Iterable[Rule], params: Params) -> dict[str, np.ndarray]:
    """Their tensors, by name, as views of our parameters: the inverse of ``import_params``, without memory of its own.

    Args:
      params: NumPy arrays, or arrays of one device.
    """
    rules, arrays = list(rules), flatten(params)
    _check_table(rules, arrays)
    tensors = {}
    for rule in rules:
        array = np.asarray(arrays[rule.ours])
        for layer in _layers(rule, array):
            parts = rule.to_theirs(array[layer] if rule.stacked else array)
            tensors.update(zip(rule.names(layer), parts, strict=True))
    return tensors


def _floats(where: str, name: str, tensor: np.ndarray) -> np.ndarray:
    if tensor.dtype not in _FLOATS:
        raise UserError(
            f"{where}: {name} is of {tensor.dtype}; expected {', '.join(map(str, _FLOATS))}. "
            "Quantised weights cannot be converted; fetch the full ones."
        )
    return tensor


def _layers(rule: Rule, target: Any) -> range:
    return range(target.shape[0] if rule.stacked else 1)


def flatten(params: Params) -> dict[str, Any]:
    """The leaves by their path, "/" between keys, in the order of JAX."""
    flat = jax.tree_util.tree_flatten_with_path(params)[0]
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in flat}


def _check_table(rules: Sequence[Rule], targets: Mapping[str, Any]) -> None:
    named = [rule.ours for rule in rules]
    if sorted(named) != sorted(targets):
        raise ValueError(f"the table and the model differ in {sorted(set(named) ^ set(targets))}")
