"""Images from captions and controls: the sampler of every command, compiled once for each shape of request."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from realiz3d_jax.config.schema import SamplingConfig
from realiz3d_jax.method.domains import Domain
from realiz3d_jax.method.interface import Params
from realiz3d_jax.method.model import Model
from realiz3d_jax.models import parallel
from realiz3d_jax.models.backbone import Captions
from realiz3d_jax.models.text import TextEncoder


@dataclasses.dataclass(frozen=True)
class Generator:
    """Draws images from a model: what a request means is decided here, the arithmetic is ``Model.sample``.

    Attributes:
      model: the model, without its parameters.
      encoder: text encoder; may be None if only ``draw`` is called.
      sampling: steps, guidance and inference-time shifting.
      codec_params: parameters of the model's codec, if it has any, on the devices of the model's parameters.

    A batch is shared out among the devices that hold the parameters, if their number divides it; if not, each draws all of it.
    """

    model: Model
    encoder: TextEncoder | None
    sampling: SamplingConfig
    codec_params: Params | None = None

    def __call__(
        self,
        params: Params,
        captions: Sequence[Sequence[str]],
        seeds: Sequence[int],
        domain: Domain,
        control: np.ndarray | None = None,
        views: int = 4,
    ) -> np.ndarray:
        """Images uint8[B, V, H, W, 3].

        Args:
          params: the partitions of a stage, on a device mesh as ``open_model`` and a run's state have them.
          captions: B lists of G captions each: one for a grid of V consistent views, V for as many images of their own.
          seeds: B seeds; an item's noise depends on its seed alone, not on the batch that it is drawn in.
          domain: the domain of all blocks that inference-time shifting leaves alone.
          control: maps float32[B, V, H, W, 6] for "texture"; anything but None for "text_to_multiview"; None is null.
        """
        encoded = self._encode([caption for item in captions for caption in item])
        encoded = jax.tree.map(lambda array: array.reshape(len(captions), -1, *array.shape[1:]), encoded)
        if control is not None and self.model.task == "texture":
            where = self._sharding(params, len(captions))
            control = _encode_control(self.model, self.codec_params, jax.device_put(control, where))
        return self.draw(params, encoded, self._empty_caption, seeds, domain, control, views)

    def draw(
        self,
        params: Params,
        captions: Captions,
        empty_caption: Captions,
        seeds: Sequence[int],
        domain: Domain,
        control: np.ndarray | jax.Array | None = None,
        views: int = 4,
    ) -> np.ndarray:
        """Draws as the call does, from encoded captions [B, G, ...], the empty caption [...] and a stored control."""
        sampler = self.sampling.make_sampler()
        timesteps = sampler.timesteps(self.model.process, self.sampling.steps, self.sampling.spacing)
        plan = self.model.method.inference_plan(
            timesteps, self.model.config.depth, domain, self.sampling.block_max, self.sampling.timestep_max
        )
        batch = (np.asarray(seeds, np.uint32), captions, control)
        images = _sample(
            self.model,
            sampler,
            tuple(timesteps.tolist()),
            views,
            jax.tree.leaves(params)[0].sharding.mesh.abstract_mesh,
            params,
            self.codec_params,
            *jax.device_put(batch, self._sharding(params, len(seeds))),
            empty_caption,
            plan,
            jnp.float32(self.sampling.guidance_scale),
        )
        return np.asarray(jax.device_put(images, self._sharding(params, 0)))  # every host has all of them

    @functools.cached_property
    def _empty_caption(self) -> Captions:
        return jax.tree.map(lambda array: array[0], self._encode([""]))

    def _encode(self, captions: list[str]) -> Captions:
        assert self.encoder is not None, "without a text encoder a generator draws only from encoded captions"
        return self.encoder.encode(captions)

    def _sharding(self, params: Params, batch: int) -> NamedSharding:
        """Sharding of a batch: over all devices that hold the parameters if they divide it, else a copy on each (0: a copy)."""
        mesh = jax.tree.leaves(params)[0].sharding.mesh
        return NamedSharding(mesh, PartitionSpec(mesh.axis_names if batch and batch % mesh.size == 0 else None))


@functools.partial(jax.jit, static_argnums=0)
def _encode_control(model, codec_params, maps):
    return model.codec.encode_control(codec_params, maps)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _sample(
    model,
    sampler,
    timesteps,
    views,
    device_mesh,
    params,
    codec_params,
    seeds,
    captions,
    control,
    empty_caption,
    plan,
    guidance_scale,
):
    side = model.config.sample_size
    keys = jax.vmap(jax.random.key)(seeds)
    noise = jax.vmap(lambda key: jax.random.normal(key, (views, side, side, model.config.in_channels)))(keys)
    if control is not None and model.task == "texture":
        control = model.codec.control(control)
    latents = parallel.on_device_mesh(device_mesh, model.sample)(
        params,
        sampler,
        np.array(timesteps),
        noise,
        captions,
        empty_caption,
        plan,
        control,
        guidance_scale,
        jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys),
    )
    return model.codec.decode(codec_params, latents)
