"""``sweep``: the command line of many runs."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from lazy_lightning import configuration
from lazy_lightning.bundled import find_config, read_config
from lazy_lightning.cli.allowed import check_classes
from lazy_lightning.cli.batch import train
from lazy_lightning.cli.flow_cli import FlowCLI, dotted_names, refuse_ignored, require_batches_that_fit, require_flow
from lazy_lightning.cli.sweep_words import print_plan, print_results
from lazy_lightning.cli.trainer import FlowTrainer
from lazy_lightning.data import FlowData
from lazy_lightning.errors import ConfigError
from lazy_lightning.experiments.board import Board, words
from lazy_lightning.experiments.conduct import conduct
from lazy_lightning.experiments.costs import Costs
from lazy_lightning.experiments.declaration import Declaration, as_argument, as_yaml, declared
from lazy_lightning.experiments.execution import Execution, stops_on_signal
from lazy_lightning.experiments.plan import Family
from lazy_lightning.experiments.sweep import Limits, Sweep, alpha_of
from lazy_lightning.experiments.sweep_folder import SweepFolder
from lazy_lightning.experiments.workers import Office
from lazy_lightning.modules import ObservedModule
from lazy_lightning.ntk.memory import available_bytes

_OPTIONS = ("sweep", "out", "dry_run", "retry_failed", "workers", "max_members")
_FLAGS = ("--dry_run", "--retry_failed")
_MEMORY_SHARE = 0.5
"""Of what is free, for the members of the batches; the observers' kernels take some of the rest."""


class SweepCLI(FlowCLI):
    """Parses like ``fit``, and builds nothing by itself."""

    def __init__(self, args: Sequence[str]) -> None:
        self._code = 0
        super().__init__(_with_values(args))

    @property
    def exit_code(self) -> int:
        """1 if members have failed, 130 if a signal has stopped the sweep."""
        return self._code

    def instantiate_classes(self) -> None:
        """Workers build what they train."""

    def after_instantiate_classes(self) -> None:
        """There is nothing to check yet."""

    def _run_subcommand(self, subcommand: str) -> None:
        options = {name: self.config[subcommand].pop(name) for name in _OPTIONS}
        if options["sweep"] is None:
            raise ConfigError("sweep needs --sweep FILE: a YAML file with a grid, such as sweeps/phase_diagram.yaml")
        if options["workers"] < 0 or (options["max_members"] is not None and options["max_members"] < 1):
            raise ConfigError("a sweep needs workers >= 0 and max_members >= 1")
        path = find_config(options["sweep"])
        declaration = declared(read_config(path), path.stem)
        base = yaml.safe_load(self._subcommand_parsers[subcommand].dump(self.config[subcommand], skip_none=False))
        sweep = Sweep(
            declaration, tuple(self._families(declaration, base)), SweepFolder(_folder(options, base, declaration))
        )
        costs = Costs(self.built, _device(base))
        limits = _limits(options, costs.device)
        if options["dry_run"]:
            print_plan(sweep, costs, limits, options["retry_failed"])
            return
        with sweep.folder.locked():
            sweep.folder.declare({"sweep": read_config(path), "config": base})
            self._code = self._run(sweep, costs, limits, options)

    # ------------------------------------------------------------------ what is swept over

    def _families(self, declaration: Declaration, base: Mapping[str, Any]) -> Iterator[Family]:
        """A family for each combination of the grid, each checked by the parser of ``fit``."""
        seen: dict[str, Mapping[str, Any]] = {}
        several = [key for key, values in declaration.grid.items() if len(values) > 1]
        for chosen in declaration.combinations():
            config = self.configured(base, chosen)
            if declaration.kernels:
                require_flow(config["model"]["class_path"], f"kernels: {list(declaration.kernels)}")
            family = Family.of(config, {key: chosen[key] for key in several}, _members(declaration, config))
            if family.key in seen:
                raise ConfigError(
                    f"{words(chosen)} and {words(seen[family.key])} are the same to a result: leave out the axis "
                    "that changes nothing"
                )
            seen[family.key] = chosen
            yield family

    def configured(self, base: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
        """The base configuration with some keys set, as if on the command line of ``fit``."""
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
        """The module and the data of a configuration."""
        parser = self._subcommand_parsers["fit"]
        parsed = parser.parse_object(copy.deepcopy(dict(config)))  # which takes it apart
        check_classes(parsed, FlowTrainer)
        objects = parser.instantiate_classes(parsed)
        module, data = objects["model"], objects["data"]
        if not isinstance(module, ObservedModule):
            raise ConfigError(f"a sweep trains FlowModules and ScaledModules, but the model is {type(module).__name__}")
        require_batches_that_fit(module, data)
        return module, data

    # ------------------------------------------------------------------ doing it

    def _run(self, sweep: Sweep, costs: Costs, limits: Limits, options: Mapping[str, Any]) -> int:
        retry = options["retry_failed"]
        devices = torch.cuda.device_count() if costs.device.type == "cuda" else 0
        office = Office(train, options["workers"], devices)
        with Board(sweep.tally(sweep.rows(), retry), limits.workers) as board:
            execution = Execution(sweep.folder, office, board)
            with stops_on_signal(execution.stop, lambda: office.close(at_once=True), board.says):
                try:
                    conduct(sweep, execution, board, costs, limits, retry)
                finally:
                    office.stop()  # after an error, what is still being trained
                    office.close()
        tally = sweep.tally(sweep.rows())
        print_results(sweep, tally, execution.stopped)
        if execution.stopped:
            return 130
        sweep.drop_checkpoints(tally)
        return 1 if tally.failed else 0


def _with_values(args: Sequence[str]) -> list[str]:
    """``--dry_run`` and ``--dry_run true`` as ``--dry_run=true``, which the parser knows.

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


def _limits(options: Mapping[str, Any], device: torch.device) -> Limits:
    workers = max(1, options["workers"])
    together = math.ceil(workers / (torch.cuda.device_count() if device.type == "cuda" else 1))
    return Limits(_MEMORY_SHARE * available_bytes(device) / together, workers, options["max_members"])


def _device(config: Mapping[str, Any]) -> torch.device:
    """What the trainer will choose."""
    wanted = str((config.get("trainer") or {}).get("accelerator", "auto"))
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def _folder(options: Mapping[str, Any], base: Mapping[str, Any], declaration: Declaration) -> Path:
    if options["out"] is not None:
        return Path(options["out"])
    logger = (base.get("trainer") or {}).get("logger")
    arguments = (logger.get("init_args") or {}) if isinstance(logger, Mapping) else {}
    return Path(arguments.get("save_dir") or "runs") / declaration.name


def _members(declaration: Declaration, config: Mapping[str, Any]) -> list[tuple[float, int]]:
    own = configuration.members(config)
    seeds = declaration.seeds or tuple(dict.fromkeys(seed for _, seed in own))
    alphas = [configuration.significant(alpha) for alpha in dict.fromkeys(alpha for alpha, _ in own)]
    if declaration.bisect is not None:
        alphas = alphas[:1]
    elif declaration.scale is not None:
        alphas = [alpha_of(config, declaration.scale, scale) for scale in declaration.scales]
    return [(alpha, seed) for alpha in alphas for seed in seeds]
