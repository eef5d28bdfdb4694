"""The render sets that can be read. Another one is a file with ``scan`` and ``read``, and an entry here."""

import types

from realiz3d_jax.preparation.render_sets import g_objaverse, mv_adapter, objaverse_rendering, transforms_json

FORMATS: dict[str, types.ModuleType] = {
    "mv_adapter": mv_adapter,
    "objaverse_rendering": objaverse_rendering,
    "g_objaverse": g_objaverse,
    "transforms_json": transforms_json,
}
"""By name: ``scan(folder: pathlib.Path) -> list[ListedObject]``, which reads no images, and
``read(entry: ListedObject) -> RenderedObject``, which raises ``UserError``."""
