"""Deprecated names of version 0.1.0.

They work in 0.2 with a DeprecationWarning, and without limit in the configurations of old runs.
:mod:`lazy_lightning.runs.configuration` uses the tables below to hash a configuration in the spelling of 0.1.0,
so that the identities of members do not depend on the version that trained them.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MODULES: Mapping[str, str] = {
    "lazy_lightning.centering": "lazy_lightning.objective.centering",
    "lazy_lightning.companions": "lazy_lightning.objective.companions",
    "lazy_lightning.configuration": "lazy_lightning.runs.configuration",
    "lazy_lightning.experiments.runs": "lazy_lightning.runs.load",
    "lazy_lightning.inverse_decay": "lazy_lightning.modules.inverse_decay",
    "lazy_lightning.laziness": "lazy_lightning.ntk.laziness",
    "lazy_lightning.linearize": "lazy_lightning.nn.linearize",
    "lazy_lightning.losses": "lazy_lightning.objective.losses",
    "lazy_lightning.metrics": "lazy_lightning.objective.metrics",
    "lazy_lightning.modules.scaled_module": "lazy_lightning.modules.mini_batch_module",
    "lazy_lightning.modules.stop": "lazy_lightning.modules.stopping_criteria",
    "lazy_lightning.observation": "lazy_lightning.modules.observation",
}
"""The old module names, each with the module that replaces it."""

NAMES: Mapping[str, str] = {
    "lazy_lightning.Stop": "lazy_lightning.StoppingCriteria",
    "lazy_lightning.callbacks.Outputs": "lazy_lightning.callbacks.OutputsWriter",
    "lazy_lightning.callbacks.outputs.Outputs": "lazy_lightning.callbacks.outputs.OutputsWriter",
    "lazy_lightning.experiments.load_runs": "lazy_lightning.runs.load_runs",
    "lazy_lightning.flow.Band": "lazy_lightning.flow.GradientChangeController",
    "lazy_lightning.flow.controllers.Band": "lazy_lightning.flow.controllers.GradientChangeController",
    "lazy_lightning.flow.controllers.slides": "lazy_lightning.flow.controllers.gradient_change",
    "lazy_lightning.flow.slides": "lazy_lightning.flow.gradient_change",
    "lazy_lightning.modules.Roster": "lazy_lightning.modules.Ensemble",
    "lazy_lightning.modules.ScaledModule": "lazy_lightning.modules.MiniBatchModule",
    "lazy_lightning.modules.Stop": "lazy_lightning.modules.StoppingCriteria",
    "lazy_lightning.modules.mini_batch_module.ScaledModule": "lazy_lightning.modules.mini_batch_module.MiniBatchModule",
    "lazy_lightning.modules.stopping_criteria.Stop": "lazy_lightning.modules.stopping_criteria.StoppingCriteria",
}
"""The old names, each with its present name; the module part of a key has its present spelling."""

SHORT_NAMES: Mapping[str, str] = {
    "ScaledModule": "MiniBatchModule",
    "Outputs": "OutputsWriter",
    "Band": "GradientChangeController",
    "Stop": "StoppingCriteria",
}
"""The renamed classes that a configuration may name without their module."""

CONTROLLERS: Mapping[str, str] = {"slides": "gradient_change"}
"""The renamed presets of the step-size controller."""

_OLD_MODULES = {new: old for old, new in MODULES.items()}
_OLD_NAMES = {
    "lazy_lightning.MiniBatchModule": "lazy_lightning.modules.ScaledModule",
    "lazy_lightning.KernelModule": "lazy_lightning.modules.KernelModule",
    **{new: old for old, new in NAMES.items()},
}
_OLD_CONTROLLERS = {new: old for old, new in CONTROLLERS.items()}


def renamed(module: str, name: str) -> Any:
    """Returns the object that a module had under an old name; called by the module's ``__getattr__``.

    Raises:
        AttributeError: the module never had the name.
    """
    new = NAMES.get(f"{module}.{name}")
    if new is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    warnings.warn(f"{module}.{name} is deprecated: use {new}", DeprecationWarning, stacklevel=3)
    home, _, attribute = new.rpartition(".")
    return getattr(importlib.import_module(home), attribute)


def present_path(path: str) -> str:
    """Returns a class path in its present spelling.

    >>> present_path("lazy_lightning.modules.ScaledModule"), present_path("ScaledModule"), present_path("torch.nn.ReLU")
    ('lazy_lightning.modules.MiniBatchModule', 'MiniBatchModule', 'torch.nn.ReLU')
    """
    module, dot, name = path.rpartition(".")
    if not dot:
        return SHORT_NAMES.get(path, path)
    path = f"{MODULES.get(module, module)}.{name}"
    return NAMES.get(path, path)


def path_of_0_1_0(path: str) -> str:
    """Returns a class path in the spelling of version 0.1.0; the inverse of :func:`present_path`.

    >>> path_of_0_1_0("lazy_lightning.modules.mini_batch_module.MiniBatchModule")
    'lazy_lightning.modules.scaled_module.ScaledModule'
    """
    path = _OLD_NAMES.get(path, path)
    module, dot, name = path.rpartition(".")
    return f"{_OLD_MODULES.get(module, module)}{dot}{name}"


def present_names(config: Any) -> Any:
    """Returns a configuration with the present names of classes, callbacks and presets of the controller."""

    def present_spelling(key: str, text: str) -> str:
        if key == "controller" and text in CONTROLLERS:
            return CONTROLLERS[text]
        named = key in ("class_path", "model", "controller") or key.rstrip("+") == "callbacks"
        return present_path(text) if named else text

    return _translated(config, present_spelling)


def present_arguments(arguments: Sequence[str]) -> list[str]:
    """Returns the command line with the present name of the model's class.

    >>> present_arguments(["fit", "--model", "ScaledModule"]), present_arguments(["fit", "--model=ScaledModule"])
    (['fit', '--model', 'MiniBatchModule'], ['fit', '--model=MiniBatchModule'])
    """
    found: list[str] = []
    for argument in arguments:
        if found and found[-1] == "--model":
            found.append(present_path(argument))
        elif argument.startswith("--model="):
            found.append(f"--model={present_path(argument.removeprefix('--model='))}")
        else:
            found.append(argument)
    return found


def names_of_0_1_0(config: Any) -> Any:
    """Returns a configuration in the spelling of version 0.1.0."""

    def spelling_of_0_1_0(key: str, text: str) -> str:
        if key == "controller" and text in _OLD_CONTROLLERS:
            return _OLD_CONTROLLERS[text]
        return path_of_0_1_0(text) if key in ("class_path", "callbacks") else text

    return _translated(config, spelling_of_0_1_0)


def _translated(config: Any, spell: Callable[[str, str], str], key: str = "") -> Any:
    """Returns a configuration in which each string is replaced by ``spell(key, string)``, where key is its key."""
    if isinstance(config, Mapping):
        return {name: _translated(value, spell, str(name)) for name, value in config.items()}
    if isinstance(config, list):
        return [_translated(value, spell, key) for value in config]
    return spell(key, config) if isinstance(config, str) else config


class _OldModules(MetaPathFinder, Loader):
    """Import hook that finds the old modules after all other finders have failed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MODULES else None

    def exec_module(self, module: ModuleType) -> None:
        new = MODULES[module.__name__]
        warnings.warn(f"{module.__name__} is deprecated: import {new}", DeprecationWarning, stacklevel=2)
        present = importlib.import_module(new)
        module.__dict__.update({name: value for name, value in vars(present).items() if not name.startswith("__")})
        module.__dict__["__getattr__"] = lambda name: renamed(new, name)


def install() -> None:
    """Makes the old modules importable; called once, when the package is imported."""
    if not any(isinstance(finder, _OldModules) for finder in sys.meta_path):
        sys.meta_path.append(_OldModules())
