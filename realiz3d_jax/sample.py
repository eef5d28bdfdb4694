"""Draws multi-view images: ``python -m realiz3d_jax.sample --mesh chair.glb --prompt "a red chair" --output out``.

Where the items come from: ``--mesh`` and ``--prompt`` (one item), ``--manifest`` (one JSON object a line), or, without either,
a ``--split`` of the shapes benchmark. Each item gets a folder below ``--output``: the four views, their grid, the control maps
to look at and exactly (``control.npz``), and ``item.json``, which holds all that is needed to make it again.

Bad items do not stop the others: they are reported at the end, and the exit status is 1. A folder that is there already is
left as it is: it counts as done if it came from the same request, and as bad if it did not.
"""

import dataclasses
import hashlib
import io
import json
import pathlib
import sys
from typing import Any

import einops
import jax
import numpy as np
from absl import flags
from PIL import Image

from realiz3d_jax import __version__, errors, files, progress
from realiz3d_jax.data import requests
from realiz3d_jax.data.geometry_maps import Geometry
from realiz3d_jax.data.pipeline import VIEWS, control_maps
from realiz3d_jax.data.requests import Request
from realiz3d_jax.errors import UserError
from realiz3d_jax.method.domains import Domain
from realiz3d_jax.method.generate import SAMPLERS, SPACINGS, Generator, SamplingConfig
from realiz3d_jax.training import encoders, platform
from realiz3d_jax.training.config import is_latent
from realiz3d_jax.training.pretrained import SHIPPED, Pretrained, open_model

_TASK = flags.DEFINE_enum("task", "texture", ["texture", "text-to-multiview"], "What controls the views.")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "A run's workdir or a released model; by default the shipped shapes model."
)
_OUTPUT = flags.DEFINE_string("output", None, "The folder that gets one folder an item.", required=True)
_MESH = flags.DEFINE_string("mesh", None, "A GLB to texture.")
_PROMPT = flags.DEFINE_string("prompt", None, "What to show.")
_MANIFEST = flags.DEFINE_string("manifest", None, "A file with one JSON object a line: prompt, and mesh, uid, seed.")
_SPLIT = flags.DEFINE_enum(
    "split", "test", ["validation", "test"], "The benchmark's split, without prompt and manifest."
)
_DATA = flags.DEFINE_string("data", "datasets", "The folder that realiz3d_jax.prepare filled.")
_ENCODERS = flags.DEFINE_string(
    "encoders", "", "The folder with the model's text encoder and autoencoder, if it is not where its config says."
)
_LIMIT = flags.DEFINE_integer("limit", None, "Only the first so many items.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the first item; the next ones count up.", lower_bound=0)
_DOMAIN = flags.DEFINE_enum("domain", "real", ["real", "synthetic"], "The look that is asked for.")
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
_BATCH = flags.DEFINE_integer("batch", 8, "Items drawn at a time.", lower_bound=1)


def main(argv: list[str]) -> None:
    """The command."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; everything is given as --flag=value.")
    platform.start(split_cpu=True)
    task = _TASK.value.replace("-", "_")
    pretrained = open_model(_WORKDIR.value or SHIPPED[task], _ENCODERS.value)
    _check_task(pretrained, task)
    given = {name: flag.value for name, flag in _SAMPLING.items() if flag.value is not None}
    sampling = dataclasses.replace(pretrained.config.sampling, **given)
    wanted, problems = _requests(pretrained.config.data.size)
    output = files.writable_directory(_OUTPUT.value)
    done, found = _sample_all(pretrained, sampling, wanted, output)
    problems += found
    print(f"{output}: {_counted(done, 'item')}, {_counted(len(problems), 'problem')}")
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


def _requests(size: int) -> tuple[list[Request], list[str]]:
    problems: list[str] = []
    if _PROMPT.value is not None and not _PROMPT.value.strip():
        raise UserError("--prompt: is empty; say what to show.")
    if _MANIFEST.value:
        if _PROMPT.value or _MESH.value:
            raise UserError("--manifest and --prompt or --mesh were given; expected one of the two ways.")
        wanted, problems = requests.from_manifest(_MANIFEST.value, _SEED.value)
    elif _PROMPT.value or _MESH.value:
        if not _PROMPT.value:
            raise UserError("--mesh was given without --prompt; say what the mesh shall look like.")
        mesh = pathlib.Path(_MESH.value) if _MESH.value else None
        uid = requests.as_uid(mesh.stem) if mesh else "item_0000"
        wanted = [requests.make_request(uid, _PROMPT.value, _SEED.value, mesh)]
    else:
        wanted = requests.from_split(_DATA.value, _SPLIT.value, size, _SEED.value)
    return wanted[: _LIMIT.value], problems


def _sample_all(
    pretrained: Pretrained, sampling: SamplingConfig, wanted: list[Request], output: pathlib.Path
) -> tuple[int, list[str]]:
    """Samples what is not there yet, ``--batch`` items at a time; returns how many are there in the end, and what is wrong."""
    generator = pretrained.generator(sampling)
    ready: list[tuple[Request, Geometry | None, dict[str, Any]]] = []
    problems: list[str] = []
    done = 0
    for request in wanted:
        try:
            pretrained.encoder.check(request.prompt)
            description = _describe(request, pretrained, sampling)
            if _is_done(output / request.uid, description):
                done += 1
                continue
            textured = pretrained.config.task == "texture"
            geometry = requests.geometry_of(request, pretrained.config.data.size) if textured else None
            ready.append((request, geometry, description))
        except UserError as error:
            problems.append(str(error))
    if not ready:
        return done, problems
    with progress.bar("sampling", len(ready)) as advance:
        for start in range(0, len(ready), _BATCH.value):
            batch = ready[start : start + _BATCH.value]
            images = _draw(generator, pretrained, batch)
            for (request, geometry, description), views in zip(batch, images, strict=False):
                _write(output / request.uid, views, geometry, description)
                advance()
    return done + len(ready), problems


def _draw(
    generator: Generator, pretrained: Pretrained, batch: list[tuple[Request, Geometry | None, Any]]
) -> np.ndarray:
    """The views of a batch, which is always filled up to ``--batch`` items: one compilation, and the same bits in any batch."""
    full = batch + [batch[0]] * (_BATCH.value - len(batch))
    control = np.zeros((len(full), 0), np.float32)
    if pretrained.config.task == "texture":
        control = np.stack([control_maps(maps.normal, maps.position, maps.mask) for _, maps, _ in full])
    captions = [[request.prompt] for request, _, _ in full]
    seeds = [request.seed for request, _, _ in full]
    return generator(pretrained.params, captions, seeds, Domain[_DOMAIN.value.upper()], control, VIEWS)


def _describe(request: Request, pretrained: Pretrained, sampling: SamplingConfig) -> dict[str, Any]:
    """What ``item.json`` says: the request, the model and the sampler; equal descriptions give equal images."""
    mesh = None
    if request.mesh is not None:
        try:
            content = request.mesh.read_bytes()
        except OSError as error:
            raise UserError(f"{request.mesh}: cannot be read ({error.strerror}); expected a GLB file.") from error
        mesh = {"path": str(request.mesh.resolve()), "sha256": hashlib.sha256(content).hexdigest()}
    description = {
        "uid": request.uid,
        "caption": request.prompt,
        "task": pretrained.config.task,
        "domain": _DOMAIN.value,
        "seed": request.seed,
        "mesh": mesh,
        "size": pretrained.config.data.size,
        "sampling": dataclasses.asdict(sampling),
        "batch": _BATCH.value,
        "model": {"source": str(pretrained.source), "sha256": pretrained.checksum},
        "versions": {"realiz3d_jax": __version__, "jax": jax.__version__, "platform": jax.default_backend()},
        "devices": jax.device_count(),
    }
    if is_latent(pretrained.config):
        description["encoders"] = {"sha256": encoders.fingerprint(pretrained.config)}
    return description


def _is_done(folder: pathlib.Path, description: dict[str, Any]) -> bool:
    if not folder.exists():
        return False
    try:
        found = json.loads((folder / "item.json").read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(
            f"{folder}: is there already and is not an item of this command; choose another --output."
        ) from error
    if found != description:
        names = [name for name in description if found.get(name) != description[name]]
        raise UserError(
            f"{folder}: is there already, made with another {', '.join(names)}; it was left as it is. Choose another --output."
        )
    return True


def _write(folder: pathlib.Path, views: np.ndarray, geometry: Geometry | None, description: dict[str, Any]) -> None:
    """An item's folder, in one step."""
    with files.new_directory(folder) as new:
        for azimuth, view in zip(range(0, 360, 90), views, strict=True):
            Image.fromarray(view).save(new / f"view_{azimuth:03d}.png")
        Image.fromarray(_grid(views)).save(new / "grid.png")
        if geometry is not None:
            exact = io.BytesIO()
            np.savez_compressed(exact, **dataclasses.asdict(geometry))
            (new / "control.npz").write_bytes(exact.getvalue())
            Image.fromarray(_grid((geometry.normal >> 8).astype(np.uint8))).save(new / "normal.png")
            Image.fromarray(_grid((geometry.position >> 8).astype(np.uint8))).save(new / "position.png")
            Image.fromarray(_grid(geometry.mask[..., None] * np.uint8(255))[..., 0]).save(new / "mask.png")
        (new / "item.json").write_text(json.dumps(description, indent=2) + "\n")


def _grid(views: np.ndarray) -> np.ndarray:
    """The 2x2 grid [H, W, C] of four views [V, H, W, C], row-major."""
    return einops.rearrange(views, "(a b) h w c -> (a h) (b w) c", a=2)


if __name__ == "__main__":
    errors.run(main)
