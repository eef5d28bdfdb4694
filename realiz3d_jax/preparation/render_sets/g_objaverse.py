"""Reader of G-buffer Objaverse: 40 views per object, with normals and depth.

    ROOT/<dictionary>/<instance>/campos_512_v4/00000/00000.json      x, y, z, origin and, in some, x_fov in radians
                                                     00000.png       sRGB with alpha
                                                     00000_nd.exr    R, G, B: normal; A: depth
    ROOT/text_captions_cap3d.json                                    {"dictionary/instance": caption}

The publishers' scripts (modelscope/richdreamer, ``dataset/gobjaverse``) read the same JSON in two ways. x, y, z are right,
down and forward in the world, Z up. ``depth_warp_example.py`` builds from them a camera that looks along its -Z, with columns
[x, -y, -z, origin], as this module does; ``process_unity_dataset.py`` uses [x, y, z] to rotate normals into the view, which is
not a camera in Blender's convention. Without x_fov, the angle of view is that of a focal length of 1422.222 at 1024 pixels.

Normals are Unity's, left-handed with Y up: Blender's world is (-R, -B, G). (The script uses other indices, because OpenCV
returns B, G, R.) This module reads channels by name, and requires that the normals agree with the depth.

Depth is the distance z along the optical axis, not along the ray. Values that differ from the camera's distance to the origin
by more than 0.867, half the diagonal of the cube that holds the object, are invalid.
"""

import pathlib

import numpy as np

from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.cameras import Camera
from realiz3d_jax.preparation.render_sets import evidence, fields
from realiz3d_jax.preparation.render_sets.rendered import ListedObject, RenderedObject

VIEWS = 40

_FOLDER = "campos_512_v4"
_FOV = float(np.rad2deg(2 * np.arctan(512 / 1422.222)))
_HALF_DIAGONAL = 0.867
_READINGS = {
    "(-R, -B, G)": lambda red, green, blue: (-red, -blue, green),
    "(-B, -R, G), red and blue swapped": lambda red, green, blue: (-blue, -red, green),
    "(R, B, -G), all signs turned": lambda red, green, blue: (red, blue, -green),
    "(R, G, B), the world's own": lambda red, green, blue: (red, green, blue),
}
"""Possible interpretations of normals in the world; the first is the format's, the others are reported in errors."""


def scan(folder: pathlib.Path) -> list[ListedObject]:
    """Lists the objects below a folder, sorted by uid, which is "dictionary/instance"."""
    captions = fields.read_captions(folder / "text_captions_cap3d.json")
    entries = []
    for path in folder.glob(f"*/*/{_FOLDER}"):
        uid = f"{path.parent.parent.name}/{path.parent.name}"
        entries.append(ListedObject(uid, path, captions.get(uid)))
    return sorted(entries, key=lambda entry: entry.uid)


def read(entry: ListedObject) -> RenderedObject:
    """Reads all 40 views of an object.

    Raises:
      UserError: a file is missing or broken; a field of a JSON file is missing or invalid; a camera looks away from the
        object; depth and alpha, or two views, show different objects; or the normals disagree with the depth.
    """
    views = []
    for view in range(VIEWS):
        folder = entry.path / f"{view:05d}"
        json_path = folder / f"{view:05d}.json"
        views.append(_view(folder, f"{view:05d}", _camera(fields.read_json(json_path), str(json_path))))
    paths, cameras, color, mask, normal, position, scores, known = zip(*views, strict=True)
    fields.check_sizes(paths, color)
    mask, position = np.stack(mask), np.stack(position)
    evidence.check_free_space(cameras, position, mask, str(entry.path))
    _check_readings(entry.path, np.array(scores), np.array(known))
    return RenderedObject(
        uid=entry.uid,
        caption=entry.caption,
        cameras=cameras,
        color=np.stack(color),
        mask=mask,
        normal=np.stack(normal),
        position=position,
    )


def _camera(record: dict, where: str) -> Camera:
    """Builds the camera of a view."""
    right, down, forward, origin = (fields.numbers(record, name, where, ((3,),)) for name in ("x", "y", "z", "origin"))
    fov = fields.angle(record, "x_fov", where) if "x_fov" in record else _FOV
    camera = fields.camera(np.stack([right, -down, -forward, origin], axis=1), f"{where}: x, y, z", fov=fov)
    fields.check_facing(camera, where)
    return camera


def _view(folder: pathlib.Path, name: str, camera: Camera) -> tuple:
    """Reads a view: colour file, camera, colour over white, mask, world normals, positions, the fraction of normals that agree
    with the depth for each reading, and the number of pixels compared."""
    path, buffer_path = fields.find(folder, f"{name}.png"), folder / f"{name}_nd.exr"
    color, alpha = fields.read_image(path)
    channels = fields.read_exr(buffer_path)
    if missing := [channel for channel in "RGBA" if channel not in channels]:
        raise UserError(
            f"{buffer_path}: has channels {', '.join(channels)}, but no {', '.join(missing)}; expected R, G, B and A. "
            f"{fields.AGAIN}"
        )
    depth = channels["A"]
    fields.check_sizes((path, buffer_path), (color, depth))
    distance = float(np.linalg.norm(camera.center))
    hit = np.isfinite(depth) & (np.abs(depth - distance) <= _HALF_DIAGONAL)
    seen = hit
    if alpha is not None:
        seen = alpha >= 128
        evidence.check_overlap(
            seen, hit, f"{path} and the depth (A) of {buffer_path}: their masks show different views"
        )
        color = fields.over_white(color, alpha)
    else:
        color = np.where(hit[..., None], color, np.uint8(255))
    normals = [np.stack(order(*(channels[channel] for channel in "RGB")), axis=-1) for order in _READINGS.values()]
    normals, usable = zip(*map(evidence.unit, normals), strict=True)
    evidence.check_overlap(seen & usable[0], seen, f"{buffer_path}: lacks normals where the object is visible")
    mask = seen & hit & usable[0]
    position = evidence.background_zero(evidence.positions_from_depth(camera, np.where(hit, depth, 0)), mask)
    surface = evidence.seen_normals(camera, position, mask)
    scores = [evidence.agreement(normal, *surface) for normal in normals]
    return (
        path,
        camera,
        color,
        mask,
        evidence.background_zero(normals[0], mask),
        position,
        scores,
        int(surface[1].sum()),
    )


def _check_readings(folder: pathlib.Path, scores: np.ndarray, known: np.ndarray) -> None:
    """Raises UserError unless the format's reading of the normals agrees with the depth.

    Args:
      folder: folder of the object.
      scores: float[V, R], fraction that agrees in each view under each reading; NaN where too little is visible.
      known: int[V], number of pixels compared.
    """
    measured = ~np.isnan(scores[:, 0])
    if not measured.any():
        raise UserError(f"{folder}: too little of the surface is visible to check its normals. Leave this object out.")
    whole = np.average(scores[measured], axis=0, weights=known[measured])
    worst = int(np.nanargmin(scores[:, 0]))
    names = list(_READINGS)
    if whole[0] < evidence.AGREEMENT:
        best = int(np.argmax(whole))
        raise UserError(
            f"{folder}: the normals of the _nd.exr files, read as {names[0]}, agree with the depth in {whole[0]:.2f} of the "
            f"pixels; expected {evidence.AGREEMENT} or more. The reading {names[best]} fits best, with {whole[best]:.2f}. "
            f"{fields.AGAIN}"
        )
    if scores[worst, 0] < evidence.AGREEMENT:
        raise UserError(
            f"{folder}: the normals of view {worst:05d} agree with the depth in {scores[worst, 0]:.2f} of the pixels; expected "
            f"{evidence.AGREEMENT} or more, as in the other views. {fields.AGAIN}"
        )
