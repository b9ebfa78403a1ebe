"""One trajectory on several processes: the first decides about each step, and all hold its state.

Processes that train the same members on slices of the samples have the same gradient and outputs to the bit. What they
compute from these, a norm above all, may differ in its last digit where machines or numbers of threads do, and with it
whether a step is accepted.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lazy_lightning.errors import RunError
from lazy_lightning.flow.state import FlowState
from lazy_lightning.modules.sample_ranks import SampleRanks


class DecisionOfFirst:
    """The decision of the first process about each step, for all that train the same members.

    Args:
        ranks: these processes.
    """

    def __init__(self, ranks: SampleRanks) -> None:
        self._ranks = ranks

    def __call__(self, accept: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
        """Returns accept (E,) bool and the next dt (E,) float64 of the first process, by one exchange."""
        accepted, following = self._ranks.of_first(torch.stack([accept.double(), dt]))
        return accepted != 0, following


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
    return torch.stack([_bits(x).sum() for x in state.tensors().values()])


def _bits(x: Tensor) -> Tensor:
    kinds = {torch.float64: torch.int64, torch.float32: torch.int32}
    return x.contiguous().view(kinds[x.dtype]).long() if x.dtype in kinds else x.long()


def _differ(own: Tensor, ranks: SampleRanks) -> bool:
    differs = (ranks.of_first(own.clone()) != own).any().double().reshape(1)
    return float(ranks.sum(differs)) > 0
