"""Every test sees 8 CPU devices, NNX without its graph mode, and one compilation cache for the whole run."""

import os
import tempfile

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(tempfile.gettempdir(), "realiz3d_jax_test_cache"))

from flax import nnx

nnx.set_graph_mode(False)
