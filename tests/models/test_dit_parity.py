"""Our transformer computes what diffusers' PixArtTransformer2DModel computes, on the same weights."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pixart_reference
import pytest
from einops import rearrange

from realiz3d_jax.models.dit import DiTConfig
from realiz3d_jax.models.presets import PIXART

REFERENCE = "diffusers PixArtTransformer2DModel"
SMALL = DiTConfig(
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

    config: DiTConfig
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
    "size conditions, not square": Case(dataclasses.replace(SMALL, width=48, size_conditions=8), height=12, width=6),
    "a 2x2 canvas of views, joint": Case(SMALL, height=16, width=16, views=4),
}


@functools.cache
def _inputs(case: Case) -> dict[str, np.ndarray]:
    """Three images. Their captions fill the padded length, are one token as the null caption is, and something between."""
    random = np.random.default_rng(7)
    normal = lambda *shape: random.standard_normal(shape, dtype=np.float32)  # noqa: E731
    images = 3
    mask = np.arange(case.text_tokens)[None] < np.array([[case.text_tokens], [1], [case.text_tokens // 2]])
    return {
        "latents": normal(images, case.height, case.width, case.config.in_channels),
        "timestep": np.array([999, 0, 417], np.int32),
        "text": normal(images, case.text_tokens, case.config.caption_channels),
        "text_mask": mask,
    }


def _cotangent(case: Case) -> np.ndarray:
    shape = (3, case.height, case.width, case.config.out_channels)
    return np.random.default_rng(8).standard_normal(shape, dtype=np.float32)


@functools.cache
def _reference(case: Case):
    """Parameters as ours, and the reference's output and gradient."""
    model = pixart_reference.make_reference(case.config, seed=3)
    state = {key: tensor.numpy() for key, tensor in model.state_dict().items()}
    expected = pixart_reference.run_reference(model, **_inputs(case), cotangent=_cotangent(case))
    return pixart_reference.convert(case.config, state), expected


def _ours(case: Case, by: int):
    """Output, and gradient by the parameters (0) or the latents (1), the images cut into views as the case says."""
    inputs = _inputs(case)
    side = int(case.views**0.5)
    cut = lambda images: rearrange(images, "n (a h) (b w) c -> n (a b) h w c", a=side, b=side)  # noqa: E731
    paste = lambda tiles: rearrange(tiles, "n (a b) h w c -> n (a h) (b w) c", a=side, b=side)  # noqa: E731

    @jax.jit
    def run(params, latents):
        def summed(params, latents):
            output = paste(pixart_reference.run_ours(case.config, params, **inputs | {"latents": cut(latents)}))
            return jnp.sum(output * _cotangent(case)), output

        (_, output), gradient = jax.value_and_grad(summed, argnums=by, has_aux=True)(params, latents)
        return output, gradient

    return run(_reference(case)[0], jnp.asarray(inputs["latents"]))


def _output(config: DiTConfig, params, latents, **conditions) -> np.ndarray:
    """Of images of one view each."""
    run = jax.jit(functools.partial(pixart_reference.run_ours, config))
    return np.asarray(run(params, latents[:, None], **conditions)[:, 0])


@pytest.mark.parametrize("name", CASES)
def test_output_and_input_gradient_equal_those_of_diffusers_on_the_same_weights(name):
    case = CASES[name]
    output, gradient = _ours(case, by=1)
    expected, expected_gradient = _reference(case)[1]
    parity.check(f"DiT, {name}: output", REFERENCE, output, expected, 1e-5)
    parity.check(f"DiT, {name}: gradient by the latents", REFERENCE, gradient, expected_gradient, 1e-5)


def test_every_parameter_changes_the_output_but_the_biases_of_keys_which_softmax_cannot_see():
    gradients = _ours(CASES["small"], by=0)[1]
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


def _preset(name: str, **changes) -> Case:
    """Two of a preset's blocks at full width, on images that are not square and smaller than the preset's."""
    config = dataclasses.replace(PIXART[name], depth=2, dtype="float32", remat="none")
    return Case(dataclasses.replace(config, **changes), height=8, width=16, text_tokens=12)


@pytest.mark.parametrize("preset", PIXART)
def test_every_preset_of_pixart_equals_diffusers_at_full_width(preset):
    case = _preset(preset)
    model = pixart_reference.make_reference(case.config, seed=3)
    state = {key: tensor.numpy() for key, tensor in model.state_dict().items()}
    expected = pixart_reference.predict_reference(model, **_inputs(case))
    params = pixart_reference.convert(case.config, state)
    output = _output(case.config, params, **_inputs(case))
    parity.check(f"DiT, {preset}, 2 blocks: output", REFERENCE, output, expected, 1e-5)
    if preset == "pixart_sigma":
        rough = _output(dataclasses.replace(case.config, dtype="bfloat16"), params, **_inputs(case))
        # 8 bits of mantissa, on the residual stream, too.
        error = parity.check(f"DiT, {preset}, 2 blocks, in bfloat16: output", REFERENCE, rough, expected, 3e-2)
        assert error > 1e-4  # else it did not run in bfloat16


@pytest.mark.slow
def test_the_whole_pixart_sigma_equals_diffusers():
    """All 28 blocks, on images of 16 x 16 latent pixels. Takes 6 GiB."""
    config = dataclasses.replace(PIXART["pixart_sigma"], dtype="float32", remat="none")
    case = Case(config, height=16, width=16, text_tokens=20)
    model = pixart_reference.make_reference(config, seed=3)
    expected = pixart_reference.predict_reference(model, **_inputs(case))
    params = pixart_reference.convert(config, {key: tensor.numpy() for key, tensor in model.state_dict().items()})
    del model  # its 2.4 GB, before ours are copied to the device
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 610_856_096
    assert 0.1 < expected.std() < 10.0
    output = _output(config, params, **_inputs(case))
    parity.check("DiT, pixart_sigma, whole (28 blocks): output", REFERENCE, output, expected, 1e-5)
