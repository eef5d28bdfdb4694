"""Pixel-wise similarity of two images: PSNR and SSIM. Images are uint8 or float, in [0, 255]."""

import numpy as np

_PEAK = 255.0
_SMALLEST_ERROR = 1e-10 * _PEAK**2
"""Mean squared error at the highest reported PSNR, 100 dB, which keeps the PSNR of equal images finite."""

WINDOW = 11
"""Side of SSIM's Gaussian window, in pixels; its standard deviation is 1.5 pixels."""


def psnr(a: np.ndarray, b: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB, 10 log10(255² / mean squared error), over all pixels and channels; at most 100.

    Args:
      a: [..., H, W, C].
      b: [..., H, W, C].
      mask: bool[..., H, W], the pixels to compare, at least one; None compares all.
    """
    error = np.square(np.asarray(a, np.float64) - np.asarray(b, np.float64))
    mean = error.mean() if mask is None else error[mask].mean()
    return float(10.0 * np.log10(_PEAK**2 / max(mean, _SMALLEST_ERROR)))


def ssim(a: np.ndarray, b: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Structural similarity (Wang et al. 2004, eq. 13), in [-1, 1]: the mean over windows, channels and images.

    The window is a Gaussian of 11 x 11 pixels with standard deviation 1.5, K1 = 0.01 and K2 = 0.03, as in the paper; only
    windows entirely inside the image count.

    Args:
      a: [..., H, W, C], H and W at least 11.
      b: [..., H, W, C].
      mask: bool[..., H, W], the central pixels of the windows to compare, at least one; None compares all.
    """
    values = similarity_map(a, b)
    if mask is None:
        return float(values.mean())
    border = WINDOW // 2
    return float(values[mask[..., border:-border, border:-border]].mean())


def similarity_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """SSIM of every window inside the image, averaged over channels.

    Args:
      a: [..., H, W, C].
      b: [..., H, W, C].

    Returns:
      float64[..., H - 10, W - 10].
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    mean_a, mean_b = _window_mean(a), _window_mean(b)
    variance_a, variance_b = _window_mean(a * a) - mean_a**2, _window_mean(b * b) - mean_b**2
    covariance = _window_mean(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * _PEAK) ** 2, (0.03 * _PEAK) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    return (luminance * structure).mean(axis=-1)


def _window_mean(image: np.ndarray) -> np.ndarray:
    """Gaussian mean of every window inside the image: [..., H, W, C] to [..., H - 10, W - 10, C]."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(offsets**2) / (2 * 1.5**2))
    weights /= weights.sum()
    for axis in (-3, -2):
        image = np.lib.stride_tricks.sliding_window_view(image, WINDOW, axis) @ weights
    return image
