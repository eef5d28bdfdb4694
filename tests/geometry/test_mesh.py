import io
import struct

import numpy as np
import pytest
import trimesh
from PIL import Image

from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry import mesh
from realiz3d_jax.geometry.assets.asset import load_asset, parse_glb
from realiz3d_jax.preparation.shapes import primitives


def ball(radius=1.0, center=(0, 0, 0), color=(0.2, 0.4, 0.6)):
    vertices, faces, normals = primitives.sphere()
    return mesh.Part((vertices - [0, 0, 0.5]) * 2 * radius + center, faces, normals, color)


def save(path, scene):
    path.write_bytes(trimesh.Scene(scene).export(file_type="glb"))
    return path


def edited(glb, old, new):
    """The file with a piece of its JSON header replaced."""
    length = struct.unpack("<I", glb[12:16])[0]
    header, rest = glb[20 : 20 + length].replace(old.encode(), new.encode()), glb[20 + length :]
    header += b" " * (-len(header) % 4)
    return (
        struct.pack("<4sII", b"glTF", 2, 20 + len(header) + len(rest))
        + struct.pack("<I", len(header))
        + b"JSON"
        + header
        + rest
    )


def signed_volume(solid):
    corners = solid.vertices[solid.faces].astype(np.float64)
    return np.einsum("fd,fd->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6


def test_the_frames_of_gltf_and_the_world_map_into_each_other():
    np.testing.assert_array_equal(mesh.gltf_to_world(np.array([0.0, 0.0, 1.0])), [0, -1, 0])
    np.testing.assert_array_equal(mesh.gltf_to_world(np.array([0.0, 1.0, 0.0])), [0, 0, 1])
    points = np.random.default_rng(0).standard_normal((5, 3))
    np.testing.assert_array_equal(mesh.world_to_gltf(mesh.gltf_to_world(points)), points)


def test_a_written_mesh_comes_back_normalised_with_its_normals_and_colours(tmp_path):
    path = tmp_path / "two.glb"
    path.write_bytes(mesh.write_glb([ball(2.0, (10, 0, 0)), ball(1.0, (10, 0, 2.5), (0.9, 0.1, 0.1))]))
    solid = load_asset(path).mesh
    np.testing.assert_allclose(solid.vertices.max(axis=0) + solid.vertices.min(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(np.ptp(solid.vertices, axis=0).max(), 1, atol=1e-6)
    np.testing.assert_allclose(solid.offset, [10, 0, 0.75], atol=1e-6)
    np.testing.assert_allclose(solid.scale, 1 / 5.5, rtol=1e-6)
    half = len(solid.faces) // 2
    outward = solid.vertices[solid.faces[:half]] / solid.scale + solid.offset - [10, 0, 0]
    np.testing.assert_allclose(solid.corner_normals[:half], outward / 2.0, atol=1e-5)
    np.testing.assert_allclose(solid.face_color[0], [0.2, 0.4, 0.6], atol=1e-6)
    np.testing.assert_allclose(solid.face_color[-1], [0.9, 0.1, 0.1], atol=1e-6)
    assert solid.vertices.dtype == solid.corner_normals.dtype == solid.face_color.dtype == np.float32
    assert solid.faces.dtype == np.int32


def test_the_same_parts_give_the_same_bytes():
    assert mesh.write_glb([ball()]) == mesh.write_glb([ball()])


@pytest.mark.parametrize("mirror", [1.0, -1.0])
def test_several_meshes_stand_where_their_nodes_put_them_and_face_outwards(tmp_path, mirror):
    scene = trimesh.Scene()
    stretch = np.diag([mirror, 2.0, 1.0, 1.0])
    turn = trimesh.transformations.rotation_matrix(np.pi / 2, [0, 0, 1], [0, 0, 0])
    scene.add_geometry(trimesh.creation.icosphere(subdivisions=3), transform=stretch, node_name="parent")
    scene.add_geometry(
        trimesh.creation.box([1, 1, 1]),
        transform=trimesh.transformations.translation_matrix([3, 0, 0]) @ turn,
        parent_node_name="parent",
    )
    path = tmp_path / "nodes.glb"
    path.write_bytes(scene.export(file_type="glb", include_normals=True))
    solid = load_asset(path).mesh
    original = solid.vertices / solid.scale + solid.offset
    # glTF x in [-1, 3.5], y in [-2, 2], z in [-1, 1]; mirrored: x in [-3.5, 1].
    expected = np.array([[-1, -1, -2], [3.5, 1, 2]]) if mirror > 0 else np.array([[-3.5, -1, -2], [1, 1, 2]])
    np.testing.assert_allclose([original.min(axis=0), original.max(axis=0)], expected, atol=1e-5)
    volume = signed_volume(solid) / solid.scale**3
    np.testing.assert_allclose(volume, 4 / 3 * np.pi * 2 + 2, rtol=0.02)
    corners = solid.vertices[solid.faces].astype(np.float64)
    flat = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    flat /= np.linalg.norm(flat, axis=-1, keepdims=True)
    assert np.einsum("fd,fcd->fc", flat, solid.corner_normals).min() > 0.3


def test_without_normals_round_surfaces_become_smooth_and_edges_stay_sharp(tmp_path):
    ball_without = trimesh.creation.icosphere(subdivisions=3)
    path = tmp_path / "ball.glb"
    path.write_bytes(trimesh.Scene(ball_without).export(file_type="glb", include_normals=False))
    solid = load_asset(path).mesh
    outward = solid.vertices[solid.faces] * 2
    assert np.degrees(np.arccos(np.einsum("fcd,fcd->fc", outward, solid.corner_normals).clip(-1, 1))).max() < 1.0
    box = tmp_path / "box.glb"
    box.write_bytes(trimesh.Scene(trimesh.creation.box([1, 2, 3])).export(file_type="glb", include_normals=False))
    normals = load_asset(box).mesh.corner_normals
    np.testing.assert_allclose(np.sort(np.abs(normals), axis=-1), np.broadcast_to([0, 0, 1], normals.shape), atol=1e-6)


def test_the_crease_angle_parts_smooth_from_sharp():
    def roof(degrees):
        angle = np.deg2rad(degrees)
        return np.array(
            [[[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 0, 0], [0, -np.cos(angle), -np.sin(angle)], [1, 0, 0]]]
        )

    def spread(degrees):
        normals = mesh.smooth_normals(roof(degrees))
        return np.linalg.norm(normals[0, 0] - normals[1, 0])

    assert spread(mesh.CREASE_ANGLE - 1) < 1e-6
    assert spread(mesh.CREASE_ANGLE + 1) > 0.5


def test_a_mesh_without_material_is_light_grey_and_a_texture_colours_its_faces(tmp_path):
    plain = parse_glb(edited(mesh.write_glb([ball()]), '"material":0', '"extras":0'), "plain").mesh
    np.testing.assert_allclose(plain.face_color, 0.8, atol=1e-6)
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, 1] = (10, 200, 90)  # top right
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(pixels))
    corner = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]], process=False)
    corner.visual = trimesh.visual.TextureVisuals(uv=[[0.65, 0.7], [0.85, 0.7], [0.75, 0.85]], material=material)
    color = load_asset(save(tmp_path / "textured.glb", corner)).mesh.face_color[0]
    np.testing.assert_allclose(color * 255, [10, 200, 90], atol=1)


@pytest.mark.parametrize("normals", [True, False])
def test_a_part_of_nothing_but_faces_without_area_is_left_out(normals):
    line = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [2, 0, 0]], [[0, 1, 2]], process=False)
    box = trimesh.creation.box([1, 2, 3])
    both, alone, empty = (
        trimesh.Scene(parts).export(file_type="glb", include_normals=normals) for parts in ([line, box], [box], [line])
    )
    np.testing.assert_array_equal(parse_glb(both, "both").mesh.vertices, parse_glb(alone, "alone").mesh.vertices)
    with pytest.raises(UserError, match="empty: no faces"):
        parse_glb(empty, "empty")


def test_faces_without_area_are_dropped():
    part = mesh.Part(
        np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0.0]]),
        np.array([[0, 1, 2], [0, 3, 1], [1, 1, 2]]),
        np.tile([0, 0, 1.0], (4, 1)),
        (1, 0, 0),
    )
    assert len(parse_glb(mesh.write_glb([part]), "one").mesh.faces) == 1


def broken_files():
    whole = mesh.write_glb([ball()])
    nan = ball()
    nan.vertices[3] = np.nan
    flat = mesh.Part(np.ones((3, 3)), np.array([[0, 1, 2]]), np.tile([0, 0, 1.0], (3, 1)), (1, 0, 0))
    tiny = ball(1e-14)
    points = io.BytesIO()
    trimesh.Scene(trimesh.PointCloud([[0, 0, 0], [1, 1, 1]])).export(points, file_type="glb")
    out_of_range = ball()
    out_of_range.faces[0, 0] = 60000
    return {
        "empty": (b"", "its JSON cannot be read"),
        "text": (b"this is no mesh, whatever its name says", "its JSON cannot be read"),
        "truncated": (whole[: len(whole) // 2], "it is truncated"),
        "header_only": (whole[:12], "it is truncated"),
        "no_faces": (points.getvalue(), "no faces"),
        "no_area": (mesh.write_glb([flat]), "no faces"),
        "no_extent": (mesh.write_glb([tiny]), "all vertices are at one point"),
        "nan": (mesh.write_glb([nan]), "not finite"),
        "out_of_range": (mesh.write_glb([out_of_range]), "60000"),
    }


@pytest.mark.parametrize("name", list(broken_files()))
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path, name):
    content, message = broken_files()[name]
    path = tmp_path / f"{name}.glb"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        load_asset(path)
    assert str(path) in str(raised.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.glb: cannot read"):
        load_asset(tmp_path / "nowhere.glb")
