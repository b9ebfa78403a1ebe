"""Tangent kernels before and after training, stored as arrays for images and spectra."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pytorch_lightning import Trainer
from torch import Tensor

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.callbacks.kernel_drift import Set, kernel_set
from lazy_lightning.callbacks.saved_arrays import save_arrays
from lazy_lightning.callbacks.unwritten import warn_if_unwritten
from lazy_lightning.errors import ConfigError
from lazy_lightning.modules.guarded_callback import report_failure
from lazy_lightning.modules.observation import Sink
from lazy_lightning.ntk.empirical import empirical_ntk
from lazy_lightning.runs.atomic import written_atomically
from lazy_lightning.runs.run_files import KERNELS

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule

SCHEMA = 1


class KernelSnapshots(Sink):
    """Sink that writes the kernels of some members, summed over outputs, at w0 and at the end of the run.

    The file ``kernels.safetensors`` has the arrays ``start`` and ``end`` (M, n, n), ``labels`` and ``index`` (n,), and
    ``member``, ``alpha``, ``seed`` (M,), where ``member`` is the number in the run. A run on a frozen kernel has no
    such file.

    Args:
        samples: number n of samples.
        split: ``kernel``, ``test`` or ``train``; None for the data's kernel set, or its test set if that is empty.
        seeds: number of members of each alpha.

    Raises:
        ConfigError: a number is out of range; at the start of a run, the set is too small, or members have data seeds.
    """

    def __init__(self, samples: int = 100, split: Set | None = None, seeds: int = 1) -> None:
        check_arguments(KernelSnapshots, locals())
        if samples < 2 or seeds < 1:
            raise ConfigError(f"KernelSnapshots needs samples >= 2 and seeds >= 1, got {samples} and {seeds}")
        self.samples = samples
        self.split: Set | None = split
        self.seeds = seeds
        self._measurable = True

    @torch.no_grad()
    def on_train_start(self, trainer: Trainer, pl_module: ObservableModule) -> None:  # type: ignore[override]
        """Checks before training that the set is large enough and the network has a kernel."""
        if not pl_module.trains_network:
            return
        if pl_module.data_sets.differ:
            raise ConfigError(
                "KernelSnapshots needs samples that all members share, but model.data_seeds gives members data of "
                "their own: leave it out, or train one run for each data.train_seed"
            )
        x = kernel_set(pl_module, self.split, self.samples, least=2).x[:2]
        _, rows = pl_module.ranks.own_of(self._members(pl_module))
        try:
            pl_module.ranks.on_all(lambda: self._kernel(pl_module, pl_module.w0, rows[:1], x))
        except Exception as error:
            self._measurable = False
            report_failure(self, "a trial of two samples", error, "there will be no kernels.safetensors")

    @torch.no_grad()
    def on_train_end(self, trainer: Trainer, pl_module: ObservableModule) -> None:  # type: ignore[override]
        """Computes the kernels, on each rank those of its members, and writes them."""
        if trainer.log_dir is None or not pl_module.trains_network or not self._measurable:
            return
        ranks, members = pl_module.ranks, self._members(pl_module)
        split = kernel_set(pl_module, self.split, self.samples, least=2)
        kernels = ranks.gather_some(ranks.on_all(lambda: self._own_kernels(pl_module, members, split.x)), members)
        if not trainer.is_global_zero:
            return
        arrays = {
            **kernels,
            "labels": split.y,
            "index": split.index,
            "member": torch.tensor(members),
            "alpha": pl_module.ensemble.alpha_tensor()[members],
            "seed": torch.tensor(pl_module.ensemble.seeds)[members],
        }
        path = Path(trainer.log_dir) / KERNELS
        with warn_if_unwritten(pl_module, path), written_atomically(path) as temporary:
            save_arrays(arrays, temporary, SCHEMA)

    def _own_kernels(self, module: ObservableModule, members: list[int], x: Tensor) -> dict[str, Tensor]:
        """Returns the kernels (M_r, n, n) of those members that this rank trains."""
        if not module.sample_ranks.is_first:
            rows: list[int] = []  # the processes that train the same members have the same kernels
        else:
            _, rows = module.ranks.own_of(members)
        return {name: self._kernel(module, w, rows, x) for name, w in (("start", module.w0), ("end", module.w))}

    def _kernel(self, module: ObservableModule, w: Tensor, rows: list[int], x: Tensor) -> Tensor:
        """Returns the kernels (M, n, n) of the members in ``rows``, which are rows of this rank."""
        if not rows:
            return w.new_zeros(0, len(x), len(x))
        buffers = {name: b[rows] for name, b in module.member_buffers().items()}
        return empirical_ntk(module.network, w.detach()[rows], x, output="trace", buffers=buffers)

    def _members(self, module: ObservableModule) -> list[int]:
        """Returns the indices of the first members of each alpha."""
        alphas = module.ensemble.alphas
        return [i for i, alpha in enumerate(alphas) if alphas[:i].count(alpha) < self.seeds]
