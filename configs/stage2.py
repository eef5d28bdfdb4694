"""Stage 2 of Realiz3D (paper, section 3.3): the backbone learns the control, bound to the frozen Domain Shifters.

Needs Stage 1: ``python -m realiz3d_jax.train --config configs/stage1.py``.
"""

from realiz3d_jax.models.presets import preset
from realiz3d_jax.training.config import DataConfig, InitConfig, LogConfig, OptimizerConfig, TrainConfig, config_dict


def get_config(size: str = "shapes"):
    return config_dict(
        TrainConfig(
            stage="stage2",
            workdir="runs/stage2",
            steps=1_600,
            model=preset(size),
            method={
                "name": "realiz3d",
                "rank": 8,
                "tau": 0.4,
                "reassignment_probability": 0.1,
                "real_fraction": 0.5,
                "real_warmup_steps": 40,
            },
            task="texture",
            ema_decay=0.995,
            timestep_weight_cap=100.0,
            init=InitConfig(
                source="runs/stage1",
                partitions=("backbone", "shifters"),
                command="python -m realiz3d_jax.train --config configs/stage1.py",
            ),
            optimizer=OptimizerConfig(
                learning_rate=1e-3, control_factor=10.0, schedule="cosine", warmup_steps=100, weight_decay=0.0
            ),
            data=DataConfig(batch_grids=4),
            log=LogConfig(metrics_every=25, samples_every=800, checkpoint_every=400),
        )
    )
