"""Syn only, the first row of the paper's tables: the base model fine-tuned on controlled synthetic grids and nothing else.

The same backbone, batch, learning rate and number of backbone updates as ``configs/stage2.py`` of the same ``:NAME``.
Needs: ``python -m realiz3d_jax.prepare --dataset shapes_assets``.
"""

from realiz3d_jax.checkpoints import bases
from realiz3d_jax.config.schema import TrainConfig, config_dict


def get_config(name: str = "shapes"):
    base = bases.find(name)
    return config_dict(
        TrainConfig(
            **base.fine_tuning(),
            stage="finetune",
            workdir=f"{base.runs}/syn_only",
            method={"name": "syn_only"},
            task="texture",
            init=base.init,
        )
    )
