"""t_lazy, the time scale of lazy training, computed from the kernel at initialisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lazy_lightning.modules.observation import NetworkObserver, Observation
from lazy_lightning.ntk.laziness import PowerMethod, jacobian_norm

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule


def label_time(slope: Tensor, alpha: Tensor, gradient_norm: Tensor) -> Tensor:
    """Returns n ‖u‖^2/(u^T Theta u), (E,), with u = -d ell/dF at t = 0: the time to change F by u at the initial speed.

    Because grad L = -J^T u/(alpha n), the quadratic form is (alpha n ‖grad L‖)^2, and no kernel is needed.

    Args:
        slope: derivative d ell/dF, (E, n, ...); its sign does not matter.
        alpha: scales (E,) of the members.
        gradient_norm: norms ‖grad L‖, (E,).
    """
    squared_norm = slope.double().flatten(1).square().sum(dim=1)
    return squared_norm / (slope.shape[1] * (alpha * gradient_norm).square())


class TLazy(NetworkObserver):
    """Observer of two time scales of lazy training on the training set, which are independent of alpha.

    ``t_lazy/norm`` is n/lambda_max(Theta_0), that of the fastest direction; ``t_lazy/labels`` is that of the direction
    -d ell/dF of the labels. They are measured once, at t = 0, by a few power iterations of one forward and one reverse
    pass each.

    Args:
        method: the tolerance and the limit of the power iterations for lambda_max.
    """

    column_names = ("t_lazy/norm", "t_lazy/labels")

    def __init__(self, method: PowerMethod | None = None) -> None:
        self.method = method or PowerMethod(tolerance=1e-4)
        self._columns: dict[str, Tensor] = {}

    def observe(self, module: ObservableModule, observation: Observation) -> Mapping[str, Tensor]:
        """Returns ``t_lazy/norm`` and ``t_lazy/labels``, which are the same at every observation."""
        state = observation.state
        if observation.index == 0:
            self._columns = {"t_lazy/norm": self._norm_time(module), "t_lazy/labels": self._label_time(module, state)}
        missing = torch.full_like(state.t, torch.nan)  # for a resumed run that began without this observer
        names = ("t_lazy/norm", "t_lazy/labels")
        return {name: self._columns.get(name, missing).to(state.t.device) for name in names}

    def _norm_time(self, module: ObservableModule) -> Tensor:
        starts = module.shared_starts
        rows, own = starts.first, starts.own
        buffers = {name: b[rows] for name, b in module.member_buffers().items()}
        w0, x, devices = module.w0, module.train_split.x, module.sample_ranks.count
        slice_size = -(-len(x) // devices) if devices > 1 else None  # the inputs are on the host then
        norm = jacobian_norm(
            lambda w, part: module.network(w, part.to(w0), buffers),
            w0[rows],
            x,
            method=self.method,
            chunk_size=module.chunk_size or slice_size,
        )
        return norm.double().pow(-2)[own]

    def _label_time(self, module: ObservableModule, state: Any) -> Tensor:
        with torch.enable_grad():
            outputs = state.outputs.detach().clone().requires_grad_()
            total = module.loss.per_sample(outputs, module.train_split.y).sum()
            (slope,) = torch.autograd.grad(total, outputs)
        return label_time(slope, module.centering.alpha.to(slope.device), state.gradient_norm)

    def state_dict(self) -> dict[str, Any]:
        """Returns the columns for the checkpoint."""
        return dict(self._columns)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the columns from a checkpoint."""
        self._columns = dict(state_dict)
