import numpy as np
import pytest

from realiz3d_jax.geometry import cameras
from realiz3d_jax.views import AZIMUTHS


@pytest.mark.parametrize("azimuth", [0, 30, 90, 180, 270])
@pytest.mark.parametrize("elevation", [0, 20, 90, -90])
def test_view_axes_are_orthonormal_and_right_handed(azimuth, elevation):
    axes = cameras.view_axes(azimuth, elevation)
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-15)
    np.testing.assert_allclose(np.cross(axes[0], axes[1]), axes[2], atol=1e-15)


def test_the_standard_views_stand_counter_clockwise_seen_from_above():
    places = [cameras.view_axes(azimuth)[2].tolist() for azimuth in AZIMUTHS]
    assert places == [[0, -1, 0], [1, 0, 0], [0, 1, 0], [-1, 0, 0]]
    rights = [cameras.view_axes(azimuth)[0].tolist() for azimuth in AZIMUTHS]
    assert rights == [[1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]]


def test_the_view_from_above_has_the_back_at_its_top_and_the_view_from_below_the_front():
    np.testing.assert_array_equal(cameras.view_axes(0, 90), [[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    np.testing.assert_array_equal(cameras.view_axes(0, -90), [[1, 0, 0], [0, -1, 0], [0, 0, -1]])


def test_a_camera_that_is_raised_stands_on_the_side_of_its_azimuth_and_above():
    backward = cameras.view_axes(90, 30)[2]
    np.testing.assert_allclose(backward, [np.cos(np.pi / 6), 0, 0.5], atol=1e-15)


@pytest.mark.parametrize("azimuth", [0, 57, 90, 180, 270])
@pytest.mark.parametrize("elevation", [0, -35, 90])
@pytest.mark.parametrize("size", [32, 33])
@pytest.mark.parametrize("fov", [None, 49.1])
def test_the_ray_of_a_pixel_projects_to_its_centre(azimuth, elevation, size, fov):
    camera = cameras.orbit(azimuth, elevation, fov=fov)
    origins, directions = camera.rays(size)
    pixels, depth = camera.project(origins + 1.7 * directions, size)
    row, column = np.mgrid[:size, :size]
    np.testing.assert_allclose(pixels[..., 0], column + 0.5, atol=1e-12)
    np.testing.assert_allclose(pixels[..., 1], row + 0.5, atol=1e-12)
    np.testing.assert_allclose(depth, -1.7 * (directions @ camera.backward) + np.zeros((size, size)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=-1), 1, atol=1e-12)


def test_pixel_centres_lie_where_the_convention_says():
    size = 8
    origins, _ = cameras.STANDARD[0].rays(size)
    for row, column in [(0, 0), (2, 5), (7, 7)]:
        u, v = ((column + 0.5) / size - 0.5) * 1.1, (0.5 - (row + 0.5) / size) * 1.1
        np.testing.assert_allclose(origins[row, column, [0, 2]], [u, v], atol=1e-15)


def test_the_rays_of_a_pixel_average_to_its_centre():
    fine, _ = cameras.STANDARD[1].rays(16, samples=3)
    coarse, _ = cameras.STANDARD[1].rays(16)
    np.testing.assert_allclose(fine.reshape(16, 3, 16, 3, 3).mean(axis=(1, 3)), coarse, atol=1e-12)


def test_up_is_up_right_is_right_and_near_is_near():
    (center, up, right), depth = cameras.STANDARD[0].project(np.array([[0, -0.4, 0], [0, 0, 0.5], [0.5, 0.4, 0]]), 32)
    np.testing.assert_allclose(center, [16, 16])
    assert up[1] < 2
    assert right[0] > 30
    assert depth[0] < depth[2]


def test_a_perspective_view_is_as_wide_as_its_angle_says():
    camera = cameras.orbit(0, fov=40, distance=3)
    edge = 3 * np.tan(np.deg2rad(20))
    pixels, depth = camera.project(np.array([[edge, 0, 0], [0, 0, edge], [edge / 3, 2, 0]]), 100)
    np.testing.assert_allclose(pixels, [[100, 50], [50, 0], [60, 50]])
    np.testing.assert_allclose(depth, [3, 3, 5])


@pytest.mark.parametrize("fov", [None, 49.1])
def test_the_matrix_of_a_camera_is_its_axes_as_columns_and_its_centre(fov):
    expected = cameras.orbit(33, 21, distance=1.7, fov=fov, width=1.3)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = expected.axes.T, expected.center
    lens = {"width": 1.3} if fov is None else {"fov": fov}
    for given in (matrix, matrix[:3], matrix.astype(np.float32)):
        camera = cameras.from_matrix(given, **lens)
        np.testing.assert_allclose(camera.axes, expected.axes, atol=1e-7)
        np.testing.assert_allclose(camera.axes @ camera.axes.T, np.eye(3), atol=1e-15)
        np.testing.assert_allclose(camera.center, expected.center, atol=1e-7)
        assert camera.width == pytest.approx(expected.width)
        assert camera.perspective == expected.perspective


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda matrix: matrix[:2], r"shape \(2, 4\); expected \(4, 4\)"),
        (lambda matrix: np.where(matrix == 1, np.nan, matrix), "not finite"),
        (lambda matrix: matrix.T, r"last row"),
        (lambda matrix: matrix * [1.1, 1, 1, 1], "stretched"),
        (lambda matrix: matrix @ np.diag([1.0, -1, 1, 1]), "left-handed"),
    ],
)
def test_a_matrix_that_is_no_camera_is_refused(change, message):
    matrix = np.eye(4)
    matrix[:3, 3] = [1, 2, 3]
    with pytest.raises(ValueError, match=message):
        cameras.from_matrix(change(matrix), fov=40)


@pytest.mark.parametrize(
    ("lens", "message"),
    [
        ({}, "expected exactly one"),
        ({"fov": 40, "width": 1}, "expected exactly one"),
        ({"fov": 180}, "expected an angle between 0 and 180"),
        ({"fov": float("nan")}, "expected an angle between 0 and 180"),
        ({"width": 0}, "expected a number above 0"),
    ],
)
def test_a_camera_has_an_angle_or_a_width(lens, message):
    with pytest.raises(ValueError, match=message):
        cameras.from_matrix(np.eye(4), **lens)
