"""Where gutters lead, against unfolded sheets and boxes."""

import numpy as np
import pytest
from sheets import cut_sheet, places

from benchmarks import textured
from realiz3d_jax.geometry.mesh import Mesh
from realiz3d_jax.geometry.render import RayScene
from realiz3d_jax.geometry.texturing import seams, texels


def test_what_lies_beyond_an_edge_has_that_edge_too_though_every_vertex_is_written_six_times():
    mesh, _ = cut_sheet(5, 4)
    face, side = seams.neighbours(mesh)
    assert (face < 0).sum() == 2 * (5 + 4)
    here = np.nonzero(face >= 0)
    np.testing.assert_array_equal(face[face[here], side[here]], here[0])
    np.testing.assert_array_equal(side[face[here], side[here]], here[1])


def test_an_edge_of_three_faces_leads_nowhere():
    points = np.array([[0, 0, 0], [0, 0, 1], [1, 0, 0], [-1, 0, 0], [0, 1, 0]], np.float32)
    faces = np.array([[0, 1, 2], [1, 0, 3], [0, 1, 4]], np.int32)
    mesh = Mesh(points, faces, np.ones((3, 3, 3), np.float32), np.ones((3, 3), np.float32))
    assert (seams.neighbours(mesh)[0] == -1).all()


@pytest.mark.parametrize("cells", [(2, 1), (24, 24), (90, 5)])
def test_beyond_a_seam_of_a_flat_surface_the_gutter_stands_for_exactly_what_lies_there(cells: tuple[int, int]):
    mesh, uv = cut_sheet(*cells)
    size = 192
    found = texels.rasterise(uv, size)
    moved = seams.continued(mesh, uv, found)
    center = np.stack(np.divmod(found.index, size)[::-1], axis=-1) + 0.5
    above = center[:, 1] > 0.5 * size
    expected = (center / size - np.where(above[:, None], [0.35, 0.55], 0.05)) / 0.4 - 0.5
    across = ~found.inside & (np.abs(expected) < 0.499).all(axis=1)
    assert across.sum() > 500
    np.testing.assert_allclose(places(mesh, moved)[across][:, [0, 2]], expected[across], atol=1e-6)
    # At the sheet's own rim, and of course inside, everything stays.
    rim = (np.abs(expected) > 0.501).any(axis=1) | found.inside
    np.testing.assert_array_equal(moved.barycentric[rim], found.barycentric[rim])
    np.testing.assert_array_equal(moved.face[rim], found.face[rim])


def test_charts_that_do_not_meet_in_space_keep_their_gutters():
    mesh, uv = cut_sheet(6, 6, gap=0.05)
    found = texels.rasterise(uv, 192)
    np.testing.assert_array_equal(places(mesh, seams.continued(mesh, uv, found)), places(mesh, found))


def test_round_the_edges_of_a_cube_the_gutter_lies_on_the_next_side_as_far_from_the_edge_as_in_the_texture():
    known = textured.make("cube", 1200)
    found = texels.rasterise(known.uv, 256)
    moved = seams.continued(known.mesh, known.uv, found)
    gutter = ~found.inside & (np.sort(found.barycentric, axis=1)[:, 1] > 0.02)  # beside edges, not corners
    border, beyond = places(known.mesh, found)[gutter], places(known.mesh, moved)[gutter]
    center = np.stack(np.divmod(found.index, 256)[::-1], axis=-1)[gutter] + 0.5
    flat = np.einsum("nc,ncd->nd", found.barycentric, known.uv[found.face])[gutter] * 256
    side = np.linalg.norm(known.mesh.vertices[known.mesh.faces[0, 0]] - known.mesh.vertices[known.mesh.faces[0, 1]])
    scale = side / np.linalg.norm(known.uv[0, 0] - known.uv[0, 1]) / 256
    np.testing.assert_allclose(
        np.linalg.norm(beyond - border, axis=1), np.linalg.norm(center - flat, axis=1) * scale, rtol=2e-3, atol=1e-5
    )
    facets = RayScene(known.mesh).face_normals
    turned = np.einsum("nd,nd->n", facets[found.face[gutter]], facets[moved.face[gutter]])
    np.testing.assert_allclose(turned, 0, atol=1e-3)
