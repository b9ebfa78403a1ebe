"""The command line: ``python -m lazy_lightning fit --config digits_fc.yaml``."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, Checkpoint, ProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from lazy_lightning import __version__, messages
from lazy_lightning.atomic import require_writable
from lazy_lightning.bundled import resolve_configs
from lazy_lightning.callbacks import (
    ClosingSummary,
    Curves,
    FlowProgressBar,
    GracefulStop,
    LearningCurves,
    RunCheckpoint,
    TangentDeparture,
    TensorBoardScalars,
)
from lazy_lightning.callbacks.predictions import PredictionWriter
from lazy_lightning.data import FlowData
from lazy_lightning.denormals import flush_denormals
from lazy_lightning.errors import ConfigError, LazyLightningError, RunError
from lazy_lightning.modules import FlowModule

DEBUG_VARIABLE = "LAZY_LIGHTNING_DEBUG"

_LOGGER = {
    "class_path": "pytorch_lightning.loggers.TensorBoardLogger",
    "init_args": {"save_dir": "runs", "name": "flow", "default_hp_metric": False},
}


class FlowArgumentParser(LightningArgumentParser):
    """A parser whose errors are ours: one sentence."""

    def error(self, message: str, ex: Exception | None = None) -> Any:
        """Raises instead of printing the usage of several hundred options."""
        raise ConfigError(messages.one_sentence(message)) from ex


class FlowCLI(LightningCLI):
    """LightningCLI with the papers' defaults, and the callbacks that every run has."""

    def __init__(self, args: Sequence[str]) -> None:
        super().__init__(
            LightningModule,
            FlowData,
            subclass_mode_model=True,
            subclass_mode_data=True,
            parser_class=FlowArgumentParser,
            trainer_defaults=_trainer_defaults(),
            seed_everything_default=False,  # every random number here has a seed of its own
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            parser_kwargs={"dump_header": [f"lazy-lightning=={__version__}"]},
            args=list(args),
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses what ``main`` was given; the stock method warns about it when ``sys.argv`` is not empty too."""
        self.config = parser.parse_args(args)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Leaves out the callbacks that the trainer has been told to do without."""
        chosen = self._get(self.config_init, "trainer", default={})
        unwanted: list[type[Callback]] = []
        if chosen.get("enable_progress_bar") is False:
            unwanted.append(ProgressBar)
        if chosen.get("enable_checkpointing") is False:
            unwanted.append(Checkpoint)
        always = self.trainer_defaults["callbacks"]
        self.trainer_defaults["callbacks"] = [c for c in always if not isinstance(c, tuple(unwanted))]
        return super().instantiate_trainer(**kwargs)

    def before_fit(self) -> None:
        """Finds out that the run's folder cannot be written before anything is computed."""
        if self.trainer.log_dir is not None:
            require_writable(Path(self.trainer.log_dir))

    def after_fit(self) -> None:
        """Ends with an error if there is nothing to show.

        Raises:
            RunError: if every member failed.
        """
        if isinstance(self.model, FlowModule):
            reasons = self.model.flow.reasons
            if all(reason.failed for reason in reasons):
                raise RunError(
                    f"all {len(reasons)} members failed ({', '.join(sorted({r.sentence for r in reasons}))}): "
                    "check the data for non-finite values, try a smaller --model.dt, or --trainer.precision 64-true; "
                    f"what was observed is in {self.trainer.log_dir}"
                )


def _trainer_defaults() -> dict[str, Any]:
    return {
        "accelerator": "auto",
        "devices": 1,
        "precision": "64-true",
        "max_epochs": -1,  # the flow itself says when it ends
        "logger": _LOGGER,
        "num_sanity_val_steps": 0,
        "enable_model_summary": False,
        "callbacks": [
            TangentDeparture(),
            Curves(),
            TensorBoardScalars(),
            FlowProgressBar(),
            LearningCurves(),
            ClosingSummary(),
            RunCheckpoint(),
            GracefulStop(),
            PredictionWriter(),
        ],
    }


def main(args: Sequence[str] | None = None) -> int:
    """Runs one subcommand and returns the exit code; the console script and ``python -m lazy_lightning``.

    0: done. 1: the run failed. 2: the configuration is wrong. 130: stopped by a signal, all written.
    """
    flush_denormals()
    quieten()
    try:
        cli = FlowCLI(resolve_configs(sys.argv[1:] if args is None else args))
    except LazyLightningError as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    stops = [c for c in cli.trainer.callbacks if isinstance(c, GracefulStop)]  # type: ignore[attr-defined]
    return 130 if any(stop.received for stop in stops) else 0


def quieten() -> None:
    """Silences advice that does not apply: our loader has no workers to add, and tips are not results."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("fontTools").setLevel(logging.ERROR)  # remarks on the time stamps of fonts, once a PDF
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*torch.jit.script.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
