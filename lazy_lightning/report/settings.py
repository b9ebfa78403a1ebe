"""A table of runs cut into settings: within one, members differ in h, alpha and seed alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd

from lazy_lightning.figures.sweep_table import NETWORK
from lazy_lightning.runs.configuration import WITHOUT_EFFECT

_SWEPT = ("alpha", "seeds", "at", "checkpoint", "layers", "kernel_outputs")
"""Arguments of the model that differ within a setting: who a member is, and which kernel of its network was frozen."""

_SOLVER = ("model.stop", "model.schedule", "model.controller", "model.dt")
"""A frozen kernel may need another limit or step than the networks whose kernel it is."""

Signature = tuple[str, ...]
"""The values of the compared keys."""


class Setting(NamedTuple):
    """Members that one figure may show together."""

    title: str
    """The keys that tell it from the other settings: ``model.network.depth = 3``. Empty if it is the only one."""
    runs: pd.DataFrame


def settings(runs: pd.DataFrame) -> list[Setting]:
    """Cuts a table of runs by whatever differs in the configuration but width, alpha, seed and frozen kernel.

    Kernels go with the networks of the same configuration; where there are none, with the one setting of networks from
    which they differ in limits and steps alone; else they are a setting of their own.

    >>> runs = pd.DataFrame({"model": "network", "alpha": [0.1, 10.0, 0.1], "model.network.depth": [2, 2, 3]})
    >>> [(setting.title, len(setting.runs)) for setting in settings(runs)]
    [('model.network.depth = 2', 2), ('model.network.depth = 3', 1)]
    """
    keys = [key for key in runs.columns if is_compared(key)]
    signatures = _signatures(runs, keys)
    homes = _homes(runs, signatures, keys)
    settled = [homes[signature] for signature in signatures]
    found = sorted(set(settled), key=lambda signature: [_rank(value) for value in signature])
    telling = [
        i for i in range(len(keys)) if len({s[i] for s in found}) > 1 and not _goes_without_saying(i, found, keys)
    ]
    return [
        Setting(", ".join(f"{keys[i]} = {signature[i]}" for i in telling), runs[[s == signature for s in settled]])
        for signature in found
    ]


def _goes_without_saying(i: int, found: Sequence[Signature], keys: Sequence[str]) -> bool:
    """Whether a class decides the value: each has arguments of its own, whose defaults no title needs to name."""
    classes = [j for j, key in enumerate(keys) if keys[i].startswith(f"{key}.")]
    return any(len({(s[j], s[i]) for s in found}) == len({s[j] for s in found}) for j in classes)


def is_compared(key: str) -> bool:
    """Whether a column of the table of runs is a configuration key in which the members of a setting agree.

    >>> [is_compared(key) for key in ("data.n_train", "model.network.width", "model", "test/error")]
    [True, False, False, False]
    """
    if key.startswith("model.network") and key.endswith(".width"):
        return False
    configured = key == "data" or key.startswith(("model.", "data.", "trainer."))
    swept = {f"model.{name}" for name in _SWEPT}
    return configured and key not in swept and key.rpartition(".")[2] not in WITHOUT_EFFECT


def format_value(value: Any) -> str:
    """A value of the configuration as one would write it.

    >>> [format_value(value) for value in (3.0, float("nan"), True, "softplus(5)")]
    ['3', 'none', 'true', 'softplus(5)']
    """
    if value is None or value != value:
        return "none"  # also a key that a class of another name does not have
    if isinstance(value, (bool, float)):
        return str(value).lower() if isinstance(value, bool) else f"{value:.12g}"
    return str(value)


def _signatures(runs: pd.DataFrame, keys: Sequence[str]) -> list[Signature]:
    if not keys:
        return [()] * len(runs)
    columns = [[format_value(value) for value in runs[key].tolist()] for key in keys]
    return list(zip(*columns, strict=True))


def _homes(runs: pd.DataFrame, signatures: Sequence[Signature], keys: Sequence[str]) -> dict[Signature, Signature]:
    """For the signature of a row, that of the setting it belongs to."""
    homes = {signature: signature for signature in signatures}
    networks = {s for s, model in zip(signatures, runs["model"].tolist(), strict=True) if model == NETWORK}
    for signature in homes.keys() - networks:
        near = [network for network in networks if _task(network, keys) == _task(signature, keys)]
        if len(near) == 1:
            homes[signature] = near[0]
    return homes


def _task(signature: Signature, keys: Sequence[str]) -> Signature:
    return tuple(value for key, value in zip(keys, signature, strict=True) if not key.startswith(_SOLVER))


def _rank(value: str) -> tuple[int, float, str]:
    """Numbers in their order, then words in theirs."""
    try:
        return 0, float(value), value
    except ValueError:
        return 1, 0.0, value
