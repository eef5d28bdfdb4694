"""Maps another project's tensors to our arrays and back, by one table of rules per model.

A rule names one of our arrays, the tensors from which it is made, and an einops pattern between them. A pattern only moves
numbers, so one view of our array serves both directions: imports write through it, exports read through it. No value changes
and nothing is held twice. All problems of a checkpoint are reported in one error.
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
PATCHES = "outputs inputs row column -> (inputs row column) outputs"
TO_HEADS = "(head channel) inputs -> inputs head channel", "(head channel) -> head channel"
TO_SEVERAL_HEADS = "n (head channel) inputs -> inputs n head channel", "n (head channel) -> n head channel"
"""Of the kernels and the biases of several projections to heads, which we keep as one array: queries, keys and values."""
FROM_HEADS = "outputs (head channel) -> head channel outputs"


@dataclasses.dataclass(frozen=True)
class Rule:
    """One of our arrays, and the tensors from which it is made.

    Attributes:
      ours: path in the parameters, "/" between keys.
      theirs: names of their tensors; "{layer}" stands for every layer, and our array stacks the layers on a leading axis.
      pattern: einops pattern from their tensors (stacked on a leading axis if there are several) to ours without layers.
      sizes: sizes of the pattern's axes that cannot be inferred.
    """

    ours: str
    theirs: tuple[str, ...]
    pattern: str = SAME
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def stacked(self) -> bool:
        """Whether our array stacks all layers."""
        return _LAYER in self.theirs[0]

    def names(self, layer: int) -> list[str]:
        """Returns the names of one layer's tensors."""
        return [name.replace(_LAYER, str(layer)) for name in self.theirs]

    def to_theirs(self, array: np.ndarray) -> list[np.ndarray]:
        """Returns one layer's tensors as views of our array; every pattern of a table permits this."""
        if self.pattern:
            theirs, ours = self.pattern.split("->")
            array = einops.rearrange(array, f"{ours} -> {theirs}", **self.sizes)
        return list(array) if len(self.theirs) > 1 else [array]


def linear(ours: str, theirs: str | Sequence[str], pattern: str = LINEAR, bias: str = SAME, **sizes: int) -> list[Rule]:
    """Returns the rules of a layer with ``kernel`` and ``bias``.

    Args:
      ours: path of the layer in our parameters.
      theirs: name of the layer in their checkpoint, or of the layers that are one layer of ours.
      pattern: einops pattern of the kernel.
      bias: einops pattern of the bias.
      sizes: sizes of axes that cannot be inferred.
    """
    names = (theirs,) if isinstance(theirs, str) else theirs
    return [
        Rule(f"{ours}/kernel", tuple(f"{name}.weight" for name in names), pattern, sizes),
        Rule(f"{ours}/bias", tuple(f"{name}.bias" for name in names), bias, sizes if bias else {}),
    ]


def import_params(
    where: str,
    rules: Iterable[Rule],
    like: Params,
    shapes: Mapping[str, Sequence[int]],
    read: Callable[[str], np.ndarray],
    dtype: np.dtype,
    ignored: Sequence[str] = (),
) -> Params:
    """Builds our parameters from their tensors, holding all of ours and at most one of theirs in memory.

    Args:
      where: name of the checkpoint in messages.
      rules: the model's table.
      like: tree of ShapeDtypeStruct, as returned by the model's ``init``.
      shapes: shape of every tensor in the checkpoint, by name.
      read: reads a tensor by name.
      dtype: dtype of the parameters.
      ignored: tensors that may be present and are not read.

    Raises:
      UserError: tensors are missing, surplus or of another shape (all are listed), or are not floats.
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
            f"{where}: {len(problems)} tensors do not match this model; is it another checkpoint or preset?\n  {listed}"
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
    """Returns their tensors by name, as views of our parameters without copies: the inverse of ``import_params``.

    Args:
      rules: the model's table.
      params: our parameters, as NumPy arrays or arrays on one device.
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
            f"{where}: {name} has dtype {tensor.dtype}; expected {', '.join(map(str, _FLOATS))}. "
            "Quantised weights cannot be converted; fetch the full-precision ones."
        )
    return tensor


def _layers(rule: Rule, target: Any) -> range:
    return range(target.shape[0] if rule.stacked else 1)


def flatten(params: Params) -> dict[str, Any]:
    """Returns the leaves by path, "/" between keys, in JAX's order."""
    flat = jax.tree_util.tree_flatten_with_path(params)[0]
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in flat}


def _check_table(rules: Sequence[Rule], targets: Mapping[str, Any]) -> None:
    named = [rule.ours for rule in rules]
    if sorted(named) != sorted(targets):
        raise ValueError(f"the table and the model differ in {sorted(set(named) ^ set(targets))}")
