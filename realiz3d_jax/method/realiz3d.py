"""Realiz3D: first the domain, then the control (paper, sections 3.2 to 3.4).

Stage 1 trains the Domain Shifters alone, on single images of both domains without control. Stage 2 trains the backbone and
the control embedding with the shifters frozen: synthetic iterations on controlled multi-view grids, real iterations on
single images, with layer-aware training and domain reassignment ("Representation Binding").
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from realiz3d_jax.errors import UserError
from realiz3d_jax.method import plans, shifters
from realiz3d_jax.method.domains import Domain
from realiz3d_jax.method.interface import Iteration, Params, Stage


@dataclasses.dataclass(frozen=True)
class Method:
    """Realiz3D's options.

    Attributes:
      rank: R of the Domain Shifters.
      tau: tau_B, the largest fraction of the blocks that a real iteration freezes, or reassigns.
      reassignment_probability: p_B.
          layer_aware: real iterations freeze the first blocks and their inputs.
      freeze_shared: real iterations also freeze the parts that all blocks share (timestep, modulation, caption), so that the
        features of frozen blocks stay exactly as they are. The paper's "blocks" leaves this open. By default these parts
        train, and early features move a little: on the shapes benchmark that is more realistic, and freezing them more
        consistent (``configs/stage2.py`` has the measurements).
          real_fraction: the share of real iterations, in both stages.
      real_warmup_steps: the first steps of Stage 2, on real samples only.
    """

    knows_domains: ClassVar[bool] = True
    rank: int = 8
    tau: float = 0.4
    reassignment_probability: float = 0.1
    layer_aware: bool = True
    freeze_shared: bool = False
    real_fraction: float = 0.5
    real_warmup_steps: int = 0

    def __post_init__(self) -> None:
        for name in ("tau", "reassignment_probability", "real_fraction"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UserError(f"config.method.{name}: found {getattr(self, name)}, expected 0 to 1.")
        for name, least in (("rank", 1), ("real_warmup_steps", 0)):
            if getattr(self, name) < least:
                raise UserError(f"config.method.{name}: found {getattr(self, name)}, expected at least {least}.")
        if self.freeze_shared and not self.layer_aware:
            raise UserError(
                "config.method.freeze_shared: found True without layer_aware, which freezes; expected both or neither."
            )

    def stages(self) -> Mapping[str, Stage]:
        """Stage 1 and Stage 2."""
        return {
            "stage1": Stage(
                partitions=("backbone", "shifters"),
                trainable=("shifters",),
                iterations=(
                    Iteration("synthetic", "synthetic_images", Domain.SYNTHETIC),
                    Iteration("real", "real_images", Domain.REAL),
                ),
                second_fraction=self.real_fraction,
            ),
            "stage2": Stage(
                partitions=("backbone", "shifters", "control"),
                trainable=("backbone", "control"),
                iterations=(
                    Iteration("synthetic", "synthetic_grids", Domain.SYNTHETIC, joint=True, control=True),
                    Iteration(
                        "real",
                        "real_images",
                        Domain.REAL,
                        freeze_input=self.layer_aware,
                        freeze_shared=self.freeze_shared,
                        draw_plan=self._draw_bound_plan,
                    ),
                ),
                second_fraction=self.real_fraction,
                second_warmup=self.real_warmup_steps,
            ),
        }

    def init(self, depth: int, width: int, key: jax.Array) -> Params:
        """Fresh shifters."""
        return {"shifters": shifters.init(depth, width, self.rank, key)}

    def _draw_bound_plan(self, key: jax.Array, depth: int) -> plans.BlockPlan:
        plan = plans.draw_real_plan(key, depth, self.tau, self.reassignment_probability)
        return plan if self.layer_aware else plan._replace(frozen=jnp.int32(0))

    def shifts(self, params: Params) -> jax.Array:
        """The Domain Shifters' shifts, float32[2, L, D]."""
        return shifters.apply(params["shifters"])

    def inference_plan(
        self, timesteps: np.ndarray, depth: int, domain: Domain, block_max: float, timestep_max: int
    ) -> np.ndarray:
        """Inference-time shifting, equation (3) of ``plans``."""
        return plans.inference_plan(timesteps, depth, domain, block_max, timestep_max)
