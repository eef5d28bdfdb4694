"""Splitting and padding of long arrays to a few lengths: fewer shapes to compile, and small temporary arrays."""

import numpy as np

_WHOLE = 1 << 17
_SMALL = 1 << 14


def chunks(count: int) -> list[slice]:
    """Slices of the chunks of an array with ``count`` rows."""
    return [slice(start, min(start + _WHOLE, count)) for start in range(0, count, _WHOLE)]


def padded(array: np.ndarray, value: int = 0) -> np.ndarray:
    """Pads a chunk, [n, ...], with ``value`` to one of two lengths, the only ones that programs are compiled for."""
    length = _SMALL if len(array) <= _SMALL else _WHOLE
    return np.pad(array, [(0, length - len(array))] + [(0, 0)] * (array.ndim - 1), constant_values=value)


def table(array: np.ndarray) -> np.ndarray:
    """Pads a lookup table, [n, ...], with zeros to a power of two, so that meshes of similar size share programs."""
    length = max(_SMALL, 1 << (len(array) - 1).bit_length())
    return np.pad(array, [(0, length - len(array))] + [(0, 0)] * (array.ndim - 1))
