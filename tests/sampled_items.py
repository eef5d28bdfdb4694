"""Sampled items, written as ``sample`` writes them, of whatever views."""

import dataclasses
import hashlib
import pathlib
from typing import Any

import numpy as np

from realiz3d_jax.geometry.assets.asset import load_asset
from realiz3d_jax.geometry.cameras import STANDARD_RIG, Rig, view_name
from realiz3d_jax.geometry.textured_views import render_colors
from realiz3d_jax.sampling import items

SIDES = (0, 1, 2, 3)

SIX = Rig(azimuths=(0, 90, 180, 270, 0, 0), elevations=(0.0, 0.0, 0.0, 0.0, 90.0, -90.0))

RIGS = {
    "another width": (Rig(width=1.2), SIDES),
    "perspective": (Rig(elevations=(15.0,), projection="perspective"), SIDES),
    "four of six": (SIX, (0, 1, 4, 5)),
}
"""Rigs that are not the standard one, and the views that are taken of each."""


def write_item(
    folder: pathlib.Path,
    uid: str,
    views: np.ndarray,
    mesh: pathlib.Path | None,
    rig: Rig = STANDARD_RIG,
    chosen: tuple[int, ...] = SIDES,
    **changes: Any,
) -> None:
    """Writes the views uint8[4, H, W, 3] of a mesh; ``changes`` take the place of what the description says else."""
    source = mesh and {"path": str(mesh), "sha256": hashlib.sha256(mesh.read_bytes()).hexdigest(), "up": None}
    description = {
        "uid": uid,
        "caption": "a thing",
        "task": "texture",
        "domain": "real",
        "seed": 0,
        "mesh": source,
        "size": views.shape[1],
        "rig": dataclasses.asdict(rig),
        "views": chosen,
        "sampling": {"sampler": "ddim", "steps": 50, "guidance_scale": 3.0, "block_max": 0.3, "timestep_max": 950},
        "batch": 8,
        "model": {"source": "runs/stage2", "sha256": "ab" * 32},
        "versions": {"jax": "0"},
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    names = [view_name(*rig.angles()[view]) for view in chosen]
    items.write(folder, description | changes, views, names)


def true_views(mesh: pathlib.Path, size: int, rig: Rig, chosen: tuple[int, ...] = SIDES) -> np.ndarray:
    """The views of a mesh in its own colours, uint8[4, size, size, 3]: what a perfect model would draw."""
    asset = load_asset(mesh)
    return render_colors(asset.mesh, asset.base_color, size, [rig.cameras()[view] for view in chosen], samples=4)[0]
