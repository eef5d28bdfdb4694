"""Stage 2 of Realiz3D (paper, section 3.3): the backbone learns the control, bound to the frozen Domain Shifters.

Needs Stage 1: ``python -m realiz3d_jax.train --config configs/stage1.py`` (of the same ``:NAME``).

``:shapes`` (the default): 1,600 steps in seven minutes on two CPU cores; ``README.md`` states the metrics.

What was tried there, one seed each: with ``--config.method.freeze_shared=true`` real mode has a real score of 0.571, an IoU
of 0.919 and 15.1 dB of overlap-only consistency; by default 0.817, 0.906 and 13.8. Realism is what real images are there for,
so what all blocks share trains. ``--config.task=text_to_multiview`` for 800 steps: with its viewpoints in tokens the last
synthetic losses are 0.0316, the real score 0.928 and FID to base images 4.1; in latents, as in the paper, 0.0317, 0.928 and
4.2. The 40 steps on real images alone lie inside the learning rate's warm-up, at a fifth of the rate on average, which is
meant: they are to be short and gentle. At the full rate (``--config.optimizer.warmup_steps=10``) realism and IoU are as seeds
have them (0.825 and 0.906; three seeds 0.778 to 0.817 and 0.886 to 0.907), and consistency is no better (13.5; 13.8 to 14.5).

``:pixart_sigma``, ``:pixart_alpha`` and the other sizes of ``checkpoints/bases.py``: the paper's settings, at 8 grids of 2x2
views of 512 px a device. The texturing task has 12 input channels, 4 of noisy latents and 8 of controls;
``--config.task=text_to_multiview`` has 4. Steps are ten epochs of the paper's 120,000 assets on 64 devices, 512 grids a step,
real and synthetic alternating; on fewer see ``configs/stage1.py``. Not run to the end by us.
"""

from realiz3d_jax.checkpoints import bases
from realiz3d_jax.config.schema import InitConfig, TrainConfig, config_dict


def get_config(name: str = "shapes"):
    base = bases.find(name)
    stage1 = f"python -m realiz3d_jax.train --config configs/stage1.py{'' if name == 'shapes' else f':{name}'}"
    return config_dict(
        TrainConfig(
            **base.fine_tuning(),
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
        )
    )
