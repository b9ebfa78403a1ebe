"""The columns of an observation as metrics of Lightning: for callbacks that monitor one, and for every logger.

``train/loss`` is the mean over all members, ``train/loss/alpha=0.1`` that over the members of one alpha.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import Logger, MLFlowLogger

from lazy_lightning.errors import ConfigError, suggestion
from lazy_lightning.modules.ensemble import Ensemble
from lazy_lightning.modules.guarded_callback import report_failure
from lazy_lightning.modules.observation import Record, Sink, finite_mean

_CODES = ("reason",)
"""Columns of which a mean is meaningless."""


def alpha_means(ensemble: Ensemble, record: Record) -> dict[float, dict[str, float]]:
    """Means of all columns over the members of each alpha; NaN where no member has a finite value."""
    alphas = np.asarray(ensemble.alphas)
    return {
        alpha: {name: finite_mean(c[alphas == alpha]) for name, c in record.columns.items() if name not in _CODES}
        for alpha in dict.fromkeys(ensemble.alphas)
    }


def metrics_of(ensemble: Ensemble, record: Record) -> dict[str, float]:
    """Every column's mean over all members, and over those of each alpha as ``COLUMN/alpha=A``.

    >>> record = Record(0, 0.0, False, {"t": np.array([1.0, 3.0])})
    >>> metrics_of(Ensemble.of([0.1, 10.0], 1), record)
    {'t': 2.0, 't/alpha=0.1': 1.0, 't/alpha=10': 3.0}
    """
    over_all = {name: finite_mean(column) for name, column in record.columns.items() if name not in _CODES}
    by_alpha = {
        f"{name}/alpha={alpha:g}": mean
        for alpha, means in alpha_means(ensemble, record).items()
        for name, mean in means.items()
    }
    return over_all | by_alpha


def update_callback_metrics(trainer: Trainer, metrics: Mapping[str, float]) -> None:
    """Puts metrics where ``EarlyStopping``, ``ModelCheckpoint`` and the like look, in float64.

    A metric that was not measured at this observation keeps its last value, and is NaN before its first.
    """
    known = trainer.callback_metrics
    for name, value in metrics.items():
        if math.isfinite(value) or name not in known:
            known[name] = torch.tensor(value, dtype=torch.float64)


def log_metrics(trainer: Trainer, metrics: Mapping[str, float], step: int) -> None:
    """Hands the finite metrics to every logger that no sink writes to; the step is the count of observations.

    A logger that fails is reported once, and the others are still written to.
    """
    finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
    for logger in trainer.loggers:
        if not _has_sink(trainer, logger):
            named = names_for_mlflow(finite) if isinstance(logger, MLFlowLogger) else finite
            try:
                logger.log_metrics(named, step=step)
                logger.save()
            except Exception as error:
                report_failure(logger, "log_metrics", error)


def names_for_mlflow(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics with names that MLflow accepts: letters, digits and ``_/. -``, no name the folder of another one.

    Lightning's logger would leave other characters out, so that names could become equal.

    >>> names_for_mlflow({"train/loss": 0.1, "train/loss/alpha=0.1": 0.2, "own/share[%]/alpha=1e+07": 0.3})
    {'train/loss': 0.1, 'train/loss.alpha_0.1': 0.2, 'own/share___.alpha_1e07': 0.3}
    """
    named = {name.replace("/alpha=", ".alpha_").replace("e+", "e"): value for name, value in metrics.items()}
    return {re.sub(r"[^a-zA-Z0-9_/. -]", "_", name): value for name, value in named.items()}


def require_known_monitors(trainer: Trainer) -> None:
    """Checks what callbacks monitor against the metrics of the first observation.

    Raises:
        ConfigError: no metric has the name; those of a validation loop are not known yet and pass.
    """
    known = list(trainer.callback_metrics)
    for callback in _monitoring(trainer):
        monitor = callback.monitor
        if monitor is not None and monitor not in known and not monitor.startswith("val/"):
            columns = ", ".join(name for name in known if "/alpha=" not in name)
            raise ConfigError(
                f"{type(callback).__name__} monitors {monitor!r}, which is not measured"
                f"{suggestion(monitor, known)}; the columns are {columns}, each also as COLUMN/alpha=A"
            )


def stopped_early(trainer: Trainer) -> bool:
    """Whether an ``EarlyStopping`` has ended the present session."""
    stoppers = [callback for callback in _monitoring(trainer) if isinstance(callback, EarlyStopping)]
    return any(stopper.stopping_reason_message is not None for stopper in stoppers)


def forget_early_stops(trainer: Trainer) -> None:
    """Clears the reason for which ``EarlyStopping`` ended an earlier session, which a checkpoint brings back."""
    for callback in _monitoring(trainer):
        if isinstance(callback, EarlyStopping):
            callback.stopping_reason_message = None


def _monitoring(trainer: Trainer) -> list[EarlyStopping | ModelCheckpoint]:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return [callback for callback in callbacks if isinstance(callback, (EarlyStopping, ModelCheckpoint))]


def _has_sink(trainer: Trainer, logger: Logger) -> bool:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return any(isinstance(callback, Sink) and callback.writes_to(logger) for callback in callbacks)


def check_monitors_of_one_epoch(trainer: Trainer) -> None:
    """Checks callbacks that act at the ends of epochs, of which a flow has one.

    Raises:
        ConfigError: a callback would never do anything in a run of one epoch.
    """
    for callback in _monitoring(trainer):
        if isinstance(callback, ModelCheckpoint) and callback._every_n_epochs > 1:
            raise ConfigError(
                f"ModelCheckpoint saves every {callback._every_n_epochs} epochs, but a flow is one epoch: leave "
                "every_n_epochs out (each observation counts as one), or set every_n_train_steps, counted in bursts"
            )
        if isinstance(callback, EarlyStopping) and callback._check_on_train_epoch_end is False:
            raise ConfigError(
                "EarlyStopping looks after each validation, of which a flow has none: leave check_on_train_epoch_end, "
                "trainer.val_check_interval and trainer.check_val_every_n_epoch out"
            )


def act_on_observation(trainer: Trainer, module: object) -> None:
    """Lets callbacks that monitor a metric act now, as at the end of an epoch: a flow has one epoch alone.

    A metric that has not been measured yet is waited for.
    """
    for callback in _monitoring(trainer):
        value = trainer.callback_metrics.get(callback.monitor or "")
        if value is not None and bool(value.isfinite()):
            callback.on_train_epoch_end(trainer, module)  # type: ignore[arg-type]
