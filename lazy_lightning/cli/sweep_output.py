"""Terminal output of ``sweep``: the plan before training, and the results after it."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table

from lazy_lightning.analysis.number_format import duration
from lazy_lightning.experiments.batching import batch_label, setting_label
from lazy_lightning.experiments.costs import CostModel
from lazy_lightning.experiments.executor_spec import ExecutorSpec
from lazy_lightning.experiments.makespan import makespan
from lazy_lightning.experiments.sweep import BatchLimits, Rows, Sweep, SweepStatus
from lazy_lightning.memory import readable
from lazy_lightning.plain_text import printable, rich_text


def print_plan(sweep: Sweep, costs: CostModel, limits: BatchLimits, retry_failed: bool, executor: ExecutorSpec) -> None:
    """Prints the batches that would be trained now, with estimates of their memory and time."""
    rows = sweep.rows()
    batches = sweep.batches(rows, costs.of(rows), limits, retry_failed)
    title = f"{sweep.spec.name}: {len(batches)} batches, the longest first"
    table = Table(title=rich_text(title), title_justify="left")
    for heading in ("run", "batch", "members", "weights", "memory", "time"):
        table.add_column(heading, justify="left" if heading in ("run", "batch") else "right")
    for batch in batches:
        sizes = (str(len(batch.members)), str(batch.cost.weights), readable(batch.bytes), duration(batch.seconds))
        table.add_row(batch.key, rich_text(batch_label(batch)), *sizes)
    console = Console()
    (console if console.is_terminal else Console(width=150)).print(table)
    sweep_status = sweep.status(rows, retry_failed)
    print(f"{sweep_status} in all; folder {sweep.folder.path}")
    seconds = makespan([batch.seconds for batch in batches], max(1, limits.workers)).seconds
    # The command itself, and then its workers, which start together; each job of SLURM starts a process of its own.
    starts = math.ceil(len(batches) / limits.workers) if executor.name == "slurm" else bool(batches)
    seconds += costs.imports * (bool(batches) + starts)
    print(
        f"about {duration(seconds)} with {limits.workers} at a time. This includes {costs.imports:.0f} s each to start "
        f"the command and its workers, {costs.start:.0f} s to start and end each batch, the steps ({costs.steps_are}; "
        "each evaluation of the gradient timed here), and at each observation one evaluation for every callback, with "
        "the kernels of observers. Other load on the machine is not included"
    )
    if executor.name != "local":
        print(
            f"the executor is {executor.name}: speed and free memory are those of this machine, and the time in a "
            "queue is not included; --max_members limits a batch where the workers have less memory"
        )
    if sweep.spec.bisect is not None:
        print("the further batches of the bisection are not included, because they depend on these results")
    if "end" in sweep.spec.kernels:
        print("the flows on kernels at the end of training are not included, because they need the trained networks")


def print_results(sweep: Sweep, sweep_status: SweepStatus, stopped: bool) -> None:
    """Prints the state of the sweep, the reasons of failures, and the commands to give next."""
    print(f"{sweep_status}; results in {sweep.folder.path}")
    for reason in sorted(set(sweep_status.failed.values())):
        print(f"  failed: {printable(reason)}")
    rows = sweep.rows()
    _print_searches(sweep, rows)
    lost = sweep.runs_without_checkpoint(rows)
    if lost:
        print(
            f"the kernels at the end of {len(lost)} runs cannot be followed, because their checkpoints were not kept: "
            f"remove these runs and give the same command again ({', '.join(lost[:3])}{' ...' * (len(lost) > 3)})"
        )
    if sweep_status.failed:
        print("give the same command with --retry_failed to train these again")
    if stopped:
        print("stopped: give the same command again to resume")
    else:
        print(f"figures: lazy-lightning report {sweep.folder.path} --out {sweep.folder.path}/report")


def _print_searches(sweep: Sweep, rows: Rows) -> None:
    bisection = sweep.spec.bisect
    if bisection is None:
        return
    for group in sweep.networks:
        found = sweep.search(group, rows)
        name = setting_label(group.setting) or "the configuration"
        if found is None or not found.complete:
            continue
        if found.interval is not None:
            low, high = found.interval
            where = f"{bisection.axis} = {low:.4g} to {high:.4g}"
            print(f"  {name}: {bisection.column} crosses {bisection.level:g} at {where}")
        else:
            print(
                f"  {name}: {bisection.column} does not cross {bisection.level:g} between {bisection.axis} = "
                f"{bisection.start:g} and {bisection.end:g}: widen bisect.from or bisect.to"
            )
