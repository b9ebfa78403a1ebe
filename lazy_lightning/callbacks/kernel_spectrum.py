"""Spectrum of the tangent kernel, and the projections of the labels on its eigenvectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.callbacks.kernel_drift import Set, kernel_set
from lazy_lightning.data.split import Split
from lazy_lightning.errors import ConfigError
from lazy_lightning.modules.observation import NetworkObserver, Observation
from lazy_lightning.ntk.empirical import empirical_ntk
from lazy_lightning.ntk.intrinsic_dimension import intrinsic_dimension
from lazy_lightning.ntk.spectrum import effective_rank, eigenvalues, label_overlap

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule

NAMES = ("effective_rank", "top_eigenvalue", "label_share", "intrinsic_dimension")


class KernelSpectrum(NetworkObserver):
    """Observer of the spectrum of the tangent kernel summed over outputs, at the start and when each member stops.

    * ``kernel_spectrum/effective_rank``: (tr K)^2/‖K‖_F^2.
    * ``kernel_spectrum/top_eigenvalue``: lambda_max/n.
    * ``kernel_spectrum/label_share``: the share of the centred labels on the first ``directions`` eigenvectors of the
      centred kernel; it grows as features are learnt.
    * ``kernel_spectrum/intrinsic_dimension``: that of the samples in feature space, from the two nearest neighbours.

    Args:
        samples: number of samples; None for all samples of the set.
        split: ``kernel``, ``test`` or ``train``; None for the data's kernel set, or its test set if that is empty.
        directions: number of eigenvectors for ``label_share``.
        always: whether to measure at every observation.
    """

    def __init__(
        self, samples: int | None = 200, split: Set | None = None, directions: int = 10, always: bool = False
    ) -> None:
        check_arguments(KernelSpectrum, locals())
        if directions < 1 or (samples is not None and samples < 4):
            raise ConfigError(f"KernelSpectrum needs directions >= 1 and samples >= 4, got {directions} and {samples}")
        self.samples = samples
        self.split: Set | None = split
        self.directions = directions
        self.always = always
        self._set: Split | None = None
        self._settled: Tensor | None = None
        self._columns: dict[str, Tensor] = {}

    column_names = tuple(f"kernel_spectrum/{name}" for name in NAMES)

    def check(self, module: ObservableModule) -> None:
        """Raises ConfigError if the set of samples is empty or too small."""
        kernel_set(module, self.split, self.samples, least=4)

    @torch.no_grad()
    def observe(self, module: ObservableModule, observation: Observation) -> Mapping[str, Tensor]:
        """Returns the columns of the class; they are NaN between the start and the end of a member."""
        state = observation.state
        if self._set is None or observation.index == 0:
            self._set = kernel_set(module, self.split, self.samples, least=4)
        if self._settled is None or observation.index == 0:
            self._settled, self._columns = torch.zeros_like(state.running), {}
        settled = self._settled.to(state.t.device) & ~state.running  # a limit may have been raised
        due = ~settled & (~state.running | (self.always or observation.index == 0))
        rows = due.nonzero().flatten()
        found = self._measure(module, rows) if len(rows) else {}
        for name in NAMES:
            column = torch.full_like(state.t, torch.nan)
            if name in self._columns:
                column = torch.where(settled, self._columns[name].to(column.device), column)
            if found:
                column[rows] = found[name]
            self._columns[name] = column
        self._settled = settled | (due & ~state.running)
        return {f"kernel_spectrum/{name}": self._columns[name] for name in NAMES}

    def _measure(self, module: ObservableModule, rows: Tensor) -> dict[str, Tensor]:
        assert self._set is not None
        buffers = {name: b[rows] for name, b in module.member_buffers().items()}
        w = module.w.detach()[rows]
        kernel = empirical_ntk(module.network, w, self._set.x, output="trace", buffers=buffers)
        overlap = label_overlap(kernel, self._set.y, centered=True)
        return {
            "effective_rank": effective_rank(kernel),
            "top_eigenvalue": eigenvalues(kernel)[..., 0] / kernel.shape[-1],
            "label_share": overlap.share[..., : self.directions].sum(dim=-1),
            "intrinsic_dimension": intrinsic_dimension(kernel).value,
        }

    def state_dict(self) -> dict[str, Any]:
        """Returns the last measurements for the checkpoint."""
        return {} if self._settled is None else {"settled": self._settled, "columns": self._columns}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the last measurements from a checkpoint."""
        if state_dict:
            self._settled, self._columns = state_dict["settled"], dict(state_dict["columns"])
