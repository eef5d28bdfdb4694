"""Views of coloured meshes, against pictures that are known."""

import numpy as np
import pytest

from benchmarks import textured
from realiz3d_jax.geometry import cameras, textured_views
from realiz3d_jax.geometry.mesh import Mesh, linear_to_srgb, srgb_to_linear
from realiz3d_jax.geometry.textured_views import render_colors, texture_colors

FRONT = cameras.STANDARD[:1]


def screen() -> tuple[Mesh, np.ndarray]:
    """A square that fills the front view, its texture the right way round."""
    half = cameras.ORTHO_WIDTH / 2
    points = np.array([[-half, 0, half], [half, 0, half], [half, 0, -half], [-half, 0, -half]], np.float32)
    faces = np.array([[0, 3, 2], [0, 2, 1]], np.int32)
    normals = np.broadcast_to(np.float32([0, -1, 0]), (2, 3, 3))
    return Mesh(points, faces, normals, np.ones((2, 3), np.float32)), np.array([[0, 0], [1, 0], [1, 1], [0, 1.0]])[
        faces
    ]


def test_a_texture_that_fills_the_view_at_its_own_size_is_shown_to_the_bit():
    mesh, uv = screen()
    texture = np.random.default_rng(0).integers(0, 256, (48, 48, 3)).astype(np.uint8)
    image, cover = render_colors(mesh, texture_colors(uv, texture), 48, FRONT, samples=1)
    np.testing.assert_array_equal(image[0], texture)
    assert (cover == 1).all()


@pytest.mark.parametrize("camera", [cameras.orbit(30, 20), cameras.orbit(30, 20, fov=40)])
def test_a_pixel_is_the_mean_light_of_its_rays(camera: cameras.Camera):
    known = textured.make("cube", 12)
    colors = texture_colors(known.uv, known.texture(64, 6))
    fine, _ = render_colors(known.mesh, colors, 120, (camera,), samples=1, background=(10, 200, 90))
    image, cover = render_colors(known.mesh, colors, 40, (camera,), samples=3, background=(10, 200, 90))
    light = srgb_to_linear(fine / 255.0).reshape(40, 3, 40, 3, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(image[0], 255 * linear_to_srgb(light), atol=1.01)
    mixed = (cover[0] > 0) & (cover[0] < 1)
    assert mixed.any()
    np.testing.assert_allclose(cover[0][mixed] * 9 % 1 % 0.999999, 0, atol=1e-5)


def test_the_background_shows_through_what_is_not_opaque():
    mesh, _ = screen()

    def colors(face: np.ndarray, barycentric: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.float32([1, 0, 0, 0.5]), (len(face), 4))

    image, _ = render_colors(mesh, colors, 8, FRONT, background=(0, 0, 255))
    half = np.round(255 * linear_to_srgb(np.float64(0.5)))
    np.testing.assert_array_equal(image[0], np.broadcast_to([half, 0, half], (8, 8, 3)))


def test_the_texture_is_continued_beyond_its_outermost_texels():
    mesh, uv = screen()
    texture = np.array([[[0, 0, 0], [255, 255, 255]]] * 2, np.uint8)
    image, _ = render_colors(mesh, texture_colors(uv, texture), 64, FRONT, samples=1)
    assert (image[0, :, :16] == 0).all()
    assert (image[0, :, 48:] == 255).all()
    assert textured_views.texture_colors(uv, texture)(np.zeros(0, int), np.zeros((0, 3))).shape == (0, 3)
