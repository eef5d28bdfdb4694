"""What a process does to JAX before it computes: join the other hosts, keep compilations, draw the same noise on any mesh."""

import os
import pathlib

import jax
from absl import logging


def start() -> None:
    """To be called once by every command, before the first array is made.

    Joins a multi-host job if the environment describes one (TPU pods, SLURM, or JAX_COORDINATOR_ADDRESS), and keeps compiled
    programs in JAX_COMPILATION_CACHE_DIR (by default ~/.cache/realiz3d_jax/compilations).
    """
    logging.set_verbosity(logging.ERROR)  # orbax and TFDS announce every file that they touch
    tpu_hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "").count(",") + 1
    if "JAX_COORDINATOR_ADDRESS" in os.environ or tpu_hosts > 1 or int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        jax.distributed.initialize()
    jax.config.update("jax_threefry_partitionable", True)
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update(
            "jax_compilation_cache_dir", str(pathlib.Path.home() / ".cache" / "realiz3d_jax" / "compilations")
        )
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
