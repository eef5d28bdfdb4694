"""Samples of the model in training, for TensorBoard: held-out objects, each in every domain that the stage trains."""

import dataclasses

import einops
import numpy as np

from realiz3d_jax.data import records
from realiz3d_jax.data.pipeline import VIEWS, control_maps, prompt
from realiz3d_jax.method.generate import Generator
from realiz3d_jax.method.interface import Params
from realiz3d_jax.training.setup import Run

ITEMS = 8
STEPS = 25


class Previews:
    """Draws one picture of the model's present samples; captions, controls and noise are always the same."""

    def __init__(self, run: Run):
        self._run = run
        self._generate = Generator(run.model, run.encoder, dataclasses.replace(run.config.sampling, steps=STEPS))

    def __call__(self, params: Params) -> np.ndarray:
        """uint8[H, W, 3]: a row of 2x2 grids for each domain; of single images where no control is trained yet."""
        data, controlled = self._run.config.data, any(kind.control for kind in self._run.stage.iterations)
        validation = records.open_split(data.directory, "shapes_assets", "validation", data.size)
        items = [validation[index] for index in range(min(ITEMS, len(validation)))]
        if controlled:
            captions = [[item["caption"]] for item in items]
            control = np.stack([control_maps(item["normal"], item["position"], item["mask"]) for item in items])
        else:
            captions = [[prompt(item["caption"], view) for view in range(VIEWS)] for item in items]
            control = None
        domains = sorted({kind.domain for kind in self._run.stage.iterations})
        rows = [self._generate(params, captions, range(len(items)), domain, control) for domain in domains]
        return einops.rearrange(np.stack(rows), "d n (a b) h w c -> (d a h) (n b w) c", a=2)
