"""One trajectory on several processes: the first decides about each step, and all hold its state.

Processes that train the same members on slices of the samples have the same gradient and outputs to the bit. What they
compute from these, a norm above all, may differ in its last digit where machines or numbers of threads do, and with it
whether a step is accepted.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lazy_lightning.errors import RunError
from lazy_lightning.flow.controllers import Controller
from lazy_lightning.flow.part import on_device, select_rows
from lazy_lightning.flow.state import FlowState
from lazy_lightning.modules.sample_ranks import SampleRanks


class DecisionOfFirst(Controller):
    """A controller whose decisions are those of the first process.

    Args:
        controller: judges the steps.
        ranks: the processes that train the same members.
    """

    def __init__(self, controller: Controller, ranks: SampleRanks) -> None:
        self._controller, self._ranks = controller, ranks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._controller, name)

    @property
    def growth(self) -> float:  # type: ignore[override]
        """As of the controller."""
        return self._controller.growth

    @property
    def watches_outputs(self) -> bool:  # type: ignore[override]
        """As of the controller."""
        return self._controller.watches_outputs

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The decision of the first process, in one exchange."""
        decision = self._controller(*args, **kwargs)
        known = {name: x for name, x in decision._asdict().items() if isinstance(x, Tensor)}
        rows = self._ranks.of_first(torch.stack([x.double() for x in known.values()]))
        return decision._replace(**{name: row.to(x.dtype) for row, (name, x) in zip(rows, known.items(), strict=True)})

    def select(self, rows: Tensor) -> DecisionOfFirst:
        """The same for some of the members."""
        return DecisionOfFirst(select_rows(self._controller, rows), self._ranks)

    def to(self, device: torch.device) -> DecisionOfFirst:
        """The same on a device."""
        return DecisionOfFirst(on_device(self._controller, device), self._ranks)


def take_state_of_first(state: FlowState, ranks: SampleRanks) -> bool:
    """Gives all processes the state of the first, where theirs differ in last digits.

    Returns:
        Whether they did.

    Raises:
        RunError: they differ by more than rounding, so their gradients have been added up at different weights.
    """
    own = fingerprint(state)
    if not _differ(own, ranks):
        return False
    displacement = state.displacement.clone()
    for tensor in state.tensors().values():
        if tensor is not None:
            ranks.of_first(tensor)
    slack = torch.finfo(displacement.dtype).eps ** 0.5 * state.displacement.abs().amax()
    far = ((state.displacement - displacement).abs().amax() > slack).double().reshape(1)
    if float(ranks.sum(far)) > 0:
        raise RunError(
            "devices that hold slices of one training set have different weights, so their sum is no gradient: check "
            "that all run the same version of torch and of this package, and go on from the last checkpoint with fit "
            "--resume and the folder of the run"
        )
    return True


def fingerprint(state: FlowState) -> Tensor:
    """(K,) int64 the sum of the bits of each tensor, which does not depend on the order of the summation."""
    return torch.stack([_bits(x).sum() for x in state.tensors().values() if x is not None])


def _bits(x: Tensor) -> Tensor:
    kinds = {torch.float64: torch.int64, torch.float32: torch.int32}
    return x.contiguous().view(kinds[x.dtype]).long() if x.dtype in kinds else x.long()


def _differ(own: Tensor, ranks: SampleRanks) -> bool:
    differs = (ranks.of_first(own.clone()) != own).any().double().reshape(1)
    return float(ranks.sum(differs)) > 0
