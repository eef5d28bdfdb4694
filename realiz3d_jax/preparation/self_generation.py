"""Self-generation of the real training images: the base model draws the synthetic set's captions (paper, appendix C.1).

Each caption is prompted four times, with "front", "back", "right side" and "left side" view added. The stored caption omits
these words, so that a model trained on the images cannot infer the viewpoint from the caption.
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
"""DPM-Solver++ steps; the guidance scale comes from the base model's config."""


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
    """Makes the dataset "generated": four images of each of the first ``captions`` training captions of "assets".

    The other splits hold four images of each held-out caption; FID_B and KID_B compare against them.

    Args:
      directory: root folder of the datasets.
      base: a single-image model; its view size becomes the dataset's.
      captions: number of training captions; None for all.
      seed: seed of the noise.
      collection: collection whose captions are read and to which the images belong.
      host, hosts: index of this process and number of processes; all share ``directory``.

    Returns:
      (the dataset's folder, True if it was made by this call and False if it already existed).

    Raises:
      UserError: captions are missing or too few, ``base`` is not a base model, or a dataset of another request exists.
    """
    if base.controlled:
        raise UserError(f"{base.source}: is a Stage 2 model; expected the base model that Stage 1 starts from.")
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
    """Draws the images of a chunk: four for each of its captions, read from ``held``."""
    split, start, stop, _ = chunk
    numbers = range(start // VIEWS, stop // VIEWS)
    texts = [_checked(base, held[number]) for number in numbers]
    # A shorter last chunk is padded: one compilation, and the same bits whatever the number of captions.
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
    """Returns the caption of an asset; raises a UserError that names the asset if the model cannot read the caption."""
    try:
        base.encoder.check(record["caption"])
    except UserError as error:
        raise UserError(
            f"{record['uid']}: {error} Captions come from the dataset's assets: fix it there, and make the dataset again."
        ) from error
    return record["caption"]
