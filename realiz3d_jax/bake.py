"""Bakes views of a mesh into its texture: ``python -m realiz3d_jax.bake --mesh chair.glb --views out/chair --output new.glb``.

The views are ``view_AZIMUTH.png`` (degrees, as ``realiz3d_jax.sample`` writes them) or ``view_AZIMUTH_ELEVATION.png``, square
and orthographic as ``geometry.cameras`` says, of this or another generator; transparent pixels are not used. Views of a sampled
item have the cameras that its ``item.json`` states, and a warning says if they were drawn for another mesh. The asset keeps
its coordinates, its topology and, where they can be used, its texture coordinates.
"""

import pathlib

from absl import flags

from realiz3d_jax import errors, files, startup
from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.assets.asset import load_asset
from realiz3d_jax.geometry.cameras import ORTHO_WIDTH
from realiz3d_jax.geometry.texturing.texture import SIZES, texture_asset, texture_size
from realiz3d_jax.geometry.texturing.unwrap import unwrap
from realiz3d_jax.sampling import run, view_folders

FLAGS = flags.FlagValues()
_MESH = flags.DEFINE_string(
    "mesh", None, "The asset: GLB, glTF, OBJ, PLY, STL or OFF.", required=True, flag_values=FLAGS
)
_VIEWS = flags.DEFINE_string("views", None, "The folder with its views.", required=True, flag_values=FLAGS)
_OUTPUT = flags.DEFINE_string("output", None, "The .glb to write.", required=True, flag_values=FLAGS)
_UP = flags.DEFINE_enum(
    "up", None, ["y", "z"], "The up axis of the file; by default Y, but Z in PLY and STL.", flag_values=FLAGS
)
_SIZE = flags.DEFINE_enum(
    "texture-size",
    None,
    list(map(str, SIZES)),
    "Texels along a side of the texture; by default as the views need.",
    flag_values=FLAGS,
)
_HARMONISE = flags.DEFINE_bool(
    "harmonise", False, "Adjust the gains of the views so that they agree where they overlap.", flag_values=FLAGS
)
_WIDTH = flags.DEFINE_float(
    "view-width",
    None,
    "Width of what a view shows, in units of the asset's largest extent; by default as stated by item.json beside the views, "
    f"else {ORTHO_WIDTH}.",
    lower_bound=0.1,
    flag_values=FLAGS,
)


def main(argv: list[str]) -> None:
    """Runs the command."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; everything is given as --flag=value.")
    startup.start()
    folder, output = pathlib.Path(_VIEWS.value), pathlib.Path(_OUTPUT.value)
    views, cameras = view_folders.read(folder, _WIDTH.value)
    run.check_glb(output, _MESH.value, "--output")
    files.writable_directory(output.parent)
    if caution := view_folders.caution(folder, _MESH.value, _UP.value):
        errors.warn(caution)
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


if __name__ == "__main__":
    errors.run(main, FLAGS)
