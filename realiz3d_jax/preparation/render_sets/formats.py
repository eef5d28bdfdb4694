"""The supported render-set formats. To add one, write a module with ``scan`` and ``read`` and list it here."""

import types

from realiz3d_jax.preparation.render_sets import g_objaverse, mv_adapter, objaverse_rendering, transforms_json

FORMATS: dict[str, types.ModuleType] = {
    "mv_adapter": mv_adapter,
    "objaverse_rendering": objaverse_rendering,
    "g_objaverse": g_objaverse,
    "transforms_json": transforms_json,
}
"""Modules by format name. Each defines ``scan(folder: pathlib.Path) -> list[ListedObject]``, which reads no images, and
``read(entry: ListedObject) -> RenderedObject``, which raises ``UserError``."""
