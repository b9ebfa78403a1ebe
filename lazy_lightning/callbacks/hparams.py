"""Content of TensorBoard's HPARAMS tab: the main settings and the last values of the main columns for each alpha."""

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
"""Columns in the tab, in this order; all others are in the Scalars tab and in ``summary.json``."""
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
"""Keys of the configuration before the metrics in the tab, besides all keys of the network and the optimizer."""


class HParams(LastRecord):
    """Sink that writes one session for each alpha in its TensorBoard run ``tb/alpha=A``: means over members at the end.

    The tab has one value of a metric for each run, so alphas in the same run need separate sessions. The main settings
    come first, then the metrics, starting with the test error. The sink needs a TensorBoard logger. The settings are
    those in the run's ``config.yaml``, or only alpha and h without this file.
    """

    def on_fit_end(self, trainer: Trainer, pl_module: ObservableModule) -> None:  # type: ignore[override]
        """Writes the session of each alpha."""
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
                writer._get_file_writer().add_summary(summary)  # add_hparams would create another folder
            for name, value in metrics.items():  # the last point of the curve, which a run resumed after its end lacks
                writer.add_scalar(name, value, last.index)


def _configured(folder: Path) -> dict[str, Any]:
    """Returns the settings of the configuration that the tab can show: numbers, strings and booleans."""
    if not (folder / CONFIG).is_file():
        return {}
    flat = configuration.flatten(configuration.load_config(folder))
    shown = {k: v for k, v in flat.items() if isinstance(v, (bool, int, float, str))}
    return {k: v for k, v in shown.items() if k in _SETTINGS or k.startswith(("model.network.", "model.optimizer."))}
