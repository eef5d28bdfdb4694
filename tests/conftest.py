"""Every test sees 8 CPU devices, NNX without its graph mode, and one compilation cache for the whole run.

Programs are compiled without LLVM's optimisations: the models of the tests are tiny, so that compiling takes nearly all of the
time, and this halves it (measured: 22 s of CPU time for one training step, 9.5 s without).
"""

import os
import pathlib
import tempfile

os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=0",
    ]
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(tempfile.gettempdir(), "realiz3d_jax_test_cache"))

import parity
import pytest
from flax import nnx

nnx.set_graph_mode(False)


def pytest_terminal_summary(terminalreporter):
    """Prints how far the run's figures are from the references', and writes them where that is asked for."""
    if parity.rows:
        terminalreporter.section("parity")
        terminalreporter.write_line("\n".join(parity.lines()))
    if parity.TABLE_VARIABLE in os.environ:
        pathlib.Path(os.environ[parity.TABLE_VARIABLE]).write_text(parity.document())


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """The small world that all tests share; nothing in it may be changed."""
    from worlds import make_world

    return make_world(tmp_path_factory.mktemp("world"))
