"""Stage 1 of Realiz3D (paper, section 3.2): Domain Shifters on single images of both domains; the backbone is frozen.

``:shapes`` (the default): 600 steps in two minutes on two CPU cores. Needs: ``python -m realiz3d_jax.prepare --dataset
shapes_assets`` and ``python -m realiz3d_jax.prepare --self-generate``.

``:pixart_sigma``, ``:pixart_alpha`` and the other sizes of ``checkpoints/bases.py``: the paper's settings, at 8 grids of four
512 px images a device. Needs what ``docs/pretrained.md`` makes. Steps are three epochs of the paper's 120,000 assets, and as
many grids of self-generated images, on 64 devices, 512 grids a step; on fewer the same batch is ``--config.data.batch_of=run
--config.data.batch_grids=512``, with ``--config.accumulation`` so large that a part of it fits. Not run to the end by us.

Images lie on the canvas of a grid here already (``bases.GRID_POSITIONS`` says why).
"""

from realiz3d_jax.checkpoints import bases
from realiz3d_jax.checkpoints.bases import PAPER_BATCH
from realiz3d_jax.config.schema import LogConfig, OptimizerConfig, TrainConfig, config_dict

SHAPES = {
    "steps": 600,
    "ema_decay": 0.99,
    "timestep_weight_cap": 100.0,  # pixels, not the paper's latents: what is decided at high noise has to be learned too
    "optimizer": OptimizerConfig(learning_rate=2e-3, schedule="cosine", warmup_steps=20, weight_decay=0.0),
    "log": LogConfig(metrics_every=20, checkpoint_every=200),
}
PAPER = {
    "steps": 1_400,
    "optimizer": OptimizerConfig(learning_rate=5e-5, weight_decay=0.0),
    "log": LogConfig(metrics_every=50, checkpoint_every=1_000),
}


def get_config(name: str = "shapes"):
    base = bases.find(name)
    return config_dict(
        TrainConfig(
            **base.on_grids(**(PAPER_BATCH if base.published else {"batch_grids": 8})),
            stage="stage1",
            workdir=f"{base.runs}/stage1",
            method={"name": "realiz3d", "rank": 8},
            init=base.init,
            **(PAPER if base.published else SHAPES),
        )
    )
