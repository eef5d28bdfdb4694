"""Inspects a compiled program: the memory that it takes and the collectives that it runs.

Claims such as "sharded" or "frozen" are claims about the compiled program. ``report`` checks them, on any platform for which
the program can be compiled.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax.extend.core

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")

_BITS = {"pred": 8, "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "s4": 4, "u4": 4, "c64": 64}
_SHAPE = re.compile(r"\b(pred|bf16|c64|[fsu]\d+)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(rf"^\s+(?:ROOT )?%?[\w.\-]+ = (.+?) ({'|'.join(COLLECTIVES)})(?:-start)?\(")
_LOOP = re.compile(r"\bwhile\(.*\bbody=%?([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}|(?:true|false)_computation=%?([\w.\-]+)")
_CALL = re.compile(r"\b(?:call|async-start)\(.*\b(?:to_apply|calls|called_computation)=%?([\w.\-]+)")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective instruction.

    Attributes:
      kind: one of ``COLLECTIVES``.
      shape: shape of its result on each device, as written by the compiler.
      size: size of that result, in bytes.
      times: number of executions per call of the program, loops included.
    """

    kind: str
    shape: str
    size: int
    times: int


@dataclasses.dataclass(frozen=True)
class Report:
    """Cost of a call of a program for one device; sizes in bytes.

    Attributes:
      arguments: size of the arguments: state and batch.
      temporaries: size of the temporary buffers.
      collectives: data exchanged with other devices.
    """

    arguments: int
    temporaries: int
    collectives: tuple[Collective, ...]

    @property
    def exchanged(self) -> int:
        """Total bytes of all collectives of a call."""
        return sum(one.size * one.times for one in self.collectives)

    @property
    def largest(self) -> int:
        """Bytes of the largest collective."""
        return max((one.size for one in self.collectives), default=0)

    def by_kind(self) -> dict[str, tuple[int, int]]:
        """Returns, by kind, (number of executions per call, total bytes)."""
        found: dict[str, tuple[int, int]] = collections.defaultdict(lambda: (0, 0))
        for one in self.collectives:
            count, size = found[one.kind]
            found[one.kind] = count + one.times, size + one.size * one.times
        return dict(found)


def report(compiled: Any) -> Report:
    """Returns the report of a program compiled by ``jax.jit(...).lower(...).compile()``."""
    memory = compiled.memory_analysis()
    return Report(memory.argument_size_in_bytes, memory.temp_size_in_bytes, tuple(collectives(compiled.as_text())))


def collectives(text: str) -> list[Collective]:
    """Returns the collectives of an HLO module's text; for conditionals, those of the branch that exchanges the most.

    Raises:
      ValueError: a loop with collectives has no known trip count.
    """
    computations, entry = _computations(text)
    return list(_collectives(computations, entry, 1))


def kernels(jaxpr: jax.extend.core.ClosedJaxpr) -> list[tuple[str, ...]]:
    """Returns, for every Pallas kernel of a traced program, its enclosing primitives, outermost first."""
    return [within for name, within in _primitives(jaxpr.jaxpr, ()) if name == "pallas_call"]


def _primitives(jaxpr: jax.extend.core.Jaxpr, within: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for equation in jaxpr.eqns:
        yield equation.primitive.name, within
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from _primitives(inner, (*within, equation.primitive.name))


def _collectives(computations: Mapping[str, list[str]], name: str, times: int) -> Iterator[Collective]:
    for line in computations[name]:
        if found := _INSTRUCTION.match(line):
            shape, kind = found.groups()
            yield Collective(kind, shape, _size(shape), times)
        elif found := _LOOP.search(line):
            inside = list(_collectives(computations, found[1], 1))
            trips = _TRIPS.search(line)
            if not inside:
                continue
            if not trips:
                raise ValueError(f"a loop that exchanges data has no known trip count: {line.strip()[:200]}")
            yield from (dataclasses.replace(one, times=times * one.times * int(trips[1])) for one in inside)
        elif " conditional(" in line:
            names = [part for found in _BRANCHES.findall(line) for part in re.split(r",\s*", found[0] or found[1])]
            branches = [list(_collectives(computations, part.lstrip("%"), times)) for part in names]
            yield from max(branches, key=lambda branch: sum(one.size * one.times for one in branch))
        elif found := _CALL.search(line):
            yield from _collectives(computations, found[1], times)


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Returns the lines of every computation by name, and the name of the entry computation."""
    computations: dict[str, list[str]] = {}
    lines, entry = [], ""
    for line in text.splitlines():
        if found := _COMPUTATION.match(line):
            lines = computations[found[1]] = []
            entry = found[1] if line.startswith("ENTRY") else entry
        else:
            lines.append(line)
    return computations, entry


def _size(shape: str) -> int:
    """Returns the bytes of a shape, or of all shapes of a tuple."""
    arrays = _SHAPE.findall(shape)
    bits = [_BITS.get(kind) or int(kind[1:].rstrip("abcdefghijklmnopqrstuvwxyz")[:2]) for kind, _ in arrays]
    counts = [math.prod(int(side) for side in sides.split(",") if side) for _, sides in arrays]
    return sum(bit * count for bit, count in zip(bits, counts, strict=True)) // 8
