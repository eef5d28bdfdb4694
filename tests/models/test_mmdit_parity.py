"""The two-stream transformer computes what diffusers' ``SD3Transformer2DModel`` computes, on the same weights."""

import dataclasses

import jax
import numpy as np
import parity
import pytest
import torch
from einops import rearrange
from sd3_reference import SMALL, make_reference

from realiz3d_jax.checkpoints.importers import mapping, sd3
from realiz3d_jax.models import mmdit
from realiz3d_jax.models.mmdit import MMDiTConfig

REFERENCE = "diffusers SD3Transformer2DModel"


@dataclasses.dataclass(frozen=True)
class Case:
    """A configuration, the size of its images, and how many views the images are cut into."""

    config: MMDiTConfig
    height: int = 16
    width: int = 16
    views: int = 1


CASES = {
    "small": Case(SMALL),
    "deep, not square": Case(dataclasses.replace(SMALL, depth=5, heads=2), height=24, width=8),
    "two blocks, coarse patches": Case(dataclasses.replace(SMALL, depth=2, patch_size=4, base_size=4), width=24),
    "a 2x2 canvas of views, joint": Case(SMALL, height=24, width=16, views=4),
    "SD3 medium, 2 blocks, not square": Case(MMDiTConfig(depth=2, sample_size=128), height=8),
}


def run_ours(config: MMDiTConfig, params, latents, timestep, text, pooled) -> jax.Array:
    """Our output, float32[images, V, h, w, C]: one caption and timestep an image of V views."""
    captions = {"states": text[:, None], "pooled": pooled[:, None]}
    return mmdit.apply(config, params, latents, timestep[:, None], captions)


@pytest.mark.parametrize("name", CASES)
def test_output_and_input_gradient_equal_those_of_diffusers_on_the_same_weights(name):
    case = CASES[name]
    config = case.config
    reference = make_reference(config)
    state = {key: tensor.numpy() for key, tensor in reference.state_dict().items()}
    like = jax.eval_shape(lambda: mmdit.init(config, jax.random.key(0)))
    shapes = {key: array.shape for key, array in state.items()}
    assert sd3.config_of(reference.config) == config
    params = mapping.import_params("it", sd3.rules(config), like, shapes, state.__getitem__, np.float32, sd3.IGNORED)

    random = np.random.default_rng(0)
    draw = lambda *shape: random.standard_normal(shape, dtype=np.float32)  # noqa: E731
    latents, cotangent = (draw(2, case.height, case.width, config.in_channels) for _ in range(2))
    text, pooled = draw(2, 7, config.caption_channels), draw(2, config.pooled_channels)
    timestep = np.array([999.0, 17.5], np.float32)
    given = torch.tensor(latents.transpose(0, 3, 1, 2).copy(), requires_grad=True)
    expected = reference(given, torch.tensor(text), torch.tensor(pooled), torch.tensor(timestep)).sample
    (expected * torch.tensor(cotangent.transpose(0, 3, 1, 2).copy())).sum().backward()
    expected_gradient = given.grad.permute(0, 2, 3, 1).numpy()
    expected = expected.detach().permute(0, 2, 3, 1).numpy()

    side = int(case.views**0.5)

    @jax.jit
    def run(params, latents):
        def summed(latents):
            views = rearrange(latents, "n (a h) (b w) c -> n (a b) h w c", a=side, b=side)
            output = run_ours(config, params, views, timestep, text, pooled)
            output = rearrange(output, "n (a b) h w c -> n (a h) (b w) c", a=side, b=side)
            return (output * cotangent).sum(), output

        (_, output), gradient = jax.value_and_grad(summed, has_aux=True)(latents)
        return output, gradient

    output, gradient = run(params, latents)
    parity.check(f"MMDiT, {name}: output", REFERENCE, output, expected, 1e-5)
    parity.check(f"MMDiT, {name}: gradient by the latents", REFERENCE, gradient, expected_gradient, 1e-5)
