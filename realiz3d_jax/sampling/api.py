"""The Python entry: a trained model as an object that textures meshes and draws objects, and what is done with its results.

``import realiz3d_jax as r3d`` offers these names. Equal settings give the bits that ``python -m realiz3d_jax.sample`` writes
with the same ``--batch``; mistakes in the input raise ``UserError``, whose message says how to fix them.
"""

import dataclasses
import functools
import os
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from realiz3d_jax import files, startup
from realiz3d_jax.checkpoints.exported import PRETRAINED
from realiz3d_jax.config.schema import SamplingConfig
from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.assets.asset import Asset, load_asset
from realiz3d_jax.geometry.cameras import STANDARD, Camera
from realiz3d_jax.geometry.texturing import texture as sizes
from realiz3d_jax.geometry.texturing.unwrap import unwrap
from realiz3d_jax.metrics import domain_score, evaluation, metric
from realiz3d_jax.sampling import items, pretrained, requests, run, vocabulary
from realiz3d_jax.sampling.generator import Generator
from realiz3d_jax.sampling.pretrained import SHIPPED, Pretrained
from realiz3d_jax.sampling.requests import Request
from realiz3d_jax.sampling.run import Result

Path = str | os.PathLike[str]

_LARGEST_BATCH = 8
"""The default of the command ``sample``, too."""

_CLASSIFIER = PRETRAINED / "shapes_classifier.safetensors"


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A trained model, ready to texture meshes and to draw objects; ``open_model`` opens one.

    Attributes:
      pretrained: config, parameters and text encoder.
    """

    pretrained: Pretrained

    @property
    def task(self) -> str:
        """The task of the model: "texture" or "text_to_multiview"."""
        return self.pretrained.config.task

    def texture(
        self,
        mesh: Path | Asset,
        prompt: str,
        *,
        seed: int = 0,
        up: str | None = None,
        domain: str | None = None,
        texture_size: int | None = None,
        harmonise: bool = False,
        **sampling: Any,
    ) -> Result:
        """Draws four views of a mesh and bakes them into its texture.

        Args:
          mesh: a file (GLB, glTF, OBJ, PLY, STL or OFF), or an asset of ``load_asset``.
          prompt: what the mesh should look like.
          seed: of the noise, 0 to 2^32 - 1.
          up: "y" or "z", the axis that is up in the file; None leaves it to the format.
          domain: "real" (the default) or "synthetic", of models that know domains.
          texture_size: 512, 1024, 2048 or 4096 texels along a side; 0 makes no texture; None is as the views need.
          harmonise: whether gains make the views agree where they overlap in the texture.
          **sampling: fields of ``SamplingConfig``, such as ``steps`` and ``guidance_scale``; the others are as the model's
            config says.

        Returns:
          views, cameras, maps and textured mesh. Where baking fails, ``textured`` is None and a warning says why.

        Raises:
          UserError: the model has another task, the mesh or the prompt cannot be used, or a setting is out of range.
        """
        wanted = _requests([mesh], [prompt], [seed], up)
        bake = {"size": texture_size, "harmonise": harmonise}
        return self._draw("texture", wanted, domain, bake, 1, sampling)[0]

    def texture_all(
        self,
        meshes: Sequence[Path | Asset],
        prompts: Sequence[str],
        *,
        seeds: Sequence[int] | None = None,
        up: str | None = None,
        domain: str | None = None,
        texture_size: int | None = None,
        harmonise: bool = False,
        batch: int | None = None,
        **sampling: Any,
    ) -> list[Result]:
        """Textures several meshes, in batches; one result for each, in their order.

        Args:
          meshes: as for ``texture``; all are read before the first is drawn, so a bad one costs nothing.
          prompts: one for each mesh.
          seeds: one for each mesh; None counts up from 0.
          up: as for ``texture``.
          domain: as for ``texture``.
          texture_size: as for ``texture``.
          harmonise: as for ``texture``.
          batch: items drawn at a time; None is all of them, up to 8. The last bits of the views depend on it.
          **sampling: as for ``texture``.

        Raises:
          UserError: as for ``texture``, or the lists differ in length.
        """
        wanted = _requests(meshes, prompts, seeds, up)
        bake = {"size": texture_size, "harmonise": harmonise}
        return self._draw("texture", wanted, domain, bake, batch, sampling)

    def draw(self, prompt: str, *, seed: int = 0, domain: str | None = None, **sampling: Any) -> Result:
        """Draws four views of what a prompt describes, without a mesh; arguments and errors as for ``texture``."""
        wanted = _requests([None], [prompt], [seed], None)
        return self._draw("text_to_multiview", wanted, domain, {"size": None, "harmonise": False}, 1, sampling)[0]

    def draw_all(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int] | None = None,
        domain: str | None = None,
        batch: int | None = None,
        **sampling: Any,
    ) -> list[Result]:
        """Draws several objects, in batches; arguments and errors as for ``texture_all``."""
        wanted = _requests([None] * len(prompts), prompts, seeds, None)
        return self._draw("text_to_multiview", wanted, domain, {"size": None, "harmonise": False}, batch, sampling)

    def _draw(
        self,
        task: str,
        wanted: Sequence[Request],
        domain: str | None,
        bake: Mapping[str, Any],
        batch: int | None,
        sampling: Mapping[str, Any],
    ) -> list[Result]:
        opened, problems = self.pretrained, []
        run.check_task(opened, task)
        settings = run.Settings(
            sampling=_changed(opened.config.sampling, sampling),
            domain=run.choose_domain(opened, _known_domain(domain), str),
            texture=run.texture_settings(opened.config, spelling=str, **bake),
            batch=min(len(wanted), _LARGEST_BATCH) if batch is None else batch,
        )
        if settings.batch < 1:
            raise UserError(f"batch: found {batch}, expected 1 or more.")
        for request in wanted:
            opened.encoder.check(request.prompt)
        if caution := vocabulary.caution(opened, [request.prompt for request in wanted]):
            warnings.warn(caution, stacklevel=3)
        tasks = [run.Task(request, run.describe(request, opened, settings)) for request in wanted]
        ready = list(run.prepare(tasks, opened.config, problems))
        if problems:
            raise UserError("\n".join(problems))
        generator = dataclasses.replace(self._generator, sampling=settings.sampling)
        drawn = run.draw_all(generator, opened, settings, ready, len(ready), bars=len(ready) > 1)
        results = {result.description["uid"]: result for result in drawn}  # those of one mesh come one after the other
        for uid, result in results.items():
            if problem := result.description.get(items.BAKED, {}).get("problem"):
                warnings.warn(f"{uid}: the views could not be baked ({problem}).", stacklevel=3)
        return [results[request.uid] for request in wanted]

    @functools.cached_property
    def _generator(self) -> Generator:
        """Holds the codec's parameters, which are read once."""
        return self.pretrained.generator(self.pretrained.config.sampling)


def open_model(source: Path | None = None, *, task: str = "texture", encoders: Path = "") -> Model:
    """Opens a trained model, by default the one that ships for a task.

    JAX is configured as for the commands (``startup.configure``), as far as this process has not used it yet.

    Args:
      source: a run's workdir, an exported checkpoint (``.safetensors``), or the folder of a converted model.
      task: "texture" or "text_to_multiview", which shipped model is opened; of no account with a ``source``.
      encoders: the folder with the model's text encoder and autoencoder, if it is not where its config says.

    Raises:
      UserError: the source is missing or damaged.
    """
    startup.configure(split_cpu=True)
    if source is None:
        if task not in (tasks := [name for name in SHIPPED if name != "base"]):
            raise UserError(f"task: found {task!r}, expected {' or '.join(map(repr, tasks))}.")
        source = SHIPPED[task]
    return Model(pretrained.open_model(source, str(encoders)))


def bake_texture(
    mesh: Path | Asset,
    views: np.ndarray,
    cameras: Sequence[Camera] = STANDARD,
    output: Path | None = None,
    *,
    texture_size: int | None = None,
    harmonise: bool = False,
    up: str | None = None,
) -> bytes:
    """Bakes views of any origin into the texture of a mesh, which keeps its coordinates and topology; returns the GLB.

    Args:
      mesh: a file or an asset of ``load_asset``.
      views: uint8[V, H, H, 3 or 4], sRGB; pixels of an alpha below one half are not used.
      cameras: one for each view, orthographic; by default the four standard ones.
      output: a .glb to write as well.
      texture_size: texels along a side of the texture: 512, 1024, 2048 or 4096; None is as the views need.
      harmonise: whether gains make the views agree where they overlap.
      up: "y" or "z", the axis that is up in the file; None leaves it to the format.

    Raises:
      UserError: the mesh cannot be read, the views do not fit the cameras, or the output cannot be written.
    """
    startup.configure(split_cpu=True)
    path = None if output is None else pathlib.Path(output)
    if path is not None:
        run.check_glb(path, None if isinstance(mesh, Asset) else mesh)
        files.writable_directory(path.parent)
    if texture_size not in (None, *sizes.SIZES):
        raise UserError(f"texture_size={texture_size}: expected one of {', '.join(map(str, sizes.SIZES))}.")
    asset = mesh if isinstance(mesh, Asset) else load_asset(mesh, up)
    size = texture_size or sizes.texture_size(views.shape[1])
    glb, baked = sizes.texture_asset(unwrap(asset), views, cameras, size=size, harmonise=harmonise)
    if not baked.seen.any():
        raise UserError("views: they see nothing of the surface; expected opaque views of 32 pixels or more.")
    if path is not None:
        files.write_bytes(path, glb)
    return glb


def compute_metrics(
    results: Sequence[Result | np.ndarray | Path],
    *,
    references: Mapping[str, np.ndarray | Path] | None = None,
    classifier: Path = _CLASSIFIER,
) -> dict[str, Any]:
    """Measures realism, control and consistency of generated objects, as ``python -m realiz3d_jax.evaluate`` does.

    Args:
      results: of a model; or views uint8[V, H, W, 3]; or folders that ``sample`` wrote, of one item or of many. Only objects
        with a mesh have a silhouette IoU and consistency.
      references: images to compare with by FID and KID, by name: uint8[n, H, W, 3], or a folder of PNGs or of items. These
        distances are of use from about 20 objects on; a warning says so below.
      classifier: scores realism; by default that of the shapes benchmark.

    Returns:
      JSON values, as ``metrics.evaluation.evaluate_views`` says; ``domain_score`` is the real score.

    Raises:
      UserError: there is nothing to measure, sizes differ, or a file is missing or damaged.
    """
    startup.configure(split_cpu=True)
    evaluated = [item for number, result in enumerate(results) for item in _as_items(result, number)]
    if not evaluated:
        raise UserError("results: found none; expected results of a model, views, or folders of items.")
    size = evaluation.common_size(evaluated, "results")
    opened = domain_score.load(classifier)
    if references and (caution := evaluation.caution(len(evaluated))):
        warnings.warn(caution, stacklevel=2)
    compared = {
        name: domain_score.evaluate(opened.params, _pictures(images, size))[1]
        for name, images in (references or {}).items()
    }
    return evaluation.evaluate_views(evaluated, compared, opened)


def _requests(
    meshes: Sequence[Path | Asset | None], prompts: Sequence[str], seeds: Sequence[int] | None, up: str | None
) -> list[Request]:
    """Requests whose values have been checked, each with a name of its own."""
    if isinstance(prompts, str):
        raise UserError(f"prompts: found the text {prompts!r}, expected a list of texts.")
    seeds = range(len(prompts)) if seeds is None else seeds
    if not len(meshes) == len(prompts) == len(seeds):
        raise UserError(
            f"found {len(meshes)} meshes, {len(prompts)} prompts and {len(seeds)} seeds; expected as many of each."
        )
    if not prompts:
        raise UserError("prompts: found none, expected at least one.")
    wanted: dict[str, Request] = {}
    for number, (mesh, prompt, seed) in enumerate(zip(meshes, prompts, seeds, strict=True)):
        if not isinstance(prompt, str) or not prompt.strip():
            raise UserError(f"prompt: found {prompt!r}; say what to show.")
        if not isinstance(mesh, Asset | str | os.PathLike | None):
            raise UserError(f"mesh: found {mesh!r}, expected a file or an asset of load_asset.")
        asset, path = (mesh, None) if isinstance(mesh, Asset) else (None, mesh)
        name = path if asset is None else asset.name
        uid = f"item_{number:04d}" if name is None else requests.as_uid(pathlib.Path(name).stem)
        uid = uid if uid not in wanted else requests.as_uid(f"{number:04d}_{uid}")
        request = requests.make_request(uid, prompt, seed, None if path is None else pathlib.Path(path), up)
        wanted[uid] = dataclasses.replace(request, asset=asset)
    return list(wanted.values())


def _changed(config: SamplingConfig, given: Mapping[str, Any]) -> SamplingConfig:
    names = [field.name for field in dataclasses.fields(config)]
    if unknown := [name for name in given if name not in names]:
        raise UserError(f"{unknown[0]}: unknown setting of the sampler; expected {', '.join(names)}.")
    return dataclasses.replace(config, **given)


def _known_domain(domain: str | None) -> str | None:
    if domain not in (None, "real", "synthetic"):
        raise UserError(f"domain: found {domain!r}, expected 'real' or 'synthetic'.")
    return domain


def _as_items(result: Result | np.ndarray | Path, number: int) -> list[metric.Item]:
    """The items of the metrics for a result, for views, or for a folder of items."""
    if isinstance(result, Result):
        uid, caption, mesh = (result.description[key] for key in ("uid", "caption", "mesh"))
        item = metric.Item(uid, caption, result.views, result.cameras, asset=result.asset)
        if mesh and result.description["task"] == "texture":
            item = dataclasses.replace(item, mesh=pathlib.Path(mesh["path"]), up=mesh["up"])
        return [item]
    if isinstance(result, np.ndarray):
        if result.dtype != np.uint8 or result.ndim != 4 or result.shape[1] != result.shape[2] or result.shape[3] != 3:
            raise UserError(f"results: found {result.dtype}{list(result.shape)}; expected views uint8[V, H, H, 3].")
        return [metric.Item(f"item_{number:04d}", "", result, ())]
    folder = pathlib.Path(result)
    found = [items.read(folder)] if (folder / items.DESCRIPTION).is_file() else items.read_all(folder)
    return [items.to_evaluate(item) for item in found]


def _pictures(images: np.ndarray | Path, size: int) -> np.ndarray:
    if not isinstance(images, np.ndarray):
        return items.read_pictures(images, size)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != (size, size, 3) or len(images) < 2:
        raise UserError(
            f"references: found {images.dtype}{list(images.shape)}; expected two or more images, uint8[n, {size}, {size}, 3]."
        )
    return images
