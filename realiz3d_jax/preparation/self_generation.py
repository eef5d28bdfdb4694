"""The real training images: made by the base model itself, from the captions of the synthetic set (paper, appendix C.1).

Every caption is prompted four times, with the words "front", "back", "right side" and "left side" view added; the words are
not part of the caption that is stored, so that a model trained on the images can't read the viewpoint off it.
"""

import dataclasses
import os
import pathlib
import zlib
from collections.abc import Callable

from realiz3d_jax.data import records
from realiz3d_jax.errors import UserError
from realiz3d_jax.method.domains import Domain
from realiz3d_jax.preparation import making
from realiz3d_jax.sampling.generator import Generator
from realiz3d_jax.sampling.pretrained import Pretrained
from realiz3d_jax.views import VIEW_WORDS, VIEWS

STEPS = 20
"""Of DPM-Solver++; guidance is as the base model's config says."""


def self_generate(
    directory: str | os.PathLike[str],
    base: Pretrained,
    captions: int | None,
    seed: int,
    *,
    collection: str = records.SHAPES,
    host: int = 0,
    hosts: int = 1,
) -> tuple[pathlib.Path, bool]:
    """Makes the set "generated": four images of each of the first ``captions`` training captions of the set "assets".

    Its other splits hold four images of each of the captions that are held out: what FID_B and KID_B compare with.

    Args:
      directory: where datasets are kept.
      base: a model of single images; its view size is the dataset's.
      captions: how many; None is all of them.
      seed: of the noise.
      collection: whose captions are read and whose images these become.
      host, hosts: which part of the images is this process', and of how many; all share the directory.

    Returns:
      (the dataset's folder, whether it was made now and not there before).

    Raises:
      UserError: the captions are not there or too few, the model is no base model, or another such dataset is there.
    """
    if base.controlled:
        raise UserError(f"{base.source}: is a model after Stage 2; expected the base model that Stage 1 starts from.")
    size = base.config.data.size
    assets = records.open_all(directory, records.dataset_name(collection, "assets"), size)
    count = captions or len(assets["train"])
    if count > len(assets["train"]):
        raise UserError(
            f"--count: found {count}, but {assets['train'].path} has {len(assets['train'])} training captions; "
            "expected at most as many."
        )
    sampling = dataclasses.replace(base.config.sampling, sampler="dpm++", steps=STEPS)

    def fill(missing: list[making.Chunk], advance: Callable[..., None]) -> None:
        generate = base.generator(sampling) if missing else None
        for chunk in missing:
            items = _draw_chunk(base, generate, assets[chunk[0]], chunk, seed)
            making.save_chunk(chunk, [(item, {}) for item in items])
            advance(len(items))

    request = {"count": count, "seed": seed, "base": base.checksum, "sampling": dataclasses.asdict(sampling)}
    request["view_prompt"] = base.config.data.view_prompt
    captions_of = {split: count if split == "train" else len(held) for split, held in assets.items()}
    splits = {split: number * VIEWS for split, number in captions_of.items()}
    dataset = records.dataset_name(collection, "generated")
    return making.make(directory, dataset, size, request, splits, fill, host=host, hosts=hosts)


def _draw_chunk(
    base: Pretrained, generate: Generator, held: records.Records, chunk: making.Chunk, seed: int
) -> list[records.Example]:
    """The images of a chunk: four of each of its captions, which ``held`` has."""
    split, start, stop, _ = chunk
    numbers = range(start // VIEWS, stop // VIEWS)
    texts = [_checked(base, held[number]) for number in numbers]
    # A last, shorter chunk is filled up: one compilation, and the same bits whatever the number of captions.
    filling = [texts[-1]] * (making.CHUNK // VIEWS - len(texts))
    named = base.config.data.view_prompt
    prompts = [[named.format(caption=text, view=word) for word in VIEW_WORDS] for text in texts + filling]
    seeds = [zlib.crc32(f"{seed} {split} {start // VIEWS + row}".encode()) for row in range(len(prompts))]
    images = generate(base.params, prompts, seeds, Domain.REAL)
    return [
        {"uid": f"generated_{split}_{number:05d}_{view}", "caption": text, "view": view, "image": images[row, view]}
        for row, (number, text) in enumerate(zip(numbers, texts, strict=True))
        for view in range(VIEWS)
    ]


def _checked(base: Pretrained, record: records.Example) -> str:
    """The caption of an asset; raises UserError, which names it, if the model cannot read it."""
    try:
        base.encoder.check(record["caption"])
    except UserError as error:
        raise UserError(
            f"{record['uid']}: {error} Captions come from the dataset's assets: mend it there, and make the dataset anew."
        ) from error
    return record["caption"]
