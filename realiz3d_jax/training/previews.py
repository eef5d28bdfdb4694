"""Samples during training, for TensorBoard: held-out objects in every domain that the stage trains."""

import dataclasses
import functools
from typing import Any

import einops
import jax
import numpy as np

from realiz3d_jax.config.build import stream_config
from realiz3d_jax.config.schema import is_latent
from realiz3d_jax.data import encoded
from realiz3d_jax.data.pipeline import prompt
from realiz3d_jax.method.domains import Domain
from realiz3d_jax.method.interface import Params
from realiz3d_jax.sampling.generator import Generator
from realiz3d_jax.training.setup import Run
from realiz3d_jax.views import VIEWS, to_grid

ITEMS = 8
STEPS = 25


class Previews:
    """Draws a picture of the model's current samples, always with the same captions, controls and noise."""

    def __init__(self, run: Run):
        self._run = run

    @functools.cached_property
    def _generator(self) -> Generator:
        run = self._run
        sampling = dataclasses.replace(run.config.sampling, steps=STEPS)
        return Generator(run.model, run.encoder, sampling, run.encoders.open_codec_params(run.device_mesh))

    def __call__(self, params: Params) -> np.ndarray:
        """Draws uint8[H, W, 3], one row of 2x2 grids per domain; grids hold single images if the stage trains no control."""
        draw = self._of_encoded if is_latent(self._run.config) else self._of_images
        rows = [draw(params, domain) for domain in sorted({kind.domain for kind in self._run.stage.iterations})]
        return einops.rearrange(to_grid(np.stack(rows)), "d n h w c -> (d h) (n w) c")

    @property
    def _controlled(self) -> bool:
        return any(kind.control for kind in self._run.stage.iterations)

    def _items(self) -> list[dict[str, Any]]:
        """Returns held-out objects, or training objects if none are held out, with ``control`` if the stage is controlled."""
        settings = stream_config(self._run.config, self._run.encoder)
        open_split = settings.open_grids if self._controlled else functools.partial(settings.open, "assets")
        held = open_split("validation" if "validation" in settings.splits("assets") else "train")
        items = [held[index] for index in range(min(ITEMS, len(held)))]
        return [{**item, **settings.grid(item)} for item in items] if self._controlled else items

    def _of_images(self, params: Params, domain: Domain) -> np.ndarray:
        items, control = self._items(), None
        captions = [[prompt(item["caption"], view) for view in range(VIEWS)] for item in items]
        if self._controlled:
            captions = [[item["caption"]] for item in items]
            control = np.stack([item["control"] for item in items])
        return self._generator(params, captions, range(len(items)), domain, control)

    def _of_encoded(self, params: Params, domain: Domain) -> np.ndarray:
        items, groups = self._items(), 1 if self._controlled else VIEWS
        tokens = self._run.config.data.text_tokens
        encoded_captions = [encoded.padded(item["caption_states"], tokens) for item in items]
        captions = jax.tree.map(lambda *rows: np.stack([np.stack(rows)] * groups, axis=1), *encoded_captions)
        control = np.stack([item["control"] for item in items]) if self._controlled else None
        empty = self._run.step_config.empty_caption
        return self._generator.draw(params, captions, empty, range(len(items)), domain, control)
