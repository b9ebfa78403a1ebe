"""lazy_lightning: measures whether a neural network trains lazily or learns features."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lazy_lightning import deprecations

__version__ = "0.2.0"

if TYPE_CHECKING:
    from lazy_lightning.denormals import flush_denormals
    from lazy_lightning.flow import MomentumFlow
    from lazy_lightning.heap import keep_freed_memory
    from lazy_lightning.modules import FlowModule, KernelModule, MiniBatchModule, StoppingCriteria
    from lazy_lightning.nn import FC
    from lazy_lightning.nn.linearize import LinearizedNetwork
    from lazy_lightning.ntk import empirical_ntk
    from lazy_lightning.runs import load_runs

# Imported on first use, because torch and Lightning take seconds to import and reading the version must not.
_PUBLIC = {
    "FC": "lazy_lightning.nn",
    "FlowModule": "lazy_lightning.modules",
    "KernelModule": "lazy_lightning.modules",
    "LinearizedNetwork": "lazy_lightning.nn.linearize",
    "MiniBatchModule": "lazy_lightning.modules",
    "MomentumFlow": "lazy_lightning.flow",
    "StoppingCriteria": "lazy_lightning.modules",
    "empirical_ntk": "lazy_lightning.ntk",
    "flush_denormals": "lazy_lightning.denormals",
    "keep_freed_memory": "lazy_lightning.heap",
    "load_runs": "lazy_lightning.runs",
}

__all__ = [
    "FC",
    "FlowModule",
    "KernelModule",
    "LinearizedNetwork",
    "MiniBatchModule",
    "MomentumFlow",
    "StoppingCriteria",
    "empirical_ntk",
    "flush_denormals",
    "keep_freed_memory",
    "load_runs",
]

deprecations.install()


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    return deprecations.renamed(__name__, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
