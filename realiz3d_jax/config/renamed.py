"""Renamed keys of a config: stored configs with old keys keep loading, and an old key written by hand is an error.

Stored configs are the ``config.json`` of a run, the ``meta`` of a checkpoint and the metadata of an exported checkpoint. Flags
and config files are written by hand; the error names the new key.
"""

from collections.abc import Mapping
from typing import Any

from realiz3d_jax.errors import UserError

RENAMED: tuple[tuple[str, str], ...] = (
    ("model.family", "model.name"),
    ("diffusion.process", "diffusion.name"),
    ("codec.codec", "codec.name"),
    ("mesh", "devices"),
)
"""(old key, new key), both dotted, of one section or both at the top level."""


def update(values: Mapping[str, Any]) -> dict[str, Any]:
    """A stored config under the present names of its keys; ``values`` stays as it is.

    Raises:
      UserError: it holds an old key beside the new one.
    """
    updated = {key: dict(value) if isinstance(value, Mapping) else value for key, value in values.items()}
    for old, new in RENAMED:
        section, name = _section(updated, old)
        if name not in section:
            continue
        present = new.split(".")[-1]
        if present in section:
            raise UserError(f"config.{old}: found beside config.{new}, its present name; expected only the latter.")
        section[present] = section.pop(name)
    return updated


def refuse(values: Mapping[str, Any]) -> None:
    """Raises UserError, which names the new key, if a config that is no stored one holds an old key."""
    for old, new in RENAMED:
        section, name = _section(values, old)
        if name in section:
            raise UserError(_message(old, new))


def hint(name: str) -> str:
    """The error message about the missing key ``name``, with its new name; "" unless it has been renamed."""
    return next((_message(old, new) for old, new in RENAMED if old.split(".")[-1] == name), "")


def _message(old: str, new: str) -> str:
    return f"config.{old}: there is no such key; its name is now config.{new}."


def _section(values: Mapping[str, Any], key: str) -> tuple[Any, str]:
    """The mapping that may hold a dotted key, and the key's name in it."""
    *sections, name = key.split(".")
    for section in sections:
        inner = values.get(section)
        values = inner if isinstance(inner, Mapping) else {}
    return values, name
