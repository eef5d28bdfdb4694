"""Reader of renders with a NeRF-style ``transforms.json``: TRELLIS and Hunyuan3D-2.1.

    ROOT/renders/<sha256>/transforms.json    TRELLIS (dataset_toolkits): views in perspective
                          000.png ...        sRGB with alpha
                          mesh.ply           Z up
    ROOT/<uid>/render_tex/transforms.json    Hunyuan3D-2.1 (hy3dpaint): six orthographic views
                          000.png ...        sRGB, in the published sample over a grey of 127 and without alpha
                          000_albedo.png, 000_normal.png, 000_pos.png (or .jpg)
    ROOT/<uid>/mesh.ply   or beside the views, or in another folder of the object; Y up

``transforms.json`` holds aabb, the box of the world that the views show; scale and offset, which map the file's own coordinates
p to that world, p scale + offset; and frames: file_path, camera_angle_x in radians and transform_matrix, camera to world in
Blender's convention. Hunyuan3D's frames add proj_type (1 is orthographic: the view is 1.2 wide and camera_angle_x is unused),
azimuth and elevation in radians, azimuths from +X, and cam_dis. The reader maps the box to the canonical cube.

The mask is the alpha of the image, otherwise that of its albedo, otherwise the area that the mesh covers. It is never a
background colour: the format's background value 127 also occurs as a grey, and in maps at the middle of the object. For the
maps, see ``stored_maps``.
"""

import pathlib

import numpy as np

from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.cameras import Camera
from realiz3d_jax.preparation.render_sets import evidence, fields, stored_maps
from realiz3d_jax.preparation.render_sets.rendered import ListedObject, RenderedObject
from realiz3d_jax.preparation.render_sets.stored_maps import Placement

_ORTHOGRAPHIC_WIDTH = 1.2
_TEXTURE_FOLDER = "render_tex"


def scan(folder: pathlib.Path) -> list[ListedObject]:
    """Lists the objects below a folder, sorted by uid; the set has no captions."""
    entries = []
    for pattern in ("*/transforms.json", "renders/*/transforms.json", f"*/{_TEXTURE_FOLDER}/transforms.json"):
        for path in folder.glob(pattern):
            views = path.parent
            uid = views.parent.name if views.name == _TEXTURE_FOLDER else views.name
            entries.append(ListedObject(uid, views, None))
    return sorted(entries, key=lambda entry: (entry.uid, entry.path))


def read(entry: ListedObject) -> RenderedObject:
    """Reads all views of an object, in the order of ``transforms.json``.

    Raises:
      UserError: a file is missing or broken; a field of ``transforms.json`` is missing or invalid; a matrix contradicts its
        angles; nothing shows the object's outline; or mesh, maps and images disagree.
    """
    path = entry.path / "transforms.json"
    document = fields.read_json(path)
    placement = _placement(document, str(path))
    frames = fields.listed(document, "frames", str(path))
    paths, cameras = [], []
    for place, frame in enumerate(frames):
        where = f"{path}: frames[{place}]"
        paths.append(_image_path(entry.path, fields.text(frame, "file_path", where), where))
        cameras.append(_camera(frame, placement, where))
    images = [fields.read_image(image) for image in paths]
    color = [image for image, _ in images]
    fields.check_sizes(paths, color)
    size = len(color[0])
    alpha = [_alpha(image, own, size) for image, (_, own) in zip(paths, images, strict=True)]
    known = all(one is not None for one in alpha)
    outline = np.stack(alpha) >= 128 if known else None
    mask, normal, position = stored_maps.read_maps(paths, size, cameras, outline, placement)
    if known:
        color = [fields.over_white(one, share) for one, share in zip(color, alpha, strict=True)]
    else:
        color = [np.where(seen[..., None], one, np.uint8(255)) for one, seen in zip(color, mask, strict=True)]
    return RenderedObject(
        uid=entry.uid,
        caption=entry.caption,
        cameras=tuple(cameras),
        color=np.stack(color),
        mask=mask,
        normal=None if normal is None else evidence.background_zero(normal, mask),
        position=None if position is None else evidence.background_zero(position, mask),
    )


def _placement(document: dict, where: str) -> Placement:
    """Reads the placement of the views' world in the canonical one."""
    low, high = fields.numbers(document, "aabb", where, ((2, 3),))
    if not (high > low).all():
        raise UserError(f"{where}: aabb goes from {low.tolist()} to {high.tolist()}; expected a box. {fields.AGAIN}")
    scale, offset = fields.number(document, "scale", where), fields.numbers(document, "offset", where, ((3,),))
    if scale <= 0:
        raise UserError(f"{where}: scale is {scale:g}; expected a number above 0. {fields.AGAIN}")
    return Placement((low + high) / 2, float((high - low).max()), scale, offset)


def _image_path(folder: pathlib.Path, name: str, where: str) -> pathlib.Path:
    """Returns the image of a frame, which must be in the folder or below it."""
    relative = pathlib.PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise UserError(f"{where}: file_path is {name!r}; expected a file beside transforms.json. {fields.AGAIN}")
    return fields.find(folder, name)


def _camera(frame: dict, placement: Placement, where: str) -> Camera:
    """Builds the camera of a frame, in the canonical world."""
    matrix = fields.numbers(frame, "transform_matrix", where, ((4, 4),))
    if {"azimuth", "elevation"} <= frame.keys():
        angles = (fields.number(frame, name, where) for name in ("azimuth", "elevation"))
        fields.check_direction(fields.camera(matrix, where, width=1), *angles, where)
    if "cam_dis" in frame:
        distance, found = fields.number(frame, "cam_dis", where), float(np.linalg.norm(matrix[:3, 3]))
        if abs(found - distance) > 0.01 * abs(distance):
            raise UserError(
                f"{where}: transform_matrix gives the distance {found:.3f}, but cam_dis is {distance:g}. {fields.AGAIN}"
            )
    matrix[:3, 3] = placement.canonical(matrix[:3, 3])
    kind = frame.get("proj_type", 0)
    if kind == 1:
        camera = fields.camera(matrix, where, width=_ORTHOGRAPHIC_WIDTH / placement.side)
    elif kind == 0:
        camera = fields.camera(matrix, where, fov=fields.angle(frame, "camera_angle_x", where))
    else:
        raise UserError(f"{where}: proj_type is {kind!r}; expected 0 (perspective) or 1 (orthographic). {fields.AGAIN}")
    fields.check_facing(camera, where)
    return camera


def _alpha(path: pathlib.Path, own: np.ndarray | None, size: int) -> np.ndarray | None:
    """Returns the alpha uint8[H, W] of an image, or otherwise of its albedo; None if neither has any."""
    albedo = path.with_name(f"{path.stem}_albedo.png")
    if own is not None or not albedo.is_file():
        return own
    color, alpha = fields.read_image(albedo)
    fields.check_sizes((albedo,), (color,), size)
    return alpha
