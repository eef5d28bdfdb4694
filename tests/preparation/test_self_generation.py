"""The real training images: four of each caption, the same bytes however often making them was interrupted."""

import threading
import zlib

import numpy as np
import pytest
from worlds import HELD_OUT, OBJECTS, World, load_config, write_exported

from realiz3d_jax.data import records
from realiz3d_jax.errors import UserError
from realiz3d_jax.method.domains import Domain
from realiz3d_jax.preparation import making, self_generation
from realiz3d_jax.preparation.self_generation import self_generate
from realiz3d_jax.preparation.shapes import datasets
from realiz3d_jax.sampling.generator import Generator
from realiz3d_jax.sampling.pretrained import Pretrained, open_model
from realiz3d_jax.views import VIEW_WORDS


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Two steps, chunks of three captions."""
    monkeypatch.setattr(self_generation, "STEPS", 2)
    monkeypatch.setattr(making, "CHUNK", 12)
    monkeypatch.setattr(datasets, "HELD_OUT_COUNT", HELD_OUT)


@pytest.fixture(scope="module")
def base(world) -> Pretrained:
    return open_model(world.base)


def new_data(world: World, folder):
    folder.mkdir()
    (folder / "shapes_assets").symlink_to(world.data / "shapes_assets")
    return folder


def record_files(path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir() if "array_record" in file.name}


def test_it_holds_four_images_of_each_caption_and_resumes_to_the_same_bytes(world, base, tmp_path, monkeypatch):
    whole = new_data(world, tmp_path / "whole")
    path, made = self_generate(whole, base, None, seed=0)
    assert made
    for split, number in {"train": OBJECTS, **HELD_OUT}.items():
        images = records.open_split(whole, "shapes_generated", split)
        captions = [asset["caption"] for asset in records.open_split(whole, "shapes_assets", split)]
        assert len(images) == 4 * number
        assert [image["view"] for image in images] == [0, 1, 2, 3] * number
        assert [image["caption"] for image in images] == [caption for caption in captions for _ in range(4)]
        assert len({image["image"].tobytes() for image in images}) == len(images)
    assert self_generate(whole, base, None, seed=0) == (path, False)

    save, saved = making.save_chunk, []

    def interrupted(chunk, items):
        if len(saved) == 2:
            raise KeyboardInterrupt
        saved.append(chunk)
        save(chunk, items)

    broken = new_data(world, tmp_path / "broken")
    with monkeypatch.context() as patch:
        patch.setattr(making, "save_chunk", interrupted)
        with pytest.raises(KeyboardInterrupt):
            self_generate(broken, base, None, seed=0)
    with pytest.raises(UserError, match=r"does not exist. Make it by\n .* --self-generate"):
        records.open_split(broken, "shapes_generated", "train")
    drawn, draw = [], Generator.__call__
    monkeypatch.setattr(Generator, "__call__", lambda *arguments: drawn.append(1) or draw(*arguments))
    resumed, made = self_generate(broken, base, None, seed=0)
    assert made
    assert len(drawn) == 4, "6 chunks (4 of train, 1 of each held-out split), of which 2 were there"
    assert record_files(resumed) == record_files(path)
    assert (resumed / "metadata.json").read_text() == (path / "metadata.json").read_text()


def test_two_hosts_that_share_a_directory_make_the_images_of_one(world, base, tmp_path):
    alone, together = (new_data(world, tmp_path / name) for name in ("alone", "together"))
    path, _ = self_generate(alone, base, None, seed=0)
    other = threading.Thread(target=self_generate, args=(together, base, None, 0), kwargs={"host": 1, "hosts": 2})
    other.start()
    shared, made = self_generate(together, base, None, 0, host=0, hosts=2)
    other.join()
    assert made
    assert record_files(shared) == record_files(path)


def test_view_words_prompt_the_model_and_are_not_stored(world, base, tmp_path, monkeypatch):
    asked = []

    def colour(prompt: str) -> int:
        return zlib.crc32(prompt.encode()) % 256

    def draw(self, params, captions, seeds, domain, *rest):
        assert domain is Domain.REAL
        asked.append((captions, list(seeds)))
        colours = np.array([[colour(prompt) for prompt in prompts] for prompts in captions], np.uint8)
        return np.broadcast_to(colours[:, :, None, None, None], (len(captions), 4, 32, 32, 3))

    monkeypatch.setattr(Generator, "__call__", draw)
    data = new_data(world, tmp_path / "data")
    self_generate(data, base, 4, seed=0)
    captions = [asset["caption"] for asset in records.open_split(data, "shapes_assets", "train")]
    assert asked[0][0] == [[f"{caption}, {word} view" for word in VIEW_WORDS] for caption in captions[:3]]
    assert all(len(prompts) == 3 for prompts, _ in asked), "every chunk is filled up: one compilation"
    stored = records.open_split(data, "shapes_generated", "train")
    assert len(stored) == 16
    for image in stored:
        prompt = f"{image['caption']}, {VIEW_WORDS[image['view']]} view"
        assert (image["image"] == colour(prompt)).all(), "the image of its own prompt"
    assert not any("view" in record["caption"].split() for record in stored)
    seeds = [seed for prompts, seeds in asked for seed in seeds]
    assert len(set(seeds)) == len(seeds)


def test_another_request_for_images_that_are_there_is_refused(world, base, tmp_path, monkeypatch):
    monkeypatch.setattr(
        Generator, "__call__", lambda self, params, captions, *rest: np.zeros((len(captions), 4, 32, 32, 3), np.uint8)
    )
    data = new_data(world, tmp_path / "data")
    self_generate(data, base, 2, seed=0)
    with pytest.raises(UserError, match=r"a dataset with count=2, but count=3 was requested"):
        self_generate(data, base, 3, seed=0)
    with pytest.raises(UserError, match=r"a dataset with seed=0, but seed=1 was requested"):
        self_generate(data, base, 2, seed=1)
    with pytest.raises(UserError, match=r"--count: found 99, but .* has 10 training captions"):
        self_generate(data, base, 99, seed=0)


def test_only_a_base_model_makes_them(world, tmp_path):
    path = tmp_path / "stage2.safetensors"
    write_exported(path, load_config("stage2"))
    with pytest.raises(UserError, match=r"stage2.safetensors: is a Stage 2 model; expected the base model"):
        self_generate(new_data(world, tmp_path / "data"), open_model(path), None, seed=0)
