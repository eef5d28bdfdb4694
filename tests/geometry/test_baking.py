"""Textures that are known everywhere, rendered and baked back."""

import jax.numpy as jnp
import numpy as np
import pytest
import trimesh
from sheets import cut_sheet

from benchmarks import ground_truth, textured
from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry import cameras
from realiz3d_jax.geometry.mesh import Mesh, linear_to_srgb, smooth_normals, srgb_to_linear
from realiz3d_jax.geometry.render import RayScene, render_maps
from realiz3d_jax.geometry.textured_views import render_colors, texture_colors
from realiz3d_jax.geometry.texturing import baking, texels, view_sampling
from realiz3d_jax.views import AZIMUTHS

SIZE, PIXELS = 128, 320
OPTIONS = baking.BakeOptions(size=SIZE)
SIX = (*cameras.STANDARD, cameras.orbit(0, 90), cameras.orbit(0, -90))


def unwrapped(shape: trimesh.Trimesh, turned: float = 0.0) -> tuple[Mesh, np.ndarray]:
    """A trimesh primitive, each pair of its faces in a cell of the UV plane."""
    shape.apply_transform(trimesh.transformations.rotation_matrix(np.deg2rad(turned), (0, 0, 1)))
    vertices, faces = np.asarray(shape.vertices, np.float32), np.asarray(shape.faces, np.int32)
    normals = smooth_normals(vertices[faces]).astype(np.float32)
    count = int(np.ceil(np.sqrt(len(faces))))
    cell = np.stack(np.divmod(np.arange(len(faces)), count), axis=-1)[:, None]
    uv = (cell + np.array([[0.2, 0.2], [0.8, 0.2], [0.2, 0.8]])) / count
    return Mesh(vertices, faces, normals, np.ones((len(faces), 3), np.float32)), uv


def plain(mesh: Mesh, colors: list, background: int = 255) -> np.ndarray:
    """Views from four sides, each of one colour, with soft silhouettes (nine rays a pixel): uint8[4, H, W, 3]."""
    scene, masks = RayScene(mesh), []
    for camera in cameras.STANDARD:
        origins, direction = camera.rays(PIXELS, samples=3)
        masks.append(scene.first_faces(origins.reshape(-1, 3), direction) >= 0)
    mask = np.stack(masks).reshape(4, PIXELS, 3, PIXELS, 3).mean(axis=(2, 4))[..., None]
    colors = np.array(colors).reshape(4, 1, 1, 1)
    return np.round(mask * colors + (1 - mask) * background).astype(np.uint8).repeat(3, axis=-1)


def sphere() -> tuple[Mesh, np.ndarray]:
    known = textured.make("sphere", 4000)
    return known.mesh, known.uv


@pytest.mark.parametrize("name", textured.NAMES)
def test_a_texture_that_is_rendered_and_baked_back_is_what_it_was(name: str):
    truth = ground_truth.procedural(name, 3000, SIZE, 16)
    views = render_colors(truth.mesh, truth.colors, PIXELS, SIX, samples=1, background=(255, 0, 255))[0]
    baked = baking.bake(truth.mesh, truth.uv, views, SIX, options=OPTIONS)
    assert np.abs(truth.texture.astype(int) - baked.texture)[baked.seen].max() < 40
    novel = (cameras.orbit(50, 25),)
    before = render_colors(truth.mesh, truth.colors, 160, novel, samples=1, background=(255, 0, 255))[0]
    figures = ground_truth.compare(truth, baked, novel, before, samples=1)
    assert figures.seen > 45
    assert figures.novel_seen > 43
    # As alike as the two sides of a seam are in the truth; gutters that repeated the border had 0.2 to 0.4.
    assert figures.seams < max(0.12, 2.2 * figures.seams_truth)


def test_seen_and_filled_texels_are_together_those_inside_faces():
    mesh, uv = sphere()
    baked = baking.bake(mesh, uv, plain(mesh, [10, 20, 30, 40]), options=OPTIONS)
    found = texels.rasterise(uv, SIZE)
    inside = np.zeros(SIZE * SIZE, bool)
    inside[found.index] = found.inside
    assert not (baked.seen & baked.filled).any()
    np.testing.assert_array_equal((baked.seen | baked.filled).reshape(-1), inside)


def test_the_coverage_of_a_sphere_is_all_but_the_two_squares_at_its_poles_that_no_side_sees_steeply_enough():
    mesh, uv = sphere()
    options = baking.BakeOptions(size=SIZE, edge_erosion=0)
    baked = baking.bake(mesh, uv, plain(mesh, [0, 0, 0, 0]), options=options)
    x, y = np.meshgrid(np.linspace(-0.2, 0.2, 201), np.linspace(-0.2, 0.2, 201))
    squares = 2 * 0.4**2 * (1 / np.sqrt(1 - x**2 - y**2)).mean() / (4 * np.pi)
    assert baked.coverage == pytest.approx(1 - squares, abs=0.006)
    # Two neighbouring views both see |x|, |y| >= 0.2; opposite views share nothing.
    normal = np.random.default_rng(0).normal(size=(100_000, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    assert baked.overlap == pytest.approx((np.abs(normal[:, :2]) > 0.2).all(axis=1).mean(), abs=0.01)


@pytest.mark.parametrize("level", [0, 3, 200, 255])
def test_a_colour_that_all_views_share_comes_out_as_it_went_in(level: int):
    mesh, uv = sphere()
    assert (baking.bake(mesh, uv, plain(mesh, [level] * 4, 128), options=OPTIONS).texture == level).all()


@pytest.mark.parametrize("name", ["concave bowl", "several parts"])
def test_the_background_never_bleeds_into_the_texture(name: str):
    known = textured.make(name, 2000)
    baked = baking.bake(known.mesh, known.uv, plain(known.mesh, [60] * 4), options=OPTIONS)
    assert (baked.texture == 60).all()


def test_a_pole_a_few_pixels_wide_is_seen_in_its_middle_and_filled_from_there():
    width = 4 * 1.1 / PIXELS
    pole, block = trimesh.creation.box((width, width, 0.8)), trimesh.creation.box((0.5, 0.5, 0.1))
    block.apply_translation((0, 0, -0.45))
    mesh, uv = unwrapped(trimesh.util.concatenate([pole, block]))
    views = plain(mesh, [60] * 4)
    views[:, : PIXELS // 2] = np.where(views[:, : PIXELS // 2] == 60, 200, views[:, : PIXELS // 2])
    baked = baking.bake(mesh, uv, views, options=OPTIONS)
    found = texels.rasterise(uv, SIZE)
    place = np.einsum("nc,ncd->nd", found.barycentric, mesh.vertices[mesh.faces[found.face]])
    color, seen = baked.texture.reshape(-1, 3)[found.index, 0], baked.seen.reshape(-1)[found.index]
    sides = np.abs(RayScene(mesh).face_normals[found.face, 2]) < 0.5
    upper = (found.face < 12) & (place[:, 2] > 0.03) & (place[:, 2] < 0.37) & sides
    assert seen[upper].any()
    np.testing.assert_allclose(color[upper], 200, atol=4)  # the lower half is of another colour


def test_what_stands_in_front_does_not_bleed_onto_what_stands_behind():
    # Two slanted boards one behind the other, the front one black: the one behind is white, whole and to its edges.
    front, rear = trimesh.creation.box((0.3, 0.02, 0.4)), trimesh.creation.box((0.3, 0.02, 0.9))
    rear.apply_translation((0, 0.06, 0))
    mesh, uv = unwrapped(trimesh.util.concatenate([front, rear]), 30.0)
    face = render_maps(mesh, PIXELS).face
    views = np.where(face < 0, 128, np.where(face < 12, 0, 255)).astype(np.uint8)[..., None].repeat(3, axis=-1)
    baked = baking.bake(mesh, uv, views, options=OPTIONS)
    found = texels.rasterise(uv, SIZE)
    expected = np.zeros(SIZE * SIZE, np.uint8)
    expected[found.index] = np.where(found.face < 12, 0, 255)
    assert baked.seen.sum() > 800
    np.testing.assert_array_equal(baked.texture[baked.seen], expected.reshape(SIZE, SIZE, 1).repeat(3, -1)[baked.seen])


def test_a_surface_that_is_hidden_in_all_views_is_filled_and_not_seen():
    shell, core = trimesh.creation.box((0.9, 0.9, 0.9)), trimesh.creation.box((0.3, 0.3, 0.3))
    mesh, uv = unwrapped(trimesh.util.concatenate([shell, core]), 30.0)
    baked = baking.bake(mesh, uv, plain(mesh, [90] * 4), options=OPTIONS)
    found = texels.rasterise(uv, SIZE)
    inner = found.index[found.inside & (found.face >= 12)]
    assert not baked.seen.reshape(-1)[inner].any()
    assert baked.filled.reshape(-1)[inner].all()
    assert (baked.texture == 90).all()


def test_an_open_sheet_is_seen_from_both_sides_and_a_closed_body_only_from_outside():
    sheet = textured.make("thin sheet", 800)
    from_behind = baking.bake(
        sheet.mesh, sheet.uv, plain(sheet.mesh, [50] * 4)[2:3], cameras.STANDARD[2:3], options=OPTIONS
    )
    assert from_behind.coverage > 0.9
    mesh, uv = sphere()
    assert baking.bake(mesh, uv, plain(mesh, [50] * 4)[2:3], cameras.STANDARD[2:3], options=OPTIONS).coverage < 0.5


def test_faces_that_are_wound_the_wrong_way_round_are_seen_all_the_same_even_if_smaller_than_pixels():
    mesh, uv = textured.make("sphere", 12_000).mesh, textured.make("sphere", 12_000).uv
    views = plain(mesh, [70] * 4)[:, 2::5, 2::5]
    wrong = Mesh(mesh.vertices, mesh.faces[:, ::-1], mesh.corner_normals[:, ::-1], mesh.face_color)
    right = baking.bake(mesh, uv, views, options=OPTIONS)
    other = baking.bake(wrong, uv[:, ::-1], views, options=OPTIONS)
    assert other.coverage == pytest.approx(right.coverage, abs=1e-3)
    assert right.coverage > 0.8


def test_filtering_across_a_seam_shows_a_linear_colour_as_it_is():
    # The front of a sheet cut in two charts, its light a ramp along x and z; what is filtered at the cut is that ramp.
    mesh, uv = cut_sheet(6, 4)
    place = cameras.STANDARD[0].rays(PIXELS)[0]
    light = np.stack([0.5 + 0.6 * place[..., 0], 0.5 + 0.6 * place[..., 2], 0 * place[..., 0] + 0.5], axis=-1)
    views = np.round(255 * linear_to_srgb(light.clip(0, 1)))[None].astype(np.uint8)
    baked = baking.bake(mesh, uv, views, cameras.STANDARD[:1], options=baking.BakeOptions(size=32))
    height = np.linspace(-0.4, 0.4, 400)
    expected = linear_to_srgb(np.stack([0 * height + 0.5, 0.5 + 0.6 * height, 0 * height + 0.5], axis=-1))
    for u, v in ((0.25, 0.25), (0.55, 0.75)):
        along = np.stack([0 * height + u, v + 0.4 * height], axis=-1)
        corners = np.broadcast_to(along[:, None], (400, 3, 2))
        shown = texture_colors(corners, baked.texture)(np.arange(400), np.full((400, 3), 1 / 3))
        np.testing.assert_allclose(255 * shown, 255 * expected, atol=1.2)


@pytest.mark.parametrize(("turned", "power"), [(45.0, 4.0), (30.0, 4.0), (30.0, 1.0)])
def test_views_are_blended_in_linear_light_by_a_power_of_their_cosine(turned: float, power: float):
    # Each side of the box is seen by two views, a black one and a white one; half of full light is 188 of 255, not 128.
    mesh, uv = unwrapped(trimesh.creation.box((0.6, 0.6, 0.6)), turned)
    options = baking.BakeOptions(size=SIZE, edge_feather=0, cosine_power=power)
    baked = baking.bake(mesh, uv, plain(mesh, [0, 255, 0, 255]), options=options)
    found = texels.rasterise(uv, SIZE)
    middle = baked.seen.reshape(-1)[found.index] & (found.barycentric.min(axis=1) > 0.1)
    cosines = RayScene(mesh).face_normals[found.face[middle]] @ np.stack([camera.backward for camera in SIX[:4]]).T
    weights = np.maximum(cosines, 0) ** power
    white = weights[:, [1, 3]].sum(axis=1) / weights.sum(axis=1)
    assert len(white) > 500
    shown = baked.texture.reshape(-1, 3)[found.index[middle]]
    assert np.abs(shown - 255 * linear_to_srgb(white)[:, None]).max() < 0.6


def test_the_weight_of_a_view_rises_from_its_edges_inwards():
    # As above, at 45 degrees: where a side ends in one view, at a silhouette, it goes on in the other, round a crease.
    mesh, uv = unwrapped(trimesh.creation.box((0.6, 0.6, 0.6)), 45.0)
    options = baking.BakeOptions(size=SIZE, edge_erosion=3, edge_feather=40)
    baked = baking.bake(mesh, uv, plain(mesh, [0, 255, 0, 255]), options=options)
    found = texels.rasterise(uv, SIZE)
    place = np.einsum("nc,ncd->nd", found.barycentric, mesh.vertices[mesh.faces[found.face]])
    normal = RayScene(mesh).face_normals[found.face]
    chosen = baked.seen.reshape(-1)[found.index] & (np.abs(place[:, 2]) < 0.1) & (np.abs(normal[:, 2]) < 0.5)
    weights = []
    for camera in cameras.STANDARD:
        pixels, _ = camera.project(place, PIXELS)
        outline, _ = camera.project(mesh.vertices, PIXELS)
        inwards = np.minimum(pixels[:, 0] - outline[:, 0].min(), outline[:, 0].max() - pixels[:, 0])
        rise = np.clip((inwards + 0.5 - 3) / 41, 0, 1)  # a pixel's centre lies half a pixel from its border
        weights.append(np.where(normal @ camera.backward > 0.1, rise, 0.0))
    weights = np.stack(weights, axis=-1)[chosen]
    white = weights[:, [1, 3]].sum(axis=1) / weights.sum(axis=1)
    assert np.ptp(white) > 0.8
    shown = srgb_to_linear(baked.texture.reshape(-1, 3)[found.index[chosen], 0] / 255)
    assert np.abs(shown - white).max() < 0.05


def test_parabolas_of_light_and_ramps_of_margins_are_sampled_as_they_are_and_ridges_by_the_pixel():
    """What Keys' cubic and linear interpolation keep exactly."""
    row, column = np.mgrid[:12, :16] + 0.5
    light = [0.9 - 0.01 * (column - 7) ** 2, 0.2 + 0.004 * row**2, 0.5 + 0.003 * (row - 5) * (column - 8)]
    image = jnp.asarray(np.stack([*light, 1 + 0.5 * row + 0.25 * column], axis=-1), jnp.float32)
    x, y = np.random.default_rng(0).uniform(2.5, [13.5, 9.5], (200, 2)).T
    pixels, nowhere = jnp.asarray(np.stack([x, y], axis=-1), jnp.float32), jnp.zeros(200, bool)
    expected = [0.9 - 0.01 * (x - 7) ** 2, 0.2 + 0.004 * y**2, 0.5 + 0.003 * (y - 5) * (x - 8), 1 + 0.5 * y + 0.25 * x]
    np.testing.assert_allclose(view_sampling.sample(image, pixels, nowhere), np.stack(expected, -1), atol=1e-5)
    own = np.asarray(image)[np.floor(y).astype(int), np.floor(x).astype(int)]
    np.testing.assert_array_equal(view_sampling.sample(image, pixels, ~nowhere), own)


def test_gains_that_differ_between_views_are_found_and_taken_out():
    known = textured.make("sphere", 3000)
    texture = known.texture(SIZE, 4)
    truth = np.array([[1.0, 0.8, 1.1], [0.7, 1.0, 0.9], [1.2, 0.9, 1.0], [0.9, 1.1, 0.8]])
    views, _ = render_colors(known.mesh, texture_colors(known.uv, texture), PIXELS)
    changed = srgb_to_linear(views / 255) * 0.7 / truth[:, None, None]
    changed = np.round(255 * linear_to_srgb(changed)).astype(np.uint8)
    options = baking.BakeOptions(size=SIZE, harmonise=True, harmonise_prior=1e-5)
    baked = baking.bake(known.mesh, known.uv, changed, options=options)
    found = baked.gains / np.exp(np.log(baked.gains).mean(axis=0))
    np.testing.assert_allclose(found, truth / np.exp(np.log(truth).mean(axis=0)), rtol=0.02)
    assert (baking.bake(known.mesh, known.uv, changed, options=OPTIONS).gains == 1).all()


def test_views_that_agree_keep_their_colours_when_harmonised():
    mesh, uv = sphere()
    options = baking.BakeOptions(size=SIZE, harmonise=True)
    baked = baking.bake(mesh, uv, plain(mesh, [120] * 4), options=options)
    np.testing.assert_allclose(baked.gains, 1, atol=1e-6)
    assert (baked.texture == 120).all()


def test_input_that_does_not_fit_is_refused_with_the_reason():
    mesh, uv = sphere()
    views = np.zeros((4, 32, 32, 3), np.uint8)
    with pytest.raises(UserError, match="uv: found coordinates of 3 faces"):
        baking.bake(mesh, uv[:3], views)
    with pytest.raises(UserError, match="expected square images"):
        baking.bake(mesh, uv, views[:, :, :16])
    with pytest.raises(UserError, match="found 4 views and 3 cameras"):
        baking.bake(mesh, uv, views, cameras.STANDARD[:3])
    with pytest.raises(UserError, match="found a perspective camera"):
        baking.bake(mesh, uv, views, [cameras.orbit(azimuth, fov=40) for azimuth in AZIMUTHS])
