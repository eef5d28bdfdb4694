"""Syn only, the first row of the paper's tables: the base model fine-tuned on controlled synthetic grids and nothing else.

The same backbone, batch, learning rate and number of backbone updates as ``configs/stage2.py`` of the same ``:NAME``.
"""

from realiz3d_jax.training import bases
from realiz3d_jax.training.config import LogConfig, OptimizerConfig, TrainConfig, config_dict

SHAPES = {
    "steps": 1_600,
    "ema_decay": 0.995,
    "timestep_weight_cap": 100.0,
    "optimizer": OptimizerConfig(
        learning_rate=1e-3, control_factor=10.0, schedule="cosine", warmup_steps=100, weight_decay=0.0
    ),
    "log": LogConfig(metrics_every=25, samples_every=800, checkpoint_every=400),
}
PAPER = {
    "steps": 300_000,
    "optimizer": OptimizerConfig(learning_rate=5e-5, weight_decay=0.0),
    "log": LogConfig(metrics_every=50, samples_every=5_000, checkpoint_every=1_000),
}


def get_config(name: str = "shapes"):
    base = bases.find(name)
    return config_dict(
        TrainConfig(
            **base.settings(batch_grids=8 if base.published else 4),
            stage="finetune",
            workdir=f"{base.runs}/syn_only",
            method={"name": "syn_only"},
            task="texture",
            init=base.init,
            **(PAPER if base.published else SHAPES),
        )
    )
