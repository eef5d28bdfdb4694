import itertools

import numpy as np
import pytest

from realiz3d_jax.geometry import cameras, mesh, render
from realiz3d_jax.geometry.assets.asset import parse_glb
from realiz3d_jax.preparation.shapes import examples, looks, objects, primitives

SPLITS = ("photos", "train", "validation", "test")


def many(split, count):
    return [objects.make_object(split, index) for index in range(count)]


def solid_of(item):
    return parse_glb(mesh.write_glb(item.parts), item.uid).mesh


def single(color, shape):
    generator = np.random.default_rng(0)
    return parse_glb(mesh.write_glb([objects._solid((color, shape), 1.0, generator)]), shape).mesh


def test_an_object_follows_from_seed_split_and_index_alone():
    first, again = objects.make_object("train", 17), objects.make_object("train", 17)
    assert mesh.write_glb(first.parts) == mesh.write_glb(again.parts)
    assert first.caption == again.caption
    others = [
        objects.make_object("train", 17, seed=1),
        objects.make_object("photos", 17),
        objects.make_object("train", 18),
    ]
    assert all(mesh.write_glb(first.parts) != mesh.write_glb(other.parts) for other in others)


def test_held_out_splits_hold_combinations_and_captions_that_no_training_split_holds():
    items = {split: many(split, count) for split, count in zip(SPLITS, (1200, 1200, 20, 40), strict=True)}
    combinations = {split: {item.combination for item in items[split]} for split in SPLITS}
    captions = {split: {item.caption for item in items[split]} for split in SPLITS}
    for held_out in ("validation", "test"):
        for other in set(SPLITS) - {held_out}:
            assert not combinations[held_out] & combinations[other]
            assert not captions[held_out] & captions[other]
    seen = {pair for combination in combinations["train"] for pair in combination}
    assert len(seen) == len(objects.COLORS) * len(objects.SHAPES)  # every pair of held-out objects was seen somewhere
    assert len(captions["test"]) == 40


def test_roles_part_the_combinations_completely():
    groups = list(objects.COMBINATIONS.values())
    assert sum(map(len, groups)) == len(set().union(*map(set, groups))) == 48 + 48 * 7 * 5 // 2
    assert {key: len(group) for key, group in objects.COMBINATIONS.items() if key[0] != "train"} == {
        ("validation", 1): 4,
        ("test", 1): 7,
        ("validation", 2): 60,
        ("test", 2): 100,
    }


def test_uids_are_unique_and_a_third_of_the_objects_is_single():
    items = [item for split in SPLITS for item in many(split, 40)]
    assert len({item.uid for item in items}) == len(items)
    assert np.mean([len(item.parts) == 1 for item in many("photos", 200)]) == 0.35


def test_captions_name_each_part_with_its_colour_and_its_size():
    for item in many("photos", 300):
        words = item.caption.split()
        nouns = [(words[i - 1], word) for i, word in enumerate(words) if word in objects.SHAPES]
        assert tuple(sorted(nouns)) == item.combination
        assert "a orange" not in item.caption
        if len(item.parts) == 2 and "small" in words and "large" in words:
            extents = [np.ptp(part.vertices, axis=0).max() for part in item.parts]
            small = 0 if words.index("small") < words.index("large") else 1
            assert extents[small] < 0.75 * extents[1 - small]


def test_relations_stand_where_their_words_say():
    relations = {}
    for item in many("photos", 200):
        if len(item.parts) == 2:
            relation = next(name for name in objects.RELATIONS if name in item.caption)
            first, second = (part.vertices for part in item.parts)
            relations.setdefault(relation, []).append((first, second))
    assert set(relations) == set(objects.RELATIONS)
    for first, second in relations["on top"]:
        assert second[:, 2].min() > 0.8 * first[:, 2].max()
    for first, second in relations["next to"]:
        assert second[:, 0].min() > first[:, 0].max()
    for first, second in relations["in front of"]:
        assert first[:, 1].max() < second[:, 1].min()  # camera 0 stands at -Y
    for first, second in relations["behind"]:
        assert first[:, 1].min() > second[:, 1].max()


@pytest.mark.parametrize("shape", list(objects.SHAPES))
def test_solids_are_closed_face_outwards_and_stand_on_the_ground(shape):
    vertices, faces, normals = objects.SHAPES[shape]()
    corners = vertices[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    np.testing.assert_allclose(cross.sum(axis=0), 0, atol=1e-9)  # closed
    assert np.einsum("fd,fd->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6 > 0.05
    flat = cross / np.linalg.norm(cross, axis=-1, keepdims=True)
    assert np.einsum("fd,fcd->fc", flat, normals[faces]).min() > 0.8
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1)
    np.testing.assert_allclose(vertices[:, 2].min(), 0, atol=1e-12)


def test_outlines_of_the_solids_differ_at_32_pixels():
    masks = {shape: render.render_maps(single("red", shape), 32).mask[0] for shape in objects.SHAPES}
    for one, other in itertools.combinations(masks, 2):
        overlap = (masks[one] & masks[other]).sum() / (masks[one] | masks[other]).sum()
        assert overlap < 0.9, (one, other, overlap)


def test_a_torus_shows_its_hole_to_the_front_and_not_to_the_side():
    mask = render.render_maps(single("red", "torus"), 32).mask
    assert not mask[0, 15:17, 15:17].any()
    assert mask[1, 15:17, 15:17].all()


def hue_distance(colors, color):
    """Angle in degrees between colours' directions away from grey, after removing brightness."""

    def direction(values):
        values = values - values.mean(axis=-1, keepdims=True)
        return values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-9)

    return np.degrees(np.arccos(np.clip(direction(colors) @ direction(np.asarray(color, float)), -1, 1)))


def test_the_colour_of_every_object_is_recognised_in_both_looks():
    named = {name: color for name, color in objects.COLORS.items() if name != "gray"}
    right = []
    for color in objects.COLORS:
        for shape in ("sphere", "cube", "torus"):
            for images in looks.render_looks(single(color, shape), 32, np.random.default_rng(len(right))):
                mean = images[(images < 250).any(axis=-1)].mean(axis=0)
                nearest = min(named, key=lambda name, mean=mean: hue_distance(mean, named[name]))
                right.append(("gray" if np.ptp(mean) < 25 else nearest) == color)
    assert np.mean(right) == 1.0


def test_the_synthetic_look_is_its_base_colours_and_nothing_else():
    solid = single("green", "sphere")
    synthetic, _ = looks.render_looks(solid, 32, np.random.default_rng(0))
    colors, counts = np.unique(synthetic.reshape(-1, 3), axis=0, return_counts=True)
    common = {tuple(color) for color in colors[np.argsort(counts)[-2:]].tolist()}
    assert common == {(255, 255, 255), tuple(np.round(solid.face_color[0] * 255).astype(int).tolist())}
    assert np.sort(counts)[-2:].sum() > 0.9 * counts.sum()  # the rest is the antialiased edge


def test_the_background_is_white_in_both_looks_and_their_outlines_agree():
    for index in range(4):
        solid = solid_of(objects.make_object("photos", index))
        synthetic, real = looks.render_looks(solid, 32, np.random.default_rng(index))
        mask = render.render_maps(solid, 96).mask.reshape(4, 32, 3, 32, 3)
        background = ~mask.any(axis=(2, 4))
        assert background.any()
        assert (synthetic[background] == 255).all()
        assert (real[background] == 255).all()
        full = mask.all(axis=(2, 4))
        assert (synthetic[full] < 253).any(axis=-1).all()


def test_the_real_look_is_lit_from_above_left_of_every_camera():
    _, real = looks.render_looks(single("gray", "sphere"), 32, np.random.default_rng(3))
    brightness = real.mean(axis=-1)
    for view in range(4):
        assert brightness[view, 6:14, 6:14].mean() > 1.5 * brightness[view, 18:26, 18:26].mean()


def test_the_real_look_casts_shadows():
    base = mesh.Part(*primitives.sphere(), (0.6, 0.6, 0.6))
    lid = mesh.Part(primitives.cube()[0] * [2, 2, 0.3] + [0, 0, 1.05], *primitives.cube()[1:], (0.6, 0.6, 0.6))
    lidded = parse_glb(mesh.write_glb([base, lid]), "lidded").mesh
    maps = render.render_maps(lidded, 32)
    _, real = looks.render_looks(lidded, 32, np.random.default_rng(0))
    ball = (
        maps.mask[0]
        & (maps.normal[0, ..., 2] > 0.3)
        & (maps.normal[0, ..., 0] < -0.2)
        & (maps.position[0, ..., 2] < 0.2)
    )
    _, alone = looks.render_looks(parse_glb(mesh.write_glb([base]), "ball").mesh, 32, np.random.default_rng(0))
    assert ball.sum() > 5
    assert real[0][ball].mean() < 0.7 * alone[0, 6:14, 6:14].mean()


def test_the_real_look_has_detail_that_the_synthetic_look_has_not():
    details = []
    for index in range(6):
        solid = solid_of(objects.make_object("photos", index))
        both = looks.render_looks(solid, 32, np.random.default_rng(index))
        inside = render.render_maps(solid, 96).mask.reshape(4, 32, 3, 32, 3).all(axis=(2, 4))
        inside = inside[:, :, 1:] & inside[:, :, :-1]
        details.append([np.median(np.abs(np.diff(images.astype(float), axis=2)).mean(-1)[inside]) for images in both])
    synthetic, real = np.mean(details, axis=0)
    assert synthetic == 0
    assert real > 6


def test_records_are_made_alike_every_time_and_their_maps_fit_their_looks():
    example, attached = examples.asset_example("test", 3, 32, seed=0)
    again, attached_again = examples.asset_example("test", 3, 32, seed=0)
    assert attached == attached_again
    for name, value in example.items():
        np.testing.assert_array_equal(value, again[name])
    assert list(attached) == [example["mesh"]]
    inside = example["mask"].astype(bool)
    assert (example["synthetic"][inside] < 255).any(axis=-1).mean() > 0.99
    positions = example["position"][inside] / 65535 - 0.5
    view, row, column = np.nonzero(inside)
    for index, camera in enumerate(cameras.STANDARD):
        pixels, _ = camera.project(positions[view == index], 32)
        np.testing.assert_array_equal(np.floor(pixels), np.stack([column, row], axis=-1)[view == index])
