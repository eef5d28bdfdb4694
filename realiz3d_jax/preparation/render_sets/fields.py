"""Readers for the files of render sets, with the checks that all formats share: JSON fields, images with alpha, OpenEXR.

All functions raise ``UserError`` with the file, the field, what was found and what was expected.
"""

import json
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry import cameras
from realiz3d_jax.geometry.cameras import Camera

AGAIN = "Download or render this object again."


def read_json(path: pathlib.Path, kind: type = dict):
    """Reads a JSON file whose outermost value is a ``kind``."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); expected the object's JSON file. {AGAIN}"
        ) from error
    except ValueError as error:  # broken JSON, broken UTF-8
        raise UserError(f"{path}: is not valid JSON ({error}). {AGAIN}") from error
    if not isinstance(content, kind):
        raise UserError(f"{path}: holds a {type(content).__name__}; expected a {kind.__name__}. {AGAIN}")
    return content


def read_captions(path: pathlib.Path) -> dict[str, str]:
    """Reads captions by uid from a JSON object; empty if the file does not exist."""
    if not path.is_file():
        return {}
    captions = read_json(path)
    for uid, caption in captions.items():
        if not isinstance(caption, str):
            raise UserError(f"{path}: the caption of {uid!r} is {caption!r}; expected a string.")
    return captions


def listed(record: dict, name: str, place: str) -> list[dict]:
    """Reads a field that holds a non-empty list of JSON objects."""
    value = record.get(name)
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        raise UserError(f"{place}: {name} is {_short(value)}; expected a list of objects, one per view. {AGAIN}")
    return value


def text(record: dict, name: str, place: str) -> str:
    """Reads a field that holds a non-empty string."""
    value = record.get(name)
    if not isinstance(value, str) or not value:
        raise UserError(f"{place}: {name} is {_short(value)}; expected a string. {AGAIN}")
    return value


def number(record: dict, name: str, place: str) -> float:
    """Reads a field that holds a finite number."""
    return float(numbers(record, name, place, ((),)))


def angle(record: dict, name: str, place: str) -> float:
    """Reads a field that holds an angle of view in radians, in (0, pi); returns degrees."""
    value = number(record, name, place)
    if not 0 < value < np.pi:
        degrees = "; this looks like degrees" if value < 180 else ""
        raise UserError(f"{place}: {name} is {value:g}; expected radians between 0 and pi{degrees}. {AGAIN}")
    return float(np.rad2deg(value))


def numbers(record: dict, name: str, place: str, shapes: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Reads a field that holds finite numbers: float64 of one of ``shapes``."""
    wanted = "a number" if shapes == ((),) else "numbers of shape " + " or ".join(str(list(shape)) for shape in shapes)
    try:
        value = np.asarray(record[name])
        fits = value.dtype.kind in "if" and value.shape in shapes and bool(np.isfinite(value).all())
    except (KeyError, ValueError, TypeError):  # missing, ragged
        fits = False
    if not fits:
        raise UserError(f"{place}: {name} is {_short(record.get(name))}; expected {wanted}, all finite. {AGAIN}")
    return value.astype(np.float64)


def camera(matrix: np.ndarray, place: str, *, fov: float | None = None, width: float | None = None) -> Camera:
    """Calls ``cameras.from_matrix``, with the file and field added to its errors."""
    try:
        return cameras.from_matrix(matrix, fov=fov, width=width)
    except ValueError as error:
        raise UserError(f"{place}: holds {error}. {AGAIN}") from error


def check_direction(view: Camera, azimuth: float, elevation: float, place: str) -> None:
    """Raises UserError unless the camera's direction matches its azimuth (from +X) and elevation, both in radians."""
    level = np.cos(elevation)
    expected = np.array([level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation)])
    found = view.center / max(float(np.linalg.norm(view.center)), 1e-9)
    if np.abs(found - expected).max() > 0.02:
        raise UserError(
            f"{place}: transform_matrix places the camera in direction {found.round(3).tolist()}, but azimuth {azimuth:g} and "
            f"elevation {elevation:g} mean {expected.round(3).tolist()}; expected radians and a camera-to-world matrix. {AGAIN}"
        )


def check_facing(view: Camera, place: str) -> None:
    """Raises UserError unless the camera looks towards the origin, where the sets place their objects."""
    if view.center @ view.backward <= 0:
        stands, looks = view.center.round(3).tolist(), (-view.backward).round(3).tolist()
        raise UserError(
            f"{place}: the camera stands at {stands} and looks along {looks}, away from the object; expected one that looks "
            f"towards the origin. Its axes have other signs, or the matrix is the inverse of the format's. {AGAIN}"
        )


def find(folder: pathlib.Path, *names: str) -> pathlib.Path:
    """Returns the path of the first of ``names`` that is a file in ``folder``."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder}: there is no {' or '.join(names)}; expected one image per view. {AGAIN}")


def read_image(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Reads a square 8-bit image: (sRGB uint8[H, W, 3], alpha uint8[H, W], or None if the file has no alpha)."""
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode.startswith(("I", "F")):
                raise UserError(
                    f"{path}: has the image mode {image.mode}; expected 8 bits, with or without alpha. {AGAIN}"
                )
            transparent = "A" in image.mode or "transparency" in image.info
            pixels = np.asarray(image.convert("RGBA" if transparent else "RGB"))
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's errors for broken files
        raise UserError(f"{path}: cannot be read as an image ({error}): it is truncated or broken. {AGAIN}") from error
    if pixels.shape[0] != pixels.shape[1]:
        raise UserError(f"{path}: is {pixels.shape[1]} x {pixels.shape[0]} pixels; expected a square view.")
    return pixels[..., :3], pixels[..., 3] if transparent else None


def over_white(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Composites colours uint8[..., 3] with straight alpha uint8[...] over white, in displayed values (sRGB)."""
    share = alpha[..., None].astype(np.float32) / 255
    return np.round(color * share + 255 * (1 - share)).astype(np.uint8)


def read_exr(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the channels of an OpenEXR image, float32[H, W] each, by the last part of their names ("Image.R" gives "R").

    Access by name avoids libraries that reorder channels.
    """
    try:
        import OpenEXR
    except ImportError as error:
        raise UserError(
            f"{path}: reading OpenEXR files needs the package OpenEXR. Run\n  pip install OpenEXR"
        ) from error
    if not path.is_file():
        raise UserError(f"{path}: is missing; expected the view's OpenEXR file. {AGAIN}")
    try:
        with OpenEXR.File(os.fspath(path), separate_channels=True) as file:
            channels = {
                name.split(".")[-1]: np.array(item.pixels, np.float32) for name, item in file.channels().items()
            }
    except Exception as error:  # OpenEXR defines no exception class
        raise UserError(f"{path}: cannot be read as OpenEXR ({error}): it is truncated or broken. {AGAIN}") from error
    for name, values in channels.items():
        if values.ndim != 2 or values.shape[0] != values.shape[1]:
            raise UserError(f"{path}: channel {name} has shape {list(values.shape)}; expected a square view.")
    return channels


def check_sizes(paths: Sequence[pathlib.Path], images: Sequence[np.ndarray], size: int | None = None) -> None:
    """Raises UserError unless all images are ``size`` pixels wide, or as wide as the first if ``size`` is None."""
    size = len(images[0]) if size is None else size
    for path, image in zip(paths, images, strict=True):
        if len(image) != size:
            raise UserError(f"{path}: is {len(image)} pixels wide; expected {size}, as in the object's other images.")


def _short(value) -> str:
    words = "missing" if value is None else repr(value)
    return words if len(words) <= 80 else words[:77] + "..."
