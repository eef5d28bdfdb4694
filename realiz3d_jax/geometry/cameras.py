"""The cameras: where they stand, the ray of every pixel, and the way back from a point to its pixel.

The world is Blender's right-handed frame with Z up; glTF's (x, y, z) is the world's (x, -z, y). At azimuth 0 a camera stands
at -Y (glTF's +Z) and looks along +Y with +X to its right; azimuths count counter-clockwise seen from above, so azimuth 90
stands at +X with +Y to its right. A positive elevation looks down, at 90 straight down, with what lies behind the object
upwards in the view, and -90 looks straight up. The four standard views are at elevation 0, orthographic, and see a square
``ORTHO_WIDTH`` units wide round the origin. Views are square. Row 0 is the top. Pixel coordinates are continuous, (column,
row), and the centre of pixel (row r, column c) is (c + 0.5, r + 0.5).

With right, up, backward the axes and o the centre of a camera, q = p - o and z = -q . backward the depth of a point p,

    column = (q . right / w + 1/2) size,    row = (1/2 - q . up / w) size,                                                  (1)

with w the width of what is seen: constant in an orthographic view, 2 tan(fov / 2) z in a perspective one.
"""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from realiz3d_jax.errors import UserError
from realiz3d_jax.views import AZIMUTHS

ORTHO_WIDTH = 1.1
"""Width and height of what a view sees, in world units; a normalised mesh is at most 1 wide."""

CAMERA_DISTANCE = 2.0
"""Distance of a camera from the origin, in world units, unless it is said; rays start and depths count there."""

_STRETCH = 1e-3
"""How far from 1 a singular value of a matrix in a file may be and still be a rotation that was rounded."""


@dataclasses.dataclass(frozen=True, eq=False)
class Camera:
    """One camera.

    Attributes:
      axes: float64[3, 3], its rows are right, up and backward (towards the viewer), unit and right-handed, world.
      center: float64[3], world: the middle of the image plane of an orthographic camera, the eye of a perspective one.
      width: of what is seen, in world units; of a perspective camera at distance 1.
      perspective: whether rays leave the centre; else they are parallel.
    """

    axes: np.ndarray
    center: np.ndarray
    width: float = ORTHO_WIDTH
    perspective: bool = False

    @property
    def backward(self) -> np.ndarray:
        """float64[3], unit: against the direction in which the camera looks."""
        return self.axes[2]

    def rays(self, size: int, samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """The rays through the pixel centres, or through a regular lattice of ``samples`` x ``samples`` in each pixel.

        Args:
          size: pixels along a side of the view.
          samples: rays along a side of a pixel.

        Returns:
          origins: float64[size * samples, size * samples, 3], row-major, row 0 at the top.
          directions: unit; float64[3], which all rays share, of an orthographic camera, of the origins' shape else.
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
        """Where points appear, equation (1).

        Args:
          points: float[..., 3], world.
          size: pixels along a side of the view.

        Returns:
          pixels: float64[..., 2], (column, row); floor gives the pixel; outside [0, size) is outside the view.
          depth: float64[...], z of (1) in world units; smaller is nearer. At z <= 0 a perspective camera sees nothing.
        """
        right, up, backward = self.axes
        offset = np.asarray(points, np.float64) - self.center
        depth = -(offset @ backward)
        width = self.width_at(depth)
        column = (offset @ right / width + 0.5) * size
        row = (0.5 - offset @ up / width) * size
        return np.stack([column, row], axis=-1), depth

    def width_at(self, depth: np.ndarray) -> np.ndarray:
        """w of equation (1) at depths z: float64[...] of float64[...], world units."""
        return self.width * np.maximum(depth, 1e-9) if self.perspective else np.full_like(depth, self.width)

    def toward(self, points: np.ndarray) -> np.ndarray:
        """The directions from points to the camera, against its rays: float64[n, 3], unit, of float[n, 3], world."""
        if not self.perspective:
            return np.broadcast_to(self.backward, points.shape)
        offset = self.center - points
        return offset / np.linalg.norm(offset, axis=-1, keepdims=True)


_HALF_DIAGONAL = 0.867
"""Of a cube of extent 1: no normalised mesh reaches further from the origin."""


def orbit(
    azimuth: float,
    elevation: float = 0.0,
    *,
    width: float = ORTHO_WIDTH,
    distance: float = CAMERA_DISTANCE,
    fov: float | None = None,
) -> Camera:
    """A camera that looks at the origin with Z up.

    Args:
      azimuth: degrees.
      elevation: degrees, in [-90, 90].
      width: of an orthographic view, world units.
      distance: from the origin, world units.
      fov: the angle across a perspective view, in degrees; None makes it orthographic.
    """
    axes = view_axes(azimuth, elevation)
    if fov is None:
        return Camera(axes, distance * axes[2], width)
    return Camera(axes, distance * axes[2], 2 * float(np.tan(np.deg2rad(fov) / 2)), perspective=True)


def from_matrix(matrix: np.ndarray, *, fov: float | None = None, width: float | None = None) -> Camera:
    """A camera from its camera-to-world matrix in the convention of OpenGL and Blender: it looks along its own -Z, +Y is up.

    Args:
      matrix: float[3, 4] or float[4, 4]; its columns are right, up, backward and the centre, world.
      fov: the angle across a perspective view, in degrees.
      width: of an orthographic view, world units; either this or ``fov`` is given.

    Raises:
      ValueError: the matrix has another shape, numbers that are not finite, or no rotation in it; or the angle or the width
        is none.
    """
    matrix = np.asarray(matrix, np.float64)
    if matrix.shape not in ((3, 4), (4, 4)):
        raise ValueError(f"a matrix of shape {matrix.shape}; expected (4, 4) or (3, 4)")
    if not np.isfinite(matrix).all():
        raise ValueError("a matrix with numbers that are not finite; expected finite ones")
    if len(matrix) == 4 and np.abs(matrix[3] - [0, 0, 0, 1]).max() > 1e-6:
        raise ValueError(f"a matrix whose last row is {matrix[3].tolist()}; expected [0, 0, 0, 1]")
    left, stretch, right = np.linalg.svd(matrix[:3, :3])
    if np.abs(stretch - 1).max() > _STRETCH:
        raise ValueError(f"axes that are stretched by {stretch.round(4).tolist()}; expected unit, orthogonal axes")
    if np.linalg.det(left @ right) < 0:
        raise ValueError("axes that are left-handed; expected right, up and backward")
    axes = (left @ right).T  # the nearest rotation: files hold single precision
    if (fov is None) == (width is None):
        raise ValueError(f"an angle of {fov} and a width of {width}; expected one of them")
    if fov is None:
        if not (np.isfinite(width) and width > 0):
            raise ValueError(f"a width of {width}; expected one above 0")
        return Camera(axes, matrix[:3, 3].copy(), float(width))
    if not 0 < fov < 180:
        raise ValueError(f"an angle of {fov} degrees; expected one between 0 and 180")
    return Camera(axes, matrix[:3, 3].copy(), 2 * float(np.tan(np.deg2rad(fov) / 2)), perspective=True)


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


@dataclasses.dataclass(frozen=True)
class Rig:
    """Cameras that stand round an object, all of one kind.

    Attributes:
      azimuths: degrees, one for each view.
      elevations: degrees, one for each view, or one for all.
      projection: "orthographic" or "perspective".
      width: of an orthographic view, world units.
      fov: the angle across a perspective view, degrees.
      distance: of the cameras from the origin, world units.
    """

    azimuths: tuple[float, ...] = AZIMUTHS
    elevations: tuple[float, ...] = (0.0,)
    projection: str = "orthographic"
    width: float = ORTHO_WIDTH
    fov: float = 40.0
    distance: float = CAMERA_DISTANCE

    def angles(self) -> list[tuple[float, float]]:
        """(azimuth, elevation) of each view.

        Raises:
          UserError: they are not as many, or no angles of a camera.
        """
        count = len(self.azimuths)
        elevations = self.elevations * count if len(self.elevations) == 1 else self.elevations
        if not count or len(elevations) != count:
            raise UserError(
                f"rig: found {count} azimuths and {len(elevations)} elevations; expected as many of each, or one."
            )
        if not all(-90 <= elevation <= 90 for elevation in elevations):
            raise UserError(f"rig: elevations are {elevations}; expected degrees from -90 to 90.")
        return list(zip(self.azimuths, elevations, strict=True))

    def names(self, views: Sequence[int]) -> tuple[str, ...]:
        """The files of some of its views."""
        angles = self.angles()
        return tuple(view_name(*angles[view]) for view in views)

    def cameras(self) -> tuple[Camera, ...]:
        """The cameras.

        Raises:
          UserError: a value is out of its range.
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
                f"rig: the distance is {self.distance}; expected more than {_HALF_DIAGONAL}: outside all objects."
            )
        return tuple(
            orbit(azimuth, elevation, width=self.width, distance=self.distance, fov=self.fov if perspective else None)
            for azimuth, elevation in self.angles()
        )


def view_name(azimuth: float, elevation: float) -> str:
    """The file of a view, such as view_090.png or view_045_-20.png; ``parse_view_name`` is the inverse."""
    return f"view_{azimuth % 360:03g}{f'_{elevation:g}' if elevation else ''}.png"


def parse_view_name(name: str) -> tuple[float, float] | None:
    """Azimuth and elevation that a file's name states, in degrees; None if it is no view's."""
    match = re.fullmatch(r"view_(\d+(?:\.\d+)?)(?:_(-?\d+(?:\.\d+)?))?\.png", name)
    return match and (float(match[1]), float(match[2] or 0))


_SAME = 1e-3
"""How far axes and relative widths of two cameras may differ that are taken for one: files round."""


def matching_views(held: Sequence[Camera], rig: Sequence[Camera]) -> list[int] | None:
    """Which of the cameras ``held`` sees what each camera of a rig sees; None unless there is one for each."""
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
    across = (camera.center - wanted.center) @ wanted.axes[:2].T  # parallel rays do not care how far away they start
    return np.abs(across).max() < _SAME


STANDARD_RIG = Rig()
STANDARD = STANDARD_RIG.cameras()
"""The four standard cameras."""
