"""Reader of renders by allenai/objaverse-rendering and Zero123's fork: twelve views without depth and normals.

    ROOT/<uid>/000.png ... 011.png   (or ROOT/views/<uid>/...)   sRGB with alpha
               000.npy ... 011.npy                               the fork's cameras

The scripts save no cameras. View i of twelve is at azimuth 30 i, counter-clockwise from +X, and elevation 30, and looks at
the origin through a 35 mm lens on a 32 mm sensor: 49.1 degrees. ``blender_script.py`` scales objects to 0.8 and stands at
distance 1.2, which is 1.5 for an object of size 1; ``scripts/blender_script.py`` scales to 1 and stands at 1.2. (Its
``--camera_dist`` is an integer, so no other distance between 1 and 2 can be requested.) The reader takes the first of the two
distances at which the outlines are consistent with one object, and assumes neither.

The fork's ``.npy`` holds float[3, 4], world to camera in Blender's convention (right, up, backward), not OpenCV's.
"""

import pathlib

import numpy as np

from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.cameras import Camera, orbit
from realiz3d_jax.preparation.render_sets import fields, silhouettes
from realiz3d_jax.preparation.render_sets.rendered import ListedObject, RenderedObject

VIEWS = 12
DISTANCES = (1.5, 1.2)
FOV = float(np.rad2deg(2 * np.arctan(16 / 35)))

_ELEVATION = 30
_OFF_CENTRE = 0.01


def scan(folder: pathlib.Path) -> list[ListedObject]:
    """Lists the objects below a folder, sorted by uid; the set has no captions."""
    root = folder / "views" if (folder / "views").is_dir() else folder
    paths = {path.parent for path in root.glob("*/[0-9][0-9][0-9].png")}
    return sorted((ListedObject(path.name, path, None) for path in paths), key=lambda entry: entry.uid)


def read(entry: ListedObject) -> RenderedObject:
    """Reads all twelve views of an object.

    Raises:
      UserError: a view is missing, broken or without alpha, or there are more than twelve; a camera is invalid, or looks
        past the object; or no camera explains the outlines.
    """
    names = [f"{view:03d}" for view in range(VIEWS)]
    if more := sorted(path.name for path in entry.path.glob("[0-9][0-9][0-9].png") if path.stem not in names):
        raise UserError(f"{entry.path}: has {', '.join(more[:3])}; expected {VIEWS} views, whose azimuths are known.")
    paths = [fields.find(entry.path, f"{name}.png") for name in names]
    images = [fields.read_image(path) for path in paths]
    for path, (_, alpha) in zip(paths, images, strict=True):
        if alpha is None:
            raise UserError(f"{path}: has no alpha, and nothing else in the set shows the object's outline.")
    fields.check_sizes(paths, [color for color, _ in images])
    color, alpha = (np.stack(part) for part in zip(*images, strict=True))
    mask = alpha >= 128
    for path, seen in zip(paths, mask, strict=True):
        if not seen.any():
            raise UserError(f"{path}: is fully transparent; expected an object. {fields.AGAIN}")
    return RenderedObject(
        uid=entry.uid,
        caption=entry.caption,
        cameras=_cameras(entry.path, names, mask),
        color=fields.over_white(color, alpha),
        mask=mask,
        normal=None,
        position=None,
    )


def _cameras(folder: pathlib.Path, names: list[str], mask: np.ndarray) -> tuple[Camera, ...]:
    """Returns the saved cameras, or otherwise those of the set's script, if they are consistent with the outlines."""
    if any(folder.glob("*.npy")):
        saved = tuple(_saved(folder / f"{name}.npy") for name in names)
        if not silhouettes.consistent(saved, mask):
            raise UserError(
                f"{folder}: no object in a cube of side 1 has these outlines under the cameras of its .npy files; expected "
                f"world-to-camera matrices [3, 4] of Blender's convention, in the order of the images. {fields.AGAIN}"
            )
        return saved
    for distance in DISTANCES:
        # The script's azimuths start at +X, those of geometry.cameras at -Y.
        derived = tuple(orbit(360 * view / VIEWS + 90, _ELEVATION, distance=distance, fov=FOV) for view in range(VIEWS))
        if silhouettes.consistent(derived, mask):
            return derived
    raise UserError(
        f"{folder}: no object in a cube of side 1 has these outlines from azimuths 0, 30, ... 330, elevation {_ELEVATION} and "
        f"distance {' or '.join(map(str, DISTANCES))}; expected the script's own cameras. Save the cameras (.npy) with them."
    )


def _saved(path: pathlib.Path) -> Camera:
    """Reads the camera of an ``.npy`` file."""
    try:
        matrix = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: cannot be read as a camera ({error}). {fields.AGAIN}") from error
    matrix = fields.numbers({"matrix": matrix}, "matrix", str(path), ((3, 4),))
    inverse = np.concatenate([matrix[:, :3].T, -matrix[:, :3].T @ matrix[:, 3:]], axis=1)
    camera = fields.camera(inverse, str(path), fov=FOV)
    fields.check_facing(camera, str(path))
    aside = float(np.linalg.norm(matrix[:2, 3]) / max(-matrix[2, 3], 1e-9))
    if aside > _OFF_CENTRE:
        raise UserError(
            f"{path}: the origin is {aside:.2f} of its distance off the optical axis; expected a camera that looks at it. "
            f"The matrix is the inverse, or follows another convention. {fields.AGAIN}"
        )
    return camera
