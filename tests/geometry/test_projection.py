"""Which pixels of different views show the same surface: against closed forms."""

import numpy as np
import pytest
import trimesh
from solids import cube, mesh_of, sphere

from realiz3d_jax.geometry import cameras, projection, render
from realiz3d_jax.geometry.mesh import Mesh
from realiz3d_jax.views import AZIMUTHS

SIZE = 48


def overlap_fraction(mesh: Mesh, size: int = SIZE) -> float:
    where = projection.correspondence(mesh, size)
    _, seen = projection.blend(where, np.zeros((4, size, size, 1)), others_only=True)
    return seen.sum() / where.mask.sum()


def positions(mesh: Mesh, where: projection.Correspondence, views=cameras.STANDARD) -> np.ndarray:
    """World position of every pixel, float32[V, H, W, 3]: an image whose colours tell the truth about the surface."""
    return render.render_maps(mesh, where.mask.shape[-1], views).position


@pytest.mark.parametrize("projected", ["orthographic", "perspective"])
def test_a_point_is_projected_onto_the_pixel_that_shows_it(projected: str):
    mesh, views = sphere(), cameras.Rig(projection=projected).cameras()
    where = projection.correspondence(mesh, SIZE, views)
    surface = positions(mesh, where, views)
    for source, target in np.argwhere(~np.eye(4, dtype=bool)):
        seen = where.cosine[source, target] > 0
        taps = surface[target].reshape(-1, 3)[where.taps[source, target]]
        found = np.einsum("hwtc,hwt->hwc", taps, where.tap_weights[source, target])
        distance = np.linalg.norm(found - surface[source], axis=-1)[seen]
        if abs(source - target) == 2:
            assert len(distance) == 0  # opposite views share nothing of a sphere
            continue
        # Linear interpolation of a sphere's position errs by its sagitta, most where the view is most oblique, and where
        # some of the four taps lie outside the silhouette.
        pixel = views[target].width_at(np.float64(2.0)) / SIZE
        assert np.median(distance) < 0.08 * pixel
        assert np.quantile(distance, 0.9) < 0.4 * pixel
        assert distance.max() < 2 * pixel


def test_the_cosine_is_that_of_the_surface_to_the_looking_camera():
    mesh = sphere()
    where, normal = projection.correspondence(mesh, SIZE), render.render_maps(mesh, SIZE).normal
    for source, target in np.ndindex(4, 4):
        expected = normal[source] @ cameras.STANDARD[target].backward
        seen = where.cosine[source, target] > 0
        np.testing.assert_allclose(where.cosine[source, target][seen], expected[seen].clip(1e-3), atol=1e-6)
        if source != target:
            assert expected[seen].min(initial=1.0) >= 0.2
        else:
            np.testing.assert_array_equal(seen, where.mask[source])


def test_bilinear_weights_are_whole_where_a_view_sees_and_none_where_it_does_not():
    where = projection.correspondence(sphere(), SIZE)
    np.testing.assert_allclose(where.tap_weights.sum(axis=-1), where.cosine > 0, atol=1e-6)


def test_a_view_sees_its_own_pixels_as_they_are():
    where = projection.correspondence(sphere(), SIZE)
    picture = np.random.default_rng(0).uniform(size=(4, SIZE, SIZE, 3))
    for view in range(4):
        only = np.zeros_like(where.cosine)
        only[view, view] = where.cosine[view, view]
        alone = projection.Correspondence(where.mask, only, where.taps, where.tap_weights)
        colour, seen = projection.blend(alone, picture, others_only=False)
        np.testing.assert_array_equal(seen[view], where.mask[view])
        np.testing.assert_allclose(colour[view][seen[view]], picture[view][seen[view]], rtol=1e-5)


@pytest.mark.parametrize("others_only", [False, True])
def test_colours_are_blended_by_cosine_pixel_by_pixel(others_only: bool):
    random, views, size = np.random.default_rng(0), 3, 2
    pixels = (views, views, size, size)
    cosine = np.where(random.uniform(size=pixels) < 0.3, 0, random.uniform(0.2, 1, pixels)).astype(np.float32)
    taps = random.integers(0, size * size, (*pixels, 4)).astype(np.int32)
    shares = random.dirichlet(np.ones(4), pixels).astype(np.float32)
    images = random.uniform(0, 255, (views, size, size, 3))
    where = projection.Correspondence(np.ones((views, size, size), bool), cosine, taps, shares)
    colour, seen = projection.blend(where, images, others_only=others_only)
    for view, row, column in np.ndindex(views, size, size):
        total, weight = np.zeros(3), 0.0
        for looking in range(views):
            if looking == view and others_only:
                continue
            here = (view, looking, row, column)
            taken = [images[looking, tap // size, tap % size] for tap in taps[here]]
            total += cosine[here] * sum(share * value for share, value in zip(shares[here], taken, strict=True))
            weight += cosine[here]
        assert seen[view, row, column] == (weight > 0)
        np.testing.assert_allclose(colour[view, row, column], total / max(weight, 1e-9), rtol=1e-4)


def test_a_cube_seen_face_on_has_no_overlap_at_all():
    assert overlap_fraction(cube()) == 0.0


@pytest.mark.parametrize("turned", [5.0, 10.0, 13.0, 45.0, 77.0, 80.0])
def test_the_overlap_of_a_turned_cube_is_that_of_the_faces_that_another_view_sees_steeply_enough(turned: float):
    # Each face is seen by two views, at the cosines cos(turned) and sin(turned), which are also its widths in them. Below
    # 11.54 degrees the wide face is too oblique for the other view, and only the narrow one, seen steeply there, overlaps.
    narrow, wide = sorted((np.cos(np.deg2rad(turned)), np.sin(np.deg2rad(turned))))
    expected = 1.0 if narrow > 0.2 else narrow / (narrow + wide)
    assert overlap_fraction(cube(turned), 192) == pytest.approx(expected, abs=0.01)


def test_the_overlap_of_a_sphere_is_all_but_the_strip_that_side_views_see_too_obliquely():
    # A side view sees |x| >= 0.2 of the unit disc: the rest is a strip through its middle.
    strip = 2 / np.pi * (np.arcsin(0.2) + 0.2 * np.sqrt(1 - 0.2**2))
    assert overlap_fraction(sphere(), 96) == pytest.approx(1 - strip, abs=0.02)


def test_the_overlap_of_an_upright_cylinder_is_one_minus_the_cosine():
    cylinder = mesh_of(trimesh.creation.cylinder(radius=0.4, height=0.9, sections=256))
    assert overlap_fraction(cylinder, 96) == pytest.approx(0.8, abs=0.02)


def test_what_stands_in_between_hides_a_surface_from_the_other_view():
    # A slanted wall at azimuth 45 is seen by views 0 and 90; a board before it in view 90 hides its upper half.
    wall = trimesh.creation.box((0.6, 0.02, 0.8))
    turn = trimesh.transformations.rotation_matrix(np.pi / 4, (0, 0, 1))
    wall.apply_transform(turn)
    board = trimesh.creation.box((0.02, 0.8, 0.4))
    board.apply_translation((0.45, 0.0, 0.2))
    where = projection.correspondence(mesh_of(trimesh.util.concatenate([wall, board])), SIZE)
    on_wall = where.mask[0] & (np.arange(SIZE)[None, :] < 0.7 * SIZE)  # left of the board's edge in view 0
    seen = where.cosine[0, 1] > 0
    rows = np.arange(SIZE)[:, None] + 0.5
    lower, upper = on_wall & (rows > SIZE / 2 + 1), on_wall & (rows < SIZE / 2 - 1)
    assert seen[lower].mean() > 0.9  # all but the wall's own narrow side
    assert not seen[upper].any()


def test_colours_of_the_background_do_not_bleed_into_the_surface():
    mesh = sphere()
    where = projection.correspondence(mesh, SIZE)
    picture = np.where(where.mask[..., None], 0.0, 1.0)
    colour, _ = projection.blend(where, picture, others_only=True)
    assert colour.max() == 0.0


def test_nearer_surfaces_do_not_bleed_onto_farther_ones():
    # Two parallel slanted walls one behind the other, the rear one higher: black in front, white behind.
    front, rear = trimesh.creation.box((0.3, 0.02, 0.4)), trimesh.creation.box((0.3, 0.02, 0.9))
    rear.apply_translation((0, 0.2, 0))
    both = trimesh.util.concatenate([front, rear])
    both.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 4, (0, 0, 1)))
    mesh = mesh_of(both)
    where = projection.correspondence(mesh, SIZE)
    surface = positions(mesh, where)
    behind = (surface @ np.array([-1, 1, 0]) / np.sqrt(2) > 0.1).astype(np.float32)[..., None]
    colour, seen = projection.blend(where, behind, others_only=True)
    assert seen.sum() > 100
    np.testing.assert_allclose(colour[seen], behind[seen], atol=1e-5)


@pytest.mark.parametrize("distance", [1.0, 2.0, 8.0])
def test_a_perspective_view_sees_a_point_of_a_sphere_at_the_cosine_of_its_own_ray(distance: float):
    # With r the radius, n the normal and c the camera, the ray from the point r n has the direction of c - r n.
    radius = 0.4
    mesh = mesh_of(trimesh.creation.icosphere(subdivisions=5, radius=radius))
    views = [cameras.orbit(azimuth, 20.0, distance=distance, fov=60.0) for azimuth in AZIMUTHS]
    where = projection.correspondence(mesh, SIZE, views)
    surface = positions(mesh, where, views)
    for source, target in np.argwhere(~np.eye(4, dtype=bool)):
        points = surface[source][where.mask[source]]
        toward = views[target].center - points
        expected = np.einsum("nd,nd->n", points, toward) / radius / np.linalg.norm(toward, axis=-1)
        found = where.cosine[source, target][where.mask[source]]
        seen = expected >= projection.MINIMUM_COSINE
        clear = np.abs(expected - projection.MINIMUM_COSINE) > 0.01
        np.testing.assert_array_equal(found[clear] > 0, seen[clear])
        np.testing.assert_allclose(found[clear & seen], expected[clear & seen], atol=0.01)


def test_a_surface_that_is_hidden_is_not_seen_even_if_what_hides_it_is_less_than_a_pixel_nearer():
    # Two thin slanted plates: beside the front one's edges the rear one is hidden from one view and not from the other.
    front, rear = trimesh.creation.box((0.3, 0.004, 0.6)), trimesh.creation.box((0.7, 0.004, 0.6))
    rear.apply_translation((0, 0.9 * cameras.ORTHO_WIDTH / SIZE, 0))
    both = trimesh.util.concatenate([front, rear])
    both.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 4, (0, 0, 1)))
    mesh = mesh_of(both)
    where, maps, scene = projection.correspondence(mesh, SIZE), render.render_maps(mesh, SIZE), render.RayScene(mesh)
    hidden_in_all = 0
    for source, target in np.argwhere(~np.eye(4, dtype=bool)):
        backward = cameras.STANDARD[target].backward
        facing = maps.mask[source] & (maps.normal[source] @ backward >= 0.2)
        hidden = np.zeros_like(facing)
        hidden[facing] = scene.occluded(maps.position[source][facing], maps.normal[source][facing], backward)
        assert not (hidden & (where.cosine[source, target] > 0)).any()
        hidden_in_all += hidden.sum()
    assert hidden_in_all > 30


def test_pixels_outside_the_frame_are_not_seen():
    # The test cameras see 1.1 units; a wall twice as wide reaches out of the neighbouring views.
    wall = trimesh.creation.box((1.8, 0.02, 0.5))
    wall.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 6, (0, 0, 1)))
    wall.apply_translation((0.3, 0.55, 0))
    where = projection.correspondence(mesh_of(wall), SIZE)
    seen = where.cosine[0, 1] + where.cosine[0, 3]
    surface = positions(mesh_of(wall), where)
    outside = where.mask[0] & (np.abs(surface[0, ..., 1]) > cameras.ORTHO_WIDTH / 2)
    assert outside.sum() > 20
    assert not seen[outside].any()
