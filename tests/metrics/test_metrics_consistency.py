"""Multi-view consistency: views of one coloured surface are consistent, and the overlap score finds what disagrees."""

from collections.abc import Sequence

import numpy as np
import pytest
import trimesh
from solids import cube, mesh_of, sphere

from realiz3d_jax.geometry import cameras, projection, render
from realiz3d_jax.geometry.mesh import Mesh
from realiz3d_jax.metrics import image
from realiz3d_jax.metrics.consistency import consistency

SIZE = 64


PERSPECTIVE = cameras.Rig(elevations=(15.0,), projection="perspective").cameras()


def painted(mesh: Mesh, size: int = SIZE, views: Sequence[cameras.Camera] = cameras.STANDARD) -> np.ndarray:
    """uint8[V, H, W, 3]: the mesh in colours that are a function of the place in the world alone, on white."""
    maps = render.render_maps(mesh, size, views)
    waves = np.sin(maps.position @ np.array([[4.0, 1.0, 0.5], [1.0, 5.0, 2.0], [3.0, 2.0, 6.0]]))
    return np.where(maps.mask[..., None], 127 + 100 * waves, 255).round().astype(np.uint8)


@pytest.mark.parametrize("views", [cameras.STANDARD, PERSPECTIVE], ids=["orthographic", "perspective"])
@pytest.mark.parametrize("mesh", [sphere(), cube(30.0)], ids=["sphere", "turned cube"])
def test_views_of_a_painted_surface_are_consistent(mesh: Mesh, views: tuple[cameras.Camera, ...]):
    score = consistency(projection.correspondence(mesh, SIZE, views), painted(mesh, SIZE, views))
    assert score.whole_psnr > 40
    assert score.whole_ssim > 0.99
    assert score.overlap_psnr > 30
    assert score.overlap_ssim > 0.97


def test_shuffled_views_are_not_consistent():
    mesh = sphere()
    where, views = projection.correspondence(mesh, SIZE), painted(mesh)
    straight, shuffled = consistency(where, views), consistency(where, views[[2, 0, 3, 1]])
    assert shuffled.overlap_psnr < straight.overlap_psnr - 12
    assert shuffled.whole_psnr < straight.whole_psnr - 12
    assert shuffled.overlap_ssim < 0.8


def test_a_view_of_another_colour_costs_the_overlap_score_much_more_than_the_whole_one():
    mesh = sphere()
    where, views = projection.correspondence(mesh, SIZE), painted(mesh)
    changed = views.copy()
    changed[1] = np.where(where.mask[1][..., None], changed[1] // 2, 255)
    score = consistency(where, changed)
    assert score.overlap_psnr < score.whole_psnr - 4
    assert score.overlap_psnr < 20


def test_the_figures_are_those_of_the_blends_of_all_and_of_the_other_views_where_these_see_anything():
    mesh = sphere()
    where, views = projection.correspondence(mesh, SIZE), painted(mesh)
    views[2] = np.where(where.mask[2][..., None], views[2] // 2, 255)
    score, white = consistency(where, views), np.float32(255)
    blended, _ = projection.blend(where, views, others_only=False)
    blended = np.where(where.mask[..., None], blended, white)
    assert score.whole_psnr == pytest.approx(image.psnr(views, blended), rel=1e-5)
    assert score.whole_ssim == pytest.approx(image.ssim(views, blended), rel=1e-5)
    others, seen = projection.blend(where, views, others_only=True)
    error = np.square(others[seen] - views[seen]).mean()
    assert score.overlap_psnr == pytest.approx(10 * np.log10(255**2 / error), rel=1e-5)
    both = [np.where(seen[..., None], others, views), views]
    wide = [np.pad(picture, ((0, 0), (5, 5), (5, 5), (0, 0)), constant_values=255.0) for picture in both]
    assert score.overlap_ssim == pytest.approx(image.similarity_map(*wide)[seen].mean(), rel=1e-5)
    assert score.overlap_fraction == seen.sum() / where.mask.sum()


def test_an_object_without_overlap_says_so_instead_of_scoring():
    score = consistency(projection.correspondence(cube(), SIZE), painted(cube()))
    assert score.overlap_fraction == 0.0
    assert score.overlap_psnr is None
    assert score.overlap_ssim is None
    assert score.whole_psnr == 100.0  # each pixel is its own re-rendering


def test_paint_outside_the_silhouette_costs_the_whole_score_only():
    mesh = sphere()
    where, views = projection.correspondence(mesh, SIZE), painted(mesh)
    spilt = views.copy()
    spilt[:, :3] = 0
    before, after = consistency(where, views), consistency(where, spilt)
    assert after.whole_psnr < 20 < before.whole_psnr
    assert after.overlap_psnr == pytest.approx(before.overlap_psnr)


def test_the_overlap_fraction_is_that_of_the_foreground():
    cylinder = mesh_of(trimesh.creation.cylinder(radius=0.4, height=0.9, sections=128))
    score = consistency(projection.correspondence(cylinder, SIZE), painted(cylinder))
    assert score.overlap_fraction == pytest.approx(0.8, abs=0.03)


def test_views_of_32_pixels_can_be_judged():
    score = consistency(projection.correspondence(sphere(), 32), painted(sphere(), 32))
    assert score.overlap_psnr > 25
    assert score.overlap_ssim > 0.9
