"""Bakes views of a mesh into its texture: ``python -m realiz3d_jax.bake --mesh chair.glb --views out/chair --output new.glb``.

The views are ``view_AZIMUTH.png`` (degrees, as ``realiz3d_jax.sample`` writes them) or ``view_AZIMUTH_ELEVATION.png``, square
and orthographic as ``geometry.cameras`` says, of this or another generator; what is transparent in them is not used. The asset
keeps its coordinates, its topology and, where they can be used, its texture coordinates.
"""

import json
import pathlib

import numpy as np
from absl import flags
from PIL import Image

from realiz3d_jax import errors, files
from realiz3d_jax.data import items
from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.assets import load_asset
from realiz3d_jax.geometry.cameras import ORTHO_WIDTH, Camera, orbit, parse_view_name
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
_WIDTH = flags.DEFINE_float(
    "view-width",
    None,
    "What a view shows from side to side, in units of the asset's largest extent; by default as item.json beside the views "
    f"says, else {ORTHO_WIDTH}.",
    lower_bound=0.1,
)


def main(argv: list[str]) -> None:
    """The command."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; everything is given as --flag=value.")
    platform.start()
    views, cameras = _read_views(pathlib.Path(_VIEWS.value))
    output = pathlib.Path(_OUTPUT.value)
    if output.suffix != ".glb":
        raise UserError(f"--output={output}: expected the name of a .glb.")
    if output.resolve() == pathlib.Path(_MESH.value).resolve():
        raise UserError(f"--output={output}: is the asset itself; expected another name.")
    files.writable_directory(output.parent)
    asset = unwrap(load_asset(_MESH.value, _UP.value))
    size = int(_SIZE.value or texture_size(views.shape[1]))
    glb, baked = texture_asset(asset, views, cameras, size=size, harmonise=_HARMONISE.value)
    if not baked.seen.any():
        raise UserError(
            f"{_VIEWS.value}: these views see nothing of the surface: all is transparent, or they are too small; expected "
            "views of 32 pixels or more."
        )
    files.write_bytes(output, glb)
    print(
        f"{output}: a texture of {size} x {size}; {len(views)} views see {baked.coverage:.0%} of the surface, several of them "
        f"{baked.overlap:.0%}; the rest was filled."
    )


def _read_views(folder: pathlib.Path) -> tuple[np.ndarray, list[Camera]]:
    """Views uint8[V, H, W, 4] in the order of their names, and their cameras."""
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; expected one with view_000.png and so on.")
    pictures = sorted(folder.glob("*.png"))
    names = {path: angles for path in pictures if (angles := parse_view_name(path.name))}
    if not names:
        raise UserError(
            f"{folder}: found no views; expected view_000.png, view_090.png and so on, as realiz3d_jax.sample makes."
        )
    images = {path: _read_image(path) for path in names}
    shapes = {image.shape for image in images.values()}
    if len(shapes) > 1 or any(height != width for height, width, _ in shapes):
        found = ", ".join(f"{path.name} {image.shape[1]} x {image.shape[0]}" for path, image in images.items())
        raise UserError(f"{folder}: found {found}; expected square views of one size.")
    for path, (_, elevation) in names.items():
        if abs(elevation) > 90:
            raise UserError(f"{path}: found an elevation of {elevation:g} degrees in its name; expected -90 to 90.")
    same = {}
    for path, (azimuth, elevation) in names.items():
        other = same.setdefault((azimuth % 360, elevation), path)
        if other != path:
            raise UserError(f"{path}: is a view of the same camera as {other.name}; expected one of them.")
    width = _WIDTH.value or _width_of_item(folder)
    return np.stack(list(images.values())), [orbit(*angles, width=width) for angles in names.values()]


def _width_of_item(folder: pathlib.Path) -> float:
    """The width of views that ``realiz3d_jax.sample`` wrote; the standard one of any others."""
    path = folder / items.DESCRIPTION
    if not path.is_file():
        return ORTHO_WIDTH
    try:
        rig = json.loads(path.read_text()).get("rig", {})
        width, perspective = float(rig.get("width", ORTHO_WIDTH)), rig.get("projection") == "perspective"
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: cannot be read as an item's description ({error}); give --view-width.") from error
    if perspective:
        raise UserError(f"{path}: these views are perspective; only orthographic ones are baked.")
    return width


def _read_image(path: pathlib.Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):
                raise ValueError(f"16 bits a pixel, mode {image.mode}; expected 8, in colour")
            return np.asarray(image.convert("RGBA"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be read as an image ({error}); make it again.") from error


if __name__ == "__main__":
    errors.run(main)
