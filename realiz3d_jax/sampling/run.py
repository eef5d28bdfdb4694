"""From requests to results: views drawn in batches, and baked onto the mesh that controlled them.

The command ``sample`` and the Python entry (``sampling/api.py``) both draw here, so equal settings give equal bits in either.
"""

import contextlib
import dataclasses
import functools
import itertools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from realiz3d_jax import __version__, files, progress
from realiz3d_jax.config.schema import SamplingConfig, TrainConfig, is_latent, view_cameras
from realiz3d_jax.data.geometry_maps import Geometry, geometry_of
from realiz3d_jax.data.pipeline import control_maps
from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.assets.asset import Asset, checksum, load_asset
from realiz3d_jax.geometry.cameras import Camera
from realiz3d_jax.geometry.texturing.texture import SIZES, texture_asset, texture_size
from realiz3d_jax.geometry.texturing.unwrap import unwrap
from realiz3d_jax.method.domains import Domain
from realiz3d_jax.sampling import items
from realiz3d_jax.sampling.generator import Generator
from realiz3d_jax.sampling.pretrained import Pretrained
from realiz3d_jax.sampling.requests import Request
from realiz3d_jax.views import VIEWS

Spelling = Callable[[str], str]
"""The name of a setting in messages: ``texture_size`` is a flag ``--texture-size`` of the command and a keyword in Python."""


def as_flag(name: str) -> str:
    """The spelling of the commands."""
    return f"--{name.replace('_', '-')}"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How requests are drawn and baked.

    Attributes:
      sampling: steps, guidance and inference-time shifting.
      domain: "real" or "synthetic"; None for a model that knows no domains.
      texture: ``size`` and ``harmonise`` as ``item.json`` states them; None bakes nothing.
      batch: items drawn at a time; a smaller batch is filled up, so that one program serves all of them.
    """

    sampling: SamplingConfig
    domain: str | None
    texture: dict[str, Any] | None
    batch: int


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """A drawn item.

    Attributes:
      views: uint8[4, H, W, 3], sRGB.
      cameras: one for each view.
      names: the files of the views, in the same order.
      geometry: the maps that controlled the views; None if no mesh did.
      textured: the GLB with the views as its texture; None if none was requested, or baking failed.
      description: the content of ``item.json``: request, model, settings, and under ``baked`` the outcome of baking.
      asset: the mesh that was textured; None if none was.
    """

    views: np.ndarray = dataclasses.field(repr=False)
    cameras: tuple[Camera, ...]
    names: tuple[str, ...]
    geometry: Geometry | None = dataclasses.field(repr=False)
    textured: bytes | None = dataclasses.field(repr=False)
    description: dict[str, Any]
    asset: Asset | None = dataclasses.field(default=None, repr=False)

    def save(self, folder: str | os.PathLike[str]) -> pathlib.Path:
        """Writes the folder that ``python -m realiz3d_jax.sample`` writes for this item, and returns it.

        Raises:
          UserError: the folder already exists, or cannot be written.
        """
        folder = pathlib.Path(folder)
        if folder.exists():
            raise UserError(f"{folder}: already exists; it was left as it is. Choose another folder or remove it.")
        files.writable_directory(folder.parent)
        items.write(folder, self.description, self.views, self.names, self.geometry, self.textured)
        return folder


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """An item to make: its request and its description."""

    request: Request
    description: dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Ready(Task):
    """One that can be drawn; ``geometry`` is None where no mesh controls the views, ``asset`` where none is textured."""

    geometry: Geometry | None
    asset: Asset | None


def check_task(pretrained: Pretrained, task: str) -> None:
    """Raises UserError unless the model takes a control and was trained for the task."""
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


def choose_domain(pretrained: Pretrained, domain: str | None, spelling: Spelling = as_flag) -> str | None:
    """The requested look, "real" by default; None for a model that knows no domains.

    Raises:
      UserError: a look was requested from a model that knows no domains.
    """
    if pretrained.model.method.knows_domains:
        return domain or "real"
    if domain:
        raise UserError(
            f"{spelling('domain')}={domain}: {pretrained.source} was trained by the method "
            f"{pretrained.config.method['name']!r}, which knows no domains: it has one look. Leave {spelling('domain')} out."
        )
    return None


def texture_settings(
    config: TrainConfig, size: int | None, harmonise: bool, default: bool = True, spelling: Spelling = as_flag
) -> dict[str, Any] | None:
    """How the views are baked, as ``Settings.texture`` has it; None if they are not.

    Args:
      config: of the model.
      size: texels along a side of the texture; 0 makes none; None leaves it to the size of the views.
      harmonise: whether gains make the views agree where they overlap.
      default: whether a texture is made where ``size`` is None and the views can be baked.
      spelling: how messages call a setting.

    Raises:
      UserError: the views of this model cannot be baked, or ``harmonise`` goes without a texture.
    """
    named = spelling("texture_size")
    perspective = config.data.rig.projection == "perspective"
    if size is None:
        size = texture_size(config.data.size) if default and config.task == "texture" and not perspective else 0
    if size and size not in SIZES:
        raise UserError(f"{named}={size}: expected one of 0, {', '.join(map(str, SIZES))}.")
    if size and perspective:
        raise UserError(f"{named}={size}: the model's views are perspective; only orthographic ones are baked.")
    if size and config.task != "texture":
        raise UserError(
            f"{named}={size}: views that no mesh controls cannot be baked; expected {spelling('task')}=texture."
        )
    if harmonise and not size:
        raise UserError(f"{spelling('harmonise')} was given, but no texture is made; give {named}, too.")
    return {"size": size, "harmonise": harmonise} if size else None


def describe(request: Request, pretrained: Pretrained, settings: Settings) -> dict[str, Any]:
    """The content of ``item.json``: request, model and sampler; equal descriptions give equal images.

    Raises:
      UserError: the mesh or an encoder cannot be read.
    """
    mesh = None
    if request.mesh is not None:
        mesh = {"path": str(request.mesh.resolve()), "sha256": checksum(request.mesh), "up": request.up}
    description = {
        "uid": request.uid,
        "caption": request.prompt,
        "task": pretrained.config.task,
        "domain": settings.domain,
        "seed": request.seed,
        "mesh": mesh,
        "size": pretrained.config.data.size,
        "rig": dataclasses.asdict(pretrained.config.data.rig),
        "views": pretrained.config.data.views,
        "texture": settings.texture,
        "sampling": dataclasses.asdict(settings.sampling),
        "batch": settings.batch,
        "model": {"source": str(pretrained.source), "sha256": pretrained.checksum},
        "versions": {"realiz3d_jax": __version__, "jax": jax.__version__, "platform": jax.default_backend()},
        "devices": jax.device_count(),
    }
    if is_latent(pretrained.config):
        description["encoders"] = {"sha256": pretrained.encoders.sha256}
    return description


def sample_all(
    pretrained: Pretrained, settings: Settings, wanted: Sequence[Request], output: pathlib.Path
) -> tuple[list[dict[str, Any]], list[str]]:
    """Makes the folder of each request below ``output``, except for those that already exist.

    Returns:
      the description of each item that exists in the end, and a message for each problem.
    """
    generator = pretrained.generator(settings.sampling)
    tasks: list[Task] = []
    problems: list[str] = []
    done: list[dict[str, Any]] = []
    for request in wanted:
        try:
            pretrained.encoder.check(request.prompt)
            description = describe(request, pretrained, settings)
            found = items.find(output / request.uid, description)
            if found is None:
                tasks.append(Task(request, description))
                continue
            done.append(found)
            problems += baking_problems(output / request.uid, found)
        except UserError as error:
            problems.append(str(error))
    if not tasks:
        return done, problems
    ready = prepare(tasks, pretrained.config, problems)
    for result in draw_all(generator, pretrained, settings, ready, len(tasks)):
        folder = output / result.description["uid"]
        items.write(folder, result.description, result.views, result.names, result.geometry, result.textured)
        problems += baking_problems(folder, result.description)
        done.append(result.description)
    return done, problems


def prepare(tasks: Sequence[Task], config: TrainConfig, problems: list[str]) -> Iterator[Ready]:
    """Yields the items whose meshes can be used, one at a time; ``problems`` gets what is wrong with the others.

    Those of one mesh follow each other, so that each mesh is read and unwrapped once and none is kept for long.
    """
    size, cameras = config.data.size, view_cameras(config)
    load = functools.lru_cache(maxsize=1)(load_asset)
    maps = functools.lru_cache(maxsize=1)(lambda asset: geometry_of(asset.mesh, size, cameras, asset.visible))
    place: dict[tuple, int] = {}
    for task in sorted(tasks, key=lambda task: place.setdefault(_mesh_of(task.request), len(place))):
        request, description = task.request, task.description
        try:
            if description["task"] != "texture":
                yield Ready(request, description, None, None)
                continue
            if request.mesh is None and request.asset is None:
                raise UserError(
                    f'{request.uid}: the task "texture" needs a mesh; give --mesh, or "mesh" in the manifest.'
                )
            textured = description["texture"] is not None
            asset = request.asset
            if asset is None and (textured or request.geometry is None):
                asset = load(request.mesh, request.up)
            yield Ready(request, description, request.geometry or maps(asset), asset if textured else None)
        except UserError as error:
            problems.append(str(error))


def draw_all(
    generator: Generator,
    pretrained: Pretrained,
    settings: Settings,
    ready: Iterable[Ready],
    total: int,
    bars: bool = True,
) -> Iterator[Result]:
    """Draws items in batches of ``settings.batch`` and bakes them.

    Args:
      generator: of the model, with ``settings.sampling``.
      pretrained: the model.
      settings: how.
      ready: the items.
      total: how many items are expected, for the progress bars.
      bars: whether there are any.
    """
    ready, cameras = iter(ready), view_cameras(pretrained.config)
    names = pretrained.config.data.rig.names(pretrained.config.data.views)
    unwrapped = functools.lru_cache(maxsize=1)(unwrap)
    silent = contextlib.nullcontext(lambda *_: None)
    sampling = progress.bar("sampling", total) if bars else silent
    texturing = progress.bar("texturing", total) if bars and settings.texture else silent
    with sampling as drawn, texturing as textured:
        while batch := list(itertools.islice(ready, settings.batch)):
            images = _draw(generator, pretrained, settings, batch)
            drawn(len(batch))
            for item, views in zip(batch, images, strict=False):
                glb, description = _bake(item, views, cameras, unwrapped)
                yield Result(views, cameras, names, item.geometry, glb, description, item.asset)
                textured()


def check_glb(output: pathlib.Path, mesh: str | os.PathLike[str] | None, name: str = "output") -> None:
    """Raises UserError unless a textured mesh can be called ``output``: it is a .glb, and not the mesh itself."""
    if output.suffix != ".glb":
        raise UserError(f"{name}={output}: expected the name of a .glb.")
    if mesh is not None and output.resolve() == pathlib.Path(mesh).resolve():
        raise UserError(f"{name}={output}: is the asset itself; expected another name.")


def baking_problems(folder: pathlib.Path, description: dict[str, Any]) -> list[str]:
    """The problem that a description states of a texture that could not be baked, if there is one."""
    problem = description.get(items.BAKED, {}).get("problem")
    return [f"{folder}: the views were written, but they could not be baked ({problem})."] if problem else []


def _mesh_of(request: Request) -> tuple[Any, ...]:
    """The same for requests of the same mesh."""
    return request.mesh, request.up, id(request.asset)


def _draw(generator: Generator, pretrained: Pretrained, settings: Settings, batch: list[Ready]) -> np.ndarray:
    """The views of a batch, always filled up to ``settings.batch`` items: one compilation, and the same bits in any batch."""
    full = batch + [batch[0]] * (settings.batch - len(batch))
    control = np.zeros((len(full), 0), np.float32)
    if pretrained.config.task == "texture":
        maps = [item.geometry for item in full if item.geometry is not None]
        control = np.stack([control_maps(one.normal, one.position, one.mask) for one in maps])
    captions = [[item.request.prompt] for item in full]
    seeds = [item.request.seed for item in full]
    look = Domain[(settings.domain or "synthetic").upper()]  # a model that knows no domains draws the same for each
    return generator(pretrained.params, captions, seeds, look, control, VIEWS)


def _bake(
    item: Ready, views: np.ndarray, cameras: tuple[Camera, ...], unwrapped: Callable[[Asset], Asset]
) -> tuple[bytes | None, dict[str, Any]]:
    """The item's mesh with its views as texture, None where that fails or is not requested, and its description."""
    if item.asset is None:
        return None, item.description
    try:
        glb, baked = texture_asset(unwrapped(item.asset), views, cameras, **item.description["texture"])
        found = {"coverage": round(baked.coverage, 4), "overlap": round(baked.overlap, 4)}
    except Exception as error:  # whatever is wrong with this mesh: its views and the other items are worth keeping
        glb, found = None, {"problem": str(error) if isinstance(error, UserError) else repr(error)}
    return glb, item.description | {items.BAKED: found}
