"""Syn only, the first row of the paper's tables: the base model fine-tuned on controlled synthetic grids alone."""

import dataclasses
from collections.abc import Mapping

from realiz3d_jax.method.domains import Domain
from realiz3d_jax.method.interface import DomainFree, Iteration, Stage


@dataclasses.dataclass(frozen=True)
class Method(DomainFree):
    """Syn only; it has no options."""

    def stages(self) -> Mapping[str, Stage]:
        """One stage on synthetic grids."""
        iteration = Iteration("synthetic", "synthetic_grids", Domain.SYNTHETIC, joint=True, control=True)
        partitions = ("backbone", "control")
        return {"finetune": Stage(partitions, trainable=partitions, iterations=(iteration,))}
