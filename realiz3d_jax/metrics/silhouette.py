"""How well the outline of a generated view is that of the true shape."""

import numpy as np

THRESHOLD = 32
"""A pixel less than this many of 255 levels below white, in every channel, is background whatever surrounds it: above the
noise that the background of photographs and of generated images has."""


def foreground(images: np.ndarray) -> np.ndarray:
    """The object in images on white: bool[V, H, W] of uint8[V, H, W, 3].

    A pixel is pale if it is less than ``THRESHOLD`` below white, or less than half as much as the most of the 3 x 3 pixels
    round it: then the object covers less than half of it, as the mask of pixel centres would have it. A pixel is outside
    if pale pixels join it to the image's border, across sides and not corners. So a white highlight inside the object is
    inside, and so is a hole through it.
    """
    depth = 255 - np.asarray(images).min(axis=-1).astype(np.int32)
    around = np.pad(depth, ((0, 0), (1, 1), (1, 1)))
    deepest = np.lib.stride_tricks.sliding_window_view(around, (3, 3), axis=(1, 2)).max(axis=(-2, -1))
    return ~_reached_from_border((depth < THRESHOLD) | (2 * depth < deepest))


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """bool[V, H, W] with everything inside that is not joined to the border by background."""
    return ~_reached_from_border(~np.asarray(mask, bool))


def silhouette_iou(images: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Intersection over union of the filled outlines: float64[V], in [0, 1].

    Holes through the object are filled in both, because in an image they can't be told from highlights.

    Args:
      images: uint8[V, H, W, 3], generated, on white.
      mask: bool[V, H, W], the true mask, not empty in any view.
    """
    found, true = foreground(images), fill_holes(mask)
    return (found & true).sum(axis=(1, 2)) / (found | true).sum(axis=(1, 2))


def _reached_from_border(free: np.ndarray) -> np.ndarray:
    """The pixels of bool[V, H, W] ``free`` that a path of free pixels joins to the image's border."""
    border = np.zeros_like(free)
    border[:, [0, -1]] = border[:, :, [0, -1]] = True
    reached = free & border
    while True:
        grown = reached.copy()
        # Running maxima along rows and columns, cut off by what is not free, take whole straight paths in one step.
        for axis in (1, 2):
            for step in (1, -1):
                grown |= _along(grown, free, axis, step)
        if (grown == reached).all():
            return reached
        reached = grown


def _along(reached: np.ndarray, free: np.ndarray, axis: int, step: int) -> np.ndarray:
    """What straight free paths in one direction join to ``reached``."""
    reached, free = np.moveaxis(reached, axis, 0)[::step], np.moveaxis(free, axis, 0)[::step]
    position = np.arange(len(reached)).reshape(-1, 1, 1)
    last_reached = np.maximum.accumulate(np.where(reached, position, -1), axis=0)
    last_wall = np.maximum.accumulate(np.where(free, -1, position), axis=0)
    return np.moveaxis((last_reached > last_wall)[::step], 0, axis)
