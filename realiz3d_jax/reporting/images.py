"""Images and assets as data URIs."""

import base64
import io

import numpy as np
from PIL import Image

_EXACT = 128
"""Pixels along a side up to which images are stored losslessly; larger ones become WebP."""

_QUALITY = 88


def png_uri(pixels: np.ndarray) -> str:
    """Encodes pixels uint8[H, W, 3 or 4] as a PNG data URI."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", optimize=True)
    return _uri("image/png", buffer.getvalue())


def image_uri(pixels: np.ndarray) -> str:
    """Encodes pixels uint8[H, W, 3 or 4] as a data URI: losslessly (PNG) up to 128 pixels a side, otherwise as lossy WebP."""
    if max(pixels.shape[:2]) <= _EXACT:
        return png_uri(pixels)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "webp", quality=_QUALITY, method=4)
    return _uri("image/webp", buffer.getvalue())


def asset_uri(content: bytes) -> str:
    """Encodes a GLB as a data URI."""
    return _uri("model/gltf-binary", content)


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
