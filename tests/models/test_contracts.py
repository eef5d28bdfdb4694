"""Protocols: every class and module that is found by its name has the members, and the arguments, of its protocol.

pyright checks the types of the assignments below; the tests check the names, for classes that are found at run time alone.
"""

import importlib
import inspect
import pkgutil
from typing import Any

import pytest

from realiz3d_jax.diffusion.ddpm import DDPM
from realiz3d_jax.diffusion.process import Process
from realiz3d_jax.diffusion.rectified_flow import RectifiedFlow
from realiz3d_jax.diffusion.samplers import DDIM, DPMSolverPP2M, Sampler
from realiz3d_jax.method import interface, pretraining, realiz3d, syn_only
from realiz3d_jax.method.interface import Method
from realiz3d_jax.models import dit, mmdit
from realiz3d_jax.models.backbone import Backbone, Config
from realiz3d_jax.models.codec import AutoencoderCodec, Codec, PixelCodec
from realiz3d_jax.models.presets import PRESETS
from realiz3d_jax.models.t5_text import T5Encoder
from realiz3d_jax.models.text import TextEncoder, WordEncoder

DIT: Backbone[dit.DiTConfig] = dit
MMDIT: Backbone[mmdit.MMDiTConfig] = mmdit
CONFIGS: tuple[Config, ...] = (PRESETS["tiny"], mmdit.MMDiTConfig())
PROCESSES: tuple[Process, ...] = (DDPM(), RectifiedFlow())
CODECS: tuple[Codec, ...] = (PixelCodec(), AutoencoderCodec())
SAMPLERS: tuple[Sampler, ...] = (DDIM(), DPMSolverPP2M())
METHODS: tuple[Method, ...] = (realiz3d.Method(), syn_only.Method(), pretraining.Method())
ENCODERS: tuple[type[TextEncoder], ...] = (WordEncoder, T5Encoder)


def _modules(package: str) -> list[Any]:
    path = importlib.import_module(package).__path__
    return [importlib.import_module(f"{package}.{found.name}") for found in pkgutil.iter_modules(path)]


def _missing(protocol: type, found: Any) -> list[str]:
    """The members of ``protocol`` that ``found``, a class, an instance or a module, lacks or takes other arguments for."""
    problems = []
    for name, member in vars(protocol).items():
        if isinstance(member, property):
            problems += [name] * (not hasattr(found, name))
        elif inspect.isfunction(member) and not name.startswith("_"):
            expected = list(inspect.signature(member).parameters)[1:]
            given = list(inspect.signature(getattr(found, name, lambda: None)).parameters)
            problems += [name] * (given != expected)
    return problems


@pytest.mark.parametrize("module", [m for m in _modules("realiz3d_jax.models") if hasattr(m, "PARTS")])
def test_every_backbone_has_the_functions_of_the_protocol_with_the_same_arguments(module):
    assert _missing(Backbone, module) == []


@pytest.mark.parametrize(
    ("protocol", "found"),
    [
        *((Config, found) for found in CONFIGS),
        *((Process, found) for found in PROCESSES),
        *((Codec, found) for found in CODECS),
        *((Sampler, found) for found in SAMPLERS),
        *((Method, found) for found in METHODS),
        *((Method, interface.load(name, {})) for name in interface.names()),
    ],
)
def test_every_class_has_the_methods_of_its_protocol_with_the_same_arguments(protocol, found):
    assert _missing(protocol, found) == []


def test_a_function_with_another_argument_is_noticed():
    class Other(WordEncoder):
        def check(self, text: str) -> None: ...

    assert _missing(TextEncoder, WordEncoder()) == []
    assert _missing(TextEncoder, Other()) == ["check"]
