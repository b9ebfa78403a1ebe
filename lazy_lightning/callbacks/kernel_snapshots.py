"""Tangent kernels before and after training, stored as arrays for images and spectra."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pytorch_lightning import Trainer
from torch import Tensor

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
        ConfigError: a number is out of range; at the start of a run, the set is too small.
    """

    def __init__(self, samples: int = 100, split: Set | None = None, seeds: int = 1) -> None:
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
        x = kernel_set(pl_module, self.split, self.samples, least=2).x[:2]
        try:
            self._kernel(pl_module, pl_module.w0, self._rows(pl_module)[:1], x)
        except Exception as error:
            self._measurable = False
            report_failure(self, "a trial of two samples", error, "there will be no kernels.safetensors")

    @torch.no_grad()
    def on_train_end(self, trainer: Trainer, pl_module: ObservableModule) -> None:  # type: ignore[override]
        """Computes and writes the kernels."""
        if trainer.log_dir is None or not trainer.is_global_zero or not pl_module.trains_network:
            return
        if not self._measurable:
            return
        rows = self._rows(pl_module)
        split = kernel_set(pl_module, self.split, self.samples, least=2)
        arrays = {
            "start": self._kernel(pl_module, pl_module.w0, rows, split.x),
            "end": self._kernel(pl_module, pl_module.w, rows, split.x),
            "labels": split.y,
            "index": split.index,
            "member": rows,
            "alpha": pl_module.ensemble.alpha_tensor()[rows.cpu()],
            "seed": torch.tensor(pl_module.ensemble.seeds)[rows.cpu()],
        }
        path = Path(trainer.log_dir) / KERNELS
        with warn_if_unwritten(pl_module, path), written_atomically(path) as temporary:
            save_arrays(arrays, temporary, SCHEMA)

    def _kernel(self, module: ObservableModule, w: Tensor, rows: Tensor, x: Tensor) -> Tensor:
        """Returns the kernels (M, n, n) of the members in ``rows``."""
        buffers = {name: b[rows] for name, b in module.member_buffers().items()}
        return empirical_ntk(module.network, w.detach()[rows], x, output="trace", buffers=buffers)

    def _rows(self, module: ObservableModule) -> Tensor:
        """Returns the indices of the first members of each alpha."""
        alphas = module.ensemble.alphas
        rows = [i for i, alpha in enumerate(alphas) if alphas[:i].count(alpha) < self.seeds]
        return torch.tensor(rows, device=module.w0.device)
