"""Cameras: placement, the rays of the pixels, and the projection of points to pixels.

The world is Blender's right-handed frame with Z up; glTF's (x, y, z) is the world's (x, -z, y). At azimuth 0 a camera stands
at -Y (glTF's +Z) and looks along +Y with +X to its right; azimuths increase counter-clockwise seen from above, so azimuth 90
stands at +X with +Y to its right. A camera with a positive elevation looks down; at 90 it looks straight down, and the far side
of the object is at the top of the view; at -90 it looks straight up. The four standard views are orthographic, at elevation 0,
and show a square of ``ORTHO_WIDTH`` units around the origin. Views are square and row 0 is the top. Pixel coordinates are
continuous, (column, row); the centre of pixel (row r, column c) is (c + 0.5, r + 0.5).

For a camera with axes right, up, backward and centre o, and a point p with q = p - o and depth z = -q . backward,

    column = (q . right / w + 1/2) size,    row = (1/2 - q . up / w) size,                                                  (1)

where w is the width of the visible square: constant in an orthographic view, 2 tan(fov / 2) z in a perspective view.
"""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from realiz3d_jax.errors import UserError
from realiz3d_jax.views import AZIMUTHS

ORTHO_WIDTH = 1.1
"""Width and height of an orthographic view, world units; a normalised mesh is at most 1 wide."""

CAMERA_DISTANCE = 2.0
"""Default distance of a camera from the origin, world units; rays start and depths are measured there."""

_STRETCH = 1e-3
"""Largest deviation from 1 of a singular value of a rotation matrix in a file, to allow for rounding."""


@dataclasses.dataclass(frozen=True, eq=False)
class Camera:
    """An orthographic or perspective camera.

    Attributes:
      axes: float64[3, 3], rows right, up and backward (towards the viewer): orthonormal, right-handed, world.
      center: float64[3], world: the centre of the image plane (orthographic) or the eye (perspective).
      width: width of the visible square, world units; at distance 1 for a perspective camera.
      perspective: whether rays start at the centre; otherwise they are parallel.
    """

    axes: np.ndarray
    center: np.ndarray
    width: float = ORTHO_WIDTH
    perspective: bool = False

    @property
    def backward(self) -> np.ndarray:
        """float64[3], unit: opposite to the viewing direction."""
        return self.axes[2]

    def rays(self, size: int, samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Rays through the pixel centres, or through a regular lattice of ``samples`` x ``samples`` points in each pixel.

        Args:
          size: pixels along a side of the view.
          samples: rays along a side of a pixel.

        Returns:
          origins: float64[size * samples, size * samples, 3], row-major, row 0 at the top.
          directions: unit vectors: float64[3] shared by all rays (orthographic), or the shape of ``origins`` (perspective).
        """
        right, up, backward = self.axes
        lattice = size * samples
        offsets = ((np.arange(lattice) + 0.5) / lattice - 0.5) * self.width
        plane = offsets[None, :, None] * right - offsets[:, None, None] * up
        if not self.perspective:
            return plane + self.center, -backward
        directions = plane - backward
        directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
        return np.broadcast_to(self.center, directions.shape), directions

    def project(self, points: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Projects points to pixel coordinates, equation (1).

        Args:
          points: float[..., 3], world.
          size: pixels along a side of the view.

        Returns:
          pixels: float64[..., 2], (column, row); their floor is the pixel; outside [0, size) the point is outside the view.
          depth: float64[...], z of (1), world units. A perspective camera sees nothing at z <= 0.
        """
        right, up, backward = self.axes
        offset = np.asarray(points, np.float64) - self.center
        depth = -(offset @ backward)
        width = self.width_at(depth)
        column = (offset @ right / width + 0.5) * size
        row = (0.5 - offset @ up / width) * size
        return np.stack([column, row], axis=-1), depth

    def width_at(self, depth: np.ndarray) -> np.ndarray:
        """w of equation (1) at depths z, world units: float64[...] to float64[...]."""
        return self.width * np.maximum(depth, 1e-9) if self.perspective else np.full_like(depth, self.width)

    def toward(self, points: np.ndarray) -> np.ndarray:
        """Unit vectors from points, float[n, 3], world, to the camera, against its rays: float64[n, 3]."""
        if not self.perspective:
            return np.broadcast_to(self.backward, points.shape)
        offset = self.center - points
        return offset / np.linalg.norm(offset, axis=-1, keepdims=True)


_HALF_DIAGONAL = 0.867
"""Half the diagonal of the unit cube, rounded up: the largest distance of a normalised mesh from the origin."""


def orbit(
    azimuth: float,
    elevation: float = 0.0,
    *,
    width: float = ORTHO_WIDTH,
    distance: float = CAMERA_DISTANCE,
    fov: float | None = None,
) -> Camera:
    """Makes a camera that looks at the origin with Z up.

    Args:
      azimuth: degrees.
      elevation: degrees, in [-90, 90].
      width: width of an orthographic view, world units.
      distance: distance from the origin, world units.
      fov: field of view of a perspective camera, degrees; None makes an orthographic camera.
    """
    axes = view_axes(azimuth, elevation)
    if fov is None:
        return Camera(axes, distance * axes[2], width)
    return Camera(axes, distance * axes[2], 2 * float(np.tan(np.deg2rad(fov) / 2)), perspective=True)


def from_matrix(matrix: np.ndarray, *, fov: float | None = None, width: float | None = None) -> Camera:
    """Makes a camera from a camera-to-world matrix in the convention of OpenGL and Blender: it looks along -Z, with +Y up.

    Args:
      matrix: float[3, 4] or float[4, 4]; columns right, up, backward and centre, world.
      fov: field of view of a perspective camera, degrees.
      width: width of an orthographic view, world units; exactly one of ``fov`` and ``width`` is given.

    Raises:
      ValueError: the matrix has another shape, is not finite or contains no rotation, or the field of view or the width is out
        of its range.
    """
    matrix = np.asarray(matrix, np.float64)
    if matrix.shape not in ((3, 4), (4, 4)):
        raise ValueError(f"a matrix of shape {matrix.shape}; expected (4, 4) or (3, 4)")
    if not np.isfinite(matrix).all():
        raise ValueError("a matrix with numbers that are not finite; expected finite numbers")
    if len(matrix) == 4 and np.abs(matrix[3] - [0, 0, 0, 1]).max() > 1e-6:
        raise ValueError(f"a matrix with the last row {matrix[3].tolist()}; expected [0, 0, 0, 1]")
    left, stretch, right = np.linalg.svd(matrix[:3, :3])
    if np.abs(stretch - 1).max() > _STRETCH:
        raise ValueError(f"axes that are stretched by {stretch.round(4).tolist()}; expected orthonormal axes")
    if np.linalg.det(left @ right) < 0:
        raise ValueError("axes that are left-handed; expected right, up and backward")
    axes = (left @ right).T  # the nearest rotation, because files are in single precision
    if (fov is None) == (width is None):
        raise ValueError(f"a field of view of {fov} and a width of {width}; expected exactly one of them")
    if fov is None:
        if not (np.isfinite(width) and width > 0):
            raise ValueError(f"a width of {width}; expected a number above 0")
        return Camera(axes, matrix[:3, 3].copy(), float(width))
    if not 0 < fov < 180:
        raise ValueError(f"a field of view of {fov} degrees; expected an angle between 0 and 180")
    return Camera(axes, matrix[:3, 3].copy(), 2 * float(np.tan(np.deg2rad(fov) / 2)), perspective=True)


def view_axes(azimuth: float, elevation: float = 0.0) -> np.ndarray:
    """Axes of a view that looks at the origin.

    Args:
      azimuth: degrees.
      elevation: degrees, in [-90, 90].

    Returns:
      float64[3, 3], rows right, up and backward (towards the viewer), world.
    """
    angle, tilt = np.deg2rad(azimuth), np.deg2rad(elevation)
    right = np.array([np.cos(angle), np.sin(angle), 0.0])
    level, top = np.array([np.sin(angle), -np.cos(angle), 0.0]), np.array([0.0, 0.0, 1.0])
    axes = np.stack([right, np.cos(tilt) * top - np.sin(tilt) * level, np.cos(tilt) * level + np.sin(tilt) * top])
    # Exact zeros make the four standard views of a symmetric object equal to the last bit.
    return np.where(np.abs(axes) < 1e-15, 0.0, axes)


@dataclasses.dataclass(frozen=True)
class Rig:
    """Cameras of one kind around an object.

    Attributes:
      azimuths: degrees, one per view.
      elevations: degrees, one per view, or one for all views.
      projection: "orthographic" or "perspective".
      width: width of an orthographic view, world units.
      fov: field of view of a perspective view, degrees.
      distance: distance of the cameras from the origin, world units.
    """

    azimuths: tuple[float, ...] = AZIMUTHS
    elevations: tuple[float, ...] = (0.0,)
    projection: str = "orthographic"
    width: float = ORTHO_WIDTH
    fov: float = 40.0
    distance: float = CAMERA_DISTANCE

    def angles(self) -> list[tuple[float, float]]:
        """(azimuth, elevation) of each view, degrees.

        Raises:
          UserError: the numbers of azimuths and elevations differ, or an elevation is out of range.
        """
        count = len(self.azimuths)
        elevations = self.elevations * count if len(self.elevations) == 1 else self.elevations
        if not count or len(elevations) != count:
            raise UserError(
                f"rig: found {count} azimuths and {len(elevations)} elevations; expected one elevation per azimuth, or one."
            )
        if not all(-90 <= elevation <= 90 for elevation in elevations):
            raise UserError(f"rig: elevations are {elevations}; expected degrees from -90 to 90.")
        return list(zip(self.azimuths, elevations, strict=True))

    def names(self, views: Sequence[int]) -> tuple[str, ...]:
        """File names of the views with these indices."""
        angles = self.angles()
        return tuple(view_name(*angles[view]) for view in views)

    def cameras(self) -> tuple[Camera, ...]:
        """Makes the cameras.

        Raises:
          UserError: a value is out of range.
        """
        perspective = {"orthographic": False, "perspective": True}.get(self.projection)
        if perspective is None:
            raise UserError(f'rig: the projection is {self.projection!r}; expected "orthographic" or "perspective".')
        if not (self.width > 0 and 0 < self.fov < 180 and self.distance > 0):
            raise UserError(
                f"rig: width {self.width}, fov {self.fov}, distance {self.distance}; expected positive numbers, fov below 180."
            )
        if self.distance <= _HALF_DIAGONAL:
            raise UserError(
                f"rig: the distance is {self.distance}; expected more than {_HALF_DIAGONAL}, outside all objects."
            )
        return tuple(
            orbit(azimuth, elevation, width=self.width, distance=self.distance, fov=self.fov if perspective else None)
            for azimuth, elevation in self.angles()
        )


def view_name(azimuth: float, elevation: float) -> str:
    """File name of a view, such as view_090.png or view_045_-20.png; inverse of ``parse_view_name``."""
    return f"view_{azimuth % 360:03g}{f'_{elevation:g}' if elevation else ''}.png"


def parse_view_name(name: str) -> tuple[float, float] | None:
    """Azimuth and elevation stated in a file name, degrees; None if it is not the name of a view."""
    match = re.fullmatch(r"view_(\d+(?:\.\d+)?)(?:_(-?\d+(?:\.\d+)?))?\.png", name)
    return match and (float(match[1]), float(match[2] or 0))


_SAME = 1e-3
"""Largest difference in axes and relative width of two cameras that count as equal, to allow for rounding in files."""


def matching_views(held: Sequence[Camera], rig: Sequence[Camera]) -> list[int] | None:
    """Finds the cameras of a rig among given cameras.

    Args:
      held: cameras to search.
      rig: cameras to find.

    Returns:
      Indices into ``held``, one per camera of the rig, with the same image; None unless all are found.
    """
    chosen = []
    for wanted in rig:
        same = [index for index, camera in enumerate(held) if _sees_the_same(camera, wanted)]
        if not same:
            return None
        chosen.append(same[0])
    return chosen


def _sees_the_same(camera: Camera, wanted: Camera) -> bool:
    same = camera.perspective == wanted.perspective and abs(camera.width / wanted.width - 1) < _SAME
    same = same and np.abs(camera.axes - wanted.axes).max() < _SAME
    if not same or camera.perspective:
        return same and np.abs(camera.center - wanted.center).max() < _SAME
    across = (camera.center - wanted.center) @ wanted.axes[:2].T  # the distance is irrelevant for parallel rays
    return np.abs(across).max() < _SAME


STANDARD_RIG = Rig()
STANDARD = STANDARD_RIG.cameras()
"""The four standard cameras."""
