"""``sweep``: the command line of many runs."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table

from lazy_lightning import configuration
from lazy_lightning.bundled import find_config, read_config
from lazy_lightning.cli.batch import train
from lazy_lightning.cli.flow_cli import FlowCLI, refuse_ignored
from lazy_lightning.data import FlowData
from lazy_lightning.errors import ConfigError, RunError
from lazy_lightning.experiments.board import Board, described, duration
from lazy_lightning.experiments.cost import StepCost, step_cost
from lazy_lightning.experiments.declaration import Declaration, as_argument, declared
from lazy_lightning.experiments.execution import Execution, stops_on_signal
from lazy_lightning.experiments.plan import Batch, Cost, Family
from lazy_lightning.experiments.run_folder import Status
from lazy_lightning.experiments.sweep import Limits, Rows, Sweep, alpha_of, settled
from lazy_lightning.experiments.sweep_folder import SweepFolder
from lazy_lightning.experiments.workers import Office
from lazy_lightning.modules import FlowModule
from lazy_lightning.ntk.memory import available_bytes, readable

_OPTIONS = ("sweep", "out", "dry_run", "retry_failed", "workers", "max_members")
_FLAGS = ("--dry_run", "--retry_failed")
_TYPICAL_STEPS = 1000.0
_MEMORY_SHARE = 0.5
"""Of what is free, for the members of the batches; the observers' kernels take some of the rest."""


class SweepCLI(FlowCLI):
    """Parses like ``fit``, and builds nothing by itself."""

    exit_code = 0

    def __init__(self, args: Sequence[str]) -> None:
        super().__init__([f"{argument}=true" if argument in _FLAGS else argument for argument in args])

    def instantiate_classes(self) -> None:
        """Workers build what they train."""

    def after_instantiate_classes(self) -> None:
        """There is nothing to check yet."""

    def _run_subcommand(self, subcommand: str) -> None:
        options = {name: self.config[subcommand].pop(name) for name in _OPTIONS}
        if options["sweep"] is None:
            raise ConfigError("sweep needs --sweep FILE: a YAML file with a grid, such as sweeps/phase_diagram.yaml")
        if options["workers"] < 0 or (options["max_members"] or 1) < 1:
            raise ConfigError("a sweep needs workers >= 0 and max_members >= 1")
        path = find_config(options["sweep"])
        declaration = declared(read_config(path), path.stem)
        base = yaml.safe_load(self._subcommand_parsers[subcommand].dump(self.config[subcommand], skip_none=False))
        sweep = Sweep(
            declaration, tuple(self._families(declaration, base)), SweepFolder(_folder(options, base, declaration))
        )
        self._costs = Costs(self)
        if options["dry_run"]:
            self._show_plan(sweep, options)
            return
        with sweep.folder.locked():
            sweep.folder.declare({"sweep": read_config(path), "config": base})
            self.exit_code = self._run(sweep, options)

    # ------------------------------------------------------------------ what is swept over

    def _families(self, declaration: Declaration, base: Mapping[str, Any]) -> Iterator[Family]:
        """A family for each combination of the grid, each checked by the parser of ``fit``."""
        seen: dict[str, Mapping[str, Any]] = {}
        several = [key for key, values in declaration.grid.items() if len(values) > 1]
        for chosen in declaration.combinations():
            config = self.configured(base, chosen)
            family = Family.of(config, {key: chosen[key] for key in several}, _members(declaration, config))
            if family.key in seen:
                raise ConfigError(
                    f"{_words(chosen)} and {_words(seen[family.key])} are the same to a result: leave out the axis "
                    "that changes nothing"
                )
            seen[family.key] = chosen
            yield family

    def configured(self, base: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
        """The base configuration with some keys set, as if on the command line of ``fit``."""
        parser = self._subcommand_parsers["fit"]
        arguments = [f"--{key}={as_argument(value)}" for key, value in chosen.items()]
        config = parser.parse_args(["--config", json.dumps(base), *arguments])
        refuse_ignored(config)
        content: dict[str, Any] = yaml.safe_load(parser.dump(config, skip_none=False))
        content.pop("config", None)
        return content

    def built(self, config: Mapping[str, Any]) -> tuple[FlowModule, FlowData]:
        """The module and the data of a configuration."""
        parser = self._subcommand_parsers["fit"]
        parsed = parser.parse_object(copy.deepcopy(dict(config)))  # which takes it apart
        objects = parser.instantiate_classes(parsed)
        module, data = objects["model"], objects["data"]
        if not isinstance(module, FlowModule):
            raise ConfigError(f"a sweep trains FlowModules, but the model is {type(module).__name__}")
        if data.batch_size is not None:
            raise ConfigError(
                f"data.batch_size is {data.batch_size}, but a sweep follows full-batch flows: leave it null"
            )
        return module, data

    # ------------------------------------------------------------------ doing it

    def _run(self, sweep: Sweep, options: Mapping[str, Any]) -> int:
        office = Office(train, options["workers"], torch.cuda.device_count())
        retry = options["retry_failed"]
        first = sweep.rows()
        done, failed, total = _counts(sweep, first, retry)
        with Board(total, done, failed, options["workers"]) as board:
            execution, begun = Execution(sweep.folder, office, board), set[str]()
            with stops_on_signal(execution.stop, lambda: office.close(at_once=True), board.says):
                try:
                    while not execution.stopped:
                        rows = sweep.rows()
                        batches = sweep.batches(rows, self._costs.of(rows), self._limits(options), retry)
                        if not batches:
                            break
                        board.total = max(board.total, _counts(sweep, rows, retry)[2])
                        _require_progress(batches, begun)
                        execution.train(batches)
                        retry = False  # once is enough
                finally:
                    office.close()
        return self._tell(sweep, execution.stopped)

    def _limits(self, options: Mapping[str, Any]) -> Limits:
        workers = max(1, options["workers"])
        free = available_bytes(self._costs.device)
        together = workers if self._costs.device.type == "cpu" else 1
        return Limits(_MEMORY_SHARE * free / together, workers, options["max_members"])

    def _tell(self, sweep: Sweep, stopped: bool) -> int:
        rows = sweep.rows()
        wanted = {family.member_id(member) for family in sweep.wanted(rows) for member in family.members}
        for batch in sweep.kernels_at_end(rows):
            wanted |= {batch.family.member_id(member) for member in batch.members}
        finished = {row["id"] for row in rows if row["status"] == Status.FINISHED}
        failed = {
            row["id"]: row["reason"] for row in rows if row["status"] == Status.FAILED and row["id"] not in finished
        }
        count = sum(one in failed for one in wanted)
        print(
            f"{len(wanted & finished)} of {len(wanted)} members are done, {count} failed; "
            f"results in {sweep.folder.path}"
        )
        for reason in sorted({str(failed[one]) for one in wanted if one in failed}):
            print(f"  failed: {reason}")
        _tell_searches(sweep, rows)
        if count:
            print("give the same command with --retry_failed to train these again")
        if stopped:
            print("stopped: the same command goes on")
            return 130
        if not sweep.declaration.keep_checkpoints:
            _drop_checkpoints(sweep, rows)
        print(f"figures: lazy-lightning report {sweep.folder.path} --out {sweep.folder.path}/report")
        return 1 if count else 0

    # ------------------------------------------------------------------ only showing it

    def _show_plan(self, sweep: Sweep, options: Mapping[str, Any]) -> None:
        rows = sweep.rows()
        limits = self._limits(options)
        batches = sweep.batches(rows, self._costs.of(rows), limits, options["retry_failed"])
        console = Console()
        console = console if console.is_terminal else Console(width=150)
        table = Table(
            title=f"{sweep.declaration.name}: {len(batches)} batches, the longest first", title_justify="left"
        )
        for heading in ("run", "batch", "members", "weights", "memory", "time"):
            table.add_column(heading, justify="left" if heading in ("run", "batch") else "right")
        for batch in batches:
            sizes = (str(len(batch.members)), str(batch.cost.weights), readable(batch.bytes), duration(batch.seconds))
            table.add_row(batch.key, described(batch), *sizes)
        console.print(table)
        done, failed, total = _counts(sweep, rows, options["retry_failed"])
        print(
            f"{total} members in all, {done} done, {failed} failed, {total - done - failed} to train in "
            f"{sweep.folder.path}"
        )
        seconds = sum(batch.seconds for batch in batches)
        at_once = max(1, min(limits.workers, len(batches)))
        print(
            f"about {duration(seconds / at_once)} with {limits.workers} at a time, observers not counted: each "
            f"evaluation of the gradient was timed here, and {self._costs.steps_are} were taken"
        )
        if sweep.declaration.bisect is not None:
            print("a bisection goes on from what this finds, with more")
        if "end" in sweep.declaration.kernels:
            print("kernels at the end of training come on top, once there are trained networks")


class Costs:
    """Of the members of families, each measured once."""

    def __init__(self, cli: SweepCLI) -> None:
        self._cli = cli
        self._steps: dict[str, StepCost] = {}
        self._data: dict[str, FlowData] = {}
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.steps_are = f"{_TYPICAL_STEPS:g} steps a member"

    def of(self, rows: Rows) -> Any:
        """The cost of a family, given what is known of steps."""
        taken = [float(row["tried"]) for row in rows if row["status"] == Status.FINISHED and row.get("tried")]
        usual = sum(taken) / len(taken) if taken else _TYPICAL_STEPS
        self.steps_are = f"{usual:.0f} steps a member, as in finished runs," if taken else self.steps_are

        def cost(family: Family) -> Cost:
            step = self._step(family)
            own = [float(r["tried"]) for r in rows if r["family"] == family.key and r.get("tried")]
            steps = sum(own) / len(own) if own else usual
            most = configuration.flatten(family.config).get("model.stop.max_steps")
            return Cost(step.weights, step.bytes, step.seconds * min(steps, most or math.inf))

        return cost

    def _step(self, family: Family) -> StepCost:
        if family.key not in self._steps:
            module, data = self._cli.built(family.config)
            key = json.dumps(family.config["data"], sort_keys=True, default=str)
            data = self._data.setdefault(key, data)
            data.setup()
            half = str((family.config.get("trainer") or {}).get("precision")).startswith("32")
            self._steps[family.key] = step_cost(module, data, self.device, torch.float32 if half else torch.float64)
        return self._steps[family.key]


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


def _words(chosen: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in chosen.items())


def _counts(sweep: Sweep, rows: Rows, retry: bool) -> tuple[int, int, int]:
    """Members done, failed (unless they are tried again), and wanted."""
    wanted = {family.member_id(member) for family in sweep.wanted(rows) for member in family.members}
    for batch in sweep.kernels_at_end(rows):
        wanted |= {batch.family.member_id(member) for member in batch.members}
    done = wanted & settled(rows, retry_failed=True)
    return len(done), len((wanted & settled(rows, retry)) - done), len(wanted)


def _require_progress(batches: Sequence[Batch], begun: set[str]) -> None:
    """Training the same again would never end.

    Raises:
        RunError: a batch that has been trained before is wanted again.
    """
    again = [batch.key for batch in batches if batch.key in begun]
    if again:
        raise RunError(
            f"the run {again[0]} has ended, but its members are not found in the index: its config.yaml is not the one "
            "that was planned; please report this"
        )
    begun.update(batch.key for batch in batches)


def _drop_checkpoints(sweep: Sweep, rows: Rows) -> None:
    """Of runs that have ended: they hold several copies of all weights."""
    for run in {str(row["run"]) for row in rows if row["status"] != Status.UNFINISHED}:
        sweep.folder.checkpoint(run).unlink(missing_ok=True)


def _tell_searches(sweep: Sweep, rows: Rows) -> None:
    bisection = sweep.declaration.bisect
    for family in sweep.networks if bisection is not None else ():
        found = sweep.search(family, rows)
        name = _words(family.setting) or "the configuration"
        if found is not None and bisection is not None and found.complete and found.interval is not None:
            low, high = found.interval
            where = f"{bisection.axis} = {low:.4g} to {high:.4g}"
            print(f"  {name}: {bisection.column} crosses {bisection.level:g} at {where}")
        elif found is not None and bisection is not None and found.complete:
            print(
                f"  {name}: {bisection.column} does not cross {bisection.level:g} between {bisection.axis} = "
                f"{bisection.start:g} and {bisection.end:g}: widen bisect.from or bisect.to"
            )
