"""Stage 1 of Realiz3D (paper, section 3.2): Domain Shifters on single images of both domains; the backbone is frozen.

Needs: ``python -m realiz3d_jax.prepare --dataset shapes_assets`` and ``python -m realiz3d_jax.prepare --self-generate``.
"""

from realiz3d_jax.models.presets import preset
from realiz3d_jax.training.config import DataConfig, LogConfig, OptimizerConfig, TrainConfig, config_dict
from realiz3d_jax.training.pretrained import FROM_BASE


def get_config(size: str = "shapes"):
    return config_dict(
        TrainConfig(
            stage="stage1",
            workdir="runs/stage1",
            steps=600,
            model=preset(size),
            method={"name": "realiz3d", "rank": 8},
            ema_decay=0.99,
            timestep_weight_cap=100.0,  # pixels, not the paper's latents: what is decided at high noise has to be learned too
            init=FROM_BASE,
            optimizer=OptimizerConfig(learning_rate=2e-3, schedule="cosine", warmup_steps=20, weight_decay=0.0),
            data=DataConfig(batch_grids=8),
            log=LogConfig(metrics_every=20, checkpoint_every=200),
        )
    )
