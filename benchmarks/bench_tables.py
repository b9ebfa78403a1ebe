"""The tables of ``make bench`` and of the work-precision runs, from their JSON alone.

    python benchmarks/bench_tables.py

writes ``results/*.md`` again from the files beside them, except those of ``make gpu``; ``docs/performance.md`` includes
them.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from growth import exponents
from parts import ROOT, Part, table

RESULTS = ROOT / "benchmarks" / "results"
WORK_PRECISION = ("work_precision_cpu", "work_precision_1000_cpu")
"""The second: n = 1000, on another machine."""
Row = dict[str, Any]
HEAD = ("processor", "device", "lazy_lightning", "torch", "python", "date")


def line(quantity: str, case: str, value: str, goal: str = "", met: bool | None = None) -> Row:
    """A line of the table in which all parts are brought together."""
    return {
        "quantity": quantity,
        "case": case,
        "measured": value,
        "goal": goal,
        "met": {True: "yes", False: "no"}.get(met),
    }


def flow_step(part: Part) -> Iterator[Row]:
    for row in part["rows"]:
        case = f"{row['dtype']}, h = {row['h']}, E = {row['E']}"
        value = f"{row['step_ratio']:.2f}"
        yield line("tried step over bare forward and backward", case, value, "at most 1.15", row["step_ratio"] <= 1.15)
    for row in part["rows"]:
        case = f"{row['dtype']}, h = {row['h']}, E = {row['E']}"
        yield line("time of operations and moved numbers over that of a step", case, f"{row['limit_share']:.2f}", "1")


def member_axis(part: Part) -> Iterator[Row]:
    for row in part["rows"]:
        case = f"h = {row['width']}, {row['members']} members"
        value = f"{row['members_per_minute']:.1f} members a minute; one at a time {row['members_per_minute_alone']:.1f}"
        yield line("sweep", case, value)
        faster = row["whole_ratio"] > 1
        value = f"{row['whole_ratio']:.1f}, fits alone {row['fit_ratio']:.1f}"
        yield line("one member at a time over one batch", case, value, "above 1", faster)


def convergence(part: Part) -> Iterator[Row]:
    for row in part["rows"]:
        case = f"n = {row['n']}, alpha = {row['alpha']:g}, E = {row['members']}"
        for way, goal in (("reference", 1.0), ("euler", 1.0), ("auto", 1.0)):
            ratio = row[f"{way}_ratio"]
            what = f"plain program of the published rule over {way}, to all margins"
            value = f"{ratio:.2f} ({row[f'{way}_tried']:.0f} evaluations)"
            yield line(what, case, value, f"at least {goal:g}", ratio >= goal)


def ntk(part: Part) -> Iterator[Row]:
    for row in part["rows"]:
        case = f"{row['network']}, h = {row['h']}, n = {row['n']}"
        for rival, goal in (("jacobian", 10), ("loop", 100), ("neural_tangents", 1)):
            if ratio := row.get(f"{rival}_ratio"):
                guessed = " (extrapolated)" if "extrapolated" in str(row.get(f"{rival}_note")) else ""
                value = f"{ratio:.1f}{guessed}"
                yield line(f"kernel: {rival} over structured", case, value, f"at least {goal}", ratio >= goal)
        yield line("kernel: share of the rate of products", case, f"{row['share']:.2f}", "1")


def mini_batch(part: Part) -> Iterator[Row]:
    for row in part["rows"]:
        case = f"{row['network']}, {row['dtype']}, {row['members']} members"
        ratio = row["loop_ratio"]
        value = f"{ratio:.2f}, at {row['gemm_share']:.2f} of the rate of products"
        yield line("mini-batch step: loop over networks over ours", case, value, "at least 1", ratio >= 1)


def trainer_overhead(part: Part) -> Iterator[Row]:
    for row in part["rows"]:
        case = f"h = {row['h']}, E = {row['E']}"
        share = row["trainer_share"]
        yield line("Lightning's share of a fit", case, f"{100 * share:.2f} %", "under 5 %", share < 0.05)
        ratio = row["fit_over_bare"]
        yield line("fit with all observers over a bare loop", case, f"{ratio:.3f}", "under 1.05", ratio < 1.05)


def devices(part: Part) -> Iterator[Row]:
    for row in part["rows"]:
        for way in ("members", "samples"):
            if way in row:
                case = f"h = {row.get('h')}, E = {row.get('E')}"
                yield line(f"one process over two, {way} distributed", case, f"{row[way]:.2f}", "above 1", row[way] > 1)


def growth(part: Part) -> Iterator[Row]:
    for fit in exponents(part["rows"]):
        shown = [
            f"{name} {fit[name]:.2f} ± {fit[f'{name}_error']:.2f}"
            for name in ("time", "memory", "operations")
            if name in fit
        ]
        case = f"{fit['axis']} = {fit['from']} to {fit['to']}"
        yield line(f"exponents of {fit['what']}", case, ", ".join(shown), "time as operations")


def integrators(part: Part) -> Iterator[Row]:
    yield from goals_of_integrators(part["rows"])


LINES: dict[str, Callable[[Part], Iterator[Row]]] = {
    "flow_step": flow_step,
    "member_axis": member_axis,
    "convergence": convergence,
    "ntk": ntk,
    "mini_batch": mini_batch,
    "integrators": integrators,
    "growth": growth,
    "trainer_overhead": trainer_overhead,
    "devices": devices,
}


def markdown(result: Part) -> str:
    """The whole: machine, how the parts ended, and the table."""
    head = [f"{key} {result[key]}" for key in HEAD]
    form = "the quick form" if result.get("quick") else "all sizes"
    ended = [
        {
            "part": name,
            "outcome": part["outcome"],
            "seconds": part.get("seconds"),
            "date": part.get("date"),
            "load at its start": part.get("load"),
            "peak memory, MiB": part.get("peak_mib"),
        }
        for name, part in result["parts"].items()
    ]
    lines = [row for name, part in result["parts"].items() for row in LINES[name]({"rows": [], **part})]
    missed = sum(row["met"] == "no" for row in lines)
    counted = sum(row["met"] is not None for row in lines)
    closing = f"{counted - missed} of {counted} goals are met."
    return "\n\n".join([f"{', '.join(head)}; {form}.", table(ended), table(lines), closing]) + "\n"


# ---------------------------------------------------------------------- work against precision

OURS = ("euler", "explicit", "implicit", "auto")
CASE = ("flow", "data", "n", "alpha")
SLIDES = "gradient_change"


def cases_of(rows: list[Row]) -> dict[tuple[Any, ...], list[Row]]:
    """The rows of each flow that Euler's method and another of our integrators have followed."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in CASE), []).append(row)
    names = {case: {row["integrator"] for row in own} for case, own in found.items()}
    return {case: own for case, own in found.items() if "euler" in names[case] and len(names[case] & {*OURS}) > 1}


def cheapest(rows: list[Row], integrator: str, error: float, cost: str) -> float | None:
    """The least cost of those of its runs whose error of F on test samples is at most ``error``."""
    costs = [row[cost] for row in rows if row["integrator"] == integrator and row["error"] <= error]
    return min(costs, default=None)


def cost_table(rows: list[Row], share: float) -> list[Row]:
    """What each integrator needs for an error that is ``share`` of that of Euler with ``gradient_change``."""
    lines = []
    for case, own in cases_of(rows).items():
        slides = next((row for row in own if row["setting"] == SLIDES), None)
        if slides is None:
            continue
        error = share * slides["error"]
        flow, data, n, alpha = case
        found: Row = {"flow": "frozen kernel" if flow == "kernel" else f"alpha = {alpha:g}", "data": data, "n": n}
        if share == 1:
            drift = slides.get("drift")
            found["drift"] = f"{drift:.2g}" if drift and drift == drift else ""
        found["error of F"] = f"{error:.1e}"
        names = [*OURS, *dict.fromkeys(row["integrator"] for row in own if row["integrator"].startswith("scipy"))]
        counts = {name: cheapest(own, name, error, "evaluations") for name in names}
        times = {name: cheapest(own, name, error, "cpu") for name in names}
        measured = {row["integrator"] for row in own}
        for name in OURS:
            missing = "not reached" if name in measured else "not measured"
            found[name] = f"{counts[name]}, {times[name]:.2g} s" if counts[name] is not None else missing
        reached = [name for name in names if counts[name] is not None]
        found["fewest evaluations"] = min(reached, key=lambda name: counts[name] or 0, default="")
        found["least time"] = min(reached, key=lambda name: times[name] or 0, default="")
        lines.append(found)
    return lines


def goals_of_integrators(rows: list[Row]) -> Iterator[Row]:
    """The goals of the implicit formulas, in evaluations, with the times beside them."""
    for case, own in cases_of(rows).items():
        flow, data, n, alpha = case
        slides = next((row for row in own if row["setting"] == SLIDES), None)
        if flow != "network" or slides is None or alpha not in (100.0, 0.01):
            continue
        lazy = alpha == 100.0
        share = (0.25 if data == "digits" else 1 / 6) if lazy else 1.0
        error = slides["error"] * (1.0 if lazy else 0.1)
        reached = [
            (count, name) for name in OURS[1:] if (count := cheapest(own, name, error, "evaluations")) is not None
        ]
        what = "evaluations over Euler's, " + ("at equal error" if lazy else "for a tenth of its error")
        where = f"{data}, n = {n}, alpha = {alpha:g}"
        if not reached:
            yield line(what, where, "not reached", f"at most {share:.2f}", False)
            continue
        count, name = min(reached)
        ratio = count / slides["evaluations"]
        time = (cheapest(own, name, error, "cpu") or 0) / slides["cpu"]
        value = f"{ratio:.2f} ({name}), {time:.2f} of its time"
        yield line(what, where, value, f"at most {share:.2f}", ratio <= share)


def work_precision_markdown(result: Part) -> str:
    """Costs at equal error, those of a tenth of it, and the goals."""
    rows = [{"cpu": row["seconds"], **row} for row in result["rows"]]
    head = ", ".join(f"{key} {result[key]}" for key in HEAD if key in result)
    timed = "processor time of one thread" if all("cpu" in row for row in result["rows"]) else "wall time"
    checks = [row for row in rows if row["integrator"] == "check"]
    parts = [
        f"{head}; evaluations, and {timed}.",
        "At the error of F (rms over test samples) of `euler` with `gradient_change`:",
        table(cost_table(rows, 1.0)),
        "At a tenth of it:",
        table(cost_table(rows, 0.1)),
        "Goals:",
        table(list(goals_of_integrators(rows))),
    ]
    if checks:
        gap = max(row["error"] for row in checks)
        parts.append(
            f"The truth of the kernel flows and scipy's LSODA at a tolerance of 1e-10 differ by at most {gap:.1e}."
        )
    return "\n\n".join(parts) + "\n"


# ---------------------------------------------------------------------- single benchmarks

COLUMNS: dict[str, tuple[str, ...]] = {
    "flow_step_cpu": (
        "dtype",
        "h",
        "E",
        "step_ms",
        "bare_ms",
        "step_ratio",
        "bare_gflops",
        "gemm_share",
        "limit_share",
        "block",
        "whole_ratio",
        "members_over_threads",
    ),
    "ntk_cpu": (
        *(
            "network",
            "h",
            "n",
            "structured_s",
            "structured_mib",
            "jacobian_ratio",
            "jacobian_mib",
            "loop_ratio",
            "loop_mib",
        ),
        *("neural_tangents_ratio", "share"),
    ),
    "member_axis_cpu": (
        "width",
        "members",
        "whole_ratio",
        "fit_ratio",
        "members_per_minute",
        "members_per_minute_alone",
    ),
    "mini_batch_cpu": (
        *("network", "dtype", "members", "step_ms", "loop_ratio", "gemm_share", "with_linearized"),
        "with_frozen_activations",
    ),
    "trainer_overhead_cpu": ("h", "E", "bare_ms", "fit_over_bare", "trainer_share"),
    "devices_cpu": ("h", "E", "one_ms", "members", "samples"),
}
"""What is shown of a file of one benchmark, where its rows have it."""
GPU_COLUMNS = ("dtype", "h", "E", "step_ms", "step_graph_ms", "bare_ms", "bare_graph_ms", "graph_ratio", "gemm_share")


def single_markdown(result: Part, columns: Sequence[str]) -> str:
    """Machine and table of one benchmark."""
    head = ", ".join(f"{key} {result[key]}" for key in HEAD if key in result)
    held = [column for column in columns if any(column in row for row in result["rows"])]
    return f"{head}.\n\n{table(result['rows'], held)}\n"


def gpu_markdown(result: Part) -> str:
    """Steps on a GPU; ``graph_ratio`` is the recorded step over the recorded bare one."""
    part = result["parts"]["flow_step"]
    rows = [{**row, "graph_ratio": row["step_graph_ms"] / row["bare_graph_ms"]} for row in part["rows"]]
    return single_markdown({**part, "rows": rows}, GPU_COLUMNS)


def rendered() -> dict[Path, str]:
    """The text of each table, from the JSON files there are."""
    writers: dict[str, Callable[[Part], str]] = {f.stem: markdown for f in sorted(RESULTS.glob("bench_*.json"))}
    writers |= dict.fromkeys(WORK_PRECISION, work_precision_markdown)
    writers |= {name: functools.partial(single_markdown, columns=columns) for name, columns in COLUMNS.items()}
    files = {RESULTS / f"{name}.json": write for name, write in writers.items()}
    texts = {
        file.with_suffix(".md"): write(json.loads(file.read_text())) for file, write in files.items() if file.is_file()
    }
    for file in sorted(RESULTS.glob("gpu_*.json")):
        texts[RESULTS / f"flow_step_{file.stem}.md"] = gpu_markdown(json.loads(file.read_text()))
    return texts


def main() -> None:
    for path, text in rendered().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
