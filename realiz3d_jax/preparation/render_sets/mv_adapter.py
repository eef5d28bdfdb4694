"""Reader of MV-Adapter's training renders (Objaverse-Ortho10View and -Rand6View) and of bpy-renderer's output.

    ROOT/<uid[:2]>/<uid>/meta.json
                         color_0000.webp  (or render_0000.webp)   sRGB with alpha
                         normal_0000.webp                         n / 2 + 0.5
                         depth_0000.exr
    ROOT/objaverse_short_captions.json                            {uid: caption}

``meta.json`` holds ``locations``, one per view: index, projection_type ("ORTHO" or "PERSP"), ortho_scale in world units,
camera_angle_x, elevation and azimuth in radians, azimuths from +X, and transform_matrix, camera to world in Blender's
convention. The object is centred in a cube of side 1. Textures are made from six of the ten orthographic views, 0000, 0001,
0002, 0003, 0008 and 0009: azimuths 0, 90, 180, 270 of ``geometry.cameras``, from above and from below.

Depth is Blender's Z pass: the distance z along the optical axis, not along the ray; values above 1000 are invalid.

MV-Adapter's loader (``mvadapter/data/multiview.py``) reads normals as world normals. The public bpy-renderer
(``render_output.py``) rotates them into the camera's frame (right, up, backward), with rotations set for all frames but the
last, so that the last view's normals are in the frame of the previous camera. The files do not state the frame, so it is
determined by comparing the normals with the surface that the depth describes.
"""

import pathlib

import numpy as np

from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.cameras import Camera
from realiz3d_jax.preparation.render_sets import evidence, fields
from realiz3d_jax.preparation.render_sets.rendered import ListedObject, RenderedObject

_FARTHEST = 1000.0
_SAME = 0.99


def scan(folder: pathlib.Path) -> list[ListedObject]:
    """Lists the objects below a folder, sorted by uid."""
    captions = fields.read_captions(folder / "objaverse_short_captions.json")
    paths = sorted(path.parent for path in folder.glob("*/*/meta.json"))
    return sorted(
        (ListedObject(path.name, path, captions.get(path.name)) for path in paths), key=lambda entry: entry.uid
    )


def read(entry: ListedObject) -> RenderedObject:
    """Reads all views of an object, in the order of ``meta.json``.

    Raises:
      UserError: a file is missing or broken; a field of ``meta.json`` is missing or invalid; a matrix contradicts its
        angles; depth and alpha, or two views, show different objects; or the normals agree with the surface in neither frame
        or in both.
    """
    path = entry.path / "meta.json"
    locations = fields.listed(fields.read_json(path), "locations", str(path))
    names, cameras = [], []
    for place, location in enumerate(locations):
        where = f"{path}: locations[{place}]"
        names.append(fields.text(location, "index", where))
        cameras.append(_camera(location, where))
    if len(set(names)) < len(names):
        raise UserError(f"{path}: locations repeat an index: {', '.join(names)}; expected each view once.")
    read_views = [_view(entry.path, name, camera) for name, camera in zip(names, cameras, strict=True)]
    paths, color, mask, position, stored = zip(*read_views, strict=True)
    fields.check_sizes(paths, color)
    mask, position, stored = np.stack(mask), np.stack(position), np.stack(stored)
    evidence.check_free_space(cameras, position, mask, str(entry.path))
    normal = _world_normals(entry.path, names, cameras, mask, position, stored)
    return RenderedObject(
        uid=entry.uid,
        caption=entry.caption,
        cameras=tuple(cameras),
        color=np.stack(color),
        mask=mask,
        normal=normal,
        position=position,
    )


def _camera(location: dict, where: str) -> Camera:
    """Builds the camera of a location."""
    matrix = fields.numbers(location, "transform_matrix", where, ((4, 4),))
    kind = fields.text(location, "projection_type", where)
    if kind == "ORTHO":
        camera = fields.camera(matrix, where, width=fields.number(location, "ortho_scale", where))
    elif kind == "PERSP":
        camera = fields.camera(matrix, where, fov=fields.angle(location, "camera_angle_x", where))
    else:
        raise UserError(f"{where}: projection_type is {kind!r}; expected ORTHO or PERSP. {fields.AGAIN}")
    azimuth, elevation = (fields.number(location, name, where) for name in ("azimuth", "elevation"))
    fields.check_direction(camera, azimuth, elevation, where)
    fields.check_facing(camera, where)
    return camera


def _view(folder: pathlib.Path, name: str, camera: Camera) -> tuple:
    """Reads a view: colour file, colour over white, mask, positions, and the normals as stored, float32."""
    path = fields.find(folder, f"color_{name}.webp", f"render_{name}.webp", f"color_{name}.png", f"render_{name}.png")
    color, alpha = fields.read_image(path)
    depth_path = folder / f"depth_{name}.exr"
    depth = _depth(depth_path)
    normal_path = fields.find(folder, f"normal_{name}.webp", f"normal_{name}.png")
    normal, usable = evidence.unit(fields.read_image(normal_path)[0] / 127.5 - 1)
    fields.check_sizes((path, depth_path, normal_path), (color, depth, normal))
    hit = np.isfinite(depth) & (depth > 0) & (depth <= _FARTHEST)
    seen = hit
    if alpha is not None:
        seen = alpha >= 128
        evidence.check_overlap(seen, hit, f"{path} and {depth_path}: their masks show different views")
        color = fields.over_white(color, alpha)
    else:
        color = np.where(hit[..., None], color, np.uint8(255))
    evidence.check_overlap(seen & usable, seen, f"{normal_path}: lacks normals where the object is visible")
    mask = seen & hit & usable
    position = evidence.background_zero(evidence.positions_from_depth(camera, np.where(hit, depth, 0)), mask)
    return path, color, mask, position, evidence.background_zero(normal, mask)


def _depth(path: pathlib.Path) -> np.ndarray:
    """Reads a depth file, float32[H, W]: its one channel, or the common value of its channels."""
    channels = [values for name, values in fields.read_exr(path).items() if name != "A"]
    if not channels or any(not np.array_equal(channels[0], other, equal_nan=True) for other in channels[1:]):
        raise UserError(f"{path}: has {len(channels)} channels that differ; expected one depth. {fields.AGAIN}")
    return channels[0]


def _world_normals(
    folder: pathlib.Path,
    names: list[str],
    cameras: list[Camera],
    mask: np.ndarray,
    position: np.ndarray,
    stored: np.ndarray,
) -> np.ndarray:
    """Returns the stored normals as world normals float32[V, H, W, 3], using the frame that agrees with the surface."""
    surface = [evidence.seen_normals(*view) for view in zip(cameras, position, mask, strict=True)]
    seen, known = (np.stack(part) for part in zip(*surface, strict=True))
    frames = {
        "world": stored,
        "camera": np.stack([_turned(one, camera) for one, camera in zip(stored, cameras, strict=True)]),
    }
    # The last view may be in the frame of the previous camera, so it is ignored when the set's frame is chosen.
    most = slice(None, -1) if len(cameras) > 1 else slice(None)
    scores = {name: evidence.agreement(one[most], seen[most], known[most]) for name, one in frames.items()}
    found = ", ".join(f"{score:.2f} in the {name} frame" for name, score in scores.items())
    expected = f"expected {evidence.AGREEMENT} or more in one of the two"
    first, second = sorted(scores, key=lambda name: -scores[name])
    if not scores[first] >= evidence.AGREEMENT:
        raise UserError(
            f"{folder}: the fraction of normals that agree with the depth is {found}; {expected}. "
            f"Channels are swapped, a sign is wrong, or normals and depth show different objects. {fields.AGAIN}"
        )
    apart = known[most] & (np.sum(frames["world"][most] * frames["camera"][most], axis=-1) < _SAME)
    if scores[second] >= evidence.AGREEMENT and apart.sum() > 0.05 * known[most].sum():
        raise UserError(
            f"{folder}: the fraction of normals that agree with the depth is {found}; {expected}, and not in both. "
            "Leave this object out."
        )
    chosen = frames[first].copy()
    if first == "camera" and evidence.agreement(chosen[-1], seen[-1], known[-1]) < evidence.AGREEMENT:
        chosen[-1] = _turned(stored[-1], cameras[-2])
    for name, *view in zip(names, chosen, seen, known, strict=True):
        if evidence.agreement(*view) < evidence.AGREEMENT:
            raise UserError(
                f"{folder}: {evidence.agreement(*view):.2f} of the normals of view {name} agree with the depth, read in the "
                f"{first} frame as in the other views; expected {evidence.AGREEMENT} or more. {fields.AGAIN}"
            )
    return chosen


def _turned(normal: np.ndarray, camera: Camera) -> np.ndarray:
    """Rotates normals float32[H, W, 3] from a camera's frame (right, up, backward) into the world."""
    return normal @ camera.axes.astype(np.float32)
