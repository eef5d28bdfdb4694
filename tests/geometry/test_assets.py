import dataclasses
import json
import subprocess

import asset_files as files
import numpy as np
import pytest
import trimesh
from asset_files import TETRAHEDRON, TETRAHEDRON_FACES

from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry import mesh
from realiz3d_jax.geometry.assets import asset_parts
from realiz3d_jax.geometry.assets.asset import _assemble, checksum, load_asset
from realiz3d_jax.geometry.assets.gltf_writer import write_textured_glb
from realiz3d_jax.geometry.texturing import unwrap, uv_charts

GREY = np.full((8, 8, 3), 128, np.uint8)


def save(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    return path


def two_parts(folder):
    return load_asset(save(folder, "two.glb", files.glb(*files.two_parts())))


def triangles(solid):
    return solid.vertices[solid.faces].astype(np.float64)


def placed(asset):
    """The mesh in the world of its file, Z up: float64[F, 3, 3]."""
    return triangles(asset.mesh) / asset.mesh.scale + asset.mesh.offset


def flattened(asset):
    """With texture coordinates that need no other process."""
    return dataclasses.replace(asset, uv=uv_charts.project(triangles(asset.mesh)))


def again(folder, asset, **options):
    """The asset after writing and reading."""
    return load_asset(save(folder, "again.glb", write_textured_glb(asset, GREY)), **options)


def square(u=(0.0, 1.0), v=(0.0, 1.0), height=0.0, steps=1):
    """A flat grid with its texture coordinates: vertices, faces, uv."""
    lines = np.linspace(0, 1, steps + 1)
    grid = np.stack(np.meshgrid(lines, lines), axis=-1).reshape(-1, 2)
    row = steps + 1
    first = (np.arange(steps)[:, None] * row + np.arange(steps)).reshape(-1, 1)
    faces = np.concatenate([first + np.array([0, 1, row]), first + np.array([1, row + 1, row])])
    uv = grid * [u[1] - u[0], v[1] - v[0]] + [u[0], v[0]]
    return np.insert(grid, 2, height, axis=1), faces, uv


def sheet(folder, name="sheet.glb", **options):
    vertices, faces, uv = square(**options)
    return load_asset(save(folder, name, files.one_part(vertices, faces, TEXCOORD_0=uv)))


# --- reading ----------------------------------------------------------------------------------------------------------------


def test_parts_stand_where_their_nodes_put_them_and_mirrored_ones_are_turned_right_side_out(tmp_path):
    asset = two_parts(tmp_path)
    assert [part.name for part in asset.parts] == ["first", "second"]
    turn = np.array([[0.28, -0.96, 0], [0.96, 0.28, 0], [0, 0, 1]])  # the quaternion (0, 0, 0.6, 0.8)
    first = TETRAHEDRON.astype(np.float64) * [1, -2, 1.5] @ turn.T
    second = (TETRAHEDRON.astype(np.float64) * 2 + [5, 6, 7]) * [1, -2, 1.5] @ turn.T
    faces = TETRAHEDRON_FACES[:, ::-1]
    expected = mesh.gltf_to_world(np.concatenate([first[faces], second[faces]]))
    np.testing.assert_allclose(placed(asset), expected, atol=1e-5)
    for index in (0, 1):
        corners = placed(asset)[asset.part == index]
        assert np.einsum("fd,fd->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) > 0
    np.testing.assert_array_equal(asset.corner[:4], faces)
    normals = asset.parts[0].normals / (np.array([1, -2, 1.5])) @ turn.T  # the inverse transpose
    normals = mesh.gltf_to_world(normals / np.linalg.norm(normals, axis=-1, keepdims=True))
    np.testing.assert_allclose(asset.mesh.corner_normals[:4], normals[faces], atol=1e-6)


def test_colours_are_factor_times_texture_times_vertex_colours_in_linear_light(tmp_path):
    asset = two_parts(tmp_path)
    corners = np.eye(3)
    pixels = files.texture()[..., :].astype(np.float64)
    linear = np.concatenate([mesh.srgb_to_linear(pixels[..., :3] / 255), pixels[..., 3:] / 255], axis=-1)
    # Face 0 has its corners at vertices 1, 2, 0: u is clamped, v is mirrored, so the corners show the corners of the image.
    colors = asset.base_color(np.zeros(3, int), corners)
    for color, texel in zip(colors, [linear[0, 3], linear[1, 0], linear[0, 0]], strict=True):
        np.testing.assert_allclose(mesh.srgb_to_linear(color[:3]), texel[:3] * [1, 0.5, 1], atol=1e-6)
        np.testing.assert_allclose(color[3], texel[3], atol=1e-6)
    # Half-way between vertices 0 and 1 the columns 1 and 2 of row 0 meet.
    half = asset.base_color(np.array([0]), np.array([[0.5, 0, 0.5]]))[0]
    expected = (linear[0, 1, 0] + linear[0, 2, 0]) / 2
    np.testing.assert_allclose(mesh.srgb_to_linear(half[0]), expected, atol=1e-6)
    second = asset.base_color(np.full(3, 4), corners)
    np.testing.assert_allclose(second, [[0, 1, 0, 1], [0, 0, 1, 1], [1, 0, 0, 1]], atol=1e-6)


@pytest.mark.parametrize(
    ("wrap", "columns"),
    [(asset_parts.REPEAT, [3, 0, 1, 3]), (asset_parts.CLAMP, [0, 3, 3, 0]), (asset_parts.MIRROR, [0, 3, 2, 0])],
)
def test_textures_go_on_outside_their_square_as_their_sampler_says(wrap, columns):
    pixels = np.zeros((1, 4, 4), np.uint8)
    pixels[0, :, 0] = [0, 50, 100, 200]
    texture = asset_parts.Texture(pixels, (wrap, wrap))
    uv = np.array([[-0.125, 0.5], [1.125, 0.5], [1.375, 0.5], [-0.125 - 2e9, 0.5]], np.float64)
    part = asset_parts.AssetPart(
        "", 0, np.zeros((4, 3)), np.zeros((0, 3)), texture_uv=uv, material=asset_parts.Material(texture=texture)
    )
    color = asset_parts.base_color(part, np.repeat(np.arange(4)[:, None], 3, axis=1), np.full((4, 3), 1 / 3))
    np.testing.assert_allclose(color[:, 0] * 255, pixels[0, columns, 0], atol=1e-3)


@pytest.mark.parametrize(("mode", "alpha"), [("OPAQUE", 1.0), ("MASK", 1.0), ("BLEND", 0.6)])
def test_alpha_is_what_the_material_makes_of_it(tmp_path, mode, alpha):
    material = {"alphaMode": mode, "pbrMetallicRoughness": {"baseColorFactor": [1, 0, 0, 0.6]}}
    asset = load_asset(save(tmp_path, "a.glb", files.one_part(TETRAHEDRON, TETRAHEDRON_FACES, material=material)))
    np.testing.assert_allclose(asset.base_color(np.array([0]), np.full((1, 3), 1 / 3)), [[1, 0, 0, alpha]], atol=1e-6)


def test_a_file_without_colours_normals_or_texture_coordinates_is_grey_and_gets_smooth_normals(tmp_path):
    asset = load_asset(save(tmp_path, "bare.glb", files.one_part(TETRAHEDRON, TETRAHEDRON_FACES)))
    np.testing.assert_allclose(asset.mesh.face_color, 0.8, atol=1e-6)
    np.testing.assert_allclose(asset.mesh.corner_normals, mesh.smooth_normals(placed(asset)), atol=1e-5)
    assert asset.uv is None


def test_unusable_normals_are_replaced_and_the_others_kept(tmp_path):
    normals = np.tile([0.6, 0, 0.8], (4, 1))
    normals[1] = 0
    asset = load_asset(save(tmp_path, "n.glb", files.one_part(TETRAHEDRON, TETRAHEDRON_FACES, NORMAL=normals)))
    kept = asset.corner != 1
    np.testing.assert_allclose(asset.mesh.corner_normals[kept], np.tile([0.6, -0.8, 0], (kept.sum(), 1)), atol=1e-6)
    np.testing.assert_allclose(asset.mesh.corner_normals[~kept], mesh.smooth_normals(placed(asset))[~kept], atol=1e-5)


def test_texture_transforms_move_the_colour_and_not_the_coordinates(tmp_path):
    header, binary = files.two_parts()
    use = header["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]
    use["extensions"] = {"KHR_texture_transform": {"offset": [0, 1], "rotation": np.pi / 2, "scale": [1, 1]}}
    asset = load_asset(save(tmp_path, "moved.glb", files.glb(header, binary)))
    plain = two_parts(tmp_path)
    np.testing.assert_array_equal(asset.uv, plain.uv)
    # (u, v) goes to (v, 1 - u): vertex 1 at (1, 0) shows the texel at (0, 0), vertex 2 at (0, 1) that at (1, 1).
    colors = asset.base_color(np.zeros(2, int), np.eye(3)[:2])
    np.testing.assert_allclose(colors[0, :3] * 255, [255, 0, 0], atol=0.01)
    np.testing.assert_allclose(colors[1, 3] * 255, 128, atol=0.01)


def test_the_checksum_of_a_gltf_covers_the_buffers_beside_it(tmp_path):
    header, binary = files.two_parts()
    path = save(tmp_path, "a.gltf", files.gltf(header, binary, tmp_path, external=True))
    before = checksum(path)
    assert checksum(path) == before
    (tmp_path / "a buffer.bin").write_bytes(binary[:-1] + b"x")
    assert checksum(path) != before
    (tmp_path / "a buffer.bin").unlink()
    with pytest.raises(UserError, match=r"a\.gltf: refers to 'a%20buffer.bin', which does not exist"):
        checksum(path)
    path.write_text("{no JSON")  # which load_asset tells
    assert len(checksum(path)) == 64


@pytest.mark.parametrize("external", [True, False])
def test_gltf_with_its_buffer_beside_or_inside_it_is_the_glb(tmp_path, external):
    content = files.gltf(*files.two_parts(), tmp_path, external=external)
    asset, same = load_asset(save(tmp_path, "two.gltf", content)), two_parts(tmp_path)
    np.testing.assert_array_equal(asset.mesh.vertices, same.mesh.vertices)
    np.testing.assert_array_equal(asset.mesh.face_color, same.mesh.face_color)


@pytest.mark.parametrize(
    "uri", ["../outside.bin", "/etc/passwd", "https://example.org/a.bin", "link.bin", "..\\outside.bin"]
)
def test_what_lies_outside_the_asset_s_folder_is_refused(tmp_path, uri):
    header, binary = files.two_parts()
    (tmp_path / "outside.bin").write_bytes(binary)
    folder = tmp_path / "inside"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "outside.bin")
    header["buffers"][0]["uri"] = uri
    with pytest.raises(UserError, match=r"two\.gltf: .*folder"):
        load_asset(save(folder, "two.gltf", json.dumps(header).encode()))


def test_strips_fans_and_sparse_quantised_positions_are_what_they_stand_for(tmp_path):
    data = files.Binary()
    corners = np.array([[0, 0, 0], [100, 0, 0], [0, 100, 0], [100, 100, 0]], np.int16)
    position = data.accessor(np.pad(corners, ((0, 0), (0, 1)))[:, :3])
    changed, values = data.view(np.array([3], np.uint8).tobytes()), data.view(np.array([100, 100, 50], "<i2").tobytes())
    data.accessors[0]["sparse"] = {
        "count": 1,
        "indices": {"bufferView": changed, "componentType": 5121},
        "values": {"bufferView": values},
    }
    fan = data.accessor(np.array([0, 1, 3, 2], np.uint8))
    header = {
        "asset": {"version": "2.0"},
        "nodes": [{"mesh": 0}],
        "meshes": [
            {
                "primitives": [
                    {"attributes": {"POSITION": position}, "mode": 5},
                    {"attributes": {"POSITION": position}, "mode": 6, "indices": fan},
                    {"attributes": {"POSITION": position}, "mode": 1},
                ]
            }
        ],
        "accessors": data.accessors,
        "bufferViews": data.views,
        "buffers": [{"byteLength": len(data.content)}],
    }
    asset = load_asset(save(tmp_path, "strip.glb", files.glb(header, data.content)))
    assert [part.faces.tolist() for part in asset.parts] == [[[0, 1, 2], [1, 3, 2]], [[1, 3, 0], [3, 2, 0]]]
    assert asset.parts[0].vertices[3].tolist() == [100, 100, 50]


def test_every_format_gives_the_same_solid_in_the_frame_that_is_its_own(tmp_path):
    corners = mesh.gltf_to_world(TETRAHEDRON.astype(np.float64)[TETRAHEDRON_FACES])
    contents = {"a.obj": files.obj(), "a.stl": files.stl("ascii"), "b.stl": files.stl("binary")}
    contents |= {f"{kind}.ply": files.ply(kind) for kind in ("ascii", "binary_little_endian", "binary_big_endian")}
    contents["a.off"] = trimesh.Trimesh(TETRAHEDRON, TETRAHEDRON_FACES, process=False).export(file_type="off").encode()
    contents["a.glb"] = files.one_part(TETRAHEDRON, TETRAHEDRON_FACES)
    for name, content in contents.items():
        path = save(tmp_path, name, content)
        own_up = "z" if name.endswith(("ply", "stl")) else "y"
        for up in (None, "y", "z"):
            z_up = (up or own_up) == "z"
            expected = TETRAHEDRON[TETRAHEDRON_FACES] if z_up else corners
            np.testing.assert_allclose(placed(load_asset(path, up=up)), expected, atol=1e-6, err_msg=f"{name} {up}")


def test_obj_polygons_relative_indices_materials_and_textures(tmp_path):
    (tmp_path / "a texture.png").write_bytes(files.png(files.texture()[..., :3]))
    (tmp_path / "some.mtl").write_text(
        "newmtl red\nKd 1 0 0\nd 0.5\nnewmtl picture\nKd 0 0 0\nmap_Kd -s 1 1 1 -clamp on a texture.png\n"
    )
    text = "mtllib some.mtl\nv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
    text += "usemtl picture\nf 1/1 2/2 3/3 4/4\nv 0 0 1\nv 1 0 1\nv 0 1 1\nusemtl red\nf -3 -2 \\\n -1\n"
    asset = load_asset(save(tmp_path, "a.obj", text.replace("\n", "\r\n").replace("\\\r", "\\").encode()))
    assert [len(part.faces) for part in asset.parts] == [2, 1]
    np.testing.assert_array_equal(asset.uv[0], [[0, 1], [1, 1], [1, 0]])
    assert np.isnan(asset.uv[2]).all()
    np.testing.assert_array_equal(asset.parts[1].vertices, [[0, 0, 1], [1, 0, 1], [0, 1, 1]])
    np.testing.assert_allclose(asset.base_color(np.array([2]), np.full((1, 3), 1 / 3)), [[1, 0, 0, 0.5]], atol=1e-6)
    top_left = asset.base_color(np.array([1]), np.eye(3)[2:])  # vertex 4 at (0, 1), v up
    np.testing.assert_allclose(top_left, [[1, 0, 0, 1]], atol=1e-6)


def test_ply_colours_and_polygons_of_several_sizes(tmp_path):
    whole = files.ply("ascii").replace(b"element face 4", b"element face 5") + b"4 0 1 2 3\n"
    asset = load_asset(save(tmp_path, "a.ply", whole))
    assert len(asset.parts[0].faces) == 6
    color = asset.base_color(np.array([0]), np.eye(3)[:1])  # vertex 0
    np.testing.assert_allclose(color * 255, [[0, 20, 30, 255]], atol=0.01)


def test_far_from_the_origin_nothing_is_lost(tmp_path):
    far = np.array([500_000.0, 4_000_000.0, -1e6])
    asset = load_asset(save(tmp_path, "far.obj", files.obj(TETRAHEDRON * 0.01 + far)))
    near = load_asset(save(tmp_path, "near.obj", files.obj(TETRAHEDRON)))
    np.testing.assert_allclose(asset.mesh.vertices, near.mesh.vertices, atol=1e-6)
    np.testing.assert_allclose(
        mesh.world_to_gltf(asset.mesh.offset), far + np.array([0.005, 0.01, 0.015]), rtol=0, atol=1e-8
    )
    written = again(tmp_path, flattened(asset))
    np.testing.assert_allclose(placed(written), placed(asset), rtol=0, atol=1e-8)
    glb = load_asset(save(tmp_path, "far.glb", files.one_part(TETRAHEDRON + 1e6, TETRAHEDRON_FACES)))
    np.testing.assert_allclose(glb.mesh.vertices, near.mesh.vertices, atol=1e-6)


def test_faces_of_no_area_are_no_target_of_rays_and_are_written_back(tmp_path):
    faces = [[0, 0, 1], *TETRAHEDRON_FACES, [4, 4, 5], [0, 1, 6]]
    vertices = [*TETRAHEDRON, [9, 9, 9], [8, 8, 8], [0.5, 0, 0], [7, 7, 7]]
    asset = load_asset(save(tmp_path, "thin.glb", files.one_part(vertices, faces)))
    np.testing.assert_array_equal(asset.part_face, [1, 2, 3, 4])
    np.testing.assert_allclose(asset.mesh.scale, 1 / 3)
    written = again(tmp_path, flattened(asset))
    part = written.parts[0]
    np.testing.assert_array_equal(part.vertices[part.faces], np.float32(vertices)[np.array(faces)])


def test_a_hundred_thousand_faces_round_one_vertex_take_no_longer_than_others(tmp_path):
    angle = np.linspace(0, 2 * np.pi, 100_000, endpoint=False)
    rim = np.arange(1, len(angle) + 1)
    cone = [[0, 0, 0.1], *np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=-1)]
    corners = np.array(cone)[np.stack([0 * rim, rim, np.roll(rim, -1)], axis=-1)]
    normals = mesh.smooth_normals(corners)
    np.testing.assert_allclose(normals[:, 0], np.tile([0, 0, 1], (len(rim), 1)), atol=1e-6)


def test_what_is_no_asset_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"a\.txt: found a file \.txt; expected \.glb"):
        load_asset(save(tmp_path, "a.txt", b""))
    with pytest.raises(UserError, match=r"gone\.glb: cannot read"):
        load_asset(tmp_path / "gone.glb")
    (tmp_path / "folder.glb").mkdir()
    with pytest.raises(UserError, match="is not a file"):
        load_asset(tmp_path / "folder.glb")
    with pytest.raises(UserError, match='expected "y" or "z"'):
        load_asset(save(tmp_path, "a.obj", files.obj()), up="x")


# --- texture coordinates ----------------------------------------------------------------------------------------------------


def test_coverage_counts_the_faces_over_each_texel_and_neighbours_share_none():
    _, faces, uv = square(u=(0.25, 0.75), v=(0.0, 0.5), steps=7)
    counts = uv_charts.coverage(uv[faces], 64)
    expected = np.zeros((64, 64), int)
    expected[:32, 16:48] = 1
    assert np.count_nonzero(counts != expected) <= 3 * 32  # texels whose centre lies on an edge belong to nobody
    assert counts.max() == 1
    np.testing.assert_array_equal(uv_charts.coverage(np.concatenate([uv[faces]] * 3), 64), 3 * counts)


def test_good_texture_coordinates_are_kept_to_the_bit(tmp_path):
    asset = sheet(tmp_path, steps=8)
    assert unwrap.unwrap(asset).uv.tobytes() == asset.uv.tobytes()
    mirrored = sheet(tmp_path, u=(0.9, 0.1), steps=8)
    assert unwrap.unwrap(mirrored).uv.tobytes() == mirrored.uv.tobytes()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"u": (0, 3.0)}, "outside"),
        ({"u": (0.5, 0.5)}, "no area"),
        ({"u": (0.5, 0.5001), "v": (0.5, 0.5001)}, "covers less"),
    ],
)
def test_texture_coordinates_that_cannot_be_painted_on_are_replaced(tmp_path, options, problem):
    asset = sheet(tmp_path, steps=4, **options)
    assert problem in unwrap.uv_problem(asset.uv, np.ones(len(asset.uv)))
    made = unwrap.unwrap(asset)
    assert unwrap.uv_problem(made.uv, np.ones(len(made.uv))) is None
    np.testing.assert_array_equal(made.mesh.vertices, asset.mesh.vertices)


def test_overlapping_and_missing_texture_coordinates_are_replaced(tmp_path):
    vertices, faces, uv = square(steps=4)
    twice = [*vertices, *(vertices + np.array([0, 0, 1]))]
    both = [*faces, *(faces + len(vertices))]
    path = save(tmp_path, "both.glb", files.one_part(twice, both, TEXCOORD_0=[*uv, *uv]))
    asset = load_asset(path)
    assert "several faces" in unwrap.uv_problem(asset.uv, np.ones(len(asset.uv)))
    bare = load_asset(save(tmp_path, "bare.glb", files.one_part(twice, both)))
    for made in (unwrap.unwrap(asset), unwrap.unwrap(bare)):
        assert unwrap.uv_problem(made.uv, np.ones(len(made.uv))) is None
        assert uv_charts.overlap(uv_charts.coverage(made.uv)) <= unwrap.TOLERANCE
        assert np.count_nonzero(uv_charts.coverage(made.uv)) > 0.4 * uv_charts.RASTER**2


def test_parts_that_share_a_square_are_packed_each_as_a_whole(tmp_path):
    vertices, faces, uv = square(steps=2)
    part = asset_parts.AssetPart("", 0, np.float32(vertices), np.int32(faces), uv=np.float32(uv))
    other = dataclasses.replace(part, vertices=np.float32(vertices * 2 + 5))
    asset = _assemble(asset_parts.Contents((part, other), (asset_parts.Node(),), (0,)), "two", turned=False)
    made = unwrap.unwrap(asset)
    assert uv_charts.overlap(uv_charts.coverage(made.uv)) == 0
    assert 0 <= made.uv.min() < made.uv.max() <= 1
    sizes = []
    for index in (0, 1):
        before, after = asset.uv[asset.part == index].reshape(-1, 2), made.uv[made.part == index].reshape(-1, 2)
        scale = np.ptp(after, axis=0) / np.ptp(before, axis=0)
        np.testing.assert_allclose(after, before * scale + after.min(axis=0), atol=1e-6)
        np.testing.assert_allclose(scale[0], scale[1], rtol=1e-5)
        sizes.append(scale[0])
    np.testing.assert_allclose(sizes[1] / sizes[0], 2, rtol=1e-4)  # as on the surface
    beside = np.where((asset.part == 0)[:, None], np.float32([0, 0]), np.float32([0.5, 0]))[:, None]
    apart = dataclasses.replace(asset, uv=asset.uv * np.float32([0.5, 1]) + beside)
    assert unwrap.unwrap(apart).uv.tobytes() == apart.uv.tobytes()


@pytest.mark.parametrize("solid", ["icosphere", "box", "torus", "spiral", "soup"])
def test_projections_overlap_nowhere_and_fill_some_of_the_square(solid):
    if solid == "soup":
        corners = np.random.default_rng(0).random((200, 3, 3))
    elif solid == "spiral":  # three turns of a ramp: seen from above, it overlaps itself and hangs together
        angle = np.linspace(0, 6 * np.pi, 200)
        rails = [np.stack([r * np.cos(angle), r * np.sin(angle), angle / 40], axis=-1) for r in (0.5, 1.0)]
        corners = np.concatenate(
            [
                np.stack([rails[0][:-1], rails[1][:-1], rails[1][1:]], axis=1),
                np.stack([rails[0][:-1], rails[1][1:], rails[0][1:]], axis=1),
            ]
        )
    else:
        made = {"torus": lambda: trimesh.creation.torus(1.0, 0.3), "box": trimesh.creation.box}
        corners = made.get(solid, trimesh.creation.icosphere)().triangles
    uv = uv_charts.project(corners)
    counts = uv_charts.coverage(uv)
    assert counts.max() == 1
    assert np.count_nonzero(counts) > 0.15 * uv_charts.RASTER**2
    assert 0 <= uv.min() < uv.max() <= 1


def test_packed_rectangles_are_inside_and_apart():
    sizes = np.random.default_rng(0).random((300, 2)) ** 3 + 1e-3
    places, scale = uv_charts.pack(sizes)
    low, high = places, places + sizes * scale
    assert low.min() > 0
    assert high.max() < 1
    meet = (low[:, None] < high[None]).all(axis=-1)
    assert np.count_nonzero(meet & meet.T) == len(sizes)
    assert (sizes * scale).prod(axis=1).sum() > 0.35


def test_xatlas_is_stopped_in_time_and_projections_take_its_place(tmp_path, monkeypatch, capsys):
    asset = load_asset(save(tmp_path, "bare.glb", files.one_part(TETRAHEDRON, TETRAHEDRON_FACES)))
    monkeypatch.setattr(unwrap, "_wait", lambda process, seconds: process.wait(0.0))
    made = unwrap.unwrap(asset, seconds=0.0)
    assert "they get flat projections" in capsys.readouterr().err
    assert uv_charts.coverage(made.uv).max() == 1


def test_a_crash_of_xatlas_is_no_crash_of_ours(tmp_path, monkeypatch, capsys):
    asset = load_asset(save(tmp_path, "bare.glb", files.one_part(TETRAHEDRON, TETRAHEDRON_FACES)))
    start = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command, **options: start(["false"], **options))
    made = unwrap.unwrap(asset)
    assert "ended with status 1" in capsys.readouterr().err
    assert uv_charts.coverage(made.uv).max() == 1


# --- writing ----------------------------------------------------------------------------------------------------------------


def test_a_written_asset_has_the_nodes_names_positions_normals_and_faces_of_its_file(tmp_path):
    asset = flattened(two_parts(tmp_path))
    written = again(tmp_path, asset)
    assert written.roots == asset.roots
    for old, new in zip(asset.nodes, written.nodes, strict=True):
        assert (new.name, new.placement, new.children) == (old.name, old.placement, old.children)
    for index, (old, new) in enumerate(zip(asset.parts, written.parts, strict=True)):
        assert (new.name, new.node, new.material.name) == (old.name, old.node, old.material.name)
        np.testing.assert_array_equal(new.vertices[new.faces], old.vertices[old.faces])
        if old.normals is not None:
            np.testing.assert_array_equal(new.normals[new.faces], old.normals[old.faces])
        np.testing.assert_array_equal(written.uv[written.part == index], asset.uv[asset.part == index])
    assert written.parts[0].material.double_sided
    np.testing.assert_allclose(placed(written), placed(asset), atol=1e-6)
    np.testing.assert_allclose(written.mesh.corner_normals, asset.mesh.corner_normals, atol=1e-5)


def test_vertices_are_split_only_where_texture_coordinates_or_normals_differ(tmp_path):
    asset = sheet(tmp_path, steps=4)
    part = again(tmp_path, asset).parts[0]
    np.testing.assert_array_equal(part.vertices, asset.parts[0].vertices)
    np.testing.assert_array_equal(part.faces, asset.parts[0].faces)
    torn = asset.uv.copy()
    torn[0] = torn[0] * 0.5
    split = again(tmp_path, dataclasses.replace(asset, uv=torn)).parts[0]
    assert len(split.vertices) == len(part.vertices) + 2  # the corner at (0, 0) has not moved


@pytest.mark.parametrize("name", ["a.ply", "a.stl", "a.obj", "y.ply", "z.obj", "z.glb"])
def test_own_coordinates_and_the_up_axis_come_back_from_every_format(tmp_path, name):
    vertices = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    content = {
        "ply": files.ply("binary_little_endian", vertices),
        "stl": files.stl("binary", vertices),
        "obj": files.obj(vertices),
        "glb": files.one_part(vertices, TETRAHEDRON_FACES),
    }[name[-3:]]
    up = name[0] if name[0] in "yz" else None
    asset = flattened(load_asset(save(tmp_path, name, content), up=up))
    # A glTF that was turned on reading is written as it was, and wants the same turn again.
    written = again(tmp_path, asset, up="z" if name == "z.glb" else None)
    new = written.parts[0]
    np.testing.assert_array_equal(new.vertices[new.faces], vertices[TETRAHEDRON_FACES])
    np.testing.assert_allclose(placed(written), placed(asset), atol=1e-6)


def test_the_texture_is_seen_where_the_coordinates_say(tmp_path):
    asset = flattened(two_parts(tmp_path))
    texture = np.random.default_rng(0).integers(0, 256, (16, 16, 4), np.uint8)
    content = write_textured_glb(asset, texture)
    assert content == write_textured_glb(asset, texture)
    written = load_asset(save(tmp_path, "painted.glb", content))
    np.testing.assert_array_equal(written.parts[0].material.texture.pixels, texture)
    assert written.parts[0].material.alpha_mode == "BLEND"
    assert written.parts[1].material.alpha_mode == "OPAQUE"
    row, column = (asset.uv.mean(axis=1)[:, ::-1] * 16).astype(int).T
    seen = written.base_color(np.arange(8), np.full((8, 3), 1 / 3))
    nearby = [texture[max(r - 1, 0) : r + 2, max(c - 1, 0) : c + 2, :3] / 255 for r, c in zip(row, column, strict=True)]
    for color, around in zip(seen, nearby, strict=True):
        assert (color[:3] >= around.min(axis=(0, 1)) - 1e-6).all()
        assert (color[:3] <= around.max(axis=(0, 1)) + 1e-6).all()


def test_written_files_keep_the_rules_of_glb(tmp_path):
    content = write_textured_glb(flattened(two_parts(tmp_path)), GREY)
    assert len(content) % 4 == 0
    assert int.from_bytes(content[8:12], "little") == len(content)
    size = int.from_bytes(content[12:16], "little")
    header, binary = json.loads(content[20 : 20 + size]), content[28 + size :]
    assert header["buffers"][0]["byteLength"] == len(binary)
    for view in header["bufferViews"]:
        assert view["byteOffset"] % 4 == 0
        assert view["byteOffset"] + view["byteLength"] <= len(binary)
    for mesh_entry in header["meshes"]:
        for primitive in mesh_entry["primitives"]:
            position = header["accessors"][primitive["attributes"]["POSITION"]]
            view = header["bufferViews"][position["bufferView"]]
            values = np.frombuffer(binary, "<f4", 3 * position["count"], view["byteOffset"]).reshape(-1, 3)
            assert position["min"] == values.min(axis=0).tolist()
            assert position["max"] == values.max(axis=0).tolist()
            counts = {header["accessors"][index]["count"] for index in primitive["attributes"].values()}
            assert counts == {position["count"]}


def test_an_asset_without_texture_coordinates_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match="unwrap it first"):
        write_textured_glb(two_parts(tmp_path), GREY)
