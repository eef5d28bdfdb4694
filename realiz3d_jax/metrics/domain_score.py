"""Real or synthetic? A small convolutional classifier, whose features also stand in for Inception's in FID and KID.

Its second head names the words of the caption, so that the features carry what is shown and not only how it looks. Both
classes are blurred, made noisy, tiled, recoloured, mirrored, shifted and faded alike in training: what is left to tell them
apart is texture, shading and shadows, not the noise of a sensor or the sharpness of a renderer, which generated images do not
share, nor the seams between a transformer's patches or a colour that no render has, which only they have.
"""

import dataclasses
import functools
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import safetensors
import safetensors.numpy

from realiz3d_jax import files, progress
from realiz3d_jax.errors import UserError

FEATURES = 64
"""F, the channels of the features."""

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
      words: what the second head's outputs stand for.
      facts: how it was made and how good it is, JSON values.
    """

    params: Params
    words: tuple[str, ...]
    facts: dict[str, Any]


@functools.partial(jax.jit, static_argnames="words")
def init(key: jax.Array, words: int) -> Params:
    """Parameters, float32: four convolutions, a dense layer to the features, and the heads "domain" and "words"."""
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
    """What the network makes of images of any size.

    Args:
      params: see ``init``.
      images: float32[n, H, W, 3] in [0, 1], on white.

    Returns:
      logits float32[n], positive for real; features float32[n, F], each image's of mean 0 and variance 1; word logits
      float32[n, words].
    """
    x = 1.0 - images  # white is 0, which is also what convolutions pad with
    for n, stride in enumerate(_STRIDES):
        layer = params[f"convolution_{n}"]
        x = jax.lax.conv_general_dilated(
            x, layer["kernel"], (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(x + layer["bias"])
    features = jax.nn.standardize(_dense(params["features"], x.mean(axis=(1, 2))), axis=-1)
    return _dense(params["domain"], features)[:, 0], features, _dense(params["words"], features)


def evaluate(params: Params, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The probability of being real, float32[n], and the features, float32[n, F], of uint8[n, H, W, 3]."""
    probabilities, features = [], []
    for start in range(0, len(images), _BATCH):
        batch = images[start : start + _BATCH]
        filled = np.pad(batch, ((0, _BATCH - len(batch)), (0, 0), (0, 0), (0, 0)))
        probability, feature = _evaluate(params, filled)
        probabilities.append(np.asarray(probability)[: len(batch)])
        features.append(np.asarray(feature)[: len(batch)])
    return np.concatenate(probabilities), np.concatenate(features)


def probability_real(params: Params, images: np.ndarray) -> np.ndarray:
    """float32[n] in [0, 1] of uint8[n, H, W, 3]."""
    return evaluate(params, images)[0]


def accuracy(params: Params, images: np.ndarray, real: np.ndarray) -> float:
    """The share of ``images``, uint8[n, H, W, 3], whose side of 0.5 is that of ``real``, bool[n]."""
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
    """Trains a classifier, under a progress bar; the same arguments give the same parameters on one machine.

    Args:
      images: uint8[n, H, W, 3], on white.
      real: bool[n].
      captions: n captions.
      seed: of the initial parameters, the order of the images and their augmentation.
      steps: optimizer steps of 64 images; AdamW, cosine decay.
      learning_rate: at the start.
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
    """Writes a classifier as ``.safetensors``, in one step."""
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
      UserError: the file is missing, damaged, or no classifier of this form.
    """
    mend = "Make one by\n  python -m realiz3d_jax.evaluate --train-classifier"
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file; expected a classifier (.safetensors). {mend}") from error
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"{path}: cannot be read as safetensors ({error}); the file is damaged. {mend}") from error
    words = tuple(json.loads(metadata.get("words", "[]")))
    expected = jax.eval_shape(lambda: init(jax.random.key(0), len(words)))
    found: Params = {}
    for name, tensor in tensors.items():
        layer, _, leaf = name.partition("/")
        found.setdefault(layer, {})[leaf] = tensor
    if jax.tree.map(np.shape, found) != jax.tree.map(np.shape, expected):
        raise UserError(f"{path}: does not hold the layers of a domain classifier; expected {sorted(expected)}. {mend}")
    return Classifier(found, words, json.loads(metadata.get("facts", "{}")))


def _dense(layer: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return x @ layer["kernel"] + layer["bias"]


@jax.jit
def _evaluate(params: Params, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    logits, features, _ = apply(params, images.astype(jnp.float32) / 255.0)
    return jax.nn.sigmoid(logits), features


def _optimizer(schedule: tuple[float, int]) -> optax.GradientTransformation:
    """AdamW, from the learning rate at the start and the number of steps."""
    return optax.adamw(optax.cosine_decay_schedule(*schedule), weight_decay=1e-4)


@functools.partial(jax.jit, static_argnums=0)
def _update(schedule, params, state, images, targets, key):
    loss, gradient = jax.value_and_grad(_loss)(params, *_augmented(key, images), targets)
    change, state = _optimizer(schedule).update(gradient, state, params)
    return optax.apply_updates(params, change), state, loss


def _loss(params: Params, images: jax.Array, recoloured: jax.Array, targets: jax.Array) -> jax.Array:
    """Cross-entropies of the domain, ``targets[:, 0]``, and, as a mean, of the words, ``targets[:, 1:]``, where they hold."""
    logits, _, word_logits = apply(params, images)
    domain = optax.sigmoid_binary_cross_entropy(logits, targets[:, 0]).mean()
    words = optax.sigmoid_binary_cross_entropy(word_logits, targets[:, 1:]).mean(axis=-1)
    return domain + words.mean(where=~recoloured)


def _augmented(key: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Changed copies, float32[n, H, W, 3] in [0, 1], of uint8[n, H, W, 3], and of which the colours are others, bool[n]."""
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
    # Half of the images change colours; half are tiled, half are blurred, half are noisy, each by a random amount.
    dark = (1.0 - image)[..., jax.random.permutation(order_key, 3)] * jax.random.uniform(colour_key, (3,), minval=0.6)
    image = jnp.where(colour < 0.5, 1.0 - dark, image)
    image = 1.0 - (1.0 - image) * (1.0 + 0.3 * jnp.maximum(tiled - 0.5, 0.0) * _tiles(tile_key, image.shape))
    image = image + jnp.maximum(2 * blur - 1, 0.0) * (_blurred(image) - image)
    image = image + 0.12 * jnp.maximum(noise - 0.5, 0.0) * jax.random.normal(noise_key, image.shape)
    return jnp.clip(image, 0.0, 1.0), colour < 0.5


def _tiles(key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
    """Standard normal values, constant over tiles of 4 x 4 pixels whose grid begins anywhere: float32 of ``shape``."""
    value_key, corner_key = jax.random.split(key)
    rows, columns, channels = shape
    values = jax.random.normal(value_key, (rows // 4 + 2, columns // 4 + 2, channels))
    corner = jax.random.randint(corner_key, (2,), 0, 4)
    return jax.lax.dynamic_slice(values.repeat(4, axis=0).repeat(4, axis=1), (corner[0], corner[1], 0), shape)


def _blurred(image: jax.Array) -> jax.Array:
    """The binomial mean over 3 x 3 pixels."""
    padded = jnp.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    return (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4


@functools.lru_cache(maxsize=65536)
def _words(caption: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z0-9]+", caption.lower()))


def _vocabulary(captions: Sequence[str]) -> tuple[str, ...]:
    """The most frequent words that say something: in at least one and at most ninety of a hundred captions."""
    counts = Counter(word for caption in captions for word in _words(caption))
    telling = [(count, word) for word, count in counts.items() if 0.01 <= count / len(captions) <= 0.9]
    return tuple(sorted(word for _, word in sorted(telling, reverse=True)[:_MOST_WORDS]))
