"""The two-stream transformer computes what diffusers' ``SD3Transformer2DModel`` computes, on the same weights."""

import dataclasses

import jax
import numpy as np
import pytest
import torch
from diffusers import SD3Transformer2DModel

from realiz3d_jax.importers import mapping, sd3
from realiz3d_jax.models import mmdit
from realiz3d_jax.models.mmdit import MMDiTConfig

SMALL = MMDiTConfig(
    width=48,
    depth=3,
    heads=4,
    in_channels=4,
    text_channels=20,
    pooled_channels=12,
    sample_size=16,
    base_size=8,
    max_size=24,
)
CASES = {
    "small": (SMALL, (16, 16)),
    "deep, not square": (dataclasses.replace(SMALL, depth=5, heads=2), (24, 8)),
    "two blocks, coarse patches": (dataclasses.replace(SMALL, depth=2, patch_size=4, base_size=4), (16, 24)),
}


def make_reference(config: MMDiTConfig) -> SD3Transformer2DModel:
    torch.manual_seed(0)
    model = SD3Transformer2DModel(
        sample_size=config.sample_size,
        patch_size=config.patch_size,
        in_channels=config.in_channels,
        num_layers=config.depth,
        attention_head_dim=config.width // config.heads,
        num_attention_heads=config.heads,
        joint_attention_dim=config.text_channels,
        caption_projection_dim=config.width,
        pooled_projection_dim=config.pooled_channels,
        out_channels=config.in_channels,
        pos_embed_max_size=config.max_size,
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.2 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
            parameter.copy_(torch.randn(parameter.shape) * spread)
    return model


@pytest.mark.parametrize("name", CASES)
def test_output_and_input_gradient_equal_those_of_diffusers_on_the_same_weights(name):
    config, (height, width) = CASES[name]
    reference = make_reference(config)
    state = {key: tensor.numpy() for key, tensor in reference.state_dict().items()}
    like = jax.eval_shape(lambda: mmdit.init(config, jax.random.key(0)))
    shapes = {key: array.shape for key, array in state.items()}
    assert sd3.config_of(reference.config) == config
    params = mapping.import_params("it", sd3.rules(config), like, shapes, state.__getitem__, np.float32, sd3.IGNORED)

    random = np.random.default_rng(0)
    draw = lambda *shape: random.standard_normal(shape, dtype=np.float32)  # noqa: E731
    latents, cotangent = draw(2, height, width, 4), draw(2, height, width, 4)
    text, pooled, timestep = draw(2, 7, config.text_channels), draw(2, config.pooled_channels), np.array([999.0, 17.5])
    given = torch.tensor(latents.transpose(0, 3, 1, 2).copy(), requires_grad=True)
    expected = reference(given, torch.tensor(text), torch.tensor(pooled), torch.tensor(timestep)).sample
    (expected * torch.tensor(cotangent.transpose(0, 3, 1, 2).copy())).sum().backward()
    expected_gradient = given.grad.permute(0, 2, 3, 1).numpy()
    expected = expected.detach().permute(0, 2, 3, 1).numpy()

    @jax.jit
    def run(latents):
        conditions = (timestep.astype(np.float32)[:, None], text[:, None], pooled[:, None])
        output = mmdit.apply(config, params, latents[:, None], *conditions)[:, 0]
        return (output * cotangent).sum(), output

    (_, found), gradient = jax.value_and_grad(run, has_aux=True)(latents)
    for ours, theirs in ((found, expected), (gradient, expected_gradient)):
        assert np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max() <= 1e-5
