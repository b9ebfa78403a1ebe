"""Outputs of every member at the end of a run, for averages and variances over the ensemble."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pytorch_lightning import Trainer

from lazy_lightning.callbacks.saved_arrays import save_arrays
from lazy_lightning.callbacks.unwritten import warn_if_unwritten
from lazy_lightning.modules.observation import Sink
from lazy_lightning.runs.atomic import written_atomically
from lazy_lightning.runs.run_files import OUTPUTS

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule

SCHEMA = 1


class OutputsWriter(Sink):
    """Sink that writes F of every member on the training and test sets, with labels, alphas and seeds.

    The file ``outputs.safetensors`` has the arrays ``train/outputs`` (E, n[, c]), ``train/labels`` and ``train/index``
    (the index of each sample in its source), the same arrays of the test set, and ``alpha``, ``seed`` (E,). With data
    seeds there is ``data_seed`` (E,), and labels and index are (E, n[, c]) and (E, n), of each member its own.
    """

    @torch.no_grad()
    def on_train_end(self, trainer: Trainer, pl_module: ObservableModule) -> None:  # type: ignore[override]
        """Writes the outputs, also after a signal."""
        if trainer.log_dir is None:
            return
        own = pl_module.ranks.on_all(lambda: {"train": pl_module.train_outputs, "test": pl_module.held_out()})
        whole = pl_module.whole(own)
        if not trainer.is_global_zero:
            return
        arrays = {"alpha": pl_module.ensemble.alpha_tensor(), "seed": torch.tensor(pl_module.ensemble.seeds)}
        sets = (
            ("train", pl_module.train_split, whole["train"]),
            ("test", pl_module.test_split, whole["test"]),
        )
        for name, split, outputs in sets:
            arrays |= {f"{name}/outputs": outputs, f"{name}/labels": split.y, f"{name}/index": split.index}
        if pl_module.ensemble.data_seeds is not None:
            arrays["data_seed"] = torch.tensor(pl_module.ensemble.data_seeds)
            splits = {"train": pl_module.whole_split("train"), "test": pl_module.whole_split("test")}
            arrays |= {f"{name}/labels": split.y for name, split in splits.items()}
            arrays |= {f"{name}/index": split.index for name, split in splits.items()}
        path = Path(trainer.log_dir) / OUTPUTS
        with warn_if_unwritten(pl_module, path), written_atomically(path) as temporary:
            save_arrays(arrays, temporary, SCHEMA)
