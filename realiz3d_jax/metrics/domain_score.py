"""Domain score: a small convolutional classifier of real and synthetic images, with features for FID and KID.

A second head predicts the words of the caption, so that the features represent content as well as look. Training blurs, tiles,
recolours, mirrors, shifts and fades images of both classes and adds noise. Texture, shading and shadows remain to separate the
classes; cues that generated images lack (sensor noise, a renderer's sharpness) or that only they have (seams between patches,
unseen colours) do not.
"""

import dataclasses
import functools
import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import safetensors
import safetensors.numpy

from realiz3d_jax import files, progress
from realiz3d_jax.errors import UserError
from realiz3d_jax.metrics.metric import Evaluated, Line, Metric, ObjectLine, Row

FEATURES = 64
"""F, channels of the features."""

_CHANNELS = (16, 32, 64, 64)
_STRIDES = (1, 2, 2, 1)
_MOST_WORDS = 64
_BATCH = 64

Params = dict[str, dict[str, jax.Array]]


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
    """A trained classifier.

    Attributes:
      params: see ``init``.
      words: vocabulary of the second head, in the order of its outputs.
      facts: JSON values: training settings and accuracy.
    """

    params: Params
    words: tuple[str, ...]
    facts: dict[str, Any]


@functools.partial(jax.jit, static_argnames="words")
def init(key: jax.Array, words: int) -> Params:
    """Draws initial parameters, float32: four convolutions, a dense layer to the features, and two heads.

    Args:
      key: PRNG key.
      words: outputs of the head "words"; the head "domain" has one.
    """
    inputs = (3, *_CHANNELS[:-1])
    shapes = {f"convolution_{n}": (3, 3, c, d) for n, (c, d) in enumerate(zip(inputs, _CHANNELS, strict=True))}
    shapes |= {"features": (_CHANNELS[-1], FEATURES), "domain": (FEATURES, 1), "words": (FEATURES, words)}
    keys = jax.random.split(key, len(shapes))
    return {
        name: {
            "kernel": jax.random.normal(keys[n], shape) * np.sqrt(2.0 / np.prod(shape[:-1])),
            "bias": jnp.zeros(shape[-1]),
        }
        for n, (name, shape) in enumerate(shapes.items())
    }


def apply(params: Params, images: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Applies the network to images of any size.

    Args:
      params: see ``init``.
      images: float32[n, H, W, 3] in [0, 1], on white.

    Returns:
      (logits float32[n], positive for real; features float32[n, F], standardised per image to mean 0 and variance 1; word
      logits float32[n, words]).
    """
    x = 1.0 - images  # maps white to 0, the padding value of the convolutions
    for n, stride in enumerate(_STRIDES):
        layer = params[f"convolution_{n}"]
        x = jax.lax.conv_general_dilated(
            x, layer["kernel"], (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(x + layer["bias"])
    features = jax.nn.standardize(_dense(params["features"], x.mean(axis=(1, 2))), axis=-1)
    return _dense(params["domain"], features)[:, 0], features, _dense(params["words"], features)


def evaluate(params: Params, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Classifies images in batches.

    Args:
      params: see ``init``.
      images: uint8[n, H, W, 3], on white.

    Returns:
      (probabilities of being real float32[n], features float32[n, F]).
    """
    probabilities, features = [], []
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH]
        filled = np.pad(batch, ((0, _BATCH - len(batch)), (0, 0), (0, 0), (0, 0)))
        probability, feature = _evaluate(params, filled)
        probabilities.append(np.asarray(probability)[: len(batch)])
        features.append(np.asarray(feature)[: len(batch)])
    return np.concatenate(probabilities), np.concatenate(features)


def probability_real(params: Params, images: np.ndarray) -> np.ndarray:
    """Probabilities of being real, float32[n], of images uint8[n, H, W, 3]."""
    return evaluate(params, images)[0]


def accuracy(params: Params, images: np.ndarray, real: np.ndarray) -> float:
    """Fraction of the images that are classified correctly at a threshold of 0.5.

    Args:
      params: see ``init``.
      images: uint8[n, H, W, 3], on white.
      real: bool[n], the labels.
    """
    return float(np.mean((probability_real(params, images) > 0.5) == real))


def train(
    images: np.ndarray,
    real: np.ndarray,
    captions: Sequence[str],
    *,
    seed: int = 0,
    steps: int = 3000,
    learning_rate: float = 2e-3,
) -> Classifier:
    """Trains a classifier with a progress bar; reproducible on one machine.

    Args:
      images: uint8[n, H, W, 3], on white.
      real: bool[n], the labels.
      captions: n captions.
      seed: seed of the initial parameters, the order of the images and their augmentation.
      steps: optimizer steps of 64 images; AdamW with cosine decay.
      learning_rate: initial learning rate.
    """
    words = _vocabulary(captions)
    labels = np.array([[word in said for word in words] for said in map(_words, captions)], np.float32)
    targets = np.concatenate([np.asarray(real, np.float32)[:, None], labels], axis=1)
    schedule = (learning_rate, steps)
    key = jax.random.key(seed)
    params = init(jax.random.fold_in(key, steps), len(words))
    state = _optimizer(schedule).init(params)
    random = np.random.default_rng(seed)
    with progress.bar("classifier", steps) as advance:
        for step in range(steps):
            chosen = random.integers(len(images), size=_BATCH)
            noise = jax.random.fold_in(key, step)
            params, state, loss = _update(schedule, params, state, images[chosen], targets[chosen], noise)
            advance(note=f"loss {loss:.3f}" if step % 50 == 0 else "")
    facts = {"seed": seed, "steps": steps, "images": len(images), "size": int(images.shape[1])}
    return Classifier(jax.tree.map(np.asarray, params), words, facts)


def save(path: str | os.PathLike[str], classifier: Classifier) -> None:
    """Writes a classifier as ``.safetensors``, atomically."""
    tensors = {
        f"{layer}/{name}": np.ascontiguousarray(value)
        for layer, leaves in classifier.params.items()
        for name, value in leaves.items()
    }
    metadata = {"words": json.dumps(classifier.words), "facts": json.dumps(classifier.facts)}
    files.write_bytes(path, safetensors.numpy.save(tensors, metadata))


def load(path: str | os.PathLike[str]) -> Classifier:
    """Reads a classifier.

    Raises:
      UserError: the file is missing or damaged, or does not hold such a classifier.
    """
    fix = "Make one by\n  python -m realiz3d_jax.evaluate --train-classifier"
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError as error:
        raise UserError(f"{path}: this file does not exist; expected a classifier (.safetensors). {fix}") from error
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: cannot be read as safetensors ({error}); the file is damaged. {fix}") from error
    words = tuple(json.loads(metadata.get("words", "[]")))
    expected = jax.eval_shape(lambda: init(jax.random.key(0), len(words)))
    found: Params = {}
    for name, tensor in tensors.items():
        layer, _, leaf = name.partition("/")
        found.setdefault(layer, {})[leaf] = tensor
    if jax.tree.map(np.shape, found) != jax.tree.map(np.shape, expected):
        raise UserError(f"{path}: does not hold the layers of a domain classifier; expected {sorted(expected)}. {fix}")
    return Classifier(found, words, json.loads(metadata.get("facts", "{}")))


def _dense(layer: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return x @ layer["kernel"] + layer["bias"]


@jax.jit
def _evaluate(params: Params, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    logits, features, _ = apply(params, images.astype(jnp.float32) / 255.0)
    return jax.nn.sigmoid(logits), features


def _optimizer(schedule: tuple[float, int]) -> optax.GradientTransformation:
    """AdamW with cosine decay; ``schedule`` is (initial learning rate, steps)."""
    return optax.adamw(optax.cosine_decay_schedule(*schedule), weight_decay=1e-4)


@functools.partial(jax.jit, static_argnums=0)
def _update(schedule, params, state, images, targets, key):
    loss, gradient = jax.value_and_grad(_loss)(params, *_augmented(key, images), targets)
    change, state = _optimizer(schedule).update(gradient, state, params)
    return optax.apply_updates(params, change), state, loss


def _loss(params: Params, images: jax.Array, recoloured: jax.Array, targets: jax.Array) -> jax.Array:
    """Cross-entropy of the domain, ``targets[:, 0]``, plus that of the words, ``targets[:, 1:]``, of images in true colours."""
    logits, _, word_logits = apply(params, images)
    domain = optax.sigmoid_binary_cross_entropy(logits, targets[:, 0]).mean()
    words = optax.sigmoid_binary_cross_entropy(word_logits, targets[:, 1:]).mean(axis=-1)
    return domain + words.mean(where=~recoloured)


def _augmented(key: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Augmented copies, float32[n, H, W, 3] in [0, 1], of uint8[n, H, W, 3], and which of them are recoloured, bool[n]."""
    keys = jax.random.split(key, len(images))
    return jax.vmap(_augmented_image)(keys, images.astype(jnp.float32) / 255.0)


def _augmented_image(key: jax.Array, image: jax.Array) -> tuple[jax.Array, jax.Array]:
    shift_key, draw_key, noise_key, tile_key, order_key, colour_key = jax.random.split(key, 6)
    mirror, gain, blur, noise, tiled, colour = jax.random.uniform(draw_key, (6,))
    padded = jnp.pad(image, ((2, 2), (2, 2), (0, 0)), constant_values=1.0)
    corner = jax.random.randint(shift_key, (2,), 0, 5)
    image = jax.lax.dynamic_slice(padded, (corner[0], corner[1], 0), image.shape)
    image = jnp.where(mirror < 0.5, image, image[:, ::-1])
    image = 1.0 - (1.0 - image) * (0.85 + 0.3 * gain)
    # Half of the images are recoloured, half tiled, half blurred and half noisy, each by a random amount.
    dark = (1.0 - image)[..., jax.random.permutation(order_key, 3)] * jax.random.uniform(colour_key, (3,), minval=0.6)
    image = jnp.where(colour < 0.5, 1.0 - dark, image)
    image = 1.0 - (1.0 - image) * (1.0 + 0.3 * jnp.maximum(tiled - 0.5, 0.0) * _tiles(tile_key, image.shape))
    image = image + jnp.maximum(2 * blur - 1, 0.0) * (_blurred(image) - image)
    image = image + 0.12 * jnp.maximum(noise - 0.5, 0.0) * jax.random.normal(noise_key, image.shape)
    return jnp.clip(image, 0.0, 1.0), colour < 0.5


def _tiles(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal values, constant over tiles of 4 x 4 pixels on a randomly shifted grid: float32 of ``shape``."""
    value_key, corner_key = jax.random.split(key)
    rows, columns, channels = shape
    values = jax.random.normal(value_key, (rows // 4 + 2, columns // 4 + 2, channels))
    corner = jax.random.randint(corner_key, (2,), 0, 4)
    return jax.lax.dynamic_slice(values.repeat(4, axis=0).repeat(4, axis=1), (corner[0], corner[1], 0), shape)


def _blurred(image: jax.Array) -> jax.Array:
    """Binomial filter of 3 x 3 pixels."""
    padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    return (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4


@functools.lru_cache(maxsize=65536)
def _words(caption: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z0-9]+", caption.lower()))


def _vocabulary(captions: Sequence[str]) -> tuple[str, ...]:
    """Most frequent informative words, found in 1 % to 90 % of the captions."""
    counts = Counter(word for caption in captions for word in _words(caption))
    telling = [(count, word) for word, count in counts.items() if 0.01 <= count / len(captions) <= 0.9]
    return tuple(sorted(word for _, word in sorted(telling, reverse=True)[:_MOST_WORDS]))


def _of_object(one: Evaluated) -> dict[str, Any]:
    return {"domain_score": float(one.probabilities.mean())}


def _of_set(objects: Sequence[Evaluated], rows: Sequence[Row], references: Mapping[str, np.ndarray]) -> dict[str, Any]:
    probabilities = np.concatenate([one.probabilities for one in objects])
    return {
        "domain_score": {
            "mean": float(probabilities.mean()),
            "std": float(probabilities.std()),
            "fraction": float((probabilities > 0.5).mean()),
        }
    }


METRIC = Metric(
    group="Realism",
    lines=(
        Line(
            "Real score",
            "How probably a view is a real render, says a classifier; mean over all views.",
            *(1, 3, lambda row: row["domain_score"]["mean"]),
        ),
        Line(
            "Views judged real",
            "Share of the views with a real score above 0.5.",
            *(1, 2, lambda row: row["domain_score"]["fraction"]),
        ),
    ),
    of_object=_of_object,
    of_set=_of_set,
    strip=ObjectLine("domain_score", "Realism of each object", "real score (mean of four views)", "real", low=0.0),
)
"""Mean, standard deviation and share above 0.5 of the probability of being real."""
