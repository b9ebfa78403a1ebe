"""t_lazy: how long lazy training takes, from the kernel at initialisation."""

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
    """n ‖u‖^2/(u^T Theta u) with u = -d ell/dF at the start, (E,): when its pull u would be met at the first speed.

    Since grad L = -J^T u/(alpha n), the quadratic form is (alpha n ‖grad L‖)^2: no kernel is needed.

    Args:
        slope: (E, n, ...) u.
        alpha: (E,)
        gradient_norm: (E,) ‖grad L‖.
    """
    pull = slope.double().flatten(1).square().sum(dim=1)
    return pull / (slope.shape[1] * (alpha * gradient_norm).square())


class TLazy(NetworkObserver):
    """The time scales of lazy training on the training set, 1/‖Theta‖ in two senses, independent of alpha.

    ``t_lazy/norm`` is n/lambda_max(Theta_0), the fastest direction; ``t_lazy/labels`` is that of the direction in which
    the labels pull. Once, at t = 0: a few power steps of one forward and one reverse pass each.

    Args:
        method: when the power steps for lambda_max are content.
    """

    column_names = ("t_lazy/norm", "t_lazy/labels")

    def __init__(self, method: PowerMethod | None = None) -> None:
        self.method = method or PowerMethod(tolerance=1e-4)
        self._columns: dict[str, Tensor] = {}

    def observe(self, module: ObservableModule, observation: Observation) -> Mapping[str, Tensor]:
        """``t_lazy/norm`` and ``t_lazy/labels``, the same at every observation."""
        state = observation.state
        if observation.index == 0:
            self._columns = {"t_lazy/norm": self._norm_time(module), "t_lazy/labels": self._label_time(module, state)}
        missing = torch.full_like(state.t, torch.nan)  # of a run that began without this observer
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
        """For the checkpoint."""
        return dict(self._columns)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self._columns = dict(state_dict)
