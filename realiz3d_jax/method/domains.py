"""The two domains of the paper's covariate: the look of an image, apart from its content."""

import enum


class Domain(enum.IntEnum):
    """An image's domain; the value indexes the domain axis of shifts and plans."""

    SYNTHETIC = 0
    REAL = 1
