"""The model of a method: backbone, control embedding and the shifts of a plan, combined in one place."""

import dataclasses

import jax
import numpy as np

from realiz3d_jax.diffusion import guidance, samplers
from realiz3d_jax.diffusion.process import Process
from realiz3d_jax.method import shifters
from realiz3d_jax.method.interface import Method, Params
from realiz3d_jax.models import backbone
from realiz3d_jax.models import control as control_embedding
from realiz3d_jax.models.backbone import Captions
from realiz3d_jax.models.codec import Codec, PixelCodec


@dataclasses.dataclass(frozen=True)
class Model:
    """A backbone under a method, for one task.

    Attributes:
      config: the backbone's sizes; their class determines the backbone.
      method: provides the shifts of the tokens and the plans of sampling.
      task: "texture" or "text_to_multiview".
      process: the diffusion process.
      codec: converts between images and latents.
      viewpoints: where "text_to_multiview" adds its control, one of ``control.VIEWPOINTS``.
    """

    config: backbone.Config
    method: Method
    task: str
    process: Process
    codec: Codec = dataclasses.field(default_factory=PixelCodec)
    viewpoints: str = "tokens"

    def init(self, partitions: tuple[str, ...], key: jax.Array) -> Params:
        """Fresh parameters of ``partitions``, each from its own key."""
        backbone_key, control_key, method_key = jax.random.split(key, 3)
        made = self.method.init(self.config.depth, self.config.width, method_key)
        if "backbone" in partitions:
            made["backbone"] = backbone.of(self.config).init(self.config, backbone_key)
        if "control" in partitions:
            made["control"] = control_embedding.init(
                self.task, self.config, control_key, self.codec.control_channels, self.viewpoints
            )
        return {name: made[name] for name in partitions}

    def predict(
        self,
        params: Params,
        latents: jax.Array,
        timestep: jax.Array,
        captions: Captions,
        *,
        domain: jax.Array,
        control: jax.Array | None = None,
        frozen_blocks: jax.Array | None = None,
        freeze_input: bool = False,
        freeze_shared: bool = False,
    ) -> jax.Array:
        """The prediction that the process defines, float32[B, V, h, w, C].

        Args:
          params: the stage's partitions.
          latents: float32[B, V, h, w, C].
          timestep: int32[B, G] or float32[B, G]; G = 1 is the joint mode, G = V the single-image mode.
          captions: arrays [B, G, ...], as the text encoder gives them.
          domain: int32[L], the domain that each block runs in.
          control: the input of the task's control embedding; None is the null control.
          frozen_blocks, freeze_input, freeze_shared: as in ``dit.apply``.
        """
        shifts = self.method.shifts(params)
        tokens = None
        if control is not None:
            tokens = control_embedding.apply(self.task, self.config, params["control"], control)
            if self.task == "text_to_multiview" and self.viewpoints == "latents":
                latents, tokens = latents + tokens[..., None, :], None
        output = backbone.of(self.config).apply(
            self.config,
            params["backbone"],
            latents,
            timestep,
            captions,
            block_shift=None if shifts is None else shifters.select(shifts, domain),
            control_tokens=tokens,
            frozen_blocks=frozen_blocks,
            freeze_input=freeze_input,
            freeze_shared=freeze_shared,
        )
        return output[..., : latents.shape[-1]]

    def sample(
        self,
        params: Params,
        sampler: samplers.Sampler,
        timesteps: np.ndarray,
        noise: jax.Array,
        captions: Captions,
        empty_caption: Captions,
        plan: jax.Array,
        control: jax.Array | None,
        guidance_scale: jax.Array,
        key: jax.Array,
    ) -> jax.Array:
        """Samples latents float32[B, V, h, w, C]; to be jitted with ``sampler`` and ``timesteps`` static.

        Args:
          params: the stage's partitions.
          sampler: see ``samplers.sample``.
          timesteps: [S], descending.
          noise: float32[B, V, h, w, C].
          captions: arrays [B, G, ...]; G decides between joint and single-image mode.
          empty_caption: the same arrays of the empty caption, [...].
          plan: int32[S, L], the domain of each block at each step; an input, so that every plan runs in one compilation.
          control: as in ``predict``; both branches of the guidance receive it.
          guidance_scale: float32[], on the text only.
          key: see ``samplers.sample``.
        """
        batch, groups = captions["mask"].shape[:2]
        both_captions = jax.tree.map(
            lambda empty, full: guidance.both(jax.numpy.broadcast_to(empty, full.shape), full), empty_caption, captions
        )
        doubled_control = None if control is None else guidance.both(control, control)

        def denoise(x: jax.Array, timestep: jax.Array, index: jax.Array) -> jax.Array:
            timesteps_of_groups = jax.numpy.broadcast_to(timestep, (2 * batch, groups))
            return self.predict(
                params, x, timesteps_of_groups, both_captions, domain=plan[index], control=doubled_control
            )

        guided = guidance.guided(denoise, guidance_scale)
        return samplers.sample(sampler, self.process, timesteps, guided, noise, key, bound=self.codec.bound)
