"""Pre-training of a base text-to-image model on captioned photos, from which every other method starts."""

import dataclasses
from collections.abc import Mapping

from realiz3d_jax.method.domains import Domain
from realiz3d_jax.method.interface import DomainFree, Iteration, Stage


@dataclasses.dataclass(frozen=True)
class Method(DomainFree):
    """Pre-training; it has no options."""

    def stages(self) -> Mapping[str, Stage]:
        """One stage on single images with a caption each, four to a grid."""
        iteration = Iteration("photo", "photos", Domain.REAL)
        return {"pretrain": Stage(("backbone",), trainable=("backbone",), iterations=(iteration,))}
