import numpy as np
import pytest
import trimesh

from realiz3d_jax.geometry import cameras, mesh, render
from realiz3d_jax.geometry.assets.asset import parse_glb
from realiz3d_jax.preparation.shapes import primitives
from realiz3d_jax.views import AZIMUTHS


def part(surface, color=(0.5, 0.5, 0.5), shift=(0, 0, 0), scale=1.0):
    vertices, faces, normals = surface
    return mesh.Part(vertices * scale + shift, faces, normals, color)


def load(*parts):
    return parse_glb(mesh.write_glb(parts), "test").mesh


SPHERE = load(part(primitives.sphere()))
TORUS = load(part(primitives.torus()))


def test_a_sphere_in_the_middle_is_seen_alike_from_all_four_sides():
    maps = render.render_maps(SPHERE, 64)
    assert all((maps.mask[view] == maps.mask[0]).all() for view in range(1, 4))
    expected = np.pi * 0.25 / cameras.ORTHO_WIDTH**2
    assert abs(maps.mask.mean() / expected - 1) < 0.01
    assert (maps.mask == (maps.face >= 0)).all()


def test_the_normals_of_a_sphere_point_from_its_centre_in_the_world_frame():
    maps = render.render_maps(SPHERE, 64)
    outward = maps.position / np.maximum(np.linalg.norm(maps.position, axis=-1, keepdims=True), 1e-9)
    cosine = np.einsum("vhwd,vhwd->vhw", outward, maps.normal)[maps.mask]
    assert np.degrees(np.arccos(cosine.clip(-1, 1))).max() < 1.0
    np.testing.assert_allclose(np.linalg.norm(maps.normal[maps.mask], axis=-1), 1, atol=1e-5)
    for view, azimuth in enumerate(AZIMUTHS):
        np.testing.assert_allclose(
            maps.normal[view, 31:33, 31:33].mean((0, 1)), cameras.view_axes(azimuth)[2], atol=0.01
        )


@pytest.mark.parametrize("solid", [SPHERE, TORUS, load(part(primitives.cube()))], ids=["sphere", "torus", "cube"])
def test_a_position_map_projects_onto_its_own_pixels(solid):
    size = 96
    maps = render.render_maps(solid, size)
    for view, camera in enumerate(cameras.STANDARD):
        row, column = np.nonzero(maps.mask[view])
        pixels, _ = camera.project(maps.position[view][maps.mask[view]], size)
        np.testing.assert_allclose(pixels, np.stack([column + 0.5, row + 0.5], axis=-1), atol=1e-4)


def test_a_view_from_above_shows_what_lies_highest():
    rig = [cameras.orbit(0, 90), cameras.orbit(30, -20), cameras.orbit(0, 90, fov=40), cameras.orbit(75, 10, fov=60)]
    maps = render.render_maps(TORUS, 64, rig)
    for view, camera in enumerate(rig):
        row, column = np.nonzero(maps.mask[view])
        pixels, _ = camera.project(maps.position[view][maps.mask[view]], 64)
        np.testing.assert_allclose(pixels, np.stack([column + 0.5, row + 0.5], axis=-1), atol=1e-4)
    top = maps.mask[0] & (np.abs(maps.position[0, ..., 0]) < 0.05)
    assert maps.position[0][top][:, 2].min() > 0.3  # the ring stands upright: its upper arch hides the lower one


def test_positions_lie_on_the_surface_and_nothing_is_stored_in_the_background():
    maps = render.render_maps(SPHERE, 64)
    radius = np.linalg.norm(maps.position[maps.mask], axis=-1)
    assert radius.max() < 0.5 + 1e-6
    assert radius.min() > 0.49
    assert not maps.position[~maps.mask].any()
    assert not maps.normal[~maps.mask].any()
    assert (maps.face[~maps.mask] == -1).all()


def test_a_cube_shows_each_side_to_its_own_view():
    box = trimesh.Scene(trimesh.creation.box([1, 1, 1])).export(file_type="glb", include_normals=False)
    maps = render.render_maps(parse_glb(box, "box").mesh, 44)
    for view, azimuth in enumerate(AZIMUTHS):
        normals = maps.normal[view][maps.mask[view]]
        np.testing.assert_allclose(normals, np.broadcast_to(cameras.view_axes(azimuth)[2], normals.shape), atol=1e-6)
    assert maps.mask.sum() == 4 * 40 * 40


def test_markers_on_the_axes_of_gltf_are_seen_in_their_views():
    red, green, blue = (1, 0, 0), (0, 1, 0), (0, 0, 1)
    # In glTF's axes: red on +Z, green on +X, blue on +Y; the body is white.
    markers = [(red, (0, 0, 1)), (green, (1, 0, 0)), (blue, (0, 1, 0))]
    ball = np.array([0, 0, 0.5])
    solid = load(
        part(primitives.sphere(), (1, 1, 1), -ball),
        *(
            part(primitives.sphere(), color, 0.45 * mesh.gltf_to_world(np.array(axis)) - 0.2 * ball, 0.2)
            for color, axis in markers
        ),
    )
    maps = render.render_maps(solid, 64)

    def sees(view, color):
        return np.argwhere((np.abs(solid.face_color[maps.face[view]] - color) < 0.1).all(-1) & maps.mask[view])

    for color, view in ((red, 0), (green, 1)):
        row, column = sees(view, color).mean(axis=0)
        shift = solid.offset * solid.scale * 64 / cameras.ORTHO_WIDTH
        right, up, _ = cameras.view_axes(AZIMUTHS[view])
        np.testing.assert_allclose([column + 0.5, row + 0.5], [32 - shift @ right, 32 + shift @ up], atol=0.6)
    assert len(sees(2, red)) == 0
    assert len(sees(3, green)) == 0
    assert sees(0, green)[:, 1].mean() > 50  # +X to the right at azimuth 0
    assert sees(1, red)[:, 1].mean() < 14  # -Y to the left at azimuth 90
    assert all(sees(view, blue)[:, 0].mean() < 14 for view in range(4))  # glTF's +Y is up


def test_a_sheet_seen_from_behind_turns_its_normal_to_the_viewer():
    sheet = mesh.Part(
        np.array([[-1, 0, -1], [1, 0, -1], [1, 0, 1], [-1, 0, 1.0]]),
        np.array([[0, 1, 2], [0, 2, 3]]),
        np.tile([0, -1.0, 0], (4, 1)),
        (1, 1, 1),
    )
    maps = render.render_maps(load(sheet), 22)
    np.testing.assert_allclose(maps.normal[0, 11, 11], [0, -1, 0], atol=1e-6)
    np.testing.assert_allclose(maps.normal[2, 11, 11], [0, 1, 0], atol=1e-6)
    assert maps.mask[1].sum() + maps.mask[3].sum() <= 2 * 20 * 1


def test_winding_that_contradicts_the_files_normals_does_no_harm():
    vertices, faces, normals = primitives.sphere()
    inside_out = render.render_maps(load(mesh.Part(vertices, faces[:, ::-1], normals, (1, 1, 1))), 32)
    np.testing.assert_allclose(inside_out.normal, render.render_maps(SPHERE, 32).normal, atol=1e-5)


def lit(solid, light):
    """Surface points of view 0 that face the light, and whether each is in shadow."""
    scene = render.RayScene(solid)
    origins, direction = cameras.STANDARD[0].rays(64)
    hits = scene.intersect(origins.reshape(-1, 3), direction)
    hits = hits.at(hits.face >= 0)
    _, geometric = render.surface_normals(solid, scene, hits, direction)
    facing = geometric @ light > 0.02
    return hits.position[facing], scene.occluded(hits.position[facing], geometric[facing], light)


def test_a_convex_body_never_shadows_itself():
    for light in ([0, -1, 0], [-0.6, -0.64, 0.48], [0.0, 0.0, 1.0]):
        points, shadowed = lit(SPHERE, np.array(light))
        assert len(points) > 500
        assert not shadowed.any()


def test_a_lid_shadows_what_lies_under_it():
    ball = part(primitives.sphere(), shift=(0, 0, -0.5))
    lid = part(primitives.cube(), shift=(0, 0, 1.0), scale=3.0)
    points, shadowed = lit(load(ball, lid), np.array([0.0, 0.0, 1.0]))
    assert len(points) > 50
    assert shadowed.all()


def test_a_ray_that_misses_hits_nothing():
    hits = render.RayScene(SPHERE).intersect(np.array([[5.0, -2, 0], [0, -2, 0]]), np.array([0.0, 1, 0]))
    assert hits.face[0] == -1
    assert np.isinf(hits.distance[0])
    np.testing.assert_allclose(hits.distance[1], 1.5, atol=1e-6)
    np.testing.assert_allclose(hits.barycentric[1].sum(), 1)
