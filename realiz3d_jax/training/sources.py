"""Where a run's parameters come from: a base model, or an earlier stage, and whether they mean the same here."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

from realiz3d_jax.checkpoints import release, workdirs
from realiz3d_jax.checkpoints.release import checksum, read_on_host
from realiz3d_jax.config.build import outline
from realiz3d_jax.config.schema import InitConfig, TrainConfig, is_latent
from realiz3d_jax.data import records
from realiz3d_jax.errors import UserError
from realiz3d_jax.method.interface import Params

REAL_IMAGES = "real_images"
"""The stream of the images that a base model made itself."""


def read_init(config: TrainConfig, like: Params) -> Params:
    """The partitions that ``config.init`` names, on the shardings of ``like``.

    Raises:
      UserError: the source is missing, damaged or of another model; the message gives the command that makes it.
    """
    source = pathlib.Path(config.init.source)
    if not source.exists():
        raise UserError(
            f"config.init.source: {source} does not exist; the stage {config.stage!r} takes its "
            f"{' and '.join(like)} from there. Make it with:\n  {config.init.command}"
        )
    with _naming(config.init):
        before = release.read_config(source)
        _check_same(config, before, source, tuple(like))
        _check_finished(config, before, source)
        return release.read_params(source, like)


_EXECUTION = (
    "dtype",
    "residual_dtype",
    "remat",
    "scan_unroll",
    "attention",
    "skip_frozen_backward",
    "sample_size",
    "positions",
)
"""Settings of a backbone that its weights do not depend on."""


@contextlib.contextmanager
def _naming(init: InitConfig) -> Iterator[None]:
    """Says of what is wrong with a source which setting names it, and what makes it."""
    try:
        yield
    except UserError as error:
        raise UserError(f"config.init.source: {error}\nWhat makes it:\n  {init.command}") from error


def _check_same(config: TrainConfig, before: TrainConfig, source: pathlib.Path, partitions: tuple[str, ...]) -> None:
    """Raises UserError unless the parameters of ``source``, trained as ``before`` says, mean the same under ``config``."""
    ours, theirs = _meaning(config), _meaning(before)
    # What a method has learned, it has learned at these positions; a base has yet to learn them.
    if partitions != ("backbone",):
        ours["model.positions"], theirs["model.positions"] = config.model.positions, before.model.positions
    for name, value in ours.items():
        if theirs.get(name, value) != value:
            raise UserError(
                f"{source}: was trained with {name} {theirs[name]!r}; config.{name} is {value!r}, which gives its weights "
                f"another meaning. Set --config.{name}={theirs[name]}."
            )


def _check_finished(config: TrainConfig, before: TrainConfig, source: pathlib.Path) -> None:
    """Raises UserError if ``source`` is a run that has not come to its end, unless that is meant."""
    if release.find(source).is_file() or config.init.unfinished:
        return
    step = workdirs.latest_step(source)
    if step < before.steps:
        raise UserError(
            f"{source}: its run is at step {step:,} of {before.steps:,}. Let it come to its end, or take it as it is by "
            "--config.init.unfinished=true."
        )


def base_checksum(init: InitConfig) -> str:
    """The checksum of the base model that a run's source is, or was trained from; "" where there is none, or it is not known.

    Raises:
      UserError: the source is damaged.
    """
    if not init.source or not pathlib.Path(init.source).exists():
        return ""
    with _naming(init):
        before = release.read_config(init.source)
        if before.data.base_sha256:
            return before.data.base_sha256
        is_base = outline(before)[0].partitions == ("backbone",)
        return checksum(read_on_host(init.source)[1]) if is_base else ""


def check_generated(held: records.Records, base_sha256: str) -> None:
    """Raises UserError if the images of ``held`` were made by another base model than ``base_sha256``."""
    made_by = held.metadata.get("base") or held.metadata.get("source", {}).get("base")
    if made_by and base_sha256 and made_by != base_sha256:
        raise UserError(
            f"{held.path / 'metadata.json'}: base is {made_by[:16]}..., another base model than the one that this training "
            f"starts from ({base_sha256[:16]}...); its real images are not this one's. Make them by\n"
            "  python -m realiz3d_jax.prepare --self-generate --base BASE --directory OTHER"
        )


def _meaning(config: TrainConfig) -> dict[str, Any]:
    model = {name: value for name, value in dataclasses.asdict(config.model).items() if name not in _EXECUTION}
    meaning = {f"model.{name}": value for name, value in model.items()}
    meaning |= {f"diffusion.{name}": value for name, value in dataclasses.asdict(config.diffusion).items()}
    if config.task == "text_to_multiview":
        meaning["viewpoints"] = config.viewpoints
    meaning["codec.codec"] = config.codec.codec
    if is_latent(config):
        vae = config.codec.autoencoder
        meaning |= {"codec.autoencoder.scale": vae.scale, "codec.autoencoder.shift": vae.shift}
        meaning["data.text_tokens"] = config.data.text_tokens
    return meaning
