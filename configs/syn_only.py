"""Syn only, the first row of the paper's tables: the base model fine-tuned on controlled synthetic grids and nothing else.

The same backbone, batch, learning rate and number of backbone updates as ``configs/stage2.py``.
"""

from realiz3d_jax.models.presets import preset
from realiz3d_jax.training.config import DataConfig, LogConfig, OptimizerConfig, TrainConfig, config_dict
from realiz3d_jax.training.pretrained import FROM_BASE


def get_config(size: str = "shapes"):
    return config_dict(
        TrainConfig(
            stage="finetune",
            workdir="runs/syn_only",
            steps=1_600,
            model=preset(size),
            method={"name": "syn_only"},
            task="texture",
            ema_decay=0.995,
            timestep_weight_cap=100.0,
            init=FROM_BASE,
            optimizer=OptimizerConfig(
                learning_rate=1e-3, control_factor=10.0, schedule="cosine", warmup_steps=100, weight_decay=0.0
            ),
            data=DataConfig(batch_grids=4),
            log=LogConfig(metrics_every=25, samples_every=800, checkpoint_every=400),
        )
    )
