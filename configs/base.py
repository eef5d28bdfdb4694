"""The small base model of the shapes benchmark: text to image on captioned photos, a minority of them flat renders.

The place that PixArt-Sigma's weights have in the paper. Needs: ``python -m realiz3d_jax.prepare --dataset shapes_photos``.
The model that ships has seen as many images, 806,000, in two runs; its file names their commands. ``:shapes_sd3`` trains one
of Stable Diffusion 3's kind instead.
"""

from realiz3d_jax.checkpoints import bases
from realiz3d_jax.config.schema import LogConfig, OptimizerConfig, TrainConfig, config_dict


def get_config(name: str = "shapes"):
    base = bases.find(name)
    return config_dict(
        TrainConfig(
            **base.settings(batch_grids=16, caption_dropout=0.08, render_fraction=0.35),
            stage="pretrain",
            workdir=f"{base.runs}/base",
            steps=12_600,
            method={"name": "pretraining"},
            ema_decay=0.999,
            timestep_weight_cap=300.0,
            optimizer=OptimizerConfig(
                learning_rate=2e-3, b2=0.99, schedule="trapezoid", warmup_steps=300, weight_decay=0.03
            ),
            log=LogConfig(metrics_every=100, samples_every=1_000, checkpoint_every=500),
        )
    )
