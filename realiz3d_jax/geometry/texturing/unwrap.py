"""Unwrapping: texture coordinates without overlaps, so that every face has its own texels in one texture.

Coordinates of the file are kept, part by part, where they are usable. Other parts are unwrapped by xatlas or, if that does not
finish in time, cut into charts by flat projection along an axis. If the parts do not fit the unit square together, each is
moved and scaled as a whole.
"""

import dataclasses
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

from realiz3d_jax import errors, progress
from realiz3d_jax.geometry.assets.asset import Asset
from realiz3d_jax.geometry.texturing import uv_charts

TOLERANCE = 0.01
"""Largest share of a part's texels with overlaps, and of its surface without texels, before it is unwrapped again."""

_OUTSIDE = 1e-4
"""Largest distance of texture coordinates outside [0, 1] that are clipped to it."""

_SMALLEST_UV_AREA = 1e-13
"""Twice the smallest area of a face in the texture: 4e-7 of a texel of 2048 x 2048."""

_SMALLEST_SHARE = 1e-4
"""Smallest share of the unit square that a kept part covers."""

_FEW = 500
"""Parts with at most this many faces are checked at a lower resolution, which suffices for them."""

_SEARCHED = 16
"""Layers that are searched for room for a part; in an asset with more textures, further parts get a layer of their own."""


def unwrap(asset: Asset, seconds: float = 120.0) -> Asset:
    """Gives an asset texture coordinates in [0, 1] in which faces share at most ``TOLERANCE`` of the texels.

    Faces and positions do not change.

    Args:
      asset: asset with or without texture coordinates.
      seconds: time limit of xatlas; flat projections replace it after that, with a warning.

    Returns:
      A copy of the asset.
    """
    islands, missing, reasons = [], [], []
    for index, mine in asset.faces_of_parts():
        uv = None if asset.uv is None else asset.uv[mine]
        problem = "it has none" if uv is None else uv_problem(uv, _double_area(_triangles(asset, mine)))
        if problem is None:
            islands.append((mine, uv.clip(0, 1)))
        else:
            missing.append(mine)
            reasons.append(f"part {index}: {problem}")
    layers = _layers(islands)
    if missing:
        plural = "part gets" if len(missing) == 1 else "parts get"
        errors.warn(f"{asset.name}: {len(missing)} {plural} new texture coordinates ({reasons[0]})")
        faces = np.concatenate(missing)
        layers.append((faces, _unwrapped(asset, missing, seconds)))
    result = np.empty((len(asset.part), 3, 2), np.float32)
    if len(layers) == 1:
        ((faces, uv),) = layers
        result[faces] = uv
    else:
        areas = [_double_area(_triangles(asset, faces)).sum() for faces, _ in layers]
        for (faces, _), uv in zip(layers, _pack_layers([uv for _, uv in layers], areas), strict=True):
            result[faces] = uv
    return dataclasses.replace(asset, uv=result)


def uv_problem(uv: np.ndarray, areas: np.ndarray) -> str | None:
    """Reason why the texture coordinates of a part are unusable, or None.

    Args:
      uv: float[F, 3, 2], texture coordinates of the faces' corners.
      areas: float[F], surface areas of the faces.
    """
    there = np.isfinite(uv).all(axis=(1, 2))
    share = areas / areas.sum()
    if not there.all():
        return f"{share[~there].sum():.1%} of its surface has none"
    inside = ((uv >= -_OUTSIDE) & (uv <= 1 + _OUTSIDE)).all(axis=(1, 2))
    if not inside.all():
        return f"{share[~inside].sum():.1%} of its surface is outside [0, 1]"
    flat = np.abs(_signed_double_area(uv)) <= _SMALLEST_UV_AREA
    if share[flat].sum() > TOLERANCE:
        return f"{share[flat].sum():.1%} of its surface has no area in the texture"
    if np.abs(_signed_double_area(uv)).sum() / 2 < _SMALLEST_SHARE:
        return f"it covers less than {_SMALLEST_SHARE} of the texture"
    # The part is scaled to the whole raster, so that small charts do not fall between its texels.
    low = uv.min(axis=(0, 1))
    size = (uv.max(axis=(0, 1)) - low).max()
    shared = uv_charts.overlap(
        uv_charts.coverage((uv - low) / size, uv_charts.RASTER if len(uv) > _FEW else uv_charts.RASTER // 4)
    )
    return f"{shared:.1%} of its texels belong to several faces" if shared > TOLERANCE else None


def _triangles(asset: Asset, faces: np.ndarray) -> np.ndarray:
    return asset.mesh.vertices[asset.mesh.faces[faces]].astype(np.float64)


def _double_area(triangles: np.ndarray) -> np.ndarray:
    return np.linalg.norm(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]), axis=-1)


def _signed_double_area(uv: np.ndarray) -> np.ndarray:
    first, second = (uv[:, corner].astype(np.float64) - uv[:, 0] for corner in (1, 2))
    return first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]


def _layers(islands: list[tuple[np.ndarray, np.ndarray]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Joins parts (faces, uv) without mutual overlaps into layers that fit the unit square unchanged."""
    layers: list[tuple[list, np.ndarray | None]] = []
    for faces, uv in islands:
        mine = uv_charts.coverage(uv) > 0
        for members, covered in layers[:_SEARCHED]:
            if np.count_nonzero(mine & covered) <= TOLERANCE * np.count_nonzero(mine):
                members.append((faces, uv))
                covered |= mine
                break
        else:
            layers.append(([(faces, uv)], mine if len(layers) < _SEARCHED else None))
    return [tuple(np.concatenate(values) for values in zip(*members, strict=True)) for members, _ in layers]


def _pack_layers(layers: list[np.ndarray], areas: list[float]) -> list[np.ndarray]:
    """Packs layers into the unit square, each with area proportional to its surface: float32[F, 3, 2] each."""
    lows = np.array([uv.min(axis=(0, 1)) for uv in layers], np.float64)
    sizes = np.array([uv.max(axis=(0, 1)) for uv in layers]) - lows
    weights = np.sqrt(np.maximum(areas, 1e-3 * np.max(areas)) / np.maximum(sizes.prod(axis=-1), 1e-12))
    places, scale = uv_charts.pack(sizes * weights[:, None])
    return [
        ((uv - low) * (weight * scale) + place).astype(np.float32).clip(0, 1)
        for uv, low, weight, place in zip(layers, lows, weights, places, strict=True)
    ]


# --- parts without texture coordinates -----------------------------------------------------------------------------------


def _unwrapped(asset: Asset, parts: list[np.ndarray], seconds: float) -> np.ndarray:
    """New texture coordinates for the faces of several parts, float32[F, 3, 2], in [0, 1]."""
    uv, problem = _xatlas(asset, parts, seconds)
    if problem is None:
        shared = uv_charts.overlap(uv_charts.coverage(uv))
        if np.isfinite(uv).all() and uv.min() >= 0 and uv.max() <= 1 and shared <= TOLERANCE:
            return uv
        problem = f"its charts overlap by {shared:.1%}"
    faces = np.concatenate(parts)
    errors.warn(
        f"{asset.name}: xatlas gave no texture coordinates for {len(faces)} faces ({problem}); they get flat projections, with "
        "more seams."
    )
    return uv_charts.project(_triangles(asset, faces))


def _xatlas(asset: Asset, parts: list[np.ndarray], seconds: float) -> tuple[np.ndarray | None, str | None]:
    """Unwraps parts by xatlas in a separate process: (uv, None), or (None, reason of the failure)."""
    worker = pathlib.Path(__file__).with_name("xatlas_worker.py")
    with tempfile.TemporaryDirectory() as folder:
        source, target, errors = (pathlib.Path(folder, name) for name in ("in.npz", "out.npz", "errors"))
        arrays = {}
        for index, faces in enumerate(parts):
            used, names = np.unique(asset.mesh.faces[faces], return_inverse=True)
            arrays[f"vertices_{index}"] = asset.mesh.vertices[used]
            arrays[f"faces_{index}"] = names.reshape(-1, 3).astype(np.uint32)
        np.savez(source, **arrays)
        command = [sys.executable, "-P", str(worker), str(source), str(target)]
        with open(errors, "wb") as stderr, subprocess.Popen(command, stdout=stderr, stderr=stderr) as process:
            try:
                _wait(process, seconds)
            except subprocess.TimeoutExpired:
                return None, f"not finished after {seconds:g} s"
            finally:
                process.kill()
        if process.returncode or not target.exists():
            last = errors.read_text(errors="replace").strip().splitlines()[-1:]
            return None, f"it ended with status {process.returncode}: {' '.join(last)[:200]}"
        uv = np.load(target)["uv"]
    good = uv.shape == (sum(map(len, parts)), 3, 2)
    return (uv, None) if good else (None, f"it returned {len(uv)} faces")


def _wait(process: subprocess.Popen, seconds: float) -> None:
    """Waits for the process; after two seconds, a progress bar shows the time until the limit."""
    quiet = min(2.0, seconds)
    start = time.monotonic()
    try:
        process.wait(quiet)
        return
    except subprocess.TimeoutExpired:
        if seconds <= quiet:
            raise
    with progress.bar("unwrapping (s)", int(seconds), int(quiet)) as advance:
        while True:
            left = start + seconds - time.monotonic()
            try:
                process.wait(max(min(1.0, left), 0.0))
                return
            except subprocess.TimeoutExpired:
                if left <= 0:
                    raise
            advance()
