"""Pre-training of a base text-to-image model on captioned photos: what every other method starts from."""

import dataclasses
from collections.abc import Mapping

from realiz3d_jax.method.domains import Domain
from realiz3d_jax.method.interface import DomainFree, Iteration, Stage


@dataclasses.dataclass(frozen=True)
class Method(DomainFree):
    """Has no options."""

    def stages(self) -> Mapping[str, Stage]:
        """One stage on single images with captions of their own, four to a grid."""
        iteration = Iteration("photo", "photos", Domain.REAL)
        return {"pretrain": Stage(("backbone",), trainable=("backbone",), iterations=(iteration,))}
