"""FlowCLI: LightningCLI with the defaults of the papers, which raises for options that would be ignored."""

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
    LearningCurves,
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
from lazy_lightning.figures.stated_scale import Scale, stated_scale
from lazy_lightning.modules import FlowModule, KernelModule, MiniBatchModule, ObservedModule
from lazy_lightning.modules.member_module import MemberModule
from lazy_lightning.modules.member_strategy import NAME, MemberStrategy
from lazy_lightning.modules.observation import Observer, Sink
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
    """LightningCLI with the defaults of the papers and the callbacks of every run.

    Args:
        args: the arguments of the command line.
        folder: the folder of the run, instead of the one that the logger chooses; a run that was stopped there is
            resumed.
        callbacks: callbacks in addition to those of the configuration.
        resumed: whether the folder's own configuration is the first of the command line, and its loggers continue
            their files.
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
            save_config_kwargs={"overwrite": folder is not None, "save_to_log_dir": False},  # SaveConfig writes it
            trainer_class=FlowTrainer,
            trainer_defaults=_trainer_defaults(callbacks),
            seed_everything_default=False,  # every random stream of the package has its own seed
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            parser_kwargs={
                "prog": "lazy-lightning",
                "description": (
                    "Integrates the gradient flow of alpha-scaled, centred networks, from lazy to feature-learning."
                ),
                **{name: dict(header) for name in parsers},
            },
            args=list(args),
        )

    @property
    def exit_code(self) -> int:
        """Exit code: 130 if a signal stopped the run, else 0."""
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        return 130 if any(isinstance(c, GracefulStop) and c.received for c in callbacks) else 0

    # ------------------------------------------------------------------ parsing

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the option of the quantity in which a run's own figures and tables state scales."""
        parser.add_argument(
            "--scale",
            type=Scale | None,
            default=None,
            help="the quantity in the run's figures and tables; gamma is the richness 1/(sqrt(h) alpha)",
        )

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        """Adds the parsers, with a default that loads checkpoints without running code from them."""
        super().setup_parser(*args, **kwargs)
        for name, parser in self._subcommand_parsers.items():
            if name != "sweep":
                parser.set_defaults({"weights_only": True})

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Returns the subcommands: those of the trainer, ``kernel`` and ``sweep``."""
        return {**LightningCLI.subcommands(), **{name: {"model", "datamodule"} for name in ("kernel", "sweep")}}

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the arguments given to ``main``; the stock method would warn if ``sys.argv`` is not empty either."""
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
        """Does nothing, because the stock method would let a checkpoint choose the class of the model."""

    # ------------------------------------------------------------------ building

    def instantiate_classes(self) -> None:
        """Builds the model, the data and the trainer.

        Raises:
            ConfigError: a constructor refuses a value.
        """
        try:
            super().instantiate_classes()
        except LazyLightningError:
            raise
        except (ValueError, TypeError, ImportError, MisconfigurationException) as error:
            raise ParserError(str(error)) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Builds the trainer with each observer once, without the default callbacks that its options disable."""
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
            chosen["strategy"] = MemberStrategy()  # with the stock strategy all ranks would train the same members
            chosen["use_distributed_sampler"] = False  # every rank evaluates its members on all samples
        trainer = super().instantiate_trainer(**kwargs)
        trainer.default_root_dir_given = chosen.get("default_root_dir") is not None  # type: ignore[attr-defined]
        return trainer

    def after_instantiate_classes(self) -> None:
        """Checks for combinations of options that would be ignored or give wrong results.

        Raises:
            ConfigError: several devices are given without the strategy ddp, mini-batches for a full-batch flow, or no
                mini-batches for a module that needs them.
        """
        if self.trainer.world_size > 1:
            require_member_shards(self.trainer, self.model)
        require_batches_that_fit(self.model, self.datamodule)

    # ------------------------------------------------------------------ running

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Returns the arguments of the trainer's method, with the checkpoint in a given folder to resume from."""
        arguments: dict[str, Any] = super()._prepare_subcommand_kwargs(subcommand)
        if self._folder is not None and (self._folder / CHECKPOINT).is_file():
            arguments["ckpt_path"] = str(self._folder / CHECKPOINT)
        if subcommand == "fit" and (path := arguments.get("ckpt_path")) is not None:
            self._begins_from = str(path), read_checkpoint(Path(path))[KEY]["observations"]
        return arguments

    def _run_subcommand(self, subcommand: str) -> None:
        """Runs the trainer's method, after a check that the folder can be written and the data can be read."""
        if (parent := _parent_of_runs(self.trainer)) is not None:
            require_writable(parent)
        self.datamodule.setup()  # called here, because the trainer would create the folder first
        if isinstance(self.model, FlowModule):
            self.model.check_samples(len(self.datamodule.train.y), self.trainer.world_size)
        trains = subcommand in ("fit", "kernel")
        if isinstance(self.model, MemberModule) and trains and not self._resumes_from_checkpoint():
            self.model.given_weights.check(self.model.ensemble)
        if not trains:
            write_no_events(self.trainer)
        try:
            with contextlib.ExitStack() as stack:
                stack.enter_context(stated_scale(self._get(self.config_init, "scale")))
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

    def _resumes_from_checkpoint(self) -> bool:
        """Returns whether the run goes on from a checkpoint, which holds its own w0."""
        own = self._folder is not None and (self._folder / CHECKPOINT).is_file()
        return own or _get_ckpt_path(self) is not None

    def after_fit(self) -> None:
        """Checks after training that a member has ended without failure.

        Raises:
            RunError: every member failed.
        """
        reasons = self.model.reasons if isinstance(self.model, ObservedModule) else []
        if reasons:
            self._print_if_ended_before(", ".join(sorted({reason.sentence for reason in reasons})))
            if all(reason.failed for reason in reasons):
                kept = f"; what was observed is in {self.trainer.log_dir}" if self.trainer.log_dir else ""
                raise RunError(
                    f"all {len(reasons)} members failed ({', '.join(sorted({r.sentence for r in reasons}))}): "
                    "check the data for huge values, try a smaller --model.dt, or --trainer.precision 64-true" + kept
                )

    def after_kernel(self) -> None:
        """Checks the result as after ``fit``."""
        self.after_fit()

    def after_validate(self) -> None:
        """Prints the metrics, because the trainer prints only those that are sent to a logger."""
        if self.trainer.is_global_zero and not self.trainer.logged_metrics:
            for name, value in sorted(self.trainer.callback_metrics.items()):
                print(f"{name:<40} {float(value):.6g}")

    def _print_if_ended_before(self, stops: str) -> None:
        if self._begins_from is None:
            return
        ckpt_path, observations = self._begins_from
        if observations == self.model.observations:
            print(f"nothing was left to do: all members of {ckpt_path} had ended ({stops}); raise model.stop to resume")


def dotted_names(config: Any) -> list[str]:
    """Returns arguments that replace dotted names of classes in a configuration by a ``class_path``.

    Where an argument takes a string or a class (``loss: str | Loss``), the parser takes every name as a string.
    """
    found = []
    for argument in _TEXT_OR_CLASS:
        value = config.get(f"model.init_args.{argument}")
        if isinstance(value, str) and "." in value and all(part.isidentifier() for part in value.split(".")):
            found.append(f"--model.{argument}={{class_path: {value}}}")
    return found


def single_observers(callbacks: Sequence[Callback]) -> list[Callback]:
    """Returns each observer or sink once; of two of a class, such as in a base and a preset, the later one is kept."""
    kept: dict[Any, Callback] = {}
    for callback in callbacks:
        kept[type(callback) if isinstance(callback, _SINGLE) else id(callback)] = callback
    return list(kept.values())


def loggers_in(folder: Path, chosen: Any) -> Any:
    """Returns the loggers of a run with a given folder, which append to the files there.

    Args:
        folder: the folder of the run.
        chosen: the configuration's logger or loggers; True for TensorBoard, False for none. A logger that does not
            number its folders (W&B, MLflow) is returned unchanged.
    """
    if isinstance(chosen, (list, tuple)):
        return [loggers_in(folder, each) for each in chosen]
    if chosen is True or isinstance(chosen, TensorBoardLogger):
        return TensorBoardLogger(folder.parent, name="", version=folder.name, default_hp_metric=False)
    return continued_csv(folder) if isinstance(chosen, CSVLogger) else chosen


def continued_csv(folder: Path) -> CSVLogger:
    """Returns a CSV logger that keeps the rows in the folder's ``metrics.csv``; a new CSVLogger deletes the file."""
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
    """Disables TensorBoard for evaluations, where each would be listed as a run without a curve."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger._experiment = _DummyExperiment()  # type: ignore[assignment]


def _parent_of_runs(trainer: Trainer) -> Path | None:
    """Returns the folder in which the run's folder is created, without determining a logger's version."""
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
            f"{subcommand} needs the checkpoint of a run: give --config RUN/config.yaml --ckpt_path RUN/checkpoint.ckpt"
        )


def require_flow(model: str, what: str) -> None:
    """Raises ConfigError if the class at this path has no flow that can be integrated on its frozen kernel."""
    if not model.endswith((".FlowModule", ".KernelModule")):
        raise ConfigError(
            f"{what} freezes the tangent kernel of a FlowModule, but the model is {model}: with mini-batch training, "
            "train the linearisation as a companion, model.companions: [linearized]"
        )


def _freeze_kernel(config: Any) -> None:
    """Replaces FlowModule by KernelModule in a configuration, which is then saved as one for ``fit``.

    Raises:
        ConfigError: the model is not a FlowModule.
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
        chosen = (given.get(option), model.get(option), default)  # the configuration of a kernel run sets some already
        model[option] = next((value for value in chosen if value is not None), None)


def refuse_dropped(config: Any) -> None:
    """Raises ConfigError for an unknown key whose value is an empty mapping, which the parser drops silently."""
    for path in config.get("config") or []:
        for keys in empty_mappings(read_config(Path(path))):
            if keys and not _is_known(config, keys):
                raise ConfigError(f"unknown key {'.'.join(keys)} ({path}): it holds an empty mapping, leave it out")


def _is_known(config: Any, keys: Sequence[str]) -> bool:
    """Returns whether a parsed configuration has this path; ``init_args`` may be missing from the path."""
    for key in keys:
        key = key.removesuffix("+")
        if key in ("init_args", "dict_kwargs", "class_path"):
            continue
        content = vars(config) if hasattr(config, "as_dict") else config
        if not isinstance(content, Mapping):
            return True  # not the arguments of a class; the type of the argument has checked it
        if key not in content and "init_args" in content:
            arguments = content["init_args"]
            content = vars(arguments) if hasattr(arguments, "as_dict") else arguments
        if key not in content:
            return False
        config = content[key]
    return True


def refuse_ignored(config: Any) -> None:
    """Raises ConfigError for values that would be overridden silently: the precision, and shapes given by the data."""
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
                f"model.network.{name} is {given[name]}, but the data determine it: leave it out of the configuration"
            )


def require_member_shards(trainer: Trainer, module: LightningModule) -> None:
    """Checks that a run on several devices is one of members, which can be distributed over the devices.

    Raises:
        ConfigError: it is something else, or there are fewer members than devices.
    """
    devices = trainer.world_size
    if not isinstance(trainer.strategy, MemberStrategy):
        raise ConfigError(
            f"{devices} devices would train copies of the same members by the strategy "
            f"{type(trainer.strategy).__name__}: set --trainer.strategy ddp, which distributes the members of the "
            "ensemble, or --trainer.devices 1"
        )
    if not isinstance(module, MemberModule):
        raise ConfigError(
            f"{type(module).__name__} uses one device, got {devices}: set --trainer.devices 1 (the modules of "
            "lazy_lightning distribute their members over several)"
        )
    module.check_devices(devices)


def require_batches_that_fit(module: LightningModule, data: FlowData) -> None:
    """Checks that a flow has full batches, and a module that trains on mini-batches has mini-batches.

    Raises:
        ConfigError: the data's ``batch_size`` does not fit the module.
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
        "max_epochs": -1,  # the stopping criteria of the flow end the training
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
