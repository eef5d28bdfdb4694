"""Our transformer computes what diffusers' PixArtTransformer2DModel computes, on the same weights."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pixart_reference
import pytest
from einops import rearrange

from realiz3d_jax.models import dit
from realiz3d_jax.models.presets import PIXART

SMALL = dit.DiTConfig(
    width=32,
    depth=2,
    heads=2,
    patch_size=2,
    in_channels=4,
    out_channels=8,
    caption_channels=24,
    sample_size=8,
    base_size=4,
)


@dataclasses.dataclass(frozen=True)
class Case:
    """A configuration, the size of its images, and how many views the images are cut into."""

    config: dit.DiTConfig
    height: int = 8
    width: int = 8
    views: int = 1
    text_tokens: int = 5


CASES = {
    "small": Case(SMALL),
    "wide, coarse patches, sample larger than base, scale 2": Case(
        dataclasses.replace(SMALL, width=48, heads=4, patch_size=4, in_channels=3, out_channels=6, position_scale=2.0),
        height=24,
        width=24,
        text_tokens=9,
    ),
    "deep, not square, scale 0.7": Case(
        dataclasses.replace(SMALL, depth=5, heads=1, position_scale=0.7, out_channels=4), height=12, width=6
    ),
    "told the size, not square": Case(dataclasses.replace(SMALL, width=48, size_conditions=8), height=12, width=6),
    "a 2x2 canvas of views, joint": Case(SMALL, height=16, width=16, views=4),
}


@functools.cache
def _inputs(name: str):
    case, random = CASES[name], np.random.default_rng(7)
    normal = lambda *shape: random.standard_normal(shape, dtype=np.float32)  # noqa: E731
    images = 3
    mask = np.arange(case.text_tokens)[None] < np.array([[case.text_tokens], [1], [2]])
    return {
        "latents": normal(images, case.height, case.width, case.config.in_channels),
        "timestep": np.array([999, 0, 417], np.int32),
        "text": normal(images, case.text_tokens, case.config.caption_channels),
        "text_mask": mask,
        "cotangent": normal(images, case.height, case.width, case.config.out_channels),
    }


@functools.cache
def _reference(name: str):
    model = pixart_reference.make_reference(CASES[name].config, seed=3)
    state = {key: tensor.numpy() for key, tensor in model.state_dict().items()}
    return state, pixart_reference.run_reference(model, **_inputs(name))


def _ours(name: str, by: int):
    """Output, and gradient by the parameters (0) or the latents (1), the images cut into views as the case says."""
    case, inputs = CASES[name], _inputs(name)
    params = pixart_reference.convert(case.config, _reference(name)[0])
    side = int(case.views**0.5)
    cut = lambda images: rearrange(images, "n (a h) (b w) c -> n (a b) h w c", a=side, b=side)  # noqa: E731
    paste = lambda tiles: rearrange(tiles, "n (a b) h w c -> n (a h) (b w) c", a=side, b=side)  # noqa: E731

    @jax.jit
    def run(params, latents):
        def summed(params, latents):
            group = lambda array: jnp.asarray(array)[:, None]  # noqa: E731
            conditions = [group(inputs[key]) for key in ("timestep", "text", "text_mask")]
            output = paste(dit.apply(case.config, params, cut(latents), *conditions))
            return jnp.sum(output * inputs["cotangent"]), output

        (_, output), gradient = jax.value_and_grad(summed, argnums=by, has_aux=True)(params, latents)
        return output, gradient

    return run(params, jnp.asarray(inputs["latents"]))


def _relative_error(found, expected) -> float:
    return float(np.abs(np.asarray(found) - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("name", CASES)
def test_output_and_input_gradient_equal_those_of_diffusers_on_the_same_weights(name):
    expected, expected_gradient = _reference(name)[1]
    output, gradient = _ours(name, by=1)
    assert output.shape == expected.shape
    assert _relative_error(output, expected) <= 1e-5
    assert _relative_error(gradient, expected_gradient) <= 1e-5


def test_every_parameter_changes_the_output_but_the_biases_of_keys_which_softmax_cannot_see():
    gradients = _ours("small", by=0)[1]
    attentions = gradients["blocks"]
    blind = [
        attentions["self_attention"]["query_key_value"]["bias"][:, 1],
        attentions["cross_attention"]["key_value"]["bias"][:, 0],
    ]
    for gradient in blind:
        assert np.abs(gradient).max() < 1e-3
    seen = [
        attentions["self_attention"]["query_key_value"].pop("bias")[:, ::2],
        attentions["cross_attention"]["key_value"].pop("bias")[:, 1:],
        *jax.tree.leaves(gradients),
    ]
    for gradient in seen:
        assert np.mean(np.abs(gradient) > 1e-4) > 0.98


@pytest.mark.parametrize("preset", PIXART)
def test_every_preset_of_pixart_equals_diffusers_at_full_width(preset):
    """Two of the blocks, on an image that is not square, smaller than the preset's, and has padded captions."""
    config = dataclasses.replace(PIXART[preset], depth=2, dtype="float32", remat="none")
    random = np.random.default_rng(0)
    inputs = {
        "latents": random.standard_normal((1, 8, 16, 4), dtype=np.float32),
        "timestep": np.array([417], np.int32),
        "text": random.standard_normal((1, 12, 4096), dtype=np.float32),
        "text_mask": np.arange(12)[None] < 9,
        "cotangent": random.standard_normal((1, 8, 16, 8), dtype=np.float32),
    }
    reference = pixart_reference.make_reference(config, seed=3)
    state = {key: tensor.numpy() for key, tensor in reference.state_dict().items()}
    expected = pixart_reference.run_reference(reference, **inputs)[0]
    params = pixart_reference.convert(config, state)
    conditions = [inputs[key][:, None] for key in ("timestep", "text", "text_mask")]
    output = jax.jit(functools.partial(dit.apply, config))(params, inputs["latents"][:, None], *conditions)[:, 0]
    error = _relative_error(output, expected)
    assert error <= 1e-5
