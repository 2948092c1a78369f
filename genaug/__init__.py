"""genaug: more to learn from for a segmentation trainer with few labels.

Importing this package imports nothing else: every public name is loaded on first use (PEP 562), so that
``genaug --help``, plugin discovery and configuration checks never pay for numpy or torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

# name -> module. The order is the order of the reference documentation.
_EXPORTS = {
    "LabelSpace": "genaug.labels",
    "Sample": "genaug.types",
    "Draw": "genaug.types",
    "Group": "genaug.types",
    "Verdict": "genaug.types",
    "Generator": "genaug.interfaces",
    "Filter": "genaug.interfaces",
    "PseudoLabeler": "genaug.interfaces",
    "Mixer": "genaug.interfaces",
    "Adaptable": "genaug.interfaces",
    "Predictor": "genaug.interfaces",
    "Rng": "genaug.rng",
    "SampleStore": "genaug.store",
    "Recipe": "genaug.recipe",
    "load_recipe": "genaug.recipe",
    "Component": "genaug.component",
    "Registry": "genaug.registry",
    "hookimpl": "genaug.hookspecs",
    "GenaugError": "genaug.errors",
}

__all__ = [*_EXPORTS, "__version__"]

if TYPE_CHECKING:
    from genaug.component import Component as Component
    from genaug.errors import GenaugError as GenaugError
    from genaug.hookspecs import hookimpl as hookimpl
    from genaug.interfaces import Adaptable as Adaptable
    from genaug.interfaces import Filter as Filter
    from genaug.interfaces import Generator as Generator
    from genaug.interfaces import Mixer as Mixer
    from genaug.interfaces import Predictor as Predictor
    from genaug.interfaces import PseudoLabeler as PseudoLabeler
    from genaug.labels import LabelSpace as LabelSpace
    from genaug.recipe import Recipe as Recipe
    from genaug.recipe import load_recipe as load_recipe
    from genaug.registry import Registry as Registry
    from genaug.rng import Rng as Rng
    from genaug.store import SampleStore as SampleStore
    from genaug.types import Draw as Draw
    from genaug.types import Group as Group
    from genaug.types import Sample as Sample
    from genaug.types import Verdict as Verdict


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'genaug' has no attribute {name!r}")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
