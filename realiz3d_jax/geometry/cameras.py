"""The cameras: where they stand, the ray of every pixel, and the way back from a point to its pixel.

The world is Blender's right-handed frame with Z up; glTF's (x, y, z) is the world's (x, -z, y). The cameras are
orthographic and see a square ``ORTHO_WIDTH`` units wide round the origin. At azimuth 0 the camera stands at -Y (glTF's
+Z) and looks along +Y with +X to its right; azimuths count counter-clockwise seen from above, so azimuth 90 stands at
+X with +Y to its right. The four standard views are at elevation 0; a positive elevation looks down, at 90 straight
down, with what lies behind the object upwards in the view, and -90 looks straight up. Row 0 is the top. Pixel
coordinates are continuous, (column, row), and the centre of pixel (row r, column c) is (c + 0.5, r + 0.5).
"""

import numpy as np

AZIMUTHS = (0, 90, 180, 270)
"""Azimuths of the views in degrees, in their order; the 2x2 grid is row-major, [0 90 / 180 270]."""

VIEW_WORDS = ("front", "right side", "back", "left side")
"""What a prompt calls the views, in the same order."""

ORTHO_WIDTH = 1.1
"""Width and height of what a view sees, in world units; a normalised mesh is at most 1 wide."""

CAMERA_DISTANCE = 2.0
"""Distance of the image plane from the origin, in world units; rays start there and depths count from there."""


def view_axes(azimuth: float, elevation: float = 0.0) -> np.ndarray:
    """The axes of a view: float64[3, 3], its rows are right, up and backward (towards the viewer).

    Args:
      azimuth: degrees.
      elevation: degrees, in [-90, 90].
    """
    angle, tilt = np.deg2rad(azimuth), np.deg2rad(elevation)
    right = np.array([np.cos(angle), np.sin(angle), 0.0])
    level, top = np.array([np.sin(angle), -np.cos(angle), 0.0]), np.array([0.0, 0.0, 1.0])
    axes = np.stack([right, np.cos(tilt) * top - np.sin(tilt) * level, np.cos(tilt) * level + np.sin(tilt) * top])
    # The four standard views are exact, so that views of a symmetric object are equal to the last bit.
    return np.where(np.abs(axes) < 1e-15, 0.0, axes)


def pixel_rays(azimuth: float, size: int, samples: int = 1, elevation: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """The rays through the pixel centres of a view, or through a regular lattice of ``samples`` x ``samples`` in each.

    Args:
      azimuth: degrees.
      size: pixels along a side of the view.
      samples: rays along a side of a pixel.
      elevation: degrees.

    Returns:
      origins: float64[size * samples, size * samples, 3], row-major, row 0 at the top.
      direction: float64[3], the direction that all rays share.
    """
    right, up, backward = view_axes(azimuth, elevation)
    lattice = size * samples
    offsets = ((np.arange(lattice) + 0.5) / lattice - 0.5) * ORTHO_WIDTH
    origins = offsets[None, :, None] * right - offsets[:, None, None] * up + CAMERA_DISTANCE * backward
    return origins, -backward


def project(points: np.ndarray, azimuth: float, size: int, elevation: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Where points appear in a view.

    Args:
      points: float[..., 3], world.
      azimuth: degrees.
      size: pixels along a side of the view.
      elevation: degrees.

    Returns:
      pixels: float64[..., 2], (column, row); floor gives the pixel; outside [0, size) is outside the view.
      depth: float64[...], distance from the image plane in world units; smaller is nearer.
    """
    right, up, backward = view_axes(azimuth, elevation)
    points = np.asarray(points, np.float64)
    column = (points @ right / ORTHO_WIDTH + 0.5) * size
    row = (0.5 - points @ up / ORTHO_WIDTH) * size
    return np.stack([column, row], axis=-1), CAMERA_DISTANCE - points @ backward
