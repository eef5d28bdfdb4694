"""How far our figures are from those of the reference implementations: asserted one by one, and kept for one table.

    error = max |found - expected| / max |expected|      in float64, over all numbers of a comparison

``conftest.py`` prints the table at the end of a run, and writes it as Markdown to the file that the environment variable
``REALIZ3D_PARITY_TABLE`` names.
"""

import dataclasses
import importlib.metadata

import numpy as np

TABLE_VARIABLE = "REALIZ3D_PARITY_TABLE"
COMMAND = (
    f"{TABLE_VARIABLE}=docs/parity.md python -m pytest -m 'slow or not slow' "
    "tests/models/test_{dit,vae,t5,mmdit}_parity.py tests/models/test_backbones.py "
    "tests/diffusion/test_{samplers,ddpm}.py tests/checkpoints/test_importers.py tests/commands/test_pretrained.py"
)
PACKAGES = ("jax", "flax", "torch", "diffusers", "transformers")


@dataclasses.dataclass(frozen=True)
class Row:
    """The largest error of the comparisons that have one name, and what it may be at most."""

    what: str
    reference: str
    error: float
    bound: float


rows: dict[tuple[str, str], Row] = {}
"""(what, reference) -> row, of this run."""


def relative_error(found, expected) -> float:
    """The error above, of arrays of one shape; not a number if any of their numbers is not."""
    found, expected = np.asarray(found).astype(np.float64), np.asarray(expected).astype(np.float64)
    assert found.shape == expected.shape
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def check(what: str, reference: str, found, expected, bound: float) -> float:
    """Keeps the error of ``found`` in the row that ``what`` and ``reference`` name, and returns it.

    Raises: AssertionError if it is over the bound, or if the shapes differ.
    """
    error = relative_error(found, expected)
    before = rows.get((what, reference), Row(what, reference, 0.0, bound))
    assert bound == before.bound, f"{what}: a row has one bound"
    rows[what, reference] = Row(what, reference, float(np.maximum(error, before.error)), bound)
    assert error <= bound, f"{what} against {reference}: relative error {error:.2e}, at most {bound:.0e}"
    return error


def lines() -> list[str]:
    """The rows as a Markdown table, sorted."""
    ordered = sorted(rows.values(), key=lambda row: (row.what, row.reference))
    body = [f"| {row.what} | {row.reference} | {row.error:.1e} | {row.bound:.0e} |" for row in ordered]
    return ["| what | reference | error | bound |", "|---|---|---|---|", *body]


def document() -> str:
    """The table as a page that says how it was made."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    head = [
        "# Parity with the reference implementations",
        "",
        "Written by a test run, not by hand; it takes some ten minutes on one CPU core, and 8 GiB:",
        "",
        "```bash",
        COMMAND,
        "```",
        "",
        "Each row is one comparison on the same random weights and inputs, or the largest error of several. The error is",
        "max |ours - reference| / max |reference|; the tests fail where it is over the bound. Models compute in",
        f"float32 on the CPU, ours and the reference, where a row says nothing else. Versions: {versions}.",
        "",
    ]
    return "\n".join([*head, *lines()]) + "\n"
