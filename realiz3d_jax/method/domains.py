"""The two domains of the paper's covariate: what an image looks like, apart from what it shows."""

import enum


class Domain(enum.IntEnum):
    """An image's domain; the value indexes the domain axis of shifts and plans."""

    SYNTHETIC = 0
    REAL = 1
