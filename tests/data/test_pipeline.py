"""Batches: what is in them, and that their order is a function of the seed and one integer."""

import collections
import dataclasses
import itertools

import grain
import jax
import numpy as np
import pytest
from worlds import OBJECTS, World, assert_same, load_config

from realiz3d_jax.checkpoints.encoders import Encoders
from realiz3d_jax.data import encoded, pipeline, records
from realiz3d_jax.data.config import DataConfig
from realiz3d_jax.data.pipeline import STREAMS, StreamConfig, control_maps, open_stream
from realiz3d_jax.views import VIEW_WORDS

ENCODER = Encoders(load_config("base")).open_text()


class Recorder:
    """An encoder that writes captions into the text, so that a test can read them."""

    def encode(self, captions):
        text = np.zeros((len(captions), 160), np.uint8)
        for row, caption in enumerate(captions):
            text[row, : len(caption)] = np.frombuffer(caption.encode(), np.uint8)
        return {"states": text, "mask": text > 0}


RECORDER = Recorder()


def captions(batch) -> list[str]:
    text = batch["captions"]["states"].reshape(-1, 160)
    return [bytes(row[row > 0]).decode() for row in text]


def settings(world: World, encoder=ENCODER, render_fraction: float = 0.15) -> StreamConfig:
    return StreamConfig(DataConfig(str(world.data), render_fraction=render_fraction), encoder)


def take(stream, count: int) -> list[dict[str, np.ndarray]]:
    return [next(stream) for _ in range(count)]


def assert_same_batches(found, expected) -> None:
    for one, other in zip(found, expected, strict=True):
        assert set(one) == set(other)
        assert_same(one, other)


@pytest.mark.parametrize("name", STREAMS)
def test_a_batch_holds_what_it_says(world, name):
    batch = next(open_stream(name, settings(world), seed=0, batch_grids=4))
    groups = 1 if name == "synthetic_grids" else 4
    shapes = {
        "image": ((4, 4, 32, 32, 3), np.uint8),
        "captions": {
            "states": ((4, groups, 20, 64), np.float32),
            "mask": ((4, groups, 20), bool),
            "pooled": ((4, groups, 64), np.float32),
        },
        "record": ((4, groups), np.int64),
    }
    if name == "synthetic_grids":
        shapes["control"] = ((4, 4, 32, 32, 6), np.float32)
    assert jax.tree.map(lambda array: (array.shape, array.dtype), batch) == shapes


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_goes_on_from_its_position_with_the_same_batches(world, name):
    stream = open_stream(name, settings(world), seed=3, batch_grids=2)
    take(stream, 7)
    position = stream.get_state()
    assert position["next_index"] == 7
    expected = take(stream, 5)
    again = open_stream(name, settings(world), seed=3, batch_grids=2, threads=1)
    again.set_state(position)
    assert_same_batches(take(again, 5), expected)
    assert again.get_state()["next_index"] == 12


@pytest.mark.parametrize("name", STREAMS)
def test_two_hosts_take_the_same_global_batches_as_one(world, name):
    alone = take(open_stream(name, settings(world), seed=1, batch_grids=4), 3)
    hosts = [take(open_stream(name, settings(world), seed=1, batch_grids=4, host=host, hosts=2), 3) for host in (0, 1)]
    for number, batch in enumerate(alone):
        for host in (0, 1):
            # Host h has the elements h, h + 2, ... of the global order; a batch is a set, whatever its order.
            assert_same(hosts[host][number], jax.tree.map(lambda array, host=host: array[host::2], batch))


@pytest.mark.parametrize(
    ("name", "epoch"),
    [
        ("synthetic_grids", range(OBJECTS)),
        ("real_images", range(4 * OBJECTS)),
        ("synthetic_images", np.arange(4 * OBJECTS) // 4),
        ("photos", np.arange(4 * OBJECTS) // 4),
    ],
)
def test_an_epoch_sees_everything_once_in_an_order_of_its_own_seed_and_epoch(world, name, epoch):
    orders = []
    for seed in (0, 1):
        batches = take(open_stream(name, settings(world), seed=seed, batch_grids=5), 4)
        orders += np.split(np.concatenate([batch["record"].ravel() for batch in batches]), 2)
    for order in orders:
        assert sorted(order) == list(epoch)
        assert (order[1:] < order[:-1]).sum() > len(order) / 4, "shuffled: many steps go down"
    assert all((one != other).any() for one, other in itertools.combinations(orders, 2))


def test_each_stream_has_an_order_of_its_own(world):
    batches = [
        next(open_stream(name, settings(world), 0, 10)) for name in ("photos", "synthetic_images", "real_images")
    ]
    photos, synthetic, real = (batch["record"].ravel() for batch in batches)
    for one, other in ((photos, synthetic), (photos, real // 4), (synthetic, real // 4)):
        assert (one != other).mean() > 0.5


def test_grids_are_made_of_the_views_that_are_chosen_and_of_their_control(world):
    views = [3, 1, 0, 2]
    chosen = settings(world, RECORDER)
    chosen = dataclasses.replace(chosen, data=dataclasses.replace(chosen.data, views=tuple(views)))
    assets = records.open_split(world.data, "shapes_assets", "train")
    batch = next(open_stream("synthetic_grids", chosen, seed=0, batch_grids=4))
    for row, (number,) in enumerate(batch["record"]):
        record = assets[int(number)]
        np.testing.assert_array_equal(batch["image"][row], record["synthetic"][views])
        control = control_maps(record["normal"], record["position"], record["mask"])
        np.testing.assert_array_equal(batch["control"][row], control[views])
    bare = next(open_stream("synthetic_grids", dataclasses.replace(chosen, geometry=False), seed=0, batch_grids=4))
    np.testing.assert_array_equal(bare["image"], batch["image"])
    assert bare["control"].shape == (4, 4, 0)


def test_states_of_an_encoded_caption_are_filled_up_and_masked():
    states = np.arange(6, dtype=np.float16).reshape(3, 2)
    full = encoded.padded(states, 5)
    np.testing.assert_array_equal(full["states"], [*states, [0, 0], [0, 0]])
    assert full["mask"].tolist() == [True] * 3 + [False] * 2
    assert encoded.padded(states, 3)["mask"].all()


def test_grids_show_the_views_of_one_object_in_order_with_their_control(world):
    assets = records.open_split(world.data, "shapes_assets", "train")
    batch = next(open_stream("synthetic_grids", settings(world, RECORDER), seed=0, batch_grids=4))
    for row, (number,) in enumerate(batch["record"]):
        record = assets[int(number)]
        np.testing.assert_array_equal(batch["image"][row], record["synthetic"])
        np.testing.assert_array_equal(
            batch["control"][row], control_maps(record["normal"], record["position"], record["mask"])
        )
        assert captions(batch)[row] == record["caption"]


def test_synthetic_images_are_synthetic_views_without_view_words(world):
    assets = records.open_split(world.data, "shapes_assets", "train")
    seen = collections.defaultdict(list)
    for batch in take(open_stream("synthetic_images", settings(world, RECORDER), seed=0, batch_grids=2), 5):
        images, numbers = batch["image"].reshape(-1, 32, 32, 3), batch["record"].ravel()
        for image, number, caption in zip(images, numbers, captions(batch), strict=True):
            seen[int(number)].append(image.tobytes())
            assert caption == assets[int(number)]["caption"]
    assert len(seen) == OBJECTS
    for number, images in seen.items():
        assert sorted(images) == sorted(view.tobytes() for view in assets[number]["synthetic"]), "each view once"


def test_real_images_carry_their_own_captions_and_never_a_view_word(world):
    generated = records.open_split(world.data, "shapes_generated", "train")
    for batch in take(open_stream("real_images", settings(world, RECORDER), seed=0, batch_grids=2), 5):
        images, numbers = batch["image"].reshape(-1, 32, 32, 3), batch["record"].ravel()
        for image, number, caption in zip(images, numbers, captions(batch), strict=True):
            np.testing.assert_array_equal(image, generated[int(number)]["image"])
            assert caption == generated[int(number)]["caption"]
            assert "view" not in caption.split()
            assert "render" not in caption.split()


def test_photos_are_renders_and_name_their_view_in_the_stated_shares(world, monkeypatch):
    """2,400 draws, five sigma. A render is named as one, and the view that is named is the view that is shown."""
    held = records.open_split(world.data, "shapes_photos", "train")
    read = [held[number] for number in range(len(held))]
    monkeypatch.setattr(records, "open_split", lambda *arguments: read)  # decoded once: the shares are what is tested
    renders, named, count = 0, 0, 0
    for batch in take(open_stream("photos", settings(world, RECORDER, 0.3), seed=0, batch_grids=20), 30):
        images, numbers = batch["image"].reshape(-1, 32, 32, 3), batch["record"].ravel()
        for image, number, caption in zip(images, numbers, captions(batch), strict=True):
            record = read[int(number)]
            render = caption.startswith("flat render of ")
            look = record["synthetic" if render else "real"]
            views = [view for view in range(4) if np.array_equal(image, look[view])]
            assert views
            suffixes = [view for view in range(4) if caption.endswith(f", {VIEW_WORDS[view]} view")]
            assert len(suffixes) <= 1
            assert not suffixes or suffixes[0] in views
            assert record["caption"] in caption
            renders, named, count = renders + render, named + bool(suffixes), count + 1
    assert abs(renders / count - 0.3) < 5 * (0.3 * 0.7 / count) ** 0.5
    assert abs(named / count - 0.75) < 5 * (0.75 * 0.25 / count) ** 0.5


def test_controls_are_zero_to_one_on_the_object_and_exactly_zero_elsewhere(world):
    record = records.open_split(world.data, "shapes_assets", "train")[0]
    control = control_maps(record["normal"], record["position"], record["mask"])
    on = record["mask"].astype(bool)
    assert (control[~on] == 0.0).all()
    assert 0.0 <= control.min() < control.max() <= 1.0
    np.testing.assert_allclose(np.linalg.norm(2 * control[on][:, :3] - 1, axis=-1), 1.0, atol=2e-4)
    decoded = records.decode_positions(record["position"], record["mask"])
    np.testing.assert_allclose(control[on][:, 3:] - 0.5, decoded[on], atol=1e-6)
    ends = control_maps(*np.array([[[[[0] * 3]]], [[[[65535] * 3]]]], np.uint16), np.ones((1, 1, 1), np.uint8))
    np.testing.assert_array_equal(ends[0, 0, 0], [0, 0, 0, 1, 1, 1])


def test_a_prompt_names_its_look_and_its_view():
    assert pipeline.prompt("a red cone") == "a red cone"
    assert pipeline.prompt("a red cone", 1) == "a red cone, right side view"
    assert pipeline.prompt("a red cone", 3, render=True) == "flat render of a red cone, left side view"


def test_streams_are_grain_iterators_whose_state_is_one_integer(world):
    stream = open_stream("photos", settings(world), seed=0, batch_grids=1)
    assert isinstance(stream, grain.DatasetIterator)
    assert stream.get_state() == {"next_index": 0}
