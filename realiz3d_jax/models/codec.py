"""Codecs between images and latents. The pixel codec stands where a latent diffusion model has its VAE."""

import dataclasses

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class PixelCodec:
    """Images are their own latents, scaled to [-1, 1].

    Both methods take NumPy or JAX arrays and return the same kind.

    Attributes:
        channels: of a latent.
        factor: side of an image over the side of its latent.
        bound: of the absolute value of a latent; None where there is none.
    """

    channels: int = 3
    factor: int = 1
    bound: float | None = 1.0

    def encode(self, images: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
        """uint8[..., H, W, 3] -> float32[..., H, W, 3] in [-1, 1]."""
        return images.astype(np.float32) / np.float32(127.5) - np.float32(1.0)

    def decode(self, latents: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
        """float[..., H, W, 3] -> uint8[..., H, W, 3], rounded, values outside [-1, 1] clipped."""
        scaled = (latents.astype(np.float32) + np.float32(1.0)) * np.float32(127.5)
        return scaled.round().clip(0, 255).astype(np.uint8)
