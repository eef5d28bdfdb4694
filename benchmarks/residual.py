"""How much of the domain shifts' effect survives in bfloat16: ``python -m benchmarks.residual``.

The shipped texturing model predicts noise in either domain, from the same pure noise. The difference of the two predictions is
the domain's effect. It is compared with that of float32, where products are bfloat16 and the residual stream
float32 or bfloat16, at the shifts that were learned and at smaller ones.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import rich.console
import rich.table
from absl import flags

from realiz3d_jax import errors, startup
from realiz3d_jax.method.domains import Domain
from realiz3d_jax.sampling.pretrained import SHIPPED, Pretrained, open_model

_GRIDS = flags.DEFINE_integer("grids", 8, "Grids of noise for each timestep.", lower_bound=1)
_CAPTION = "a small blue torus on top of a red cube"
_TIMESTEPS = (100, 300, 500, 700, 900)
_SCALES = (1.0, 0.3, 0.1)
_STREAMS = ("float32", "bfloat16")


def main(argv: list[str]) -> None:
    """The benchmark."""
    del argv
    startup.start()
    model = open_model(SHIPPED["texture"])
    table = rich.table.Table(title="the domain's effect with bfloat16 products, beside float32")
    for column in ("shifts times", "residual stream", "error, of its norm", "cosine"):
        table.add_column(column, justify="right")
    for scale in _SCALES:
        exact = domain_effect(model, scale, "float32", "float32", _GRIDS.value)
        for stream in _STREAMS:
            found = domain_effect(model, scale, "bfloat16", stream, _GRIDS.value)
            error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
            cosine = np.vdot(found, exact) / np.linalg.norm(found) / np.linalg.norm(exact)
            table.add_row(f"{scale:g}", stream, f"{error:.3f}", f"{cosine:.3f}")
    rich.console.Console().print(table)


def domain_effect(pretrained: Pretrained, scale: float, dtype: str, residual_dtype: str, grids: int = 2) -> np.ndarray:
    """The prediction in the real domain less that in the synthetic one, float64[timesteps, B, V, h, w, C].

    Args:
      scale: of the shifts, on those that were learned.
      dtype, residual_dtype: as in ``dit.DiTConfig``.
      grids: B, of noise for each timestep.
    """
    config = dataclasses.replace(pretrained.model.config, dtype=dtype, residual_dtype=residual_dtype)
    model = dataclasses.replace(pretrained.model, config=config)
    shifters = pretrained.params["shifters"]
    params = {**pretrained.params, "shifters": {**shifters, "left": scale * shifters["left"]}}
    shape = (grids, 4, config.sample_size, config.sample_size, config.in_channels)
    captions = jax.tree.map(
        lambda array: np.repeat(array[None], shape[0], axis=0), pretrained.encoder.encode([_CAPTION])
    )
    noise = np.random.default_rng(0).standard_normal(shape, np.float32)

    @jax.jit
    def predict(timestep: jax.Array, domain: jax.Array) -> jax.Array:
        timesteps, plan = jnp.full((shape[0], 1), timestep), jnp.full(config.depth, domain)
        return model.predict(params, noise, timesteps, captions, domain=plan)

    real, synthetic = (
        np.stack([np.asarray(predict(timestep, domain), np.float64) for timestep in _TIMESTEPS])
        for domain in (Domain.REAL, Domain.SYNTHETIC)
    )
    return real - synthetic


if __name__ == "__main__":
    errors.run(main)
