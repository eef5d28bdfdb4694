"""Bakes views of a mesh into its texture: ``python -m realiz3d_jax.bake --mesh chair.glb --views out/chair --output new.glb``.

The views are ``view_AZIMUTH.png`` (degrees, as ``realiz3d_jax.sample`` writes them) or ``view_AZIMUTH_ELEVATION.png``, square
and orthographic as ``geometry.cameras`` says, of this or another generator; what is transparent in them is not used. The asset
keeps its coordinates, its topology and, where they can be used, its texture coordinates.
"""

import pathlib
import re

import numpy as np
from absl import flags
from PIL import Image

from realiz3d_jax import errors, files
from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.assets import load_asset
from realiz3d_jax.geometry.cameras import Camera, orbit
from realiz3d_jax.geometry.texturing import SIZES, texture_asset, texture_size
from realiz3d_jax.geometry.unwrap import unwrap
from realiz3d_jax.training import platform

_MESH = flags.DEFINE_string("mesh", None, "The asset: GLB, glTF, OBJ, PLY, STL or OFF.", required=True)
_VIEWS = flags.DEFINE_string("views", None, "The folder with its views.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "The .glb to write.", required=True)
_UP = flags.DEFINE_enum("up", None, ["y", "z"], "What is up in the file; by default Y, but Z in PLY and STL.")
_SIZE = flags.DEFINE_enum(
    "texture-size", None, list(map(str, SIZES)), "Texels along a side of the texture; by default as the views need."
)
_HARMONISE = flags.DEFINE_bool("harmonise", False, "Let gains make the views agree where they overlap.")

_NAME = re.compile(r"view_(\d+)(?:_(-?\d+))?\.png")


def main(argv: list[str]) -> None:
    """The command."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; everything is given as --flag=value.")
    platform.start()
    views, cameras = _read_views(pathlib.Path(_VIEWS.value))
    output = pathlib.Path(_OUTPUT.value)
    if output.suffix != ".glb":
        raise UserError(f"--output={output}: expected the name of a .glb.")
    files.writable_directory(output.parent)
    asset = unwrap(load_asset(_MESH.value, _UP.value))
    size = int(_SIZE.value or texture_size(views.shape[1]))
    glb, baked = texture_asset(asset, views, cameras, size=size, harmonise=_HARMONISE.value)
    files.write_bytes(output, glb)
    print(
        f"{output}: a texture of {size} x {size}; {len(views)} views see {baked.coverage:.0%} of the surface, several of them "
        f"{baked.overlap:.0%}; the rest was filled."
    )


def _read_views(folder: pathlib.Path) -> tuple[np.ndarray, list[Camera]]:
    """Views uint8[V, H, W, 4] in the order of their names, and their cameras."""
    names = {path: match for path in sorted(folder.glob("*.png")) if (match := _NAME.fullmatch(path.name))}
    if not names:
        raise UserError(
            f"{folder}: found no views; expected view_000.png, view_090.png and so on, as realiz3d_jax.sample makes."
        )
    images = {path: _read_image(path) for path in names}
    shapes = {image.shape for image in images.values()}
    if len(shapes) > 1 or any(height != width for height, width, _ in shapes):
        found = ", ".join(f"{path.name} {image.shape[1]} x {image.shape[0]}" for path, image in images.items())
        raise UserError(f"{folder}: found {found}; expected square views of one size.")
    for path, match in names.items():
        if abs(float(match[2] or 0)) > 90:
            raise UserError(f"{path}: found an elevation of {match[2]} degrees in its name; expected -90 to 90.")
    cameras = [orbit(float(match[1]), float(match[2] or 0)) for match in names.values()]
    return np.stack(list(images.values())), cameras


def _read_image(path: pathlib.Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGBA"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be read as an image ({error}); make it again.") from error


if __name__ == "__main__":
    errors.run(main)
