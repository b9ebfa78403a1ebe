"""Metrics over the member axis, as ``torchmetrics`` metrics: they add up over batches of samples."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics import Metric

from lazy_lightning.nn.member_samples import select_members
from lazy_lightning.objective.losses import Loss


class _MemberMean(Metric):
    """Mean over samples of one number per member and sample."""

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, loss: Loss, members: int) -> None:
        super().__init__(sync_on_compute=False)
        self.loss = loss
        self.add_state("total", torch.zeros(members, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def _add(self, values: Tensor) -> None:
        self.total += values.sum(dim=1, dtype=torch.float64)
        self.count += values.shape[1]

    def compute(self) -> Tensor:
        """(E,) the value of each member."""
        return self.total / self.count


class MemberLoss(_MemberMean):
    """Mean of ell(F, y) over samples, (E,): alpha^2 L, so that members of different alpha compare."""

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """Adds outputs F (E, n) or (E, n, c) and targets."""
        self._add(self.loss.per_sample(outputs, y))


class MemberError(_MemberMean):
    """Share of samples with the wrong class, (E,); F y = 0 counts as wrong, so w0 has error 1."""

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """Adds outputs F (E, n) or (E, n, c) and labels."""
        wrong = self.loss.errors(outputs, y).double()
        finite = outputs.isfinite().view(*wrong.shape, -1).all(dim=-1)
        self._add(wrong.masked_fill(~finite, torch.nan))  # a NaN is neither right nor wrong


class EnsembleError(Metric):
    """Error of the average prediction of the members of each group (the paper's ensemble average), (E,).

    Every member gets its group's error. Members that are not finite are left out of the average.

    Args:
        group: (E,) int64, equal for members that are averaged together (those of one alpha and data set).
        over_ranks: adds up sums over members, where other processes hold some of them.
        groups: how many groups there are, of all members.
    """

    full_state_update = False
    total: Tensor
    count: Tensor
    group: Tensor
    _representatives: Tensor

    def __init__(
        self,
        loss: Loss,
        group: Tensor,
        over_ranks: Callable[[Tensor], Tensor] | None = None,
        groups: int | None = None,
    ) -> None:
        super().__init__(sync_on_compute=False)
        self.loss = loss
        self.register_buffer("group", group)
        self.groups = int(group.max()) + 1 if groups is None else groups
        own = group.tolist()
        # a group without a member here is evaluated elsewhere too, so any member's targets will do
        members = [own.index(g) if g in own else 0 for g in range(self.groups)]
        self.register_buffer("_representatives", torch.tensor(members, dtype=torch.int64), persistent=False)
        self._over_ranks = over_ranks or (lambda sums: sums)
        self.add_state("total", torch.zeros(self.groups, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """Adds outputs F (E, n) or (E, n, c) and labels."""
        finite = outputs.flatten(1).isfinite().all(dim=1)
        weight = torch.zeros(self.groups, len(outputs), dtype=outputs.dtype, device=outputs.device)
        weight[self.group, torch.arange(len(outputs), device=outputs.device)] = finite.to(outputs.dtype)
        sums = weight @ outputs.masked_fill(~finite.view(-1, *(1,) * (outputs.ndim - 1)), 0.0).flatten(1)
        both = self._over_ranks(torch.cat([sums, weight.sum(dim=1, keepdim=True)], dim=1))
        sums, members = both[:, :-1], both[:, -1:]
        mean = (sums / members).view(self.groups, *outputs.shape[1:])
        wrong = self.loss.errors(mean, select_members(y, self._representatives)).double()
        self.total += wrong.masked_fill(members == 0, torch.nan).sum(dim=1)  # a group that failed has no error
        self.count += outputs.shape[1]

    def compute(self) -> Tensor:
        """(E,) the value of each member."""
        return (self.total / self.count)[self.group]


class MarginStatistics(Metric):
    """Smallest and mean margin, and the share of samples at or over ``target``, (E,) each."""

    full_state_update = False
    smallest: Tensor
    total: Tensor
    met: Tensor
    count: Tensor

    def __init__(self, loss: Loss, members: int, target: float = 1.0) -> None:
        super().__init__(sync_on_compute=False)
        self.loss, self.target = loss, target
        self.add_state("smallest", torch.full((members,), torch.inf, dtype=torch.float64), dist_reduce_fx="min")
        for name in ("total", "met"):
            self.add_state(name, torch.zeros(members, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """Adds outputs F (E, n) or (E, n, c) and labels."""
        margins = self.loss.margins(outputs, y).double()
        self.smallest = torch.minimum(self.smallest, margins.amin(dim=1))
        self.total += margins.sum(dim=1)
        self.met += (margins >= self.target).sum(dim=1)
        self.count += margins.shape[1]

    def compute(self) -> dict[str, Tensor]:
        """The statistics ``margin_min``, ``margin_mean`` and ``margin_met``, (E,) each."""
        return {
            "margin_min": self.smallest,
            "margin_mean": self.total / self.count,
            "margin_met": self.met / self.count,
        }
