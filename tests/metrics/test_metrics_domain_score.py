"""The domain classifier: that it learns looks, names words, repeats itself, and travels through a file."""

import pathlib

import jax
import numpy as np
import pytest
from scipy import ndimage

from realiz3d_jax.errors import UserError
from realiz3d_jax.metrics import domain_score
from realiz3d_jax.preparation.shapes import examples

SHIPPED = pathlib.Path(domain_score.__file__).parent.parent / "pretrained" / "shapes_classifier.safetensors"

WORDS = {"red": (210, 40, 40), "green": (40, 160, 60), "blue": (40, 80, 210)}


def discs(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Coloured discs on white, flat or shaded from one side: images, whether shaded, captions."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:16, :16] / 15
    mask = (rows - 0.5) ** 2 + (columns - 0.5) ** 2 < 0.2
    real, words = random.integers(2, size=count).astype(bool), random.choice(list(WORDS), count)
    light = np.where(real[:, None, None], 1.3 - 1.1 * columns, 1.0)[..., None]
    colours = np.array([WORDS[word] for word in words])[:, None, None]
    images = np.where(mask[..., None], np.clip(light * colours, 0, 255), 255)
    return images.astype(np.uint8), real, [f"a {word} disc" for word in words]


@pytest.fixture(scope="module")
def classifier() -> domain_score.Classifier:
    return domain_score.train(*discs(400, 0), seed=1, steps=400)


def test_the_network_has_fewer_than_200000_parameters():
    params = jax.eval_shape(lambda: domain_score.init(jax.random.key(0), 64))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) < 200_000


def test_flat_and_shaded_discs_are_told_apart_on_unseen_images(classifier: domain_score.Classifier):
    images, real, _ = discs(100, 1)
    assert domain_score.accuracy(classifier.params, images, real) >= 0.98
    probability = domain_score.probability_real(classifier.params, images)
    assert probability[real].mean() > 0.9
    assert probability[~real].mean() < 0.1


def test_the_words_are_those_that_say_something_and_the_second_head_names_them(classifier: domain_score.Classifier):
    assert classifier.words == ("blue", "green", "red")  # "a" and "disc" are in every caption
    images, _, captions = discs(100, 1)
    logits = np.asarray(domain_score.apply(classifier.params, images / 255.0)[2])
    named = [classifier.words[index] in caption for index, caption in zip(logits.argmax(-1), captions, strict=True)]
    assert np.mean(named) > 0.9


def test_features_are_standardised_so_that_kernels_of_them_have_a_scale(classifier: domain_score.Classifier):
    _, features = domain_score.evaluate(classifier.params, discs(10, 1)[0])
    assert features.shape == (10, domain_score.FEATURES)
    np.testing.assert_allclose(features.mean(-1), 0.0, atol=1e-5)
    np.testing.assert_allclose(features.std(-1), 1.0, atol=1e-2)


def test_an_image_is_judged_alike_alone_and_in_any_batch_and_shift(classifier: domain_score.Classifier):
    images, _, _ = discs(70, 2)
    together = domain_score.probability_real(classifier.params, images)
    alone = np.concatenate([domain_score.probability_real(classifier.params, image[None]) for image in images[::23]])
    np.testing.assert_allclose(alone, together[::23], rtol=1e-5)


def test_training_twice_gives_the_same_parameters_and_another_seed_others(monkeypatch: pytest.MonkeyPatch):
    update, keys, data = domain_score._update, [], discs(64, 0)

    def recorded(*given):
        keys.append(tuple(jax.random.key_data(given[-1]).tolist()))
        return update(*given)

    monkeypatch.setattr(domain_score, "_update", recorded)
    first, second, other = (domain_score.train(*data, seed=seed, steps=3).params for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert np.any(first["features"]["kernel"] != other["features"]["kernel"])
    assert keys[:3] == keys[3:6]
    assert len(set(keys)) == 6, "every step changes its images in another way"


def test_a_classifier_survives_its_file(classifier: domain_score.Classifier, tmp_path):
    path = tmp_path / "classifier.safetensors"
    domain_score.save(path, classifier)
    loaded = domain_score.load(path)
    jax.tree.map(np.testing.assert_array_equal, loaded.params, classifier.params)
    assert loaded.words == classifier.words
    assert loaded.facts == {"seed": 1, "steps": 400, "images": 400, "size": 16}


def test_a_missing_truncated_or_foreign_file_is_named_with_the_mend(classifier: domain_score.Classifier, tmp_path):
    path = tmp_path / "classifier.safetensors"
    with pytest.raises(UserError, match=r"classifier.safetensors: this file does not exist(.|\n)*--train-classifier"):
        domain_score.load(path)
    domain_score.save(path, classifier)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"classifier.safetensors: cannot be read as safetensors"):
        domain_score.load(path)
    parts = {name: layer for name, layer in classifier.params.items() if name != "words"}
    domain_score.save(path, domain_score.Classifier(parts, classifier.words, {}))
    with pytest.raises(UserError, match="does not hold the layers"):
        domain_score.load(path)


def test_the_shipped_classifier_tells_the_looks_of_held_out_objects_apart_as_its_file_says():
    shipped = domain_score.load(SHIPPED)
    assert shipped.facts["held_out_accuracy"] >= 0.98
    assert shipped.facts["command"].startswith("python -m realiz3d_jax.evaluate --train-classifier")
    found = [examples.asset_example("test", index, shipped.facts["size"], 0)[0] for index in range(10)]
    images = np.concatenate([example[look] for example in found for look in ("synthetic", "real")])
    real = np.tile(np.repeat([False, True], 4), len(found))
    assert domain_score.accuracy(shipped.params, images, real) >= 0.98
    # Neither noise nor blur is what it goes by, nor the seams of patches, nor colours.
    random = np.random.default_rng(0)
    noisy = np.clip(images + random.normal(0, 8, images.shape), 0, 255).astype(np.uint8)
    blurred = ndimage.uniform_filter(images, size=(1, 2, 2, 1), mode="nearest")
    assert domain_score.accuracy(shipped.params, noisy, real) >= 0.95
    assert domain_score.accuracy(shipped.params, blurred, real) >= 0.95
    tiles = random.normal(1, 0.06, (len(images), 8, 8, 3)).repeat(4, axis=1).repeat(4, axis=2)
    tiled = np.clip(255 - (255.0 - images) * tiles, 0, 255).astype(np.uint8)
    assert domain_score.accuracy(shipped.params, tiled, real) >= 0.95
    assert domain_score.accuracy(shipped.params, images[..., [1, 2, 0]], real) >= 0.95
