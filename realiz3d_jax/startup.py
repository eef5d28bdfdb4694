"""Prepares JAX before the first computation: join the other hosts, keep compilations, draw the same noise on any mesh."""

import contextlib
import os
import pathlib

import jax
from absl import logging

MAX_CPU_DEVICES = 8


def start(split_cpu: bool = False) -> None:
    """Called once by every command, before the first array is made.

    Joins a multi-host job if the environment describes one (TPU pods, SLURM, or JAX_COORDINATOR_ADDRESS), and configures JAX.

    Args:
      split_cpu: as for ``configure``.
    """
    logging.set_verbosity(logging.ERROR)  # orbax and TFDS announce every file that they touch
    tpu_hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "").count(",") + 1
    if "JAX_COORDINATOR_ADDRESS" in os.environ or tpu_hosts > 1 or int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        jax.distributed.initialize()
    configure(split_cpu)


def configure(split_cpu: bool = False) -> None:
    """The settings that results depend on, in a process that may have used JAX already.

    Compiled programs are kept in JAX_COMPILATION_CACHE_DIR (by default ~/.cache/realiz3d_jax/compilations).

    Args:
      split_cpu: make JAX see one CPU device for each core, up to the largest power of two and 8, unless XLA_FLAGS says how
        many, or devices have been used already. Sampling shares its batch out among devices, which uses cores better than the
        threads of one program do (``benchmarks/sampling.py``); training stays on one CPU device, whatever the machine.
    """
    if split_cpu and "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        with contextlib.suppress(RuntimeError):  # the devices have been used already, and stay as they are
            jax.config.update("jax_num_cpu_devices", min(MAX_CPU_DEVICES, 1 << (cores.bit_length() - 1)))
    jax.config.update("jax_threefry_partitionable", True)
    if not jax.config.jax_compilation_cache_dir:  # pyright: ignore[reportAttributeAccessIssue]  # set while jax is imported
        jax.config.update(
            "jax_compilation_cache_dir", str(pathlib.Path.home() / ".cache" / "realiz3d_jax" / "compilations")
        )
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
