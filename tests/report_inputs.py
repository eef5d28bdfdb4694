"""What a report is made of, small: sampled folders, their figures, and a run."""

import json
import pathlib
from typing import Any

import numpy as np
import sampled_items
from PIL import Image

from realiz3d_jax.config.schema import TrainConfig, to_json
from realiz3d_jax.models.presets import PRESETS

SIZE = 32
COMMAND = "python -m realiz3d_jax.evaluate --samples real --samples synthetic --output metrics.json"
UIDS = ("a_1", "b_2", "c_3")
SCORES = {"real": 0.875, "synthetic": 0.125, "true real renders": 0.969}


def make_inputs(folder: pathlib.Path, **described: Any) -> pathlib.Path:
    """A folder with two sampled folders, their figures and the run that they came from.

    Args:
      folder: gets them.
      described: of all items, as ``sampled_items.write_item`` takes it.
    """
    folder.mkdir(exist_ok=True)
    for look, grey in (("real", 90), ("synthetic", 200)):
        for seed, uid in enumerate(UIDS):
            write_item(folder / look / uid, uid, grey, **{"domain": look, "seed": seed, **described})
    rows = {name: figures(score) for name, score in SCORES.items()}
    content = {"command": COMMAND, "size": SIZE, "classifier": {"file": "judge.safetensors", "seed": 5}, "rows": rows}
    (folder / "metrics.json").write_text(json.dumps(content))
    write_run(folder / "stage1")
    return folder


def write_item(folder: pathlib.Path, uid: str, grey: int, mesh: pathlib.Path | None = None, **described: Any) -> None:
    """An item in shades of grey, with a control."""
    views = np.stack([np.full((SIZE, SIZE, 3), grey + turn, np.uint8) for turn in range(4)])
    sampled_items.write_item(folder, uid, views, mesh, caption="a <red> cone & a torus", **described)
    Image.fromarray(np.full((2 * SIZE, 2 * SIZE, 3), 128, np.uint8)).save(folder / "normal.png")


def figures(score: float) -> dict:
    objects = [{"name": uid, "domain_score": score, "silhouette_iou": [0.9, 0.9, 0.9, 0.7]} for uid in UIDS]
    return {
        "count": {"objects": 3, "views": 12},
        "domain_score": {"mean": score, "std": 0.0, "fraction": 1.0},
        "fid_real": 10 * (1 - score),
        "silhouette_iou": {"mean": 0.85, "worst": 0.7},
        "consistency": None,
        "items": objects,
    }


def write_run(workdir: pathlib.Path) -> None:
    config = TrainConfig(
        stage="stage1", workdir="runs/x", steps=60, model=PRESETS["shapes"], method={"name": "realiz3d", "rank": 8}
    )
    workdir.mkdir()
    (workdir / "config.json").write_text(to_json(config))
    lines = [
        {
            "step": step,
            "loss/real": 2 / step,
            "loss/synthetic": 1 / step,
            "gradient_norm/real": 0.5,
            "images_per_second": 60.0,
        }
        for step in (20, 40, 60)
    ]
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
