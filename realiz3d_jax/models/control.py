"""Control embeddings: each task's addition to the embedded patches, or to the noisy latents.

    texture             tokens = patches(control) W       normal and position maps, encoded as the latents are      (1)
    text_to_multiview   tokens_v = code(azimuth_v) W      four fixed viewpoints                                     (2)
                    or  latents_v = code(azimuth_v) W     the same, W with C outputs for D                          (3)
    code(a) = [sin(f a), cos(f a)],  f in (1, 2, 4)

(1) is the paper's channel concatenation: W holds the input convolution's weights for the new channels, kept apart so
that the sum is formed as the base model forms it. W starts at zero and has no bias: a fresh control, and a null (zero)
one, change nothing, bit for bit. In (2) and (3) cos(4 a) = 1 for the four azimuths and takes the place of a bias.

(3) is the paper's "positional encoding added to the latent samples", used by the settings for published bases. The patch
embedding is linear, so (3) reaches C of the D dimensions that (2) reaches. On the shapes benchmark, whose shipped model uses
(2), both measure the same (``configs/stage2.py``).
"""

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from realiz3d_jax.models.backbone import Config, Params
from realiz3d_jax.views import AZIMUTHS

TASKS = ("texture", "text_to_multiview")
VIEWPOINTS = ("tokens", "latents")
"""Where text_to_multiview adds its viewpoints: (2) or (3)."""

_FREQUENCIES = (1, 2, 4)


def init(task: str, config: Config, key: jax.Array, control_channels: int = 6, viewpoints: str = "tokens") -> Params:
    """Fresh (zero) parameters: {"kernel": float32[inputs, D]}, or [inputs, C] for viewpoints in latents.

    Args:
      task: one of ``TASKS``.
      config: the backbone's.
      key: unused, since all are zeros; taken so that every partition has the same signature.
      control_channels: channels of the control ("texture").
      viewpoints: one of ``VIEWPOINTS`` ("text_to_multiview").
    """
    del key
    inputs = {"texture": control_channels * config.patch_size**2, "text_to_multiview": 2 * len(_FREQUENCIES)}[task]
    outputs = config.in_channels if task == "text_to_multiview" and viewpoints == "latents" else config.width
    return {"kernel": jnp.zeros((inputs, outputs), jnp.float32)}


def apply(task: str, config: Config, params: Params, control: jax.Array | None) -> jax.Array:
    """The addition to the tokens, or to the latents for viewpoints in latents; in float32.

    Args:
      task: one of ``TASKS``.
      config: the backbone's.
      params: as ``init`` makes them.
      control: float[B, V, h, w, control channels], 0 in the background ("texture"); unused, so it may be None, for
        "text_to_multiview".

    Returns:
      float32[B, V, N, D] ("texture") or float32[1, V, 1, D or C] ("text_to_multiview", V = 4).
    """
    if task == "texture":
        assert control is not None, "the task texture takes maps"
        side = config.patch_size
        features = rearrange(control, "b v (r p) (c q) e -> b v (r c) (e p q)", p=side, q=side)
    else:
        features = jnp.asarray(azimuth_code(AZIMUTHS))[None, :, None, :]
    return features.astype(jnp.float32) @ params["kernel"]


def azimuth_code(azimuths: tuple[int, ...]) -> np.ndarray:
    """Sinusoids of azimuths in degrees: float32[V, 6], in float64 and rounded so that right angles give exact zeros."""
    angles = np.deg2rad(np.outer(azimuths, _FREQUENCIES).astype(np.float64))
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1).round(12).astype(np.float32)
