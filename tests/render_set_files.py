"""Render sets of two objects whose every pixel is known, written by the definitions of the formats.

Nothing here is the package's: rays, cameras and files are made from plain formulas, so that reading them back is a test.
"""

import json

import numpy as np
import OpenEXR
from PIL import Image

FACE_COLORS = {(0, 1): (230, 30, 40), (0, -1): (40, 200, 60), (1, 1): (30, 60, 220), (1, -1): (240, 210, 30)}
FACE_COLORS |= {(2, 1): (230, 60, 220), (2, -1): (40, 210, 220)}


class Sphere:
    """Radius 0.5 round the origin, coloured by direction."""

    def hit(self, origins, direction):
        along = np.sum(origins * direction, axis=-1)
        root = along**2 - np.sum(origins**2, axis=-1) + 0.25
        distance = -along - np.sqrt(np.maximum(root, 0))
        points = origins + distance[..., None] * direction
        return root > 0, points

    def off(self, points):
        return np.abs(np.linalg.norm(points, axis=-1) - 0.5)

    def normal(self, points):
        return points / np.linalg.norm(points, axis=-1, keepdims=True)

    def color(self, points):
        return np.round(40 + 180 * (self.normal(points) / 2 + 0.5)).astype(np.uint8)

    def mesh(self):
        rings, sectors = 48, 96
        polar, turn = np.meshgrid(
            np.linspace(0, np.pi, rings + 1), np.arange(sectors) * 2 * np.pi / sectors, indexing="ij"
        )
        points = 0.5 * np.stack([np.sin(polar) * np.cos(turn), np.sin(polar) * np.sin(turn), np.cos(polar)], axis=-1)
        index = np.arange((rings + 1) * sectors).reshape(rings + 1, sectors)
        ahead = np.roll(index, -1, axis=1)
        quads = np.stack([index[:-1], index[1:], ahead[1:], ahead[:-1]], axis=-1).reshape(-1, 4)
        return points.reshape(-1, 3), np.concatenate([quads[:, :3], quads[:, [0, 2, 3]]])


class Cube:
    """A cube of side 0.8 with a post at one corner, which no mirror maps onto itself: every side has a colour, and on every
    side a black patch lies towards two of its edges."""

    boxes = np.array([[[-0.5, -0.4, -0.5], [0.3, 0.4, 0.3]], [[0.3, 0.1, -0.2], [0.5, 0.4, 0.5]]])

    def hit(self, origins, direction):
        best, points = np.full(origins.shape[:-1], np.inf), np.zeros(origins.shape)
        direction = np.where(np.abs(direction) < 1e-12, 1e-12, direction) + np.zeros(origins.shape)
        for low, high in self.boxes:
            one, two = (low - origins) / direction, (high - origins) / direction
            near, far = np.minimum(one, two).max(axis=-1), np.maximum(one, two).min(axis=-1)
            first = (near < far) & (near > 0) & (near < best)
            best = np.where(first, near, best)
            points = np.where(first[..., None], origins + near[..., None] * direction, points)
        return np.isfinite(best), points

    def off(self, points):
        return self.distances(points).min(axis=-1)

    def distances(self, points):
        """Of points from the sides that they can lie on: [..., 12], boxes, low and high, axes."""
        distance = np.stack(
            [np.abs(points - side) for box in self.boxes for side in box], axis=-2
        )  # [..., 4 sides, 3 axes]
        for index, (low, high) in enumerate(self.boxes):
            outside = (points < low - 5e-3).any(axis=-1) | (points > high + 5e-3).any(axis=-1)
            distance[..., 2 * index : 2 * index + 2, :] += np.where(outside, 9, 0)[..., None, None]
        return distance.reshape(*points.shape[:-1], 12)

    def faces(self, points):
        """Axis, sign and box of the side that each point lies on."""
        best = self.distances(points).argmin(axis=-1)
        return best % 3, np.where((best // 3) % 2 == 0, -1, 1), best // 6

    def normal(self, points):
        axis, sign, _ = self.faces(points)
        return np.eye(3)[axis] * sign[..., None]

    def color(self, points):
        axis, sign, box = self.faces(points)
        result = np.zeros(points.shape, np.uint8)
        for (one, side), color in FACE_COLORS.items():
            result[(axis == one) & (sign == side)] = color
        middle = self.boxes.mean(axis=1)[box]
        offset = np.take_along_axis(points - middle, (axis[..., None] + [1, 2]) % 3, axis=-1)
        result[(offset[..., 0] > 0.05) & (offset[..., 1] > 0.12)] = 0
        return result

    def mesh(self):
        points, faces = [], []
        quads = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
        for low, high in self.boxes:
            corners = np.array(
                [[(low, high)[x][0], (low, high)[y][1], (low, high)[z][2]] for x, y, z in np.ndindex(2, 2, 2)]
            )
            for quad in quads:
                start = len(points)
                points.extend(corners[quad])
                faces += [[start, start + 1, start + 2], [start, start + 2, start + 3]]
        return np.array(points), np.array(faces)


def stand(azimuth, elevation, distance):
    """Camera to world, columns right, up, backward, place: at an azimuth from +X in degrees, looking at the origin."""
    turn, tilt = np.deg2rad(azimuth), np.deg2rad(elevation)
    backward = np.array([np.cos(tilt) * np.cos(turn), np.cos(tilt) * np.sin(turn), np.sin(tilt)])
    right = np.array([-np.sin(turn), np.cos(turn), 0.0])
    matrix = np.eye(4)
    matrix[:3] = np.stack([right, np.cross(backward, right), backward, distance * backward], axis=1)
    return matrix


def shoot(scene, matrix, size, *, fov=None, width=None):
    """What a view shows: dict of mask, point, normal, color and depth along the axis of view; the angle is in radians."""
    right, up, backward, place = matrix[:3].T
    steps = (np.arange(size) + 0.5) / size - 0.5
    across, down = steps[None, :, None], steps[:, None, None]
    if fov is None:
        direction = -backward
        origins = place + width * (across * right - down * up)
    else:
        direction = 2 * np.tan(fov / 2) * (across * right - down * up) - backward
        direction = direction / np.linalg.norm(direction, axis=-1, keepdims=True)
        origins = np.broadcast_to(place, direction.shape)
    mask, points = scene.hit(origins, direction)
    with np.errstate(invalid="ignore", divide="ignore"):
        normal = np.where(mask[..., None], scene.normal(np.where(mask[..., None], points, 0.3)), 0)
    color = np.where(mask[..., None], scene.color(np.where(mask[..., None], points, 0.3)), 0).astype(np.uint8)
    return {"mask": mask, "point": points, "normal": normal, "color": color, "depth": (place - points) @ backward}


def save_image(path, color, alpha=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    if alpha is not None:
        color = np.concatenate([color, alpha[..., None].astype(np.uint8)], axis=-1)
    options = {".webp": {"lossless": True, "exact": True}, ".jpg": {"quality": 95}}
    Image.fromarray(np.ascontiguousarray(color)).save(path, **options.get(path.suffix, {}))


def save_exr(path, **channels):
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    contents = {name: np.ascontiguousarray(values, np.float32) for name, values in channels.items()}
    with OpenEXR.File(header, contents) as file:
        file.write(str(path))


def save_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def save_ply(path, points, faces):
    lines = ["ply", "format ascii 1.0", f"element vertex {len(points)}", *(f"property float {axis}" for axis in "xyz")]
    lines += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header"]
    lines += [" ".join(f"{value:.7f}" for value in point) for point in points]
    lines += ["3 " + " ".join(map(str, face)) for face in faces]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def in_bytes(values):
    """[0, 1] to the bytes that a truncating conversion gives."""
    return (np.clip(values, 0, 1) * 255).astype(np.uint8)


MV_ADAPTER_VIEWS = [
    (0, 0),
    (90, 0),
    (180, 0),
    (270, 0),
    (45, 0),
    (135, 0),
    (225, 0),
    (315, 0),
    (180, 89.99),
    (180, -89.99),
]


def write_mv_adapter(
    root, scene, *, size=40, fov=None, frame="world", name="color", edit_normal=None, edit=None, views=MV_ADAPTER_VIEWS
):
    """Views by azimuth and elevation; ``frame`` of the normals: world, camera, or last: the camera's, but the last view's is
    the one's before."""
    folder = root / "ab" / "abcdef"
    matrices, locations = [stand(azimuth - 90, elevation, 1.8) for azimuth, elevation in views], []
    for view, ((azimuth, elevation), matrix) in enumerate(zip(views, matrices, strict=True)):
        seen = shoot(scene, matrix, size, **({"width": 1.1} if fov is None else {"fov": fov}))
        frames = {"world": np.eye(3), "camera": matrix[:3, :3], "last": matrices[min(view, len(views) - 2)][:3, :3]}
        normal = seen["normal"] @ frames[frame]
        normal = normal if edit_normal is None else edit_normal(normal, view)
        alpha = np.where(seen["mask"], 255, 0)
        save_image(folder / f"{name}_{view:04d}.webp", seen["color"], alpha)
        save_image(folder / f"normal_{view:04d}.webp", np.round(127.5 * (normal + 1)).astype(np.uint8), alpha)
        save_exr(folder / f"depth_{view:04d}.exr", V=np.where(seen["mask"], seen["depth"], 65535.0))
        locations.append(
            {
                "index": f"{view:04d}",
                "projection_type": "ORTHO" if fov is None else "PERSP",
                "ortho_scale": 1.1,
                "camera_angle_x": 0.69 if fov is None else fov,
                "elevation": np.deg2rad(elevation),
                "azimuth": np.deg2rad(azimuth - 90),
                "transform_matrix": matrix.tolist(),
            }
        )
        if edit is not None:
            edit(locations[-1], view)
    save_json(folder / "meta.json", {"width": size, "height": size, "locations": locations})
    save_json(root / "objaverse_short_captions.json", {"abcdef": "a thing"})
    return folder


def write_g_objaverse(root, scene, *, size=32, fov=None, edit=None, edit_channels=None):
    """Forty views; ``edit`` changes a view's JSON, ``edit_channels`` its R, G, B, A."""
    folder = root / "17" / "4321" / "campos_512_v4"
    for view in range(40):
        matrix = (
            stand(15 * view, 25 * np.sin(view), 1.7 + 0.01 * view) if view < 38 else stand(0, (89, -89)[view - 38], 1.9)
        )
        seen = shoot(scene, matrix, size, fov=2 * np.arctan(512 / 1422.222) if fov is None else fov)
        right, up, backward, origin = matrix[:3].T
        record = {"x": right, "y": -up, "z": -backward, "origin": origin}
        record = {key: value.tolist() for key, value in record.items()} | ({} if fov is None else {"x_fov": fov})
        x, y, z = np.moveaxis(seen["normal"], -1, 0)
        channels = {"R": -x, "G": z, "B": -y, "A": np.where(seen["mask"], seen["depth"], 0)}
        if edit is not None:
            edit(record)
        name = f"{view:05d}"
        save_json(folder / name / f"{name}.json", record)
        save_image(folder / name / f"{name}.png", seen["color"], np.where(seen["mask"], 255, 0))
        save_exr(folder / name / f"{name}_nd.exr", **(channels if edit_channels is None else edit_channels(channels)))
    save_json(root / "text_captions_cap3d.json", {"17/4321": "a thing", "17/1": "another"})
    return folder


def write_objaverse_rendering(root, scene, *, size=48, distance=1.5, turn=1, matrices=None, save=None):
    """Twelve views; ``matrices`` of other cameras, which ``save`` turns into what the fork's .npy holds."""
    folder = root / "views" / "abcdef"
    for view in range(12):
        matrix = stand(turn * 30 * view, 30, distance) if matrices is None else matrices[view]
        seen = shoot(scene, matrix, size, fov=2 * np.arctan(16 / 35))
        save_image(folder / f"{view:03d}.png", seen["color"], np.where(seen["mask"], 255, 0))
        if save is not None:
            np.save(folder / f"{view:03d}.npy", save(matrix))
    return folder


def write_trellis(
    root, scene, *, size=48, box=0.5, change=lambda points: points, scale=1.0, offset=(0, 0, 0), mesh=True
):
    """Eight views in perspective round a box of half a side ``box``; ``change`` is done to the mesh's points."""
    folder, fov, frames = root / "renders" / "f00d", np.deg2rad(40), []
    for view in range(8):
        matrix = stand(47 * view, 70 * np.sin(2 * view + 1), 2.0)
        seen = shoot(scene, matrix, size, fov=fov)
        save_image(folder / f"{view:03d}.png", seen["color"], np.where(seen["mask"], 255, 0))
        matrix[:3, 3] *= 2 * box
        frames.append({"file_path": f"{view:03d}.png", "camera_angle_x": fov, "transform_matrix": matrix.tolist()})
    document = {"aabb": [[-box] * 3, [box] * 3], "scale": scale, "offset": list(offset), "frames": frames}
    save_json(folder / "transforms.json", document)
    if mesh:
        points, faces = scene.mesh()
        save_ply(folder / "mesh.ply", change(2 * box * points), faces)
    return folder


def write_hunyuan(
    root,
    scene,
    *,
    size=48,
    mesh=True,
    albedo_alpha=False,
    order=lambda p: (-p[1], p[2], p[0]),
    span=1.0,
    edit_normal=None,
    ending="png",
):
    """Six orthographic views over grey; ``order`` gives the position map's red, green and blue."""
    folder, frames = root / "001" / "render_tex", []
    for view, (azimuth, elevation) in enumerate([(-90, 0), (0, 0), (90, 0), (180, 0), (-90, 90), (-90, -90)]):
        matrix = stand(azimuth, elevation, 1.5)
        seen = shoot(scene, matrix, size, width=1.2)
        mask = seen["mask"][..., None]
        normal = seen["normal"] if edit_normal is None else edit_normal(seen["normal"])
        point = np.stack(order(np.moveaxis(np.where(mask, seen["point"], 0), -1, 0)), axis=-1)
        save_image(folder / f"{view:03d}.png", np.where(mask, seen["color"], np.uint8(127)))
        alpha = np.where(seen["mask"], 255, 0) if albedo_alpha else None
        save_image(folder / f"{view:03d}_albedo.png", np.where(mask, seen["color"], np.uint8(127)), alpha)
        save_image(folder / f"{view:03d}_normal.{ending}", in_bytes(0.5 + normal / 2))
        save_image(folder / f"{view:03d}_pos.{ending}", in_bytes(0.5 + point / span))
        angles = {"azimuth": np.deg2rad(azimuth), "elevation": np.deg2rad(elevation), "cam_dis": 1.5, "proj_type": 1}
        frames.append(
            {"file_path": f"{view:03d}.png", "camera_angle_x": 0.9, "transform_matrix": matrix.tolist()} | angles
        )
    document = {"aabb": [[-0.5] * 3, [0.5] * 3], "scale": 1.0, "offset": [0, 0, 0], "frames": frames}
    save_json(folder / "transforms.json", document)
    if mesh:
        points, faces = scene.mesh()
        save_ply(root / "001" / "mesh.ply", np.stack([points[:, 0], points[:, 2], -points[:, 1]], axis=1), faces)
    return folder
