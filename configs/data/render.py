"""How ``python -m realiz3d_jax.prepare --assets FOLDER`` renders: the four views of the paper, orthographic.

``:six`` adds the views from above and below, ``:perspective`` looks through a lens of 40 degrees from the same four sides,
raised by 15; every key is a field of ``preparation/assets/rendering.py``. A model is trained on other views than the
standard ones by telling it: ``--config.data.rig.projection=perspective``, and so on; a mismatch is refused by name.
"""

from realiz3d_jax.config.schema import config_dict
from realiz3d_jax.errors import UserError
from realiz3d_jax.geometry.cameras import Rig
from realiz3d_jax.preparation.assets.rendering import RenderConfig

RIGS = {
    "standard": Rig(),
    "six": Rig(azimuths=(0, 90, 180, 270, 0, 0), elevations=(0.0, 0.0, 0.0, 0.0, 90.0, -90.0)),
    "perspective": Rig(elevations=(15.0,), projection="perspective", fov=40.0, distance=2.0),
}


def get_config(name: str = "standard"):
    if name not in RIGS:
        raise UserError(f"configs/data/render.py:{name}: there is no such rig; expected one of {', '.join(RIGS)}.")
    return config_dict(RenderConfig(rig=RIGS[name]))
