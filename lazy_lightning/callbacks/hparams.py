"""What TensorBoard's HPARAMS tab shows: the configuration and the last values of every alpha."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from lazy_lightning import configuration
from lazy_lightning.callbacks.last_record import LastRecord
from lazy_lightning.observation import Record, finite_mean
from lazy_lightning.run_files import CONFIG

if TYPE_CHECKING:
    from lazy_lightning.modules.flow_module import FlowModule

PREFIX = "final"
_NO_RESULTS = ("dt", "reason", "accepted")


class HParams(LastRecord):
    """One session for each alpha, in a folder ``hparams/alpha=A`` of the run: means over its members, under ``final/``.

    The tab compares runs by one number each, so alphas that share a run need sessions of their own. Needs a TensorBoard
    logger; the configuration is that of the run's ``config.yaml``, and without one its alpha and h alone.
    """

    def on_fit_end(self, trainer: Trainer, pl_module: FlowModule) -> None:  # type: ignore[override]
        """Writes the sessions."""
        last = self.last(trainer)
        logs = any(isinstance(logger, TensorBoardLogger) for logger in trainer.loggers)
        if last is None or not logs or trainer.log_dir is None or not trainer.is_global_zero:
            return
        folder = Path(trainer.log_dir)
        shared = _configured(folder)
        for alpha in dict.fromkeys(pl_module.roster.alphas):
            self._write(folder / "hparams" / f"alpha={alpha:g}", pl_module, alpha, shared, last)

    def _write(self, folder: Path, module: FlowModule, alpha: float, shared: dict[str, Any], last: Record) -> None:
        width = getattr(module.network.template, "width", None)
        scale = {} if width is None else {"h": float(width), "sqrt_h_alpha": float(np.sqrt(width) * alpha)}
        rows = np.asarray(module.roster.alphas) == alpha
        values = {f"{PREFIX}/{n}": finite_mean(c[rows]) for n, c in last.columns.items() if n not in _NO_RESULTS}
        metrics = {name: value for name, value in values.items() if math.isfinite(value)}
        with SummaryWriter(str(folder)) as writer:
            chosen = {**shared, "alpha": alpha, **scale, "seeds": int(rows.sum())}
            for summary in hparams(chosen, metrics):  # type: ignore[no-untyped-call]
                writer._get_file_writer().add_summary(summary)  # add_hparams would make yet another folder
            for name, value in metrics.items():
                writer.add_scalar(name, value, 0)


def _configured(folder: Path) -> dict[str, Any]:
    """What the tab can show of the configuration: numbers, words, yes and no."""
    if not (folder / CONFIG).is_file():
        return {}
    flat = configuration.flatten(configuration.load_config(folder))
    skipped = ("model.alpha", "model.seeds")  # the session's own are shown
    return {k: v for k, v in flat.items() if isinstance(v, (bool, int, float, str)) and k not in skipped}
