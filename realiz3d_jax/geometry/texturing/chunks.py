"""Long arrays in pieces of few lengths, so that compiled programs see few shapes and their temporaries stay small."""

import numpy as np

_WHOLE = 1 << 17
_SMALL = 1 << 14


def chunks(count: int) -> list[slice]:
    """The parts of an array of ``count`` rows."""
    return [slice(start, min(start + _WHOLE, count)) for start in range(0, count, _WHOLE)]


def padded(array: np.ndarray, value: int = 0) -> np.ndarray:
    """A part, [n, ...], filled up with ``value`` to one of two lengths: a program is compiled for these and no others."""
    length = _SMALL if len(array) <= _SMALL else _WHOLE
    return np.pad(array, [(0, length - len(array))] + [(0, 0)] * (array.ndim - 1), constant_values=value)


def table(array: np.ndarray) -> np.ndarray:
    """An array to look rows up in, [n, ...], filled up with zeros to a power of two: meshes of alike sizes share programs."""
    length = max(_SMALL, 1 << (len(array) - 1).bit_length())
    return np.pad(array, [(0, length - len(array))] + [(0, 0)] * (array.ndim - 1))
