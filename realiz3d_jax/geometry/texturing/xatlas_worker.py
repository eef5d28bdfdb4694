"""Unwraps meshes with xatlas in a separate process, which can be killed: ``python xatlas_worker.py IN.npz OUT.npz``.

IN holds ``vertices_0``, ``faces_0`` and so on; OUT gets ``uv``, float32[F, 3, 2], in [0, 1], for the faces of all meshes in
order.
"""

import sys

import numpy as np
import xatlas

RESOLUTION = 1024
"""Texels along a side of the atlas."""

PADDING = 4
"""Texels between charts."""


def main(source: str, target: str) -> None:
    """Unwraps the meshes of the file ``source`` into one atlas, the file ``target``; exits with a message otherwise."""
    meshes = np.load(source)
    atlas = xatlas.Atlas()
    count = len(meshes.files) // 2
    for index in range(count):
        atlas.add_mesh(meshes[f"vertices_{index}"], meshes[f"faces_{index}"])
    options = xatlas.PackOptions()
    options.resolution, options.padding = RESOLUTION, PADDING
    atlas.generate(pack_options=options)
    uv = []
    for index in range(count):
        _, faces, coordinates = atlas[index]
        uv.append(coordinates[faces].reshape(-1, 3, 2))
    # xatlas makes several atlases if the meshes do not fit; their texture coordinates would overlap.
    if atlas.atlas_count != 1:
        sys.exit(f"xatlas made {atlas.atlas_count} atlases")
    np.savez(target, uv=np.concatenate(uv).astype(np.float32))


if __name__ == "__main__":
    main(*sys.argv[1:])
