"""Checkpoints of mini-batch training, in which each member of each model is a parameter, with a leading member axis.

With the axis they are distributed over ranks as those of a flow are; Lightning and torch read and write them without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

_ROWS, _SAME = "rows of members", "the same for all members"
_NOT_BY_GROUP = ("milestones", "_milestones", "_schedulers", "_schedule_phases")
"""Lists in the states of schedulers that may happen to be as long as the list of parameter groups."""


def stack_rows(checkpoint: dict[str, Any], models: Sequence[str], members: int) -> dict[str, Any]:
    """Returns a copy whose rows (N,), optimizer states, groups and schedules are tensors (E, ...) by model.

    A checkpoint of another form is returned as it is, for the validation of its content to name what does not fit.

    Args:
        checkpoint: as Lightning makes it.
        models: whose displacements it holds.
        members: E, of each model.
    """
    if not _has_rows(checkpoint, models, members):
        return checkpoint
    state = dict(checkpoint["state_dict"])
    for model in models:
        rows = [state.pop(_name(model, i)) for i in range(members)]
        state[_name(model)] = torch.stack(rows)
    return checkpoint | {
        "state_dict": state,
        "optimizer_states": [_stack_optimizer(each, models, members) for each in _list(checkpoint, "optimizer_states")],
        "lr_schedulers": _stack_lists(_list(checkpoint, "lr_schedulers"), models, members),
    }


def split_rows(checkpoint: dict[str, Any], models: Sequence[str], members: int) -> dict[str, Any]:
    """Returns a copy as Lightning makes it; the inverse of :func:`stack_rows`, also for other numbers of members.

    >>> whole = {"state_dict": {f"displacements.network.{i}": torch.full((2,), float(i)) for i in range(3)}}
    >>> stacked = stack_rows(whole, ["network"], members=3)
    >>> part = {**stacked, "state_dict": {name: x[1:] for name, x in stacked["state_dict"].items()}}
    >>> split_rows(part, ["network"], members=2)["state_dict"]["displacements.network.0"]
    tensor([1., 1.])
    """
    state = dict(checkpoint["state_dict"])
    if any(_name(model) not in state for model in models):
        return checkpoint
    for model in models:
        rows = state.pop(_name(model))
        state |= {_name(model, i): rows[i].clone() for i in range(members)}  # a view would be saved with all rows
    return checkpoint | {
        "state_dict": state,
        "optimizer_states": [_split_optimizer(each, models, members) for each in checkpoint["optimizer_states"]],
        "lr_schedulers": _split_lists(checkpoint["lr_schedulers"], models, members),
    }


def _name(model: str, row: int | None = None) -> str:
    return f"displacements.{model}" if row is None else f"displacements.{model}.{row}"


def _list(checkpoint: Mapping[str, Any], name: str) -> list[Any]:
    return list(checkpoint.get(name, []))


def _has_rows(checkpoint: Mapping[str, Any], models: Sequence[str], members: int) -> bool:
    state = checkpoint.get("state_dict")
    if not isinstance(state, Mapping):
        return False
    rows = [state.get(_name(model, i)) for model in models for i in range(members)]
    shapes = {row.shape if isinstance(row, Tensor) else None for row in rows}
    if len(shapes) > 1 or None in shapes:
        return False
    groups = len(models) * members
    optimizers = checkpoint.get("optimizer_states", [])
    return isinstance(optimizers, list) and all(
        isinstance(each, Mapping) and len(each.get("param_groups", ())) == groups for each in optimizers
    )


# ---------------------------------------------------------------------- the optimizer


def _stack_optimizer(saved: Mapping[str, Any], models: Sequence[str], members: int) -> dict[str, Any]:
    stacked: dict[str, Any] = {}
    for number, model in enumerate(models):
        own = range(number * members, (number + 1) * members)
        stacked[model] = {
            "state": _stack_entries([saved["state"].get(k, {}) for k in own]),
            "group": _stack_entries([{**saved["param_groups"][k], "params": None} for k in own]),
        }
    return stacked


def _split_optimizer(stacked: Mapping[str, Any], models: Sequence[str], members: int) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {}
    groups: list[dict[str, Any]] = []
    for model in models:
        for row in range(members):
            entries = _entries_of(stacked[model]["state"], row)
            if entries:
                state[len(groups)] = entries
            groups.append({**_entries_of(stacked[model]["group"], row), "params": [len(groups)]})
    return {"state": state, "param_groups": groups}


def _stack_entries(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What rows hold under each name, by kind; what is neither a tensor nor a number is the same for all members."""
    stacked: dict[str, dict[str, Any]] = {"tensor": {}, "float": {}, "int": {}, "other": {}}
    for name in rows[0]:
        values = [row[name] for row in rows]
        kind = _kind(values)
        if kind == "tensor":
            stacked[kind][name] = torch.stack(values)
        elif kind == "other":
            stacked[kind][name] = values[0]
        else:
            stacked[kind][name] = torch.tensor(values, dtype=torch.float64)
    return stacked


def _entries_of(stacked: Mapping[str, Mapping[str, Any]], row: int) -> dict[str, Any]:
    return {
        **{name: x[row].clone() for name, x in stacked["tensor"].items()},
        **{name: float(x[row]) for name, x in stacked["float"].items()},
        **{name: int(x[row]) for name, x in stacked["int"].items()},
        **stacked["other"],
    }


def _kind(values: Sequence[Any]) -> str:
    if all(isinstance(value, Tensor) for value in values):
        return "tensor"
    if any(isinstance(value, bool) or not isinstance(value, (int, float)) for value in values):
        return "other"
    return "int" if all(isinstance(value, int) for value in values) else "float"


# ---------------------------------------------------------------------- schedules


def _stack_lists(node: Any, models: Sequence[str], members: int, name: str = "") -> Any:
    """Lists with an entry for each parameter group, as tensors by model, or as the entry that all groups share."""
    if type(node) is dict:
        return {key: _stack_lists(value, models, members, str(key)) for key, value in node.items()}
    if not isinstance(node, list):
        return node
    if name and name not in _NOT_BY_GROUP and len(node) == len(models) * members:
        if _kind(node) in ("int", "float"):
            parts = torch.tensor(node, dtype=torch.float64).view(len(models), members)
            return {_ROWS: dict(zip(models, parts, strict=True))}
        if all(item == node[0] for item in node):
            return {_SAME: node[0]}
    return [_stack_lists(item, models, members) for item in node]


def _split_lists(node: Any, models: Sequence[str], members: int) -> Any:
    if isinstance(node, list):
        return [_split_lists(item, models, members) for item in node]
    if type(node) is not dict:
        return node
    if set(node) == {_ROWS}:
        return [number for model in models for number in node[_ROWS][model].tolist()]
    if set(node) == {_SAME}:
        return [node[_SAME]] * (len(models) * members)
    return {key: _split_lists(value, models, members) for key, value in node.items()}
