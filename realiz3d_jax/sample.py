"""Draws multi-view images: ``python -m realiz3d_jax.sample --mesh chair.glb --prompt "a red chair" --output out``.

Where the items come from: ``--mesh`` and ``--prompt`` (one item), ``--manifest`` (one JSON object a line), or, without either,
a ``--split`` of the shapes benchmark. Each item gets a folder below ``--output``: the four views, their grid, the control maps
to look at and exactly (``control.npz``), ``textured.glb``, which is the mesh in its own coordinates under a texture that was
baked from the views (of a split only with ``--texture-size``), and ``item.json``, which holds all that is needed to make it
again.

Bad items do not stop the others: they are reported at the end, and the exit status is 1. A folder that is there already is
left as it is: it counts as done if it came from the same request, and as bad if it did not.
"""

import contextlib
import dataclasses
import functools
import itertools
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from absl import flags

from realiz3d_jax import __version__, errors, files, progress, startup
from realiz3d_jax.config.build import stream_config
from realiz3d_jax.config.schema import SAMPLERS, SPACINGS, SamplingConfig, TrainConfig, is_latent, view_cameras
from realiz3d_jax.data.geometry_maps import Geometry, geometry_of
from realiz3d_jax.data.pipeline import control_maps
from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.assets.asset import Asset, checksum, load_asset
from realiz3d_jax.geometry.cameras import Camera
from realiz3d_jax.geometry.texturing.texture import SIZES, texture_asset, texture_size
from realiz3d_jax.geometry.texturing.unwrap import unwrap
from realiz3d_jax.method.domains import Domain
from realiz3d_jax.sampling import items, requests
from realiz3d_jax.sampling.generator import Generator
from realiz3d_jax.sampling.pretrained import SHIPPED, Pretrained, open_model
from realiz3d_jax.sampling.requests import Request
from realiz3d_jax.views import VIEWS

_TASK = flags.DEFINE_enum("task", "texture", ["texture", "text-to-multiview"], "What controls the views.")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "A run's workdir or an exported checkpoint; by default the shipped shapes model."
)
_OUTPUT = flags.DEFINE_string("output", None, "The folder that gets one folder an item.", required=True)
_MESH = flags.DEFINE_string("mesh", None, "What to texture: GLB, glTF, OBJ, PLY, STL or OFF.")
_UP = flags.DEFINE_enum("up", None, ["y", "z"], "What is up in mesh files; by default Y, but Z in PLY and STL.")
_PROMPT = flags.DEFINE_string("prompt", None, "What to show.")
_MANIFEST = flags.DEFINE_string(
    "manifest", None, "A file with one JSON object a line: prompt, and mesh, up, uid, seed."
)
_SPLIT = flags.DEFINE_enum(
    "split", "test", ["validation", "test"], "The benchmark's split, without prompt and manifest."
)
_DATA = flags.DEFINE_string("data", "datasets", "The folder that realiz3d_jax.prepare filled.")
_ENCODERS = flags.DEFINE_string(
    "encoders", "", "The folder with the model's text encoder and autoencoder, if it is not where its config says."
)
_LIMIT = flags.DEFINE_integer("limit", None, "Only the first so many items.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the first item; the next ones count up.", lower_bound=0)
_DOMAIN = flags.DEFINE_enum(
    "domain", None, ["real", "synthetic"], "The look that is asked for; by default real, of models that know domains."
)
# How images are drawn; what is not given is as the model's own config (config.sampling) says.
_SAMPLING = {
    "block_max": flags.DEFINE_float(
        "block-max", None, "B_max: this fraction of the blocks runs in synthetic mode always."
    ),
    "timestep_max": flags.DEFINE_integer(
        "timestep-max", None, "t_max: all blocks run in synthetic mode from here on up."
    ),
    "guidance_scale": flags.DEFINE_float("guidance-scale", None, "Of the classifier-free guidance, on the text only."),
    "steps": flags.DEFINE_integer("steps", None, "Sampling steps."),
    "sampler": flags.DEFINE_enum("sampler", None, list(SAMPLERS), "DDIM or DPM-Solver++ 2M."),
    "spacing": flags.DEFINE_enum("spacing", None, list(SPACINGS), "Where the sampling steps lie."),
    "eta": flags.DEFINE_float("eta", None, "DDIM's share of fresh noise, 0 to 1."),
}
_TEXTURE_SIZE = flags.DEFINE_enum(
    "texture-size",
    None,
    ["0", *map(str, SIZES)],
    "Texels along a side of the texture; 0 writes no textured.glb. By default as the views need, 0 for a split.",
)
_HARMONISE = flags.DEFINE_bool("harmonise", False, "Let gains make the views agree where they overlap in the texture.")
_BATCH = flags.DEFINE_integer("batch", 8, "Items drawn at a time.", lower_bound=1)


def main(argv: list[str]) -> None:
    """The command."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; everything is given as --flag=value.")
    startup.start(split_cpu=True)
    task = _TASK.value.replace("-", "_")
    pretrained = open_model(_WORKDIR.value or SHIPPED[task], _ENCODERS.value)
    _check_task(pretrained, task)
    domain = _domain(pretrained)
    given = {name: flag.value for name, flag in _SAMPLING.items() if flag.value is not None}
    sampling = dataclasses.replace(pretrained.config.sampling, **given)
    wanted, problems = _requests(pretrained)
    texture = _texture(pretrained.config)
    output = files.writable_directory(_OUTPUT.value)
    done, found = _sample_all(pretrained, sampling, domain, texture, wanted, output)
    problems += found
    coverage = [item[items.BAKED]["coverage"] for item in done if "coverage" in item.get(items.BAKED, {})]
    seen = f"; their views see {np.mean(coverage):.0%} of the surfaces, the rest is filled" if coverage else ""
    print(f"{output}: {_counted(len(done), 'item')}, {_counted(len(problems), 'problem')}{seen}")
    if problems:
        print("\n".join(f"error: {problem}" for problem in problems), file=sys.stderr)
        sys.exit(1)


def _counted(number: int, thing: str) -> str:
    return f"{number} {thing}{'s' * (number != 1)}"


def _check_task(pretrained: Pretrained, task: str) -> None:
    if not pretrained.controlled:
        raise UserError(
            f"{pretrained.source}: this is a model of stage {pretrained.config.stage!r}, which takes no control; "
            "expected one after Stage 2:\n  python -m realiz3d_jax.train --config configs/stage2.py"
        )
    if pretrained.config.task != task:
        raise UserError(
            f"{pretrained.source}: was trained for the task {pretrained.config.task!r}, not {task!r}. Train one:\n"
            f"  python -m realiz3d_jax.train --config configs/stage2.py --config.task={task} --workdir runs/{task}"
        )


def _domain(pretrained: Pretrained) -> str | None:
    """The look that is asked for, None of a model that knows none."""
    if pretrained.model.method.knows_domains:
        return _DOMAIN.value or "real"
    if _DOMAIN.value:
        raise UserError(
            f"--domain={_DOMAIN.value}: {pretrained.source} was trained by the method "
            f"{pretrained.config.method['name']!r}, which knows no domains: it has one look. Leave --domain out."
        )
    return None


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
            raise UserError("--up was given without --mesh or --manifest; the benchmark's meshes say what is up.")
        source = stream_config(
            dataclasses.replace(
                pretrained.config, data=dataclasses.replace(pretrained.config.data, directory=_DATA.value)
            ),
            pretrained.encoder,
        )
        wanted = requests.from_split(source, _SPLIT.value, _SEED.value)
    return wanted[: _LIMIT.value], problems


def _texture(config: TrainConfig) -> dict[str, Any] | None:
    """How the views are baked, as ``item.json`` says it; None if they are not."""
    given = bool(_MESH.value or _PROMPT.value or _MANIFEST.value)
    perspective = config.data.rig.projection == "perspective"
    usual = texture_size(config.data.size) if given and config.task == "texture" and not perspective else 0
    size = int(_TEXTURE_SIZE.value or usual)
    if size and perspective:
        raise UserError(f"--texture-size={size}: the model's views are perspective; only orthographic ones are baked.")
    if size and config.task != "texture":
        raise UserError(f"--texture-size={size}: views that no mesh controls cannot be baked; expected --task=texture.")
    if _HARMONISE.value and not size:
        raise UserError("--harmonise was given, but no texture is made; give --texture-size, too.")
    return {"size": size, "harmonise": _HARMONISE.value} if size else None


@dataclasses.dataclass(frozen=True, eq=False)
class _Task:
    """An item that is not there yet: its request, and what ``item.json`` shall say."""

    request: Request
    description: dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class _Ready(_Task):
    """One that can be drawn; ``geometry`` is None where no mesh controls the views, ``asset`` where none is textured."""

    geometry: Geometry | None
    asset: Asset | None


def _sample_all(
    pretrained: Pretrained,
    sampling: SamplingConfig,
    domain: str | None,
    texture: dict[str, Any] | None,
    wanted: list[Request],
    output: pathlib.Path,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Samples what is not there yet, ``--batch`` items at a time.

    Returns: what ``item.json`` says of each item that is there in the end, and what is wrong.
    """
    generator = pretrained.generator(sampling)
    tasks: list[_Task] = []
    problems: list[str] = []
    done: list[dict[str, Any]] = []
    for request in wanted:
        try:
            pretrained.encoder.check(request.prompt)
            description = _describe(request, pretrained, sampling, domain, texture)
            found = items.find(output / request.uid, description)
            if found is None:
                tasks.append(_Task(request, description))
                continue
            done.append(found)
            problems += _baking_problems(output / request.uid, found)
        except UserError as error:
            problems.append(str(error))
    if not tasks:
        return done, problems
    cameras = view_cameras(pretrained.config)
    ready = _prepared(tasks, pretrained.config.data.size, cameras, problems)
    names = pretrained.config.data.rig.names(pretrained.config.data.views)
    unwrapped = functools.lru_cache(maxsize=1)(unwrap)
    texturing = progress.bar("texturing", len(tasks)) if texture else contextlib.nullcontext(lambda: None)
    with progress.bar("sampling", len(tasks)) as drawn, texturing as textured:
        while batch := list(itertools.islice(ready, _BATCH.value)):
            images = _draw(generator, pretrained, domain, batch)
            drawn(len(batch))
            for item, views in zip(batch, images, strict=False):
                folder = output / item.request.uid
                glb, description = _bake(item, views, cameras, unwrapped)
                items.write(folder, description, views, names, item.geometry, glb)
                problems += _baking_problems(folder, description)
                done.append(description)
                textured()
    return done, problems


def _prepared(tasks: list[_Task], size: int, cameras: tuple[Camera, ...], problems: list[str]) -> Iterator[_Ready]:
    """The items whose meshes can be used, as they are asked for; ``problems`` gets what is wrong with the others.

    Those of one mesh follow each other, so that each mesh is read and unwrapped once and none is kept for long.
    """
    load = functools.lru_cache(maxsize=1)(load_asset)
    maps = functools.lru_cache(maxsize=1)(lambda asset: geometry_of(asset.mesh, size, cameras, asset.visible))
    place: dict[tuple, int] = {}
    for task in sorted(tasks, key=lambda task: place.setdefault((task.request.mesh, task.request.up), len(place))):
        request, description = task.request, task.description
        try:
            if description["task"] != "texture":
                yield _Ready(request, description, None, None)
                continue
            if request.mesh is None:
                raise UserError(
                    f'{request.uid}: the task "texture" needs a mesh; give --mesh, or "mesh" in the manifest.'
                )
            textured = description["texture"] is not None
            asset = load(request.mesh, request.up) if textured or request.geometry is None else None
            yield _Ready(request, description, request.geometry or maps(asset), asset if textured else None)
        except UserError as error:
            problems.append(str(error))


def _draw(generator: Generator, pretrained: Pretrained, domain: str | None, batch: list[_Ready]) -> np.ndarray:
    """The views of a batch, which is always filled up to ``--batch`` items: one compilation, and the same bits in any batch."""
    full = batch + [batch[0]] * (_BATCH.value - len(batch))
    control = np.zeros((len(full), 0), np.float32)
    if pretrained.config.task == "texture":
        maps = [item.geometry for item in full]
        control = np.stack([control_maps(one.normal, one.position, one.mask) for one in maps])
    captions = [[item.request.prompt] for item in full]
    seeds = [item.request.seed for item in full]
    look = Domain[(domain or "synthetic").upper()]  # what knows no domains draws the same for each
    return generator(pretrained.params, captions, seeds, look, control, VIEWS)


def _bake(
    item: _Ready, views: np.ndarray, cameras: tuple[Camera, ...], unwrapped: Callable[[Asset], Asset]
) -> tuple[bytes | None, dict[str, Any]]:
    """The item's mesh with its views as texture, None where that fails or is not asked for, and what ``item.json`` says."""
    if item.asset is None:
        return None, item.description
    try:
        glb, baked = texture_asset(unwrapped(item.asset), views, cameras, **item.description["texture"])
        found = {"coverage": round(baked.coverage, 4), "overlap": round(baked.overlap, 4)}
    except Exception as error:  # whatever is the matter with this mesh: its views and the other items are worth keeping
        glb, found = None, {"problem": str(error) if isinstance(error, UserError) else repr(error)}
    return glb, item.description | {items.BAKED: found}


def _baking_problems(folder: pathlib.Path, description: dict[str, Any]) -> list[str]:
    """What ``item.json`` says of a texture that could not be baked."""
    problem = description.get(items.BAKED, {}).get("problem")
    return [f"{folder}: the views are there, but they could not be baked ({problem})."] if problem else []


def _describe(
    request: Request,
    pretrained: Pretrained,
    sampling: SamplingConfig,
    domain: str | None,
    texture: dict[str, Any] | None,
) -> dict[str, Any]:
    """What ``item.json`` says: the request, the model and the sampler; equal descriptions give equal images."""
    mesh = None
    if request.mesh is not None:
        mesh = {"path": str(request.mesh.resolve()), "sha256": checksum(request.mesh), "up": request.up}
    description = {
        "uid": request.uid,
        "caption": request.prompt,
        "task": pretrained.config.task,
        "domain": domain,
        "seed": request.seed,
        "mesh": mesh,
        "size": pretrained.config.data.size,
        "rig": dataclasses.asdict(pretrained.config.data.rig),
        "views": pretrained.config.data.views,
        "texture": texture,
        "sampling": dataclasses.asdict(sampling),
        "batch": _BATCH.value,
        "model": {"source": str(pretrained.source), "sha256": pretrained.checksum},
        "versions": {"realiz3d_jax": __version__, "jax": jax.__version__, "platform": jax.default_backend()},
        "devices": jax.device_count(),
    }
    if is_latent(pretrained.config):
        description["encoders"] = {"sha256": pretrained.encoders.sha256}
    return description


if __name__ == "__main__":
    errors.run(main)
