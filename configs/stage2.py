"""Stage 2 of Realiz3D (paper, section 3.3): the backbone learns the control, bound to the frozen Domain Shifters.

Needs Stage 1: ``python -m realiz3d_jax.train --config configs/stage1.py`` (of the same ``:NAME``).

``:shapes`` (the default): 1,600 steps in seven minutes on two CPU cores; ``README.md`` states the figures.

``:pixart_sigma``, ``:pixart_alpha`` and the other sizes of ``training/bases.py``: the paper's settings, at 8 grids of 2x2 views
of 512 px a device. The texturing task has 12 input channels, 4 of noisy latents and 8 of controls;
``--config.task=text_to_multiview`` has 4. Steps are ten epochs of the paper's 120,000 assets on 64 devices, 512 grids a step,
real and synthetic alternating; on fewer see ``configs/stage1.py``. Not run to the end by us.
"""

from realiz3d_jax.training import bases
from realiz3d_jax.training.config import InitConfig, TrainConfig, config_dict


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
