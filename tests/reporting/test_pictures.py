"""Pictures of assets: their colours unlit, their shape as clay, from any camera."""

import dataclasses

import numpy as np
import pytest
import trimesh

from realiz3d_jax.geometry import cameras
from realiz3d_jax.geometry.assets.asset import load_asset
from realiz3d_jax.geometry.mesh import Part, write_glb
from realiz3d_jax.reporting import turntable

RED, BLUE = (0.8, 0.1, 0.2), (0.1, 0.2, 0.9)


def part(shape: trimesh.Trimesh, color: tuple[float, float, float], shift=(0.0, 0.0, 0.0)) -> Part:
    """In flat faces, so that normals are those of the geometry."""
    vertices = shape.triangles.reshape(-1, 3) + shift
    faces = np.arange(len(vertices)).reshape(-1, 3)
    return Part(vertices, faces, np.repeat(shape.face_normals, 3, axis=0), color)


@pytest.fixture
def two_boxes(tmp_path):
    """A red box in front of a blue one; the cube round both is 1 wide in the canonical frame."""
    path = tmp_path / "boxes.glb"
    box = trimesh.creation.box((2.0, 1.0, 2.0))
    path.write_bytes(write_glb([part(box, RED, (0, -0.5, 0)), part(box, BLUE, (0, 0.5, 0))]))
    return load_asset(path)


def test_colours_are_those_of_the_surface_that_each_side_shows(two_boxes):
    for azimuth, color in ((0, RED), (180, BLUE)):
        view = turntable.Pictures(two_boxes).colors(cameras.orbit(azimuth), 22)
        # The object is 1 wide in a view of 1.1, so that exactly one pixel of 22 is left on each side.
        opaque = np.zeros((22, 22), np.uint8)
        opaque[1:-1, 1:-1] = 255
        np.testing.assert_array_equal(view[..., 3], opaque)
        np.testing.assert_allclose(view[1:-1, 1:-1, :3] / 255, np.broadcast_to(color, (20, 20, 3)), atol=0.004)


def test_a_pixel_that_is_half_covered_has_half_the_opacity_and_the_colour_of_the_surface(two_boxes):
    camera = dataclasses.replace(cameras.orbit(0), width=1.0 + 1 / 20)  # of 21 pixels, half of one is left on each side
    edge = turntable.Pictures(two_boxes).colors(camera, 21)[10, 0]
    assert edge[3] == 128
    np.testing.assert_allclose(edge[:3] / 255, RED, atol=0.004)


def test_clay_is_brightest_towards_the_lamp_and_knows_no_colours(two_boxes):
    clay = turntable.Pictures(two_boxes).clay(cameras.orbit(0, 40), 64)
    np.testing.assert_array_equal(clay[..., 0], clay[..., 2])
    top, front = clay[18, 32], clay[46, 32]
    assert top[3] == front[3] == 255
    assert top[0] > front[0] + 10
    # Equation (1) for the front: its normal is level, and the lamp 40 degrees above the view.
    lamp = turntable._LAMP @ cameras.view_axes(0, 40)
    light = 0.6 * (0.14 + 0.18 / 2 + 0.70 * -lamp[1])
    assert front[0] / 255 == pytest.approx(1.055 * light ** (1 / 2.4) - 0.055, abs=0.004)


@pytest.mark.parametrize("elevation", [-20, 12, 60])
def test_a_turntable_shows_the_whole_mesh_and_hardly_more(two_boxes, elevation):
    distance = turntable.turntable_distance(two_boxes.mesh, elevation, 30)
    most = 0.0
    for azimuth in range(0, 360, 10):
        camera = cameras.orbit(azimuth, elevation, distance=distance, fov=30)
        places, _ = camera.project(two_boxes.mesh.vertices, 100)
        most = max(most, np.abs(places - 50).max())
    assert most == pytest.approx(50 / 1.08, abs=0.01)
