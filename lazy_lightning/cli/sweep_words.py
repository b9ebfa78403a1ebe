"""What ``sweep`` says before and after."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from lazy_lightning.duration import duration
from lazy_lightning.experiments.board import described, words
from lazy_lightning.experiments.costs import START, Costs
from lazy_lightning.experiments.sweep import Limits, Rows, Sweep, Tally
from lazy_lightning.ntk.memory import readable
from lazy_lightning.plain_text import printable, rich_text


def print_plan(sweep: Sweep, costs: Costs, limits: Limits, retry_failed: bool) -> None:
    """The batches that would be trained now, with their memory and time."""
    rows = sweep.rows()
    batches = sweep.batches(rows, costs.of(rows), limits, retry_failed)
    title = f"{sweep.declaration.name}: {len(batches)} batches, the longest first"
    table = Table(title=rich_text(title), title_justify="left")
    for heading in ("run", "batch", "members", "weights", "memory", "time"):
        table.add_column(heading, justify="left" if heading in ("run", "batch") else "right")
    for batch in batches:
        sizes = (str(len(batch.members)), str(batch.cost.weights), readable(batch.bytes), duration(batch.seconds))
        table.add_row(batch.key, rich_text(described(batch)), *sizes)
    console = Console()
    (console if console.is_terminal else Console(width=150)).print(table)
    tally = sweep.tally(rows, retry_failed)
    print(f"{tally} in all; folder {sweep.folder.path}")
    seconds = sum(batch.seconds for batch in batches) / max(1, min(limits.workers, len(batches)))
    print(
        f"about {duration(seconds)} with {limits.workers} at a time. Counted are {START:g} s to start and end each "
        f"batch, the steps ({costs.steps_are}; each evaluation of the gradient timed here), and at each observation "
        "one evaluation for every callback. Kernels that observers compute, and a busy machine, come on top"
    )
    if sweep.declaration.bisect is not None:
        print("a bisection goes on from what this finds, with more")
    if "end" in sweep.declaration.kernels:
        print("kernels at the end of training come on top, once there are trained networks")


def print_results(sweep: Sweep, tally: Tally, stopped: bool) -> None:
    """What there is now, what went wrong, and what to do."""
    print(f"{tally}; results in {sweep.folder.path}")
    for reason in sorted(set(tally.failed.values())):
        print(f"  failed: {printable(reason)}")
    rows = sweep.rows()
    _print_searches(sweep, rows)
    lost = sweep.runs_without_checkpoint(rows)
    if lost:
        print(
            f"the kernels at the end of {len(lost)} runs cannot be followed, because their checkpoints were not kept: "
            f"remove these runs and give the same command again ({', '.join(lost[:3])}{' ...' * (len(lost) > 3)})"
        )
    if tally.failed:
        print("give the same command with --retry_failed to train these again")
    if stopped:
        print("stopped: the same command goes on")
    else:
        print(f"figures: lazy-lightning report {sweep.folder.path} --out {sweep.folder.path}/report")


def _print_searches(sweep: Sweep, rows: Rows) -> None:
    bisection = sweep.declaration.bisect
    if bisection is None:
        return
    for family in sweep.networks:
        found = sweep.search(family, rows)
        name = words(family.setting) or "the configuration"
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
