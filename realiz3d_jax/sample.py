"""Draws multi-view images: ``python -m realiz3d_jax.sample --mesh chair.glb --prompt "a red chair" --output out``.

Items come from ``--mesh`` and ``--prompt`` (one item), ``--manifest`` (one JSON object a line), or, without either,
a ``--split`` of the shapes benchmark. Each item gets a folder below ``--output``: the four views, their grid, the control maps
as pictures and exactly (``control.npz``), ``textured.glb``, the mesh with a texture baked from the views (of a split only with
``--texture-size``), and ``item.json``, which records the request and all settings.

Bad items do not stop the others: they are reported at the end, and the exit status is 1. An existing folder is never changed:
it counts as done if it was made by the same request, and as bad otherwise.
"""

import dataclasses
import pathlib
import sys

import numpy as np
from absl import flags

from realiz3d_jax import errors, files, startup
from realiz3d_jax.config.build import stream_config
from realiz3d_jax.config.schema import SAMPLERS, SPACINGS
from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.texturing.texture import SIZES
from realiz3d_jax.sampling import items, requests, run, vocabulary
from realiz3d_jax.sampling.pretrained import SHIPPED, Pretrained, open_model
from realiz3d_jax.sampling.requests import Request

FLAGS = flags.FlagValues()
_TASK = flags.DEFINE_enum(
    "task",
    "texture",
    ["texture", "text-to-multiview"],
    "Task: views of a mesh, or of a prompt alone.",
    flag_values=FLAGS,
)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "A run's workdir or an exported checkpoint; by default the shipped shapes model.",
    flag_values=FLAGS,
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder in which each item gets a folder.", required=True, flag_values=FLAGS
)
_MESH = flags.DEFINE_string("mesh", None, "The mesh to texture: GLB, glTF, OBJ, PLY, STL or OFF.", flag_values=FLAGS)
_UP = flags.DEFINE_enum(
    "up", None, ["y", "z"], "The up axis of mesh files; by default Y, but Z in PLY and STL.", flag_values=FLAGS
)
_PROMPT = flags.DEFINE_string("prompt", None, "Caption of the views.", flag_values=FLAGS)
_MANIFEST = flags.DEFINE_string(
    "manifest",
    None,
    "File with one JSON object per line: prompt, and optionally mesh, up, uid, seed.",
    flag_values=FLAGS,
)
_SPLIT = flags.DEFINE_enum(
    "split", "test", ["validation", "test"], "The benchmark's split, without prompt and manifest.", flag_values=FLAGS
)
_DATA = flags.DEFINE_string("data", "datasets", "Dataset folder of realiz3d_jax.prepare.", flag_values=FLAGS)
_ENCODERS = flags.DEFINE_string(
    "encoders",
    "",
    "The folder with the model's text encoder and autoencoder, if it is not where its config says.",
    flag_values=FLAGS,
)
_LIMIT = flags.DEFINE_integer(
    "limit", None, "Maximum number of items, from the first.", lower_bound=1, flag_values=FLAGS
)
_SEED = flags.DEFINE_integer(
    "seed", 0, "Seed of the first item; the next ones count up.", lower_bound=0, flag_values=FLAGS
)
_DOMAIN = flags.DEFINE_enum(
    "domain",
    None,
    ["real", "synthetic"],
    "The requested look; by default real, for models that know domains.",
    flag_values=FLAGS,
)
# Overrides of the model's own config.sampling.
_SAMPLING = {
    "block_max": flags.DEFINE_float(
        "block-max",
        None,
        "B_max: fraction of the blocks, from the first, that always run in synthetic mode.",
        flag_values=FLAGS,
    ),
    "timestep_max": flags.DEFINE_integer(
        "timestep-max", None, "t_max: at this timestep and above, all blocks run in synthetic mode.", flag_values=FLAGS
    ),
    "guidance_scale": flags.DEFINE_float(
        "guidance-scale", None, "Scale of the classifier-free guidance, on the text only.", flag_values=FLAGS
    ),
    "steps": flags.DEFINE_integer("steps", None, "Sampling steps.", flag_values=FLAGS),
    "sampler": flags.DEFINE_enum("sampler", None, list(SAMPLERS), "DDIM or DPM-Solver++ 2M.", flag_values=FLAGS),
    "spacing": flags.DEFINE_enum(
        "spacing", None, list(SPACINGS), "Spacing of the sampling timesteps.", flag_values=FLAGS
    ),
    "eta": flags.DEFINE_float("eta", None, "Fraction of fresh noise in DDIM, 0 to 1.", flag_values=FLAGS),
}
_TEXTURE_SIZE = flags.DEFINE_enum(
    "texture-size",
    None,
    ["0", *map(str, SIZES)],
    "Texels along a side of the texture; 0 writes no textured.glb. By default as the views need, 0 for a split.",
    flag_values=FLAGS,
)
_HARMONISE = flags.DEFINE_bool(
    "harmonise",
    False,
    "Adjust the gains of the views so that they agree where they overlap in the texture.",
    flag_values=FLAGS,
)
_BATCH = flags.DEFINE_integer("batch", 8, "Items drawn at a time.", lower_bound=1, flag_values=FLAGS)


def main(argv: list[str]) -> None:
    """Runs the command."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; everything is given as --flag=value.")
    startup.start(split_cpu=True)
    task = _TASK.value.replace("-", "_")
    pretrained = open_model(_WORKDIR.value or SHIPPED[task], _ENCODERS.value)
    run.check_task(pretrained, task)
    domain = run.choose_domain(pretrained, _DOMAIN.value)
    given = {name: flag.value for name, flag in _SAMPLING.items() if flag.value is not None}
    sampling = dataclasses.replace(pretrained.config.sampling, **given)
    wanted, problems = _requests(pretrained)
    size = None if _TEXTURE_SIZE.value is None else int(_TEXTURE_SIZE.value)
    of_split = not (_MESH.value or _PROMPT.value or _MANIFEST.value)
    texture = run.texture_settings(pretrained.config, size, _HARMONISE.value, default=not of_split)
    output = files.writable_directory(_OUTPUT.value)
    if caution := vocabulary.caution(pretrained, [request.prompt for request in wanted]):
        errors.warn(caution)
    settings = run.Settings(sampling, domain, texture, _BATCH.value)
    done, found = run.sample_all(pretrained, settings, wanted, output)
    problems += found
    coverage = [item[items.BAKED]["coverage"] for item in done if "coverage" in item.get(items.BAKED, {})]
    seen = f"; their views see {np.mean(coverage):.0%} of the surfaces, the rest is filled" if coverage else ""
    print(f"{output}: {_counted(len(done), 'item')}, {_counted(len(problems), 'problem')}{seen}")
    if problems:
        print("\n".join(f"error: {problem}" for problem in problems), file=sys.stderr)
        sys.exit(1)


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"


def _requests(pretrained: Pretrained) -> tuple[list[Request], list[str]]:
    problems: list[str] = []
    if _PROMPT.value is not None and not _PROMPT.value.strip():
        raise UserError("--prompt: is empty; say what to show.")
    if _MANIFEST.value:
        if _PROMPT.value or _MESH.value:
            raise UserError("--manifest and --prompt or --mesh were given; expected one of the two ways.")
        wanted, problems = requests.from_manifest(_MANIFEST.value, _SEED.value, _UP.value)
    elif _PROMPT.value or _MESH.value:
        if not _PROMPT.value:
            raise UserError("--mesh was given without --prompt; say what the mesh shall look like.")
        mesh = pathlib.Path(_MESH.value) if _MESH.value else None
        uid = requests.as_uid(mesh.stem) if mesh else "item_0000"
        wanted = [requests.make_request(uid, _PROMPT.value, _SEED.value, mesh, _UP.value)]
    else:
        if _UP.value:
            raise UserError("--up was given without --mesh or --manifest; the benchmark's meshes state their up axis.")
        data = dataclasses.replace(pretrained.config.data, directory=_DATA.value)
        source = stream_config(dataclasses.replace(pretrained.config, data=data), pretrained.encoder)
        wanted = requests.from_split(source, _SPLIT.value, _SEED.value)
    return wanted[: _LIMIT.value], problems


if __name__ == "__main__":
    errors.run(main, FLAGS)
