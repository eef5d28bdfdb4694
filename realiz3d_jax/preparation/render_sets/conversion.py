"""Converts published render sets, in one of the formats of ``preparation.render_sets``, to datasets of records.

If a set's views include those of a rig, its records hold these views and form grids like our own renders. Otherwise each
record stores its own cameras, and its views serve as single images. Images are resized to the dataset's size: colours by
area in linear light, maps by resampling at the centres of the new pixels.
"""

import dataclasses
import functools
import os
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from realiz3d_jax.data import geometry_maps, records
from realiz3d_jax.data.records import Example
from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.cameras import Camera, matching_views
from realiz3d_jax.geometry.mesh import linear_to_srgb, srgb_to_linear
from realiz3d_jax.geometry.render import Maps
from realiz3d_jax.preparation.assets import rendering
from realiz3d_jax.preparation.assets.rendering import RenderConfig
from realiz3d_jax.preparation.render_sets.formats import FORMATS
from realiz3d_jax.preparation.render_sets.rendered import ListedObject, RenderedObject

_TRIES = 20
"""Number of first objects of a set among which one must be readable."""


def prepare(
    directory: str | os.PathLike[str],
    collection: str,
    source: str | os.PathLike[str],
    form: str,
    captions: dict[str, str],
    size: int,
    config: RenderConfig,
    count: int | None = None,
    processes: int | None = None,
) -> tuple[pathlib.Path, bool]:
    """Makes the dataset "assets" of a collection from a render set, resuming an interrupted call.

    Args:
      directory: root folder of the datasets.
      collection: name of the collection.
      source: folder of the render set.
      form: a key of ``FORMATS``.
      captions: captions by uid, which override the set's own. Objects without a caption are left out.
      size: pixels along a side of a view, one of ``records.SIZES``.
      config: gives the rig whose views are searched for, and the held-out fractions.
      count: use only this many objects, from the first.
      processes: number of reading processes; None for one per core.

    Returns:
      as ``rendering.prepare``.

    Raises:
      UserError: as ``rendering.prepare``, or the folder is not a set of this format.
    """
    source = pathlib.Path(source)
    if form not in FORMATS:
        raise UserError(f"render format {form!r}: there is no such format; expected one of {', '.join(FORMATS)}.")
    if not source.is_dir():
        raise UserError(f"{source}: there is no such folder; expected the folder of a render set.")
    entries = FORMATS[form].scan(source)[:count]
    entries = [dataclasses.replace(entry, caption=captions.get(entry.uid, entry.caption)) for entry in entries]
    if not entries:
        raise UserError(f"{source}: found no object in the format {form}; is it in another format, or in a subfolder?")
    first = _first_readable(form, entries)
    in_rig = matching_views(first.cameras, config.rig.cameras()) is not None
    views = len(config.rig.azimuths) if in_rig else len(first.cameras)
    without = ["real", "mesh", "up", "depth", *(["cameras"] if in_rig else [])]
    without += [] if _has_maps(first) else ["normal", "position"]
    example = functools.partial(
        record_of,
        form=form,
        size=size,
        rig=config.rig.cameras() if in_rig else None,
        views=views,
        without=tuple(without),
    )
    settings: dict[str, Any] = {"render_set": form, "views": views}
    digests = {
        entry.uid: rendering.digest_of([str(entry.path), entry.path.stat().st_mtime_ns, entry.caption, size, settings])
        for entry in entries
    }
    rig = config.rig if in_rig else None
    return rendering.make_each(
        directory, collection, entries, digests, example, size, config, settings, processes, rig=rig, without=without
    )


def record_of(
    entry: ListedObject, form: str, size: int, rig: tuple[Camera, ...] | None, views: int, without: tuple[str, ...]
) -> Example:
    """Makes the record of an object of a set.

    Args:
      entry: the object.
      form: format of the set, a key of ``FORMATS``.
      size: pixels along a side of a view.
      rig: cameras whose views are taken; None takes all views.
      views: number of views that the record must have.
      without: features that the dataset lacks.

    Raises:
      UserError: the object cannot be read, has no caption, or lacks views or maps of the dataset's other objects.
    """
    if not entry.caption:
        raise UserError(
            f"{entry.path}: has no caption; pass a JSON or CSV file with its uid {entry.uid!r} by --captions."
        )
    found = FORMATS[form].read(entry)
    if found.mask.all():
        raise UserError(f"{entry.path}: is opaque everywhere in all views; its renders include their background.")
    if rig is not None:
        chosen = matching_views(found.cameras, rig)
        if chosen is None:
            raise UserError(f"{entry.path}: lacks views of the rig that other objects of this set have.")
        found = _select(found, chosen)
    if len(found.cameras) != views:
        raise UserError(
            f"{entry.path}: has {len(found.cameras)} views; expected {views}, as in the set's first object."
        )
    found = resized(found, size)
    record: Example = {
        "uid": entry.uid,
        "caption": entry.caption,
        "synthetic": found.color,
        "mask": found.mask.astype(np.uint8),
        "cameras": records.encode_cameras(found.cameras),
    }
    if _has_maps(found):
        maps = Maps(found.position, found.normal, found.mask, np.where(found.mask, 0, -1))
        record |= dataclasses.asdict(geometry_maps.stored(maps))
    needed = [name for name in records.SCHEMAS["assets"] if name not in without]
    if missing := [name for name in needed if name not in record]:
        raise UserError(f"{entry.path}: has no {', '.join(missing)}, which other objects of this set have.")
    return {name: record[name] for name in needed}


def resized(held: RenderedObject, size: int) -> RenderedObject:
    """Resizes an object's views to ``size`` pixels; positions are moved onto the rays through the new pixel centres."""
    before = held.color.shape[1]
    if before == size:
        return held
    nearest = np.minimum(((np.arange(size) + 0.5) * before / size).astype(int), before - 1)
    pick = np.ix_(range(len(held.cameras)), nearest, nearest)
    mask = held.mask[pick]
    position = held.position
    if position is not None:
        position = np.stack(
            [_on_rays(camera, seen, size) for camera, seen in zip(held.cameras, position[pick], strict=True)]
        )
        position = np.where(mask[..., None], position, 0).astype(np.float32)
    return dataclasses.replace(
        held,
        color=np.stack([_scaled(view, size) for view in held.color]),
        mask=mask,
        normal=None if held.normal is None else held.normal[pick],
        position=position,
    )


def _has_maps(held: RenderedObject) -> bool:
    return held.normal is not None and held.position is not None


def _select(held: RenderedObject, views: list[int]) -> RenderedObject:
    arrays = {name: getattr(held, name) for name in ("color", "mask", "normal", "position")}
    arrays = {name: None if array is None else array[views] for name, array in arrays.items()}
    return dataclasses.replace(held, cameras=tuple(held.cameras[view] for view in views), **arrays)


def _on_rays(camera: Camera, position: np.ndarray, size: int) -> np.ndarray:
    """Moves positions float[H, W, 3], at constant depth, onto the rays through the pixel centres: float64[H, W, 3]."""
    origins, directions = camera.rays(size)
    depth = camera.project(position, size)[1] / -(directions @ camera.backward)
    return origins + depth[..., None] * directions


def _scaled(view: np.ndarray, size: int) -> np.ndarray:
    """Resizes sRGB uint8[H, W, 3] to uint8[size, size, 3]; each pixel is the mean of the linear light on its area."""
    linear = srgb_to_linear(view / 255.0).astype(np.float32)
    channels = [
        np.asarray(Image.fromarray(linear[..., channel]).resize((size, size), Image.Resampling.BOX))
        for channel in range(3)
    ]
    return np.round(255 * linear_to_srgb(np.stack(channels, axis=-1))).astype(np.uint8)


def _first_readable(form: str, entries: list[ListedObject]) -> RenderedObject:
    """Returns the first readable object; all others must have the same views and maps."""
    reasons = []
    for entry in entries[:_TRIES]:
        try:
            return FORMATS[form].read(entry)
        except UserError as error:
            reasons.append(str(error))
    raise UserError(
        f"the first {len(reasons)} objects of this set cannot be read as {form}; is it another format?\n  "
        + "\n  ".join(reasons[:5])
    )
