"""Stage 2 of Realiz3D (paper, section 3.3): the backbone learns the control, bound to the frozen Domain Shifters.

Needs Stage 1: ``python -m realiz3d_jax.train --config configs/stage1.py`` (of the same ``:NAME``).

``:shapes`` (the default): 1,600 steps in seven minutes on two CPU cores; ``README.md`` states the figures.

``:pixart_sigma``, ``:pixart_alpha`` and the other sizes of ``training/bases.py``: the paper's settings, at 8 grids of 2x2 views
of 512 px. The texturing task has 12 input channels, 4 of noisy latents and 8 of controls; ``--config.task=text_to_multiview``
has 4. Steps are ten epochs of the paper's 120,000 assets, real and synthetic alternating; not run to the end by us.
"""

from realiz3d_jax.training import bases
from realiz3d_jax.training.config import InitConfig, LogConfig, OptimizerConfig, TrainConfig, config_dict

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
    stage1 = f"python -m realiz3d_jax.train --config configs/stage1.py{'' if name == 'shapes' else f':{name}'}"
    return config_dict(
        TrainConfig(
            **base.settings(batch_grids=8 if base.published else 4),
            stage="stage2",
            workdir=f"{base.runs}/stage2",
            method={
                "name": "realiz3d",
                "rank": 8,
                "tau": 0.4,
                "reassignment_probability": 0.1,
                "real_fraction": 0.5,
                "real_warmup_steps": 100 if base.published else 40,
            },
            task="texture",
            init=InitConfig(f"{base.runs}/stage1", ("backbone", "shifters"), stage1),
            **(PAPER if base.published else SHAPES),
        )
    )
