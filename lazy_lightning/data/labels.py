"""From a source's classes to the targets that are trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lazy_lightning.data.split import Task
from lazy_lightning.errors import ConfigError, DataError

LabelRule = str | list[int | str] | dict[int | str, int]
"""``"parity"``, ``"multiclass"``, ``"regression"``, a pair of classes, or a map from class to sign (0 drops it)."""

_NO_NAMES: Mapping[str, int] = {}


def numbered(*names: str) -> Mapping[str, int]:
    """Class names in the order of their numbers, as name -> class.

    >>> numbered("cat", "dog")
    {'cat': 0, 'dog': 1}
    """
    return {name: value for value, name in enumerate(names)}


class Labelled(NamedTuple):
    """Targets of the samples that are kept.

    Attributes:
        keep: ``(m,)`` int64, positions of the kept samples, increasing.
        y: ``(m,)`` float64 signs (binary), ``(m,)`` int64 classes 0..c-1 (multi-class), or float64 targets ``(m,)``
            or ``(m, c)`` (regression on one or c > 1 numbers).
        num_outputs: 1 (binary), or c.
        task: ``"binary"``, ``"multiclass"`` or ``"regression"``.
    """

    keep: Tensor
    y: Tensor
    num_outputs: int
    task: Task


def label(y: Tensor, rule: LabelRule, names: Mapping[str, int] = _NO_NAMES) -> Labelled:
    """Apply a label rule to the classes ``y`` of a source.

    ``"parity"``: the j-th class in sorted order becomes +1 for even j and -1 for odd j, as in the published
    runs of arXiv:1906.08034. A pair ``[a, b]`` keeps two classes, a -> +1 and b -> -1. A map gives each
    class its sign; 0 drops the class. ``"multiclass"`` re-indexes the classes 0..c-1 in sorted order.
    ``"regression"`` takes the numbers in y as they are, one target or several.

    Args:
        y: ``(n,)`` int64 classes, or ``(n,)`` or ``(n, c)`` real numbers.
        rule: see above; classes may be given by name where the source has names.
        names: name -> class of the source.

    Raises:
        ConfigError: the rule is not one of the above, or does not give both signs.
        DataError: the rule names a class that the data do not have, or leaves one out; or it needs classes, and the
            data hold real numbers.

    >>> label(torch.tensor([0, 1, 2, 5]), "parity").y
    tensor([ 1., -1.,  1., -1.], dtype=torch.float64)
    >>> label(torch.tensor([3, 0, 5]), [5, 3]).y
    tensor([-1.,  1.], dtype=torch.float64)
    """
    if rule == "regression":
        return _real_valued(y)
    if y.is_floating_point():
        raise DataError(
            f"labels is {rule!r}, which needs classes, but the targets are real numbers of shape {tuple(y.shape)}: set "
            "labels: regression, or give integer classes"
        )
    classes = [int(value) for value in torch.unique(y)]
    if len(classes) < 2:
        raise DataError(f"labels need at least two classes, but the data hold only {classes}: add samples")
    if rule == "multiclass":
        indices = torch.searchsorted(torch.tensor(classes), y)
        return Labelled(torch.arange(len(y)), indices, len(classes), "multiclass")
    return _binary(y, class_signs(rule, classes, names))


def class_signs(rule: LabelRule, classes: Sequence[int], names: Mapping[str, int] = _NO_NAMES) -> dict[int, int]:
    """The sign of each class under a binary rule; 0 for classes that are dropped.

    >>> class_signs(["cat", "dog"], [2, 3, 5], {"cat": 3, "dog": 5})
    {2: 0, 3: 1, 5: -1}
    """
    if rule == "parity":
        return {value: 1 - 2 * (position % 2) for position, value in enumerate(sorted(classes))}
    if isinstance(rule, dict):
        return _signs_of_map(rule, classes, names)
    if isinstance(rule, Sequence) and not isinstance(rule, str):
        return _signs_of_pair(rule, classes, names)
    raise ConfigError(
        "labels must be 'parity', 'multiclass', 'regression', a pair such as [3, 5] or a map such as {0: 1, 1: -1}, "
        f"got {rule!r}"
    )


def _signs_of_pair(pair: Sequence[int | str], classes: Sequence[int], names: Mapping[str, int]) -> dict[int, int]:
    found = [find_class(key, classes, names) for key in pair]
    if len(found) != 2 or found[0] == found[1]:
        raise ConfigError(f"a pair in labels must name two different classes, got {list(pair)}")
    return dict.fromkeys(classes, 0) | {found[0]: 1, found[1]: -1}


def _signs_of_map(rule: Mapping[int | str, int], classes: Sequence[int], names: Mapping[str, int]) -> dict[int, int]:
    for key, sign in rule.items():
        if sign not in (-1, 0, 1):
            raise ConfigError(f"labels maps class {key!r} to {sign}, but a sign is +1 or -1 (or 0 to drop the class)")
    signs = {find_class(key, classes, names): sign for key, sign in rule.items()}
    missing = [value for value in classes if value not in signs]
    if missing:
        raise DataError(f"labels gives no sign to the classes {missing} of the data: map them to 0 to drop them")
    if not {1, -1} <= set(signs.values()):
        raise ConfigError(f"labels must give +1 to some class and -1 to another, got {dict(rule)}")
    return signs


def find_class(key: int | str, classes: Sequence[int], names: Mapping[str, int] = _NO_NAMES) -> int:
    """The class that a number, a name, or a number written as text (a JSON key) stands for.

    Raises:
        DataError: there is no such name, or the data have no sample of that class.
    """
    if isinstance(key, str) and key not in names and not key.lstrip("-").isdigit():
        known = f"the names are {', '.join(names)}" if names else "this source has no class names, give a number"
        raise DataError(f"labels names the class {key!r}, which is unknown: {known}")
    value = names[key] if isinstance(key, str) and key in names else int(key)
    if value not in classes:
        raise DataError(f"labels names the class {key!r}, but the data hold only the classes {list(classes)}")
    return value


def _real_valued(y: Tensor) -> Labelled:
    """A single column of targets loses its axis, as the losses expect of one output."""
    targets = y.double()
    if targets.ndim == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    outputs = 1 if targets.ndim == 1 else targets.shape[1]
    return Labelled(torch.arange(len(y)), targets, outputs, "regression")


def _binary(y: Tensor, signs: Mapping[int, int]) -> Labelled:
    values = torch.tensor(sorted(signs))
    table = torch.tensor([signs[int(value)] for value in values], dtype=torch.float64)
    sign = table[torch.searchsorted(values, y)]
    keep = sign.nonzero().squeeze(1)
    return Labelled(keep, sign[keep], 1, "binary")
