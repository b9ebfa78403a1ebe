"""The subcommand ``sweep``, which plans and runs the batches of a grid of configurations."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from lazy_lightning.cli import imports
from lazy_lightning.cli.allowed import check_classes
from lazy_lightning.cli.batch import train
from lazy_lightning.cli.bundled import find_config, read_config
from lazy_lightning.cli.flow_cli import FlowCLI, dotted_names, refuse_ignored, require_batches_that_fit, require_flow
from lazy_lightning.cli.sweep_output import print_plan, print_results
from lazy_lightning.cli.trainer import FlowTrainer
from lazy_lightning.data import FlowData
from lazy_lightning.errors import ConfigError
from lazy_lightning.experiments.batching import setting_label
from lazy_lightning.experiments.config_group import ConfigGroup
from lazy_lightning.experiments.costs import USUAL_IMPORTS, CostModel
from lazy_lightning.experiments.data_seed_axis import joined
from lazy_lightning.experiments.execution import Execution, run_sweep, stops_on_signal
from lazy_lightning.experiments.executor import Executor
from lazy_lightning.experiments.executor_spec import ExecutorSpec, executor_spec
from lazy_lightning.experiments.local_executor import LocalExecutor
from lazy_lightning.experiments.ray_executor import RayExecutor
from lazy_lightning.experiments.slurm_executor import SlurmExecutor
from lazy_lightning.experiments.submission import Submission
from lazy_lightning.experiments.sweep import BatchLimits, Sweep, alpha_of
from lazy_lightning.experiments.sweep_folder import SweepFolder
from lazy_lightning.experiments.sweep_progress import SweepProgress
from lazy_lightning.experiments.sweep_spec import SweepSpec, as_argument, as_yaml, parse_sweep_spec
from lazy_lightning.experiments.worker_pool import WorkerPool
from lazy_lightning.memory import available_bytes
from lazy_lightning.modules import FlowModule, MiniBatchModule, ObservedModule
from lazy_lightning.modules.observation import Observer, Sink
from lazy_lightning.modules.stored_members import stored_alphas
from lazy_lightning.runs import configuration

_OF_EXECUTOR = ("executor", "retries", "cpus", "gpus", "address", "partition", "time", "gres", "mem", "account")
_OPTIONS = ("sweep", "out", "dry_run", "retry_failed", "workers", "max_members", *_OF_EXECUTOR)
_FLAGS = ("--dry_run", "--retry_failed")
_MEMORY_SHARE = 0.5
"""Share of the available memory for the members of the batches; the observers' kernels use some of the rest."""


class SweepCLI(FlowCLI):
    """Command line of a sweep; parses like ``fit`` but leaves the building of modules to the workers."""

    def __init__(self, args: Sequence[str]) -> None:
        self._code = 0
        super().__init__(_with_values(args))

    @property
    def exit_code(self) -> int:
        """Exit code: 1 if members have failed or results could not be written, 130 if a signal stopped the sweep."""
        return self._code

    def instantiate_classes(self) -> None:
        """Builds nothing, because each worker builds its own module and data."""

    def after_instantiate_classes(self) -> None:
        """Checks nothing, because nothing has been built."""

    def _run_subcommand(self, subcommand: str) -> None:
        options = {name: self.config[subcommand].pop(name) for name in _OPTIONS}
        if options["sweep"] is None:
            raise ConfigError("sweep needs --sweep FILE: a YAML file with a grid, such as sweeps/phase_diagram.yaml")
        if options["workers"] < 0 or (options["max_members"] is not None and options["max_members"] < 1):
            raise ConfigError("a sweep needs workers >= 0 and max_members >= 1")
        path = find_config(options["sweep"])
        spec = parse_sweep_spec(read_config(path), path.stem)
        chosen = executor_spec(spec.executor, {name: options[name] for name in _OF_EXECUTOR})
        if chosen.name != "local" and not options["workers"]:
            raise ConfigError(f"the executor {chosen.name} needs workers >= 1: 0 trains in the process of the command")
        base = yaml.safe_load(self._subcommand_parsers[subcommand].dump(self.config[subcommand], skip_none=False))
        sweep = Sweep(spec, tuple(self._groups(spec, base)), SweepFolder(_folder(options, base, spec)), self.joins)
        costs = CostModel(self.built, _device(base), max(USUAL_IMPORTS / 4, imports.seconds))
        limits = _limits(options, chosen, costs.device)
        if options["dry_run"]:
            print_plan(sweep, costs, limits, options["retry_failed"], chosen)
            return
        with sweep.folder.locked():
            sweep.folder.declare({"sweep": read_config(path), "config": base})
            self._code = self._run(sweep, costs, limits, options, chosen)

    # ------------------------------------------------------------------ configurations of the grid

    def _groups(self, spec: SweepSpec, base: Mapping[str, Any]) -> Iterator[ConfigGroup]:
        """Yields a configuration group for each combination of the grid, each checked by the parser of ``fit``."""
        seen: dict[str, Mapping[str, Any]] = {}
        several = [key for key, values in spec.grid.items() if len(values) > 1]
        for chosen in spec.combinations():
            config = self.configured(base, chosen)
            if spec.kernels:
                require_flow(config["model"]["class_path"], f"kernels: {list(spec.kernels)}")
            if "init" in spec.kernels:
                _require_one_initial_kernel(config["model"]["init_args"])
            group = ConfigGroup.of(config, {key: chosen[key] for key in several}, _members(spec, config))
            if group.key in seen:
                raise ConfigError(
                    f"{setting_label(chosen)} and {setting_label(seen[group.key])} give the same results: leave out "
                    "the axis that has no effect"
                )
            seen[group.key] = chosen
            yield group

    def configured(self, base: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the base configuration with some keys set as by the command line of ``fit``."""
        parser = self._subcommand_parsers["fit"]
        arguments = [f"--{key}={as_argument(value)}" for key, value in chosen.items()]
        arguments = ["--config", as_yaml(base), *arguments]
        config = parser.parse_args(arguments)
        named = dotted_names(config)
        if named:
            config = parser.parse_args([*arguments, *named])
        check_classes(config, FlowTrainer)
        refuse_ignored(config)
        content: dict[str, Any] = yaml.safe_load(parser.dump(config, skip_none=False))
        content.pop("config", None)
        return content

    def built(self, config: Mapping[str, Any]) -> tuple[ObservedModule, FlowData]:
        """Builds the module and the data of a configuration."""
        objects = self._objects(config)
        module, data = objects["model"], objects["data"]
        if not isinstance(module, ObservedModule):
            raise ConfigError(
                f"a sweep trains FlowModules and MiniBatchModules, but the model is {type(module).__name__}"
            )
        require_batches_that_fit(module, data)
        return module, data

    def _objects(self, config: Mapping[str, Any]) -> Any:
        parser = self._subcommand_parsers["fit"]
        parsed = parser.parse_object(copy.deepcopy(dict(config)))  # a copy, because the parser modifies its argument
        check_classes(parsed, FlowTrainer)
        return parser.instantiate_classes(parsed)

    def joins(self, parts: Sequence[ConfigGroup]) -> bool:
        """Returns whether groups that differ in one seed of their data can be trained as one run with data seeds.

        Not so if the module or an observer refuses members with data of their own, or if there are other callbacks,
        which may end all members together.
        """
        try:
            objects = self._objects(joined(parts).config)
        except (ConfigError, TypeError, ValueError):  # its constructor has no data seeds, or refuses them
            return False
        module, callbacks = objects["model"], objects["trainer"]["callbacks"] or []
        if type(module) not in (FlowModule, MiniBatchModule):
            return False
        shared = [one for one in callbacks if isinstance(one, Observer) and one.needs_shared_inputs]
        others = [one for one in callbacks if not isinstance(one, (Observer, Sink))]
        return not others and not (shared and module.data_sets.differ)

    # ------------------------------------------------------------------ execution

    def _run(
        self, sweep: Sweep, costs: CostModel, limits: BatchLimits, options: Mapping[str, Any], chosen: ExecutorSpec
    ) -> int:
        retry = options["retry_failed"]
        devices = torch.cuda.device_count() if costs.device.type == "cuda" else 0
        executor = _executor(chosen, sweep.folder.path, options["workers"], devices)
        with SweepProgress(sweep.status(sweep.rows(), retry), limits.workers) as progress:
            execution = Execution(sweep.folder, executor, progress, chosen.retries)
            with stops_on_signal(execution.stop, lambda: executor.close(at_once=True), progress.log):
                try:
                    run_sweep(sweep, execution, progress, costs, limits, retry)
                finally:
                    executor.stop()  # after an error, stops the batches that are still being trained
                    executor.close()
        sweep_status = sweep.status(sweep.rows())
        print_results(sweep, sweep_status, execution.stopped)
        if execution.stopped:
            return 130
        if execution.incomplete:  # the checkpoints are kept, because the missing results can still be written from them
            return 1
        sweep.drop_checkpoints(sweep_status)
        return 1 if sweep_status.failed else 0


def _require_one_initial_kernel(arguments: Mapping[str, Any]) -> None:
    """Refuses kernels at initialisation that would be those of one alpha alone.

    Raises:
        ConfigError: members of different alphas start from different weights.
    """
    path = arguments.get("init")
    if path is None or arguments.get("init_alpha") is not None or not arguments.get("centering", True):
        return
    try:
        alphas = stored_alphas(Path(path))
    except ConfigError:
        return  # the file may be needed no more; a batch that needs it says so
    if len(alphas) > 1:
        raise ConfigError(
            f"kernels: [init] has one kernel for all alphas, but init {path} holds weights of the alphas {alphas}: set "
            "model.init_alpha to one of them, or leave init out of kernels"
        )


def _with_values(args: Sequence[str]) -> list[str]:
    """Rewrites ``--dry_run`` and ``--dry_run true`` as ``--dry_run=true``, which the parser accepts.

    >>> _with_values(["--dry_run", "--retry_failed", "false"])
    ['--dry_run=true', '--retry_failed=false']
    """
    given: list[str] = []
    for argument in args:
        if given and given[-1] in _FLAGS:
            value = argument.lower() if argument.lower() in ("true", "false") else None
            given[-1] += f"={value or 'true'}"
            if value is not None:
                continue
        given.append(argument)
    return [f"{argument}=true" if argument in _FLAGS else argument for argument in given]


def _executor(chosen: ExecutorSpec, folder: Path, workers: int, devices: int) -> Executor:
    """Returns the executor of a sweep; the packages of Ray and SLURM are imported only if they are chosen."""
    if chosen.name == "local":
        return LocalExecutor(WorkerPool(train, workers, devices))
    submission = Submission(train, folder, chosen.cpus)
    if chosen.name == "ray":
        return RayExecutor(submission, chosen, workers, 1.0 if devices else 0.0)
    return SlurmExecutor(submission, chosen, folder, workers)


def _limits(options: Mapping[str, Any], chosen: ExecutorSpec, device: torch.device) -> BatchLimits:
    """Returns the limits of a batch; the memory of other machines is taken to be that of this one."""
    workers = max(1, options["workers"])
    memory = available_bytes(device) if chosen.mem is None or device.type == "cuda" else 2**30 * chosen.mem
    if chosen.name == "slurm":  # each job has its node's resources for itself
        together = 1
    elif chosen.name == "ray" and device.type == "cuda":
        together = min(workers, chosen.per_device)
    else:
        together = math.ceil(workers / (torch.cuda.device_count() if device.type == "cuda" else 1))
    even = chosen.name == "local" and device.type == "cpu"
    return BatchLimits(_MEMORY_SHARE * memory / together, workers, options["max_members"], even)


def _device(config: Mapping[str, Any]) -> torch.device:
    """Returns the device that the trainer will choose."""
    accelerator = str((config.get("trainer") or {}).get("accelerator", "auto"))
    return torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")


def _folder(options: Mapping[str, Any], base: Mapping[str, Any], spec: SweepSpec) -> Path:
    if options["out"] is not None:
        return Path(options["out"])
    logger = (base.get("trainer") or {}).get("logger")
    arguments = (logger.get("init_args") or {}) if isinstance(logger, Mapping) else {}
    return Path(arguments.get("save_dir") or "runs") / spec.name


def _members(spec: SweepSpec, config: Mapping[str, Any]) -> list[tuple[float, int]]:
    if configuration.data_seeds(config) is not None:
        raise ConfigError(
            "model.data_seeds is set, but a sweep keeps account of members by alpha and seed: leave it out, and give "
            "the grid data.train_seed with the list of data seeds"
        )
    own = configuration.members(config)
    seeds = spec.seeds or tuple(dict.fromkeys(seed for _, seed in own))
    alphas = [configuration.significant(alpha) for alpha in dict.fromkeys(alpha for alpha, _ in own)]
    if spec.bisect is not None:
        alphas = alphas[:1]
    elif spec.scale is not None:
        alphas = [alpha_of(config, spec.scale, scale) for scale in spec.scales]
    return [(alpha, seed) for alpha in alphas for seed in seeds]
