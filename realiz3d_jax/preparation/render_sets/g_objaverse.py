"""G-buffer Objaverse: 40 views of an object with normals and depth.

    ROOT/<dictionary>/<instance>/campos_512_v4/00000/00000.json      x, y, z, origin and, in some, x_fov in radians
                                                     00000.png       sRGB with alpha
                                                     00000_nd.exr    R, G, B: normal; A: depth
    ROOT/text_captions_cap3d.json                                    {"dictionary/instance": caption}

The publishers' scripts (modelscope/richdreamer, ``dataset/gobjaverse``) read the same JSON in two ways. x, y, z are right,
down and forward in the world, Z up: ``depth_warp_example.py`` makes of them a camera that looks along its -Z, columns
[x, -y, -z, origin], as here; ``process_unity_dataset.py`` takes [x, y, z] to turn normals into the view, which is no camera
of Blender's convention. The angle across a view is that of a focal length of 1422.222 at 1024 pixels, where x_fov isn't given.

Normals are Unity's, left-handed with Y up: Blender's world is (-R, -B, G). (The script writes other indices, because OpenCV
gives it B, G, R.) Channels are taken by their names here, and normals have to agree with the depth.

Depth is the distance z along the axis of view, not along the ray; less than the distance of the origin less 0.867, half the
diagonal of the cube that holds the object, is no depth.
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
"""What normals could mean in the world; the first is the format's, the others are told in an error."""


def scan(folder: pathlib.Path) -> list[ListedObject]:
    """The objects below a folder, sorted by uid, which is "dictionary/instance"."""
    captions = fields.read_captions(folder / "text_captions_cap3d.json")
    entries = []
    for path in folder.glob(f"*/*/{_FOLDER}"):
        uid = f"{path.parent.parent.name}/{path.parent.name}"
        entries.append(ListedObject(uid, path, captions.get(uid)))
    return sorted(entries, key=lambda entry: entry.uid)


def read(entry: ListedObject) -> RenderedObject:
    """All 40 views of an object.

    Raises:
      UserError: a file is missing or broken; a field of a JSON file is missing or impossible; a camera looks away from the
        object; depth and alpha, or two views, show different objects; or the normals don't agree with the depth.
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
    """The camera of a view."""
    right, down, forward, origin = (fields.numbers(record, name, where, ((3,),)) for name in ("x", "y", "z", "origin"))
    fov = fields.angle(record, "x_fov", where) if "x_fov" in record else _FOV
    camera = fields.camera(np.stack([right, -down, -forward, origin], axis=1), f"{where}: x, y, z", fov=fov)
    fields.check_facing(camera, where)
    return camera


def _view(folder: pathlib.Path, name: str, camera: Camera) -> tuple:
    """A view: colour's file, camera, colour over white, mask, world normals, positions, the share of normals that agree with
    the depth by each of the readings, and of how many pixels that is known."""
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
            seen, hit, f"{path} and the depth (A) of {buffer_path}: their masks are of different views"
        )
        color = fields.over_white(color, alpha)
    else:
        color = np.where(hit[..., None], color, np.uint8(255))
    normals = [np.stack(order(*(channels[channel] for channel in "RGB")), axis=-1) for order in _READINGS.values()]
    normals, usable = zip(*map(evidence.unit, normals), strict=True)
    evidence.check_overlap(seen & usable[0], seen, f"{buffer_path}: has no normals where the object is seen")
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
    """Raises unless the format's reading of the normals agrees with the depth.

    Args:
      folder: of the object.
      scores: float[V, R], the share that agrees in each view by each reading, NaN where too little is seen.
      known: int[V], of how many pixels.
    """
    told = ~np.isnan(scores[:, 0])
    if not told.any():
        raise UserError(
            f"{folder}: too little of the surface is seen to tell whether its normals are right. Leave it out."
        )
    whole = np.average(scores[told], axis=0, weights=known[told])
    worst = int(np.nanargmin(scores[:, 0]))
    names = list(_READINGS)
    if whole[0] < evidence.AGREEMENT:
        best = int(np.argmax(whole))
        raise UserError(
            f"{folder}: the normals of the _nd.exr files, read as {names[0]}, agree with the depth in {whole[0]:.2f} of the "
            f"pixels; expected {evidence.AGREEMENT} or more. Of all readings {names[best]} fits best, with {whole[best]:.2f}. "
            f"{fields.AGAIN}"
        )
    if scores[worst, 0] < evidence.AGREEMENT:
        raise UserError(
            f"{folder}: the normals of view {worst:05d} agree with the depth in {scores[worst, 0]:.2f} of the pixels; expected "
            f"{evidence.AGREEMENT} or more, as in the other views. {fields.AGAIN}"
        )
