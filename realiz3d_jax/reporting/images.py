"""Images inside a page's own text."""

import base64
import io

import numpy as np
from PIL import Image

_EXACT = 128
"""Pixels along a side: images of no more are kept exactly, larger ones as WebP."""

_QUALITY = 88


def png_uri(pixels: np.ndarray) -> str:
    """uint8[H, W, 3 or 4] as a PNG inside a URI."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", optimize=True)
    return _uri("image/png", buffer.getvalue())


def image_uri(pixels: np.ndarray) -> str:
    """uint8[H, W, 3 or 4] inside a URI: exactly if it is small, else nearly."""
    if max(pixels.shape[:2]) <= _EXACT:
        return png_uri(pixels)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "webp", quality=_QUALITY, method=4)
    return _uri("image/webp", buffer.getvalue())


def asset_uri(content: bytes) -> str:
    """A GLB inside a URI."""
    return _uri("model/gltf-binary", content)


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
