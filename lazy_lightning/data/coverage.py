"""Whether the drawn sets hold samples of every class: without one, an error means nothing."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from lazy_lightning.errors import DataError


def require_every_target(y: Tensor, num_targets: int, name: str, remedy: str) -> None:
    """Checks that a set shows as many different targets as its size allows.

    Args:
        y: ``(n,)`` labels +1 and -1, or class indices 0..c-1.
        num_targets: 2 for signs, c for classes.
        name: what the set is called in the message.
        remedy: what the user can do, the end of the message.

    Raises:
        DataError: fewer than min(n, num_targets) different targets occur.

    >>> require_every_target(torch.tensor([1.0, -1.0, 1.0]), 2, "training", "")
    """
    present = torch.unique(y)
    if len(present) < min(len(y), num_targets):
        shown = ", ".join(f"{value:+.0f}" if y.is_floating_point() else str(int(value)) for value in present.tolist())
        raise DataError(
            f"the {name} set of {len(y)} samples holds only {len(present)} of the {num_targets} labels ({shown}): "
            f"{remedy}"
        )


def warn_of_unseen_classes(train: Tensor, test: Tensor) -> None:
    """Warns when the test set has original classes that the training set, though large enough, has not.

    Args:
        train: ``(n_train,)`` original classes of the training samples.
        test: ``(n_test,)`` original classes of the test samples.
    """
    tested = torch.unique(test)
    unseen = tested[~torch.isin(tested, train)].tolist()
    if unseen and len(train) >= len(tested):
        warnings.warn(
            f"the test set holds samples of the classes {unseen}, of which the training set has none, because the sets "
            "are dealt test first: give more samples of these classes, a smaller n_test, or map them to 0 in labels",
            stacklevel=2,
        )
