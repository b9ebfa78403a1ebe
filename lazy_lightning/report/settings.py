"""Division of a table of runs into settings, within which members differ only in h, alpha and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd

from lazy_lightning.figures.sweep_table import NETWORK
from lazy_lightning.runs.configuration import DATA_SEEDS, WITHOUT_EFFECT

_SWEPT = ("alpha", "seeds", "at", "checkpoint", "layers", "kernel_outputs")
"""Arguments of the model that differ within a setting: alpha, seeds, and those of the frozen kernel."""

_SOLVER = ("model.stop", "model.schedule", "model.controller", "model.dt")
"""Keys in which a frozen kernel may differ from its networks, because it may need other limits or steps."""

Signature = tuple[str, ...]
"""The values of the compared keys."""


class Setting(NamedTuple):
    """Members that one figure can show together."""

    title: str
    """The keys that distinguish it from other settings: ``model.network.depth = 3``. Empty if there are no others."""
    runs: pd.DataFrame
    """The rows of its members."""


def settings(runs: pd.DataFrame, across: Sequence[str] = ()) -> list[Setting]:
    """Divides a table of runs by all keys of the configuration except width, alpha, seeds and frozen kernel.

    Kernels belong to the setting of the networks with the same configuration; if there are none, to the only setting of
    networks from which they differ only in limits and steps; else they are a separate setting.

    Args:
        runs: a table of :func:`~lazy_lightning.runs.load_runs`.
        across: further keys in which the members of a setting may differ.

    >>> runs = pd.DataFrame({"model": "network", "alpha": [0.1, 10.0, 0.1], "model.network.depth": [2, 2, 3]})
    >>> [(setting.title, len(setting.runs)) for setting in settings(runs)]
    [('model.network.depth = 2', 2), ('model.network.depth = 3', 1)]
    """
    keys = [key for key in runs.columns if is_compared(key) and key not in across]
    signatures = _signatures(runs, keys)
    setting_of = _settings_of_signatures(runs, signatures, keys)
    assigned = [setting_of[signature] for signature in signatures]
    found = sorted(set(assigned), key=lambda signature: [_rank(value) for value in signature])
    titled = [i for i in range(len(keys)) if len({s[i] for s in found}) > 1 and not _is_implied(i, found, keys)]
    return [
        Setting(", ".join(f"{keys[i]} = {signature[i]}" for i in titled), runs[[s == signature for s in assigned]])
        for signature in found
    ]


def _is_implied(i: int, found: Sequence[Signature], keys: Sequence[str]) -> bool:
    """Returns whether the class determines a value, as it does the defaults of its own arguments."""
    classes = [j for j, key in enumerate(keys) if keys[i].startswith(f"{key}.")]
    return any(len({(s[j], s[i]) for s in found}) == len({s[j] for s in found}) for j in classes)


def is_compared(key: str) -> bool:
    """Returns whether a column of the table of runs is a configuration key in which the members of a setting agree.

    >>> [is_compared(key) for key in ("data.n_train", "model.network.width", "model", "test/error")]
    [True, False, False, False]
    """
    if key.startswith("model.network") and key.endswith(".width"):
        return False
    configured = key == "data" or key.startswith(("model.", "data.", "trainer."))
    swept = {f"model.{name}" for name in _SWEPT}
    return configured and key not in swept and key not in DATA_SEEDS and key.rpartition(".")[2] not in WITHOUT_EFFECT


def format_value(value: Any) -> str:
    """Formats a value of the configuration as in a configuration file.

    >>> [format_value(value) for value in (3.0, float("nan"), True, "softplus(5)")]
    ['3', 'none', 'true', 'softplus(5)']
    """
    if value is None or value != value:
        return "none"  # also for a key that the class does not have
    if isinstance(value, (bool, float)):
        return str(value).lower() if isinstance(value, bool) else f"{value:.12g}"
    return str(value)


def _signatures(runs: pd.DataFrame, keys: Sequence[str]) -> list[Signature]:
    if not keys:
        return [()] * len(runs)
    columns = [[format_value(value) for value in runs[key].tolist()] for key in keys]
    return list(zip(*columns, strict=True))


def _settings_of_signatures(
    runs: pd.DataFrame, signatures: Sequence[Signature], keys: Sequence[str]
) -> dict[Signature, Signature]:
    """Returns for each signature of a row that of its setting."""
    setting_of = {signature: signature for signature in signatures}
    networks = {s for s, model in zip(signatures, runs["model"].tolist(), strict=True) if model == NETWORK}
    for signature in setting_of.keys() - networks:
        matches = [network for network in networks if _task(network, keys) == _task(signature, keys)]
        if len(matches) == 1:
            setting_of[signature] = matches[0]
    return setting_of


def _task(signature: Signature, keys: Sequence[str]) -> Signature:
    return tuple(value for key, value in zip(keys, signature, strict=True) if not key.startswith(_SOLVER))


def _rank(value: str) -> tuple[int, float, str]:
    """Returns a sort key that orders numbers by value before strings."""
    try:
        return 0, float(value), value
    except ValueError:
        return 1, 0.0, value
