"""Files of render sets, read with the checks that all formats share: JSON fields, images with alpha, EXR by channel name.

Everything here raises ``UserError`` with the file, the field, what was found and what was expected.
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
    """The content of a JSON file whose outermost value is a ``kind``."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); expected the object's JSON file. {AGAIN}"
        ) from error
    except ValueError as error:  # broken JSON, broken UTF-8
        raise UserError(f"{path}: is no JSON ({error}). {AGAIN}") from error
    if not isinstance(content, kind):
        raise UserError(f"{path}: holds a {type(content).__name__}; expected a {kind.__name__}. {AGAIN}")
    return content


def read_captions(path: pathlib.Path) -> dict[str, str]:
    """Captions by uid from a JSON file of such pairs; none where there is no such file."""
    if not path.is_file():
        return {}
    captions = read_json(path)
    for uid, caption in captions.items():
        if not isinstance(caption, str):
            raise UserError(f"{path}: the caption of {uid!r} is {caption!r}; expected a text.")
    return captions


def listed(record: dict, name: str, place: str) -> list[dict]:
    """A field that holds one JSON object or more."""
    value = record.get(name)
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        raise UserError(f"{place}: {name} is {_short(value)}; expected a list of objects, one for each view. {AGAIN}")
    return value


def text(record: dict, name: str, place: str) -> str:
    """A field that holds a text."""
    value = record.get(name)
    if not isinstance(value, str) or not value:
        raise UserError(f"{place}: {name} is {_short(value)}; expected a text. {AGAIN}")
    return value


def number(record: dict, name: str, place: str) -> float:
    """A field that holds a finite number."""
    return float(numbers(record, name, place, ((),)))


def angle(record: dict, name: str, place: str) -> float:
    """A field that holds an angle across a view in radians, in (0, pi); returns degrees."""
    value = number(record, name, place)
    if not 0 < value < np.pi:
        degrees = "; this looks like degrees" if value < 180 else ""
        raise UserError(f"{place}: {name} is {value:g}; expected radians between 0 and pi{degrees}. {AGAIN}")
    return float(np.rad2deg(value))


def numbers(record: dict, name: str, place: str, shapes: Sequence[tuple[int, ...]]) -> np.ndarray:
    """A field that holds finite numbers, float64 of one of ``shapes``."""
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
    """``cameras.from_matrix`` with the file and field in its errors."""
    try:
        return cameras.from_matrix(matrix, fov=fov, width=width)
    except ValueError as error:
        raise UserError(f"{place}: holds {error}. {AGAIN}") from error


def check_direction(view: Camera, azimuth: float, elevation: float, place: str) -> None:
    """Raises unless the camera stands where two angles, in radians, azimuths from +X, say that it does."""
    level = np.cos(elevation)
    expected = np.array([level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation)])
    found = view.center / max(float(np.linalg.norm(view.center)), 1e-9)
    if np.abs(found - expected).max() > 0.02:
        raise UserError(
            f"{place}: transform_matrix stands in direction {found.round(3).tolist()}, but azimuth {azimuth:g} and elevation "
            f"{elevation:g} mean {expected.round(3).tolist()}; expected radians and a camera-to-world matrix. {AGAIN}"
        )


def check_facing(view: Camera, place: str) -> None:
    """Raises unless the camera looks towards the origin, where the sets place their objects."""
    if view.center @ view.backward <= 0:
        stands, looks = view.center.round(3).tolist(), (-view.backward).round(3).tolist()
        raise UserError(
            f"{place}: this camera stands at {stands} and looks along {looks}, away from the object; expected one that looks "
            f"towards the origin: its axes have other signs, or the matrix is the inverse of what the format says. {AGAIN}"
        )


def find(folder: pathlib.Path, *names: str) -> pathlib.Path:
    """The first of some names that is a file in a folder."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder}: there is no {' or '.join(names)}; expected one image for each view. {AGAIN}")


def read_image(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray | None]:
    """An image of 8 bits: (uint8[H, W, 3] sRGB, uint8[H, W] alpha or None where the file has none)."""
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode.startswith(("I", "F")):
                raise UserError(
                    f"{path}: is an image of mode {image.mode}; expected 8 bits, with or without alpha. {AGAIN}"
                )
            transparent = "A" in image.mode or "transparency" in image.info
            pixels = np.asarray(image.convert("RGBA" if transparent else "RGB"))
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's errors of broken files
        raise UserError(f"{path}: cannot be read as an image ({error}): it is truncated or broken. {AGAIN}") from error
    if pixels.shape[0] != pixels.shape[1]:
        raise UserError(f"{path}: is {pixels.shape[1]} x {pixels.shape[0]} pixels; expected a square view.")
    return pixels[..., :3], pixels[..., 3] if transparent else None


def over_white(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """uint8[..., 3] over white, mixed as displayed (sRGB): straight alpha uint8[...]."""
    share = alpha[..., None].astype(np.float32) / 255
    return np.round(color * share + 255 * (1 - share)).astype(np.uint8)


def read_exr(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The channels of an OpenEXR image by the last part of their names ("Image.R" is "R"): float32[H, W] each.

    Named channels have no order that a library could turn round.
    """
    try:
        import OpenEXR
    except ImportError as error:
        raise UserError(
            f"{path}: reading OpenEXR files needs a package of that name. Run\n  pip install OpenEXR"
        ) from error
    if not path.is_file():
        raise UserError(f"{path}: is missing; expected the view's OpenEXR file. {AGAIN}")
    try:
        with OpenEXR.File(os.fspath(path), separate_channels=True) as file:
            channels = {
                name.split(".")[-1]: np.array(item.pixels, np.float32) for name, item in file.channels().items()
            }
    except Exception as error:  # OpenEXR has no exception of its own
        raise UserError(f"{path}: cannot be read as OpenEXR ({error}): it is truncated or broken. {AGAIN}") from error
    for name, values in channels.items():
        if values.ndim != 2 or values.shape[0] != values.shape[1]:
            raise UserError(f"{path}: channel {name} has shape {list(values.shape)}; expected a square view.")
    return channels


def check_sizes(paths: Sequence[pathlib.Path], images: Sequence[np.ndarray], size: int | None = None) -> None:
    """Raises unless all views are ``size`` pixels wide, or as wide as the first."""
    size = len(images[0]) if size is None else size
    for path, image in zip(paths, images, strict=True):
        if len(image) != size:
            raise UserError(f"{path}: is {len(image)} pixels wide; expected {size}, as the object's other images are.")


def _short(value) -> str:
    words = "missing" if value is None else repr(value)
    return words if len(words) <= 80 else words[:77] + "..."
