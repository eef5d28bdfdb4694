"""Bakes views of a mesh into its texture: ``python -m realiz3d_jax.bake --mesh chair.glb --views out/chair --output new.glb``.

The views are ``view_AZIMUTH.png`` (degrees, as ``realiz3d_jax.sample`` writes them) or ``view_AZIMUTH_ELEVATION.png``, square
and orthographic as ``geometry.cameras`` says, of this or another generator; what is transparent in them is not used. Those of a
sampled item have the cameras that its ``item.json`` states. The asset
keeps its coordinates, its topology and, where they can be used, its texture coordinates.
"""

import pathlib

import numpy as np
from absl import flags

from realiz3d_jax import errors, files, startup
from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.assets.asset import load_asset
from realiz3d_jax.geometry.cameras import ORTHO_WIDTH, Camera, orbit, parse_view_name
from realiz3d_jax.geometry.texturing.texture import SIZES, texture_asset, texture_size
from realiz3d_jax.geometry.texturing.unwrap import unwrap
from realiz3d_jax.sampling import items

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
    startup.start()
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
    """Views uint8[V, H, W, 4], and their cameras."""
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; expected one with view_000.png and so on.")
    pictures = sorted(path for path in folder.glob("*.png") if parse_view_name(path.name))
    if not pictures:
        raise UserError(
            f"{folder}: found no views; expected view_000.png, view_090.png and so on, as realiz3d_jax.sample makes."
        )
    stated = (folder / items.DESCRIPTION).is_file() and _WIDTH.value is None
    cameras = _stated(folder, pictures) if stated else _named(pictures, _WIDTH.value or ORTHO_WIDTH)
    images = [items.read_image(path, "RGBA") for path in cameras]
    shapes = {image.shape for image in images}
    if len(shapes) > 1 or any(height != width for height, width, _ in shapes):
        named = zip(cameras, images, strict=True)
        found = ", ".join(f"{path.name} {image.shape[1]} x {image.shape[0]}" for path, image in named)
        raise UserError(f"{folder}: found {found}; expected square views of one size.")
    return np.stack(images), list(cameras.values())


def _stated(folder: pathlib.Path, pictures: list[pathlib.Path]) -> dict[pathlib.Path, Camera]:
    """The cameras of views of a sampled item, as its description states them; some of its views may be gone."""
    item = items.read(folder)
    if any(camera.perspective for camera in item.cameras):
        raise UserError(f"{folder / items.DESCRIPTION}: these views are perspective; only orthographic ones are baked.")
    if strange := [path for path in pictures if path.name not in item.names]:
        raise UserError(
            f"{strange[0]}: is no view of the item that {items.DESCRIPTION} beside it describes; expected "
            f"{', '.join(item.names)}. Move it, or give --view-width: then names alone say where views are from."
        )
    known = zip(item.names, item.cameras, strict=True)
    return {folder / name: camera for name, camera in known if folder / name in pictures}


def _named(pictures: list[pathlib.Path], width: float) -> dict[pathlib.Path, Camera]:
    """The cameras of views as the names of their files state them, all of one width."""
    names = {path: parse_view_name(path.name) for path in pictures}
    for path, (_, elevation) in names.items():
        if abs(elevation) > 90:
            raise UserError(f"{path}: found an elevation of {elevation:g} degrees in its name; expected -90 to 90.")
    same = {}
    for path, (azimuth, elevation) in names.items():
        other = same.setdefault((azimuth % 360, elevation), path)
        if other != path:
            raise UserError(f"{path}: is a view of the same camera as {other.name}; expected one of them.")
    return {path: orbit(*angles, width=width) for path, angles in names.items()}


if __name__ == "__main__":
    errors.run(main)
