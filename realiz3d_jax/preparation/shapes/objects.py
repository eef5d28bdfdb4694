"""The objects of the shapes benchmark: one or two solids in clear colours, with a caption.

An object depends on (seed, split, index) alone. A fraction ``SINGLE_SHARE`` of the objects are single solids, "a red cone".
The others are two solids of different shape and colour in a relation that the four views show differently: "a red cone with
a small blue torus on top".

A *combination* is the set of (colour, shape) pairs of an object's parts. Sorted by SHA-256, the first combinations are
reserved for ``validation``, the next for ``test``, and all others for training. The held-out splits draw from their own
combinations, and every training split (photos, synthetic train) from those for training. Training therefore shows every
colour and every shape, but no held-out caption in any order, size or relation of its parts.
"""

import dataclasses
import functools
import hashlib
import itertools

import numpy as np

from realiz3d_jax.geometry import mesh
from realiz3d_jax.preparation.shapes import primitives

SEED = 0
SINGLE_SHARE = 0.35

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 38, 40),
    "orange": (250, 140, 22),
    "yellow": (250, 218, 44),
    "green": (44, 160, 58),
    "cyan": (60, 205, 214),
    "blue": (38, 82, 214),
    "purple": (142, 54, 178),
    "gray": (116, 118, 122),
}
"""Base colours as displayed (sRGB, 0..255)."""

SHAPES = {
    "sphere": primitives.sphere,
    "cube": primitives.cube,
    "cone": primitives.cone,
    "cylinder": primitives.cylinder,
    "torus": primitives.torus,
    "pyramid": primitives.pyramid,
}

SIZES = {"small": 0.55, "": 0.8, "large": 1.15}
"""Relative sizes by word; each object is normalised at the end."""

_SIZE_PAIRS = (("", ""), ("", "small"), ("large", "small"), ("large", ""), ("small", ""), ("small", "large"))

RELATIONS = ("on top", "next to", "in front of", "behind")

_SINK = {"sphere": 0.04, "cube": 0.0, "cone": 0.14, "cylinder": 0.0, "torus": 0.02, "pyramid": 0.14}
"""Depth to which another solid sinks into the top of each shape, as a fraction of the shape's height."""

_SPLITS = {"photos": 0, "train": 1, "validation": 2, "test": 3}
_ROLES = {"photos": "train", "train": "train", "validation": "validation", "test": "test"}
_HELD_OUT = {1: {"validation": 4, "test": 7}, 2: {"validation": 60, "test": 100}}
"""Number of combinations of one and of two parts that each split holds out."""

Pair = tuple[str, str]
"""(colour, shape)"""


@dataclasses.dataclass(frozen=True)
class ShapesObject:
    """A composed object.

    Attributes:
      uid: name, unique in the benchmark.
      caption: description of the object.
      combination: the sorted (colour, shape) pairs of its parts.
      parts: its surfaces in one world frame, not normalised.
    """

    uid: str
    caption: str
    combination: tuple[Pair, ...]
    parts: tuple[mesh.Part, ...]


def _combinations() -> dict[tuple[str, int], list[tuple[Pair, ...]]]:
    """Returns all combinations by (role, number of parts)."""
    pairs = sorted(itertools.product(COLORS, SHAPES))
    singles = [(pair,) for pair in pairs]
    doubles = [(one, two) for one, two in itertools.combinations(pairs, 2) if one[0] != two[0] and one[1] != two[1]]
    result = {}
    for parts, combinations in ((1, singles), (2, doubles)):
        combinations.sort(key=lambda combination: hashlib.sha256(f"shapes {combination}".encode()).digest())
        for name, count in (*_HELD_OUT[parts].items(), ("train", len(combinations))):
            result[name, parts], combinations = combinations[:count], combinations[count:]
    return result


COMBINATIONS = _combinations()


def make_object(split: str, index: int, seed: int = SEED) -> ShapesObject:
    """Makes object number ``index`` of a split.

    Combinations are taken in a shuffled order that uses each once before any repeats.

    Args:
      split: "photos", "train", "validation" or "test".
      index: index of the object, from 0.
      seed: seed of the whole benchmark.
    """
    singles, following = (int(np.floor(number * SINGLE_SHARE)) for number in (index, index + 1))
    if _ROLES[split] != "train":
        # Few single solids are held out; a held-out split takes each once, then continues with pairs.
        available = len(COMBINATIONS[_ROLES[split], 1])
        singles, following = min(singles, available), min(following, available)
    single = following > singles
    choices = COMBINATIONS[_ROLES[split], 1 if single else 2]
    order = _order(seed, _SPLITS[split], single, len(choices))
    combination = choices[order[(singles if single else index - singles) % len(choices)]]
    generator = np.random.default_rng([seed, _SPLITS[split], 2, index])
    if single:
        caption, parts = _noun("", combination[0]), (_solid(combination[0], 1.0, generator),)
    else:
        caption, parts = _composed(combination, generator)
    return ShapesObject(f"{split}_{index:05d}", caption, combination, parts)


@functools.cache
def _order(seed: int, split: int, single: bool, number: int) -> list[int]:
    """Returns the order in which a split takes its combinations."""
    return np.random.default_rng([seed, split, int(single)]).permutation(number).tolist()


@functools.cache
def _surface(shape: str) -> primitives.Surface:
    return SHAPES[shape]()


def _composed(combination: tuple[Pair, ...], generator: np.random.Generator) -> tuple[str, tuple[mesh.Part, ...]]:
    """Composes two solids in a relation; returns the caption and the parts."""
    swapped, relation = generator.integers(2), RELATIONS[generator.integers(len(RELATIONS))]
    first, second = combination[::-1] if swapped else combination
    sizes = _SIZE_PAIRS[generator.integers(len(_SIZE_PAIRS))]
    base, other = (_solid(pair, SIZES[size], generator) for pair, size in zip((first, second), sizes, strict=True))
    nouns = _noun(sizes[0], first), _noun(sizes[1], second)
    low, high = base.vertices.min(axis=0), base.vertices.max(axis=0)
    other_low, other_high = other.vertices.min(axis=0), other.vertices.max(axis=0)
    gap = 0.03 + 0.04 * generator.random()
    if relation == "on top":
        shift = (0.0, 0.0, high[2] - _SINK[first[1]] * (high[2] - low[2]))
        caption = f"{nouns[0]} with {nouns[1]} on top"
    else:
        # The second solid stands to the right of the first in the front view, or behind it, or in front of it.
        shift = {
            "next to": (high[0] - other_low[0] + gap, 0.0, 0.0),
            "in front of": (0.0, high[1] - other_low[1] + gap, 0.0),
            "behind": (0.0, low[1] - other_high[1] - gap, 0.0),
        }[relation]
        caption = f"{nouns[0]} {relation} {nouns[1]}"
    return caption, (base, dataclasses.replace(other, vertices=other.vertices + np.array(shift)))


def _noun(size: str, pair: Pair) -> str:
    words = " ".join(word for word in (size, *pair) if word)
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _solid(pair: Pair, size: float, generator: np.random.Generator) -> mesh.Part:
    """Makes a solid of the given size, with slight jitter in size, proportion and heading."""
    vertices, faces, normals = _surface(pair[1])
    width, height = size * (1 + 0.05 * generator.uniform(-1, 1, 2))
    angle = np.deg2rad(3) * generator.uniform(-1, 1)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    scale = np.array([width, width, height])
    normals = normals / scale
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    color = tuple(channel / 255 for channel in COLORS[pair[0]])
    return mesh.Part((vertices * scale) @ turn.T, faces, normals @ turn.T, color)
