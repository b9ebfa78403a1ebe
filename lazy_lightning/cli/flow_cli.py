"""FlowCLI: LightningCLI with the papers' defaults, and with what it would ignore refused."""

from __future__ import annotations

import contextlib
import csv
import re
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from lightning_fabric.loggers.logger import _DummyExperiment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, Checkpoint, ProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter

from lazy_lightning import __version__
from lazy_lightning.callbacks import (
    ClosingSummary,
    Curves,
    FlowProgressBar,
    GracefulStop,
    HParams,
    KernelSnapshots,
    LearningCurves,
    NeuronPaths,
    OutputsWriter,
    RunCheckpoint,
    TangentDeparture,
    TensorBoardScalars,
)
from lazy_lightning.callbacks.predictions import PredictionWriter
from lazy_lightning.cli import messages
from lazy_lightning.cli.allowed import check_classes
from lazy_lightning.cli.bundled import empty_mappings, read_config
from lazy_lightning.cli.parser import (
    KERNEL_OPTIONS,
    FlowArgumentParser,
    ParserError,
    bound_parser,
    decided_by_data,
    default_arguments,
)
from lazy_lightning.cli.resume import require_same_run
from lazy_lightning.cli.run_claim import claimed_folders, locked_folder
from lazy_lightning.cli.trainer import FlowTrainer, SaveConfig
from lazy_lightning.data import FlowData
from lazy_lightning.errors import ConfigError, LazyLightningError, RunError
from lazy_lightning.modules import FlowModule, KernelModule, MiniBatchModule, ObservedModule
from lazy_lightning.modules.member_strategy import NAME, MemberStrategy
from lazy_lightning.modules.observation import Observer, Sink
from lazy_lightning.modules.ranks import Ranks
from lazy_lightning.runs.atomic import require_writable, written_atomically
from lazy_lightning.runs.checkpoints import KEY, read_checkpoint
from lazy_lightning.runs.run_files import CHECKPOINT

_LOGGER = {
    "class_path": "pytorch_lightning.loggers.TensorBoardLogger",
    "init_args": {"save_dir": "runs", "name": "flow", "default_hp_metric": False},
}
_PRECISIONS = ("64-true", "32-true", "64", "32")
_KERNEL_DEFAULTS = {"at": "init", "layers": None, "kernel_outputs": "full", "checkpoint": None}
_TEXT_OR_CLASS = ("loss", "controller")
_SINGLE = (Observer, Sink, Checkpoint, GracefulStop, PredictionWriter)


class FlowCLI(LightningCLI):
    """LightningCLI with the papers' defaults, and the callbacks that every run has.

    Args:
        args: the command line.
        folder: of the run, instead of what the logger chooses; a run that was stopped there goes on.
        callbacks: beside those of the configuration.
        resumed: the folder's own configuration is the first of the command line, and its loggers go on.
    """

    def __init__(
        self,
        args: Sequence[str],
        folder: Path | None = None,
        callbacks: Sequence[Callback] = (),
        resumed: bool = False,
    ) -> None:
        self._folder, self._resumed = folder, resumed
        self._begins_from: tuple[str, int] | None = None
        bound_parser()
        parsers = {name: skipped for name, skipped in self.subcommands().items() if name in ("fit", *args[:1])}
        self.subcommands = lambda: parsers  # type: ignore[method-assign]  # each parser takes a tenth of a second
        header = {
            "dump_header": [f"lazy-lightning=={__version__}", f"pytorch-lightning=={version('pytorch-lightning')}"]
        }
        super().__init__(
            LightningModule,
            FlowData,
            subclass_mode_model=True,
            subclass_mode_data=True,
            parser_class=FlowArgumentParser,
            save_config_callback=SaveConfig,
            save_config_kwargs={"overwrite": folder is not None, "save_to_log_dir": False},  # but by itself
            trainer_class=FlowTrainer,
            trainer_defaults=_trainer_defaults(callbacks),
            seed_everything_default=False,  # every random number here has a seed of its own
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            parser_kwargs={
                "prog": "lazy-lightning",
                "description": "Follows the gradient flow of alpha-centred neural networks, lazy or feature-learning.",
                **{name: dict(header) for name in parsers},
            },
            args=list(args),
        )

    @property
    def exit_code(self) -> int:
        """130 if a signal has stopped the run."""
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        return 130 if any(isinstance(c, GracefulStop) and c.received for c in callbacks) else 0

    # ------------------------------------------------------------------ parsing

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        """Checkpoints are loaded without running code from them, unless asked for."""
        super().setup_parser(*args, **kwargs)
        for name, parser in self._subcommand_parsers.items():
            if name != "sweep":
                parser.set_defaults({"weights_only": True})

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The trainer's, ``kernel`` and ``sweep``."""
        return {**LightningCLI.subcommands(), **{name: {"model", "datamodule"} for name in ("kernel", "sweep")}}

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses what ``main`` was given; the stock method warns about it when ``sys.argv`` is not empty too."""
        self.config = parser.parse_args(args)
        subcommand = self.config["subcommand"]
        named = dotted_names(self.config[subcommand])
        if named:
            self.config = parser.parse_args([*args, *named])
        config = self.config[subcommand]
        check_classes(config, FlowTrainer)
        refuse_dropped(config)
        _require_checkpoint(subcommand, config.get("ckpt_path"))
        if self._resumed and self._folder is not None:
            require_same_run(yaml.safe_load(parser.dump(self.config, skip_none=False))[subcommand], self._folder)
        if subcommand == "kernel":
            _freeze_kernel(config)
        refuse_ignored(config)

    def _parse_ckpt_path(self) -> None:
        """A checkpoint holds numbers; the stock method would let it choose the class of the model."""

    # ------------------------------------------------------------------ building

    def instantiate_classes(self) -> None:
        """Builds model, data and trainer.

        Raises:
            ConfigError: for a value that one of them refuses.
        """
        try:
            super().instantiate_classes()
        except LazyLightningError:
            raise
        except (ValueError, TypeError, ImportError, MisconfigurationException) as error:
            raise ParserError(str(error)) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Gives the trainer each observer once, and leaves out the callbacks that it has been told to do without."""
        chosen = self._get(self.config_init, "trainer", default={})
        given = chosen.get("callbacks") or []
        given = single_observers(given if isinstance(given, list) else [given])
        chosen["callbacks"] = given
        unwanted: list[type[Callback]] = [type(c) for c in given if isinstance(c, _SINGLE)]
        if chosen.get("enable_progress_bar") is False or chosen.get("barebones"):
            unwanted.append(ProgressBar)
        if chosen.get("enable_checkpointing") is False or chosen.get("barebones"):
            unwanted.append(Checkpoint)
        always = self.trainer_defaults["callbacks"]
        self.trainer_defaults["callbacks"] = [c for c in always if not isinstance(c, tuple(unwanted))]
        if self._folder is not None:
            chosen["logger"] = loggers_in(self._folder, chosen.get("logger") if self._resumed else True)
        if chosen.get("strategy") in ("ddp", NAME):
            chosen["strategy"] = MemberStrategy()  # the stock one would make all ranks copies of the first
        trainer = super().instantiate_trainer(**kwargs)
        trainer.default_root_dir_given = chosen.get("default_root_dir") is not None  # type: ignore[attr-defined]
        return trainer

    def after_instantiate_classes(self) -> None:
        """Refuses what would be ignored, or silently wrong.

        Raises:
            ConfigError: for several devices without the strategy ddp, mini-batches in full-batch flow, or none where
                they are needed.
        """
        if self.trainer.world_size > 1:
            require_member_shards(self.trainer, self.model, str(self.subcommand))
        require_batches_that_fit(self.model, self.datamodule)

    # ------------------------------------------------------------------ running

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """A run whose folder has been given goes on from the checkpoint there; its configuration does not name it."""
        arguments: dict[str, Any] = super()._prepare_subcommand_kwargs(subcommand)
        if self._folder is not None and (self._folder / CHECKPOINT).is_file():
            arguments["ckpt_path"] = str(self._folder / CHECKPOINT)
        if subcommand == "fit" and (path := arguments.get("ckpt_path")) is not None:
            self._begins_from = str(path), read_checkpoint(Path(path))[KEY]["observations"]
        return arguments

    def _run_subcommand(self, subcommand: str) -> None:
        """Finds out that the folder cannot be written or the data not be read before anything is computed or made."""
        if (place := _place_of_runs(self.trainer)) is not None:
            require_writable(place)
        self.datamodule.setup()  # once; the trainer would first make the folder
        trains = subcommand in ("fit", "kernel")
        if not trains:
            write_no_events(self.trainer)
        try:
            with contextlib.ExitStack() as stack:
                if trains and self.trainer.is_global_zero:
                    stack.enter_context(claimed_folders(self.trainer))
                    stack.enter_context(locked_folder(self.trainer.log_dir))
                super()._run_subcommand(subcommand)
        except (RuntimeError, ValueError) as error:
            if _get_ckpt_path(self) is None or not re.search(r"loading state_dict for|the saved flow", str(error)):
                raise
            raise RunError(
                f"the checkpoint {_get_ckpt_path(self)} does not fit this configuration "
                f"({messages.squeeze(str(error))[:300]}): use the config.yaml in its folder"
            ) from error

    def after_fit(self) -> None:
        """Ends with an error if there is nothing to show.

        Raises:
            RunError: if every member failed.
        """
        reasons = self.model.reasons if isinstance(self.model, ObservedModule) else []
        if reasons:
            self._tell_if_nothing_was_left(", ".join(sorted({reason.sentence for reason in reasons})))
            if all(reason.failed for reason in reasons):
                kept = f"; what was observed is in {self.trainer.log_dir}" if self.trainer.log_dir else ""
                raise RunError(
                    f"all {len(reasons)} members failed ({', '.join(sorted({r.sentence for r in reasons}))}): "
                    "check the data for huge values, try a smaller --model.dt, or --trainer.precision 64-true" + kept
                )

    def after_kernel(self) -> None:
        """As after a fit."""
        self.after_fit()

    def after_validate(self) -> None:
        """Prints the result, which the trainer does only for what is sent to a logger."""
        if not self.trainer.logged_metrics:
            for name, value in sorted(self.trainer.callback_metrics.items()):
                print(f"{name:<40} {float(value):.6g}")

    def _tell_if_nothing_was_left(self, stops: str) -> None:
        if self._begins_from is None:
            return
        ckpt_path, observations = self._begins_from
        if observations == self.model.observations:
            print(f"nothing was left to do: all members of {ckpt_path} had ended ({stops}); raise model.stop to go on")


def dotted_names(config: Any) -> list[str]:
    """Arguments that say as a ``class_path`` what a configuration says by a dotted name alone.

    Where an argument takes a text or a class (``loss: str | Loss``), the parser takes every name as a text.
    """
    found = []
    for argument in _TEXT_OR_CLASS:
        value = config.get(f"model.init_args.{argument}")
        if isinstance(value, str) and "." in value and all(part.isidentifier() for part in value.split(".")):
            found.append(f"--model.{argument}={{class_path: {value}}}")
    return found


def single_observers(callbacks: Sequence[Callback]) -> list[Callback]:
    """Each observer or sink once: where a class comes twice, as in a preset stacked on a base, the later one stays."""
    kept: dict[Any, Callback] = {}
    for callback in callbacks:
        kept[type(callback) if isinstance(callback, _SINGLE) else id(callback)] = callback
    return list(kept.values())


def loggers_in(folder: Path, chosen: Any) -> Any:
    """The loggers of a run in a folder that is given, which add to what they have written there.

    Args:
        folder: the run's.
        chosen: the configuration's logger or loggers; True for TensorBoard, False for none. One that numbers no folders
            (W&B, MLflow) stays as it is.
    """
    if isinstance(chosen, (list, tuple)):
        return [loggers_in(folder, each) for each in chosen]
    if chosen is True or isinstance(chosen, TensorBoardLogger):
        return TensorBoardLogger(folder.parent, name="", version=folder.name, default_hp_metric=False)
    return continued_csv(folder) if isinstance(chosen, CSVLogger) else chosen


def continued_csv(folder: Path) -> CSVLogger:
    """A CSV logger that keeps the rows in the folder's ``metrics.csv``; the stock one deletes the file."""
    file = folder / ExperimentWriter.NAME_METRICS_FILE
    earlier = file.read_bytes() if file.is_file() else b""
    logger = CSVLogger(folder.parent, name="", version=folder.name)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Experiment logs directory")
        writer = logger.experiment
    if earlier:
        with written_atomically(file) as temporary:
            temporary.write_bytes(earlier)
        writer.metrics_keys = next(csv.reader(earlier.decode().splitlines()))
    return logger


def write_no_events(trainer: Trainer) -> None:
    """Keeps evaluations out of TensorBoard, where each would be a run without a curve."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger._experiment = _DummyExperiment()  # type: ignore[assignment]


def _place_of_runs(trainer: Trainer) -> Path | None:
    """The folder in which the run's own is made; asks no logger for its version, which is claimed later."""
    logger = trainer.logger
    if isinstance(logger, (TensorBoardLogger, CSVLogger)):
        return Path(logger.root_dir)
    return None if trainer.log_dir is None else Path(trainer.log_dir)


def _get_ckpt_path(cli: FlowCLI) -> str | None:
    path: str | None = cli._get(cli.config, "ckpt_path")
    return path


def _require_checkpoint(subcommand: str, ckpt_path: Any) -> None:
    if ckpt_path is not None:
        read_checkpoint(Path(ckpt_path))
    elif subcommand not in ("fit", "kernel", "sweep"):
        raise ConfigError(
            f"{subcommand} needs what a run has learnt: give --config RUN/config.yaml --ckpt_path RUN/checkpoint.ckpt"
        )


def require_flow(model: str, what: str) -> None:
    """Raises ConfigError if the class at this path has no flow for its frozen kernel to follow."""
    if not model.endswith((".FlowModule", ".KernelModule")):
        raise ConfigError(
            f"{what} freezes the tangent kernel of a FlowModule, but the model is {model}: beside mini-batch training "
            "the linearisation is a companion, model.companions: [linearized]"
        )


def _freeze_kernel(config: Any) -> None:
    """Puts the kernel's module in the place of the network's; the saved configuration is then one for ``fit``.

    Raises:
        ConfigError: if the model is no FlowModule.
    """
    require_flow(str(config.get("model.class_path")), "kernel")
    given = {name: config.pop(name) for name in KERNEL_OPTIONS}
    config.pop("weights_only")
    checkpoint = config.pop("ckpt_path")
    if checkpoint is not None:
        given["checkpoint"] = str(checkpoint)
        given["at"] = given["at"] or "end"
    config.model.class_path = f"{KernelModule.__module__}.{KernelModule.__name__}"
    model = config.model.init_args
    for option, default in _KERNEL_DEFAULTS.items():
        chosen = (given.get(option), model.get(option), default)  # a kernel flow's own configuration has some already
        model[option] = next((value for value in chosen if value is not None), None)


def refuse_dropped(config: Any) -> None:
    """Refuses an unknown key whose value is an empty mapping, which the parser drops without a word."""
    for path in config.get("config") or []:
        for keys in empty_mappings(read_config(Path(path))):
            if keys and not _is_known(config, keys):
                raise ConfigError(f"unknown key {'.'.join(keys)} ({path}): it holds an empty mapping, leave it out")


def _is_known(config: Any, keys: Sequence[str]) -> bool:
    """Whether a parsed configuration has this path; the arguments of a class may be given without ``init_args``."""
    for key in keys:
        key = key.removesuffix("+")
        if key in ("init_args", "dict_kwargs", "class_path"):
            continue
        content = vars(config) if hasattr(config, "as_dict") else config
        if not isinstance(content, Mapping):
            return True  # what follows is no class, and has been checked by its own type
        if key not in content and "init_args" in content:
            arguments = content["init_args"]
            content = vars(arguments) if hasattr(arguments, "as_dict") else arguments
        if key not in content:
            return False
        config = content[key]
    return True


def refuse_ignored(config: Any) -> None:
    """What would be changed without a word: half precision on a CPU, and a network's shape, which the data decide."""
    seed = config.get("seed_everything")
    if not isinstance(seed, bool) and seed is not None and not 0 <= seed < 2**32:
        raise ConfigError(f"seed_everything is {seed}, expected an integer from 0 to {2**32 - 1}, or false")
    precision = config.get("trainer.precision")
    model = str(config.get("model.class_path"))
    if model.endswith((".FlowModule", ".KernelModule", ".MiniBatchModule")) and str(precision) not in _PRECISIONS:
        raise ConfigError(f"trainer.precision is {precision}, expected {messages.PRECISIONS}")
    network = config.get("model.init_args.network")
    given = {} if network is None or not hasattr(network, "get") else network.get("init_args") or {}
    decided = sorted(decided_by_data(given.keys()))
    defaults = default_arguments(network["class_path"]) if decided else {}
    for name in decided:
        if given[name] != defaults.get(name):
            raise ConfigError(
                f"model.network.{name} is {given[name]}, but the data decide it: leave it out of the configuration"
            )


def require_member_shards(trainer: Trainer, module: LightningModule, subcommand: str) -> None:
    """What several devices can do: train a flow, whose members are dealt out.

    Raises:
        ConfigError: it is something else, or there are fewer members than devices.
    """
    devices = trainer.world_size
    if not isinstance(trainer.strategy, MemberStrategy):
        raise ConfigError(
            f"{devices} devices would train copies of the same members by the strategy "
            f"{type(trainer.strategy).__name__}: set --trainer.strategy ddp, which deals the members of the ensemble "
            "out, or --trainer.devices 1"
        )
    if subcommand not in ("fit", "kernel") or not isinstance(module, FlowModule):
        what = subcommand if subcommand not in ("fit", "kernel") else type(module).__name__
        raise ConfigError(
            f"{what} uses one device, got {devices}: set --trainer.devices 1 (fit and kernel deal the members of a "
            "flow out to several)"
        )
    alone = [type(c).__name__ for c in trainer.callbacks if isinstance(c, (NeuronPaths, KernelSnapshots))]  # type: ignore[attr-defined]
    if alone:
        raise ConfigError(
            f"{' and '.join(alone)} write arrays of all members from one device, got {devices}: leave them out, or set "
            "--trainer.devices 1"
        )
    Ranks(0, devices).rows(len(module.ensemble))


def require_batches_that_fit(module: LightningModule, data: FlowData) -> None:
    """Full batches for a flow, mini-batches for what trains on them.

    Raises:
        ConfigError: it is the other way round.
    """
    if isinstance(module, FlowModule) and data.batch_size is not None:
        raise ConfigError(
            f"data.batch_size is {data.batch_size}, but FlowModule follows the gradient of the whole "
            "training set: leave it null (model.chunk_size bounds the memory)"
        )
    if isinstance(module, MiniBatchModule) and data.batch_size is None:
        raise ConfigError("MiniBatchModule trains on mini-batches: set data.batch_size, for example to 128")


def _trainer_defaults(callbacks: Sequence[Callback]) -> dict[str, Any]:
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
            OutputsWriter(),
            LearningCurves(),
            HParams(),
            ClosingSummary(),
            RunCheckpoint(),
            GracefulStop(),
            PredictionWriter(),
            *callbacks,
        ],
    }
