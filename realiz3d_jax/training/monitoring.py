"""Logging of a run: ``metrics.jsonl``, TensorBoard, a line on the terminal, the parameter table, FLOPs and MFU."""

import json
import pathlib
import time
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
import tensorboardX
from clu import parameter_overview

from realiz3d_jax import files
from realiz3d_jax.config.schema import TrainConfig
from realiz3d_jax.method.interface import Iteration, Params, Stage
from realiz3d_jax.models import backbone

PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}
"""Dense bfloat16 FLOP/s of one device, by prefix of ``device_kind`` (vendors' data sheets)."""


def describe_params(params: Params, stage: Stage) -> str:
    """Returns the parameter table of every partition and the trainable, frozen and total counts."""
    lines, counts = [], {True: 0, False: 0}
    for name, tree in params.items():
        trains = name in stage.trainable
        counts[trains] += sum(leaf.size for leaf in jax.tree.leaves(tree))
        table = parameter_overview.get_parameter_overview(tree, include_stats=False)
        lines.append(f"{name} ({'trainable' if trains else 'frozen'})\n{table}")
    lines.append(f"trainable {counts[True]:,} | frozen {counts[False]:,} | total {sum(counts.values()):,}")
    return "\n".join(lines)


def iteration_flops(config: TrainConfig, stage: Stage, iteration: Iteration, views: int) -> float:
    """Counts the floating-point operations of one iteration, forward and backward, with the backbone's analytic count.

    The backward pass costs twice the forward pass if the backbone trains (gradients of activations and of weights), and as
    much as the forward pass if only the shifters train. Blocks that an iteration skips are counted as if it did not, so the
    count is that of a plan with nothing frozen. Recomputation under remat is not counted, as is usual for MFU.

    Args:
      config: settings of the run.
      stage: the stage.
      iteration: kind of iteration.
      views: views of a grid.
    """
    forward = backbone.of(config.model).flops(
        config.model, views, 1 if iteration.joint else views, config.data.text_tokens
    )
    return config.data.batch_grids * forward * (3.0 if "backbone" in stage.trainable else 2.0)


def peak_flops(
    devices: Iterable[jax.Device],  # pyright: ignore[reportInvalidTypeForm]  # jaxlib has no stubs
) -> float | None:
    """Returns the total peak bfloat16 FLOP/s of ``devices``; None if one is not in ``PEAK_FLOPS``."""
    peaks = [
        max((name for name in PEAK_FLOPS if device.device_kind.startswith(name)), key=len, default=None)
        for device in devices
    ]
    known = [PEAK_FLOPS[name] for name in peaks if name is not None]
    return sum(known) if len(known) == len(peaks) else None


class Monitor:
    """Collects the metrics of steps and writes their averages, one interval late, so that no step waits for a transfer."""

    def __init__(
        self,
        workdir: pathlib.Path,
        config: TrainConfig,
        stage: Stage,
        devices: list[jax.Device],  # pyright: ignore[reportInvalidTypeForm]  # jaxlib has no stubs
        views: int,
        first: int = 0,
    ):
        """Continues after step ``first``: lines that a killed run wrote for later steps are dropped, since they are repeated.

        Args:
          workdir: folder of the logs.
          config: settings of the run.
          stage: the stage.
          devices: devices of the run, for MFU.
          views: views of a grid.
          first: number of completed steps.
        """
        self._config, self._devices, self._views = config, devices, views
        self._flops = {kind.name: iteration_flops(config, stage, kind, views) for kind in stage.iterations}
        self._path = workdir / "metrics.jsonl"
        _drop_after(self._path, first)
        self._jsonl = self._path.open("a")
        self._board = tensorboardX.SummaryWriter(str(workdir / "tensorboard"), purge_step=first + 1)
        self._current: list[tuple[int, str, dict[str, Any], np.ndarray]] = []
        self._waiting: list[tuple[int, str, dict[str, Any], np.ndarray]] = []
        self._since = time.perf_counter()
        self._finished: float | None = None

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(self, *unused: object) -> None:
        self._jsonl.close()
        self._board.close()

    def record(self, step: int, iteration: Iteration, metrics: dict[str, jax.Array], records: np.ndarray) -> None:
        """Takes a step's metrics, which stay on the device, and the indices of the records in its batch."""
        self._current.append((step, iteration.name, metrics, records))
        self._look()

    def flush(self, final: bool = False) -> dict[str, float] | None:
        """Ends an interval; writes the previous one (and this one, if ``final``) and returns the values written last.

        Each step is written once, in the line of its interval.
        """
        written = self._end()
        self._waiting, self._current = self._current, []
        self._look()
        return self._end() or written if final else written

    def _look(self) -> None:
        """Notes when the device finished the waiting interval, accurate to one step."""
        if self._waiting and self._finished is None and self._waiting[-1][2]["loss"].is_ready():
            self._finished = time.perf_counter()

    def _end(self) -> dict[str, float] | None:
        """Writes the waiting interval; its duration is measured between the ends of intervals on the device."""
        if not self._waiting:
            return None
        self._look()
        values = jax.device_get(self._waiting)
        finished = self._finished or time.perf_counter()
        written = self._write(values, finished - self._since)
        self._since, self._finished, self._waiting = finished, None, []
        return written

    def image(self, name: str, image: np.ndarray, step: int) -> None:
        """Writes an image uint8[H, W, 3] to TensorBoard."""
        self._board.add_image(name, image, step, dataformats="HWC")
        self._board.flush()

    def _write(self, steps: list[tuple[int, str, dict[str, Any], np.ndarray]], seconds: float) -> dict[str, float]:
        last = steps[-1][0]
        values: dict[str, float] = {}
        for name in dict.fromkeys(kind for _, kind, _, _ in steps):
            finite = [metrics for _, kind, metrics, _ in steps if kind == name and metrics["finite"]]
            if not finite:
                continue
            values[f"loss/{name}"] = float(np.mean([metrics["loss"] for metrics in finite]))
            values[f"gradient_norm/{name}"] = float(np.mean([metrics["gradient_norm"] for metrics in finite]))
            total, count = (
                np.sum([metrics[key] for metrics in finite], axis=0) for key in ("bucket_loss", "bucket_count")
            )
            for bucket in np.flatnonzero(count):
                values[f"loss_by_timestep/{name}_{bucket}"] = float(total[bucket] / count[bucket])
        skipped = [(step, records) for step, _, metrics, records in steps if not metrics["finite"]]
        values["skipped_steps"] = len(skipped)
        values["skipped_in_a_row"] = max(int(metrics["skipped_in_a_row"]) for _, _, metrics, _ in steps)
        values["steps_per_second"] = len(steps) / seconds
        values["images_per_second"] = len(steps) * self._config.data.batch_grids * self._views / seconds
        values["flops_per_second"] = sum(self._flops[kind] for _, kind, _, _ in steps) / seconds
        if peak := peak_flops(self._devices):
            values["mfu"] = values["flops_per_second"] / peak
        line = {"step": last, "steps": len(steps), **values}
        if skipped:
            line["skipped"] = [{"step": step, "records": np.unique(records).tolist()} for step, records in skipped]
        self._jsonl.write(json.dumps(line) + "\n")
        self._jsonl.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, last)
        return values


def _drop_after(path: pathlib.Path, step: int) -> None:
    """Removes the lines of ``path`` for steps after ``step``."""
    if path.exists():
        *complete, _ = path.read_text().split("\n")  # text after the last line end was truncated by the kill
        files.write_text(path, "".join(f"{line}\n" for line in complete if json.loads(line)["step"] <= step))


def summary(values: dict[str, float]) -> str:
    """Returns the metrics shown at the end of the progress bar."""
    losses = " ".join(
        f"{name.removeprefix('loss/')} {value:.4f}" for name, value in values.items() if name.startswith("loss/")
    )
    return f"loss {losses}, {values['images_per_second']:.0f} images/s"
