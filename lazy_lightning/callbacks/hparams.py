"""What TensorBoard's HPARAMS tab shows: the main settings and the last values of the main columns of every alpha."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from lazy_lightning.callbacks.last_record import LastRecord
from lazy_lightning.callbacks.scalars import MAIN_COLUMNS, alpha_folder, tag_of
from lazy_lightning.callbacks.unwritten import warn_if_unwritten
from lazy_lightning.modules.observation import Record, finite_mean
from lazy_lightning.runs import configuration
from lazy_lightning.runs.run_files import CONFIG

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule

METRICS = (*MAIN_COLUMNS, "population/loss", "population/error", "t1/half_loss", "t", "tried")
"""Columns that the tab shows, in this order; all others are in the Scalars tab and in ``summary.json``."""
_SETTINGS = (
    "model",
    "model.network",
    "model.loss",
    "model.tau",
    "model.centering",
    "model.optimizer",
    "data",
    "data.labels",
    "data.n_train",
    "data.batch_size",
    "trainer.precision",
)
"""Keys of the configuration that the tab shows before the metrics, and of the network and the optimizer all keys."""


class HParams(LastRecord):
    """One session for each alpha, in its TensorBoard run ``tb/alpha=A``: means over its members at the end.

    The tab compares runs by one number each, so alphas that share a run need sessions of their own. Few settings come
    first, then the metrics, the test error before all others. Needs a TensorBoard logger; the settings are those of the
    run's ``config.yaml``, and without one its alpha and h alone.
    """

    def on_fit_end(self, trainer: Trainer, pl_module: ObservableModule) -> None:  # type: ignore[override]
        """Writes the sessions."""
        last = self.last(trainer)
        logs = any(isinstance(logger, TensorBoardLogger) for logger in trainer.loggers)
        if last is None or not logs or trainer.log_dir is None or not trainer.is_global_zero:
            return
        folder = Path(trainer.log_dir)
        shared = _configured(folder)
        for alpha in dict.fromkeys(pl_module.ensemble.alphas):
            session = alpha_folder(folder, alpha)
            with warn_if_unwritten(pl_module, session):
                self._write(session, pl_module, alpha, shared, last)

    def _write(
        self, folder: Path, module: ObservableModule, alpha: float, shared: dict[str, Any], last: Record
    ) -> None:
        width = getattr(module.network.template, "width", None)
        scale = {} if width is None else {"h": float(width), "sqrt_h_alpha": float(np.sqrt(width) * alpha)}
        rows = np.asarray(module.ensemble.alphas) == alpha
        values = {tag_of(n): finite_mean(last.columns[n][rows]) for n in METRICS if n in last.columns}
        metrics = {name: value for name, value in values.items() if math.isfinite(value)}
        with SummaryWriter(str(folder)) as writer:
            chosen = {"alpha": alpha, **scale, "seeds": int(rows.sum()), **shared}
            for summary in hparams(chosen, metrics):  # type: ignore[no-untyped-call]
                writer._get_file_writer().add_summary(summary)  # add_hparams would make yet another folder
            for name, value in metrics.items():  # the last point of the curve, which a run that had ended has no more
                writer.add_scalar(name, value, last.index)


def _configured(folder: Path) -> dict[str, Any]:
    """What the tab can show of the configuration: numbers, words, yes and no."""
    if not (folder / CONFIG).is_file():
        return {}
    flat = configuration.flatten(configuration.load_config(folder))
    shown = {k: v for k, v in flat.items() if isinstance(v, (bool, int, float, str))}
    return {k: v for k, v in shown.items() if k in _SETTINGS or k.startswith(("model.network.", "model.optimizer."))}
