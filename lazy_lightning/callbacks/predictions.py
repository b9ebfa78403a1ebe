"""Writer of the outputs that ``predict`` computes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import BasePredictionWriter
from safetensors.torch import save_file

from lazy_lightning.plain_text import printable
from lazy_lightning.runs.atomic import written_atomically

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule


class PredictionWriter(BasePredictionWriter):
    """Writer of ``predictions.safetensors``: F (n, E[, c]) on the test set, labels, indices, alphas and seeds."""

    def __init__(self) -> None:
        super().__init__("epoch")

    def write_on_epoch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: ObservableModule, predictions: Sequence[Any], batch_indices: Sequence[Any]
    ) -> None:
        """Concatenates the batches and writes one file, with the members of all ranks."""
        if trainer.log_dir is None or not trainer.is_global_zero:
            return
        path = Path(trainer.log_dir) / "predictions.safetensors"
        test = pl_module.data.test
        arrays = {
            "outputs": torch.cat([p.cpu() for p in predictions]).contiguous(),
            "labels": test.y.contiguous(),
            "index": test.index.contiguous(),
            "alpha": pl_module.ensemble.alpha_tensor(),
            "seed": torch.tensor(pl_module.ensemble.seeds),
        }
        with written_atomically(path) as temporary:
            save_file(arrays, str(temporary))
        print(f"predictions in {printable(path)}")
