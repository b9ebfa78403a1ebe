"""The closing summary of a run: the regime, errors and costs for each alpha, and the paths of the results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Timer
from rich.table import Table

from lazy_lightning.analysis import binomial_error
from lazy_lightning.analysis.regime import ENDED_BY_ITSELF, TRAINED_BELOW, Regime, regime
from lazy_lightning.callbacks.last_record import LastRecord
from lazy_lightning.callbacks.printing import SafeConsole, attempt
from lazy_lightning.callbacks.python_config import write_python_config
from lazy_lightning.callbacks.scalars import FOLDER as TENSORBOARD
from lazy_lightning.callbacks.unwritten import warn_if_unwritten
from lazy_lightning.figures.stated_scale import states_gamma
from lazy_lightning.flow.stop_reason import StopReason
from lazy_lightning.modules.logged_columns import stopped_early
from lazy_lightning.modules.observation import Record, finite_mean
from lazy_lightning.plain_text import rich_text
from lazy_lightning.runs.atomic import written_atomically
from lazy_lightning.runs.run_files import SUMMARY
from lazy_lightning.runs.stored_json import CHECKSUM, json_checksum

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import FlowingModule, ObservableModule

SCHEMA = 1


class ClosingSummary(LastRecord):
    """Sink that prints a table with one row for each alpha, and saves it with all last values as ``summary.json``."""

    def on_fit_end(self, trainer: Trainer, pl_module: ObservableModule) -> None:  # type: ignore[override]
        """Prints and saves the summary."""
        last = self.last(trainer)
        if last is None or not trainer.is_global_zero:
            return
        summary = summarize(pl_module, last)
        folder = None if trainer.log_dir is None else Path(trainer.log_dir)
        if folder is not None:
            write_python_config(trainer, pl_module)
            path = folder / SUMMARY
            with warn_if_unwritten(pl_module, path), written_atomically(path) as temporary:
                content = {**summary, CHECKSUM: json_checksum(summary)}
                temporary.write_text(json.dumps(content, indent=2) + "\n")
        attempt(lambda: print_summary(summary, folder))


def summarize(module: ObservableModule, record: Record) -> dict[str, Any]:
    """Returns the summary as plain data, in which null replaces numbers that are not finite."""
    reasons = [StopReason(int(code)) for code in record.columns["reason"]]
    members = [
        {
            "alpha": alpha,
            "seed": seed,
            "stop": _stop(reason, module),
            "failed": reason.failed,
            **({} if module.ensemble.data_seeds is None else {"data_seed": module.ensemble.data_seeds[i]}),
            **{name: _plain(column[i]) for name, column in record.columns.items() if name != "reason"},
        }
        for i, (alpha, seed, reason) in enumerate(
            zip(module.ensemble.alphas, module.ensemble.seeds, reasons, strict=True)
        )
    ]
    alphas = np.asarray(module.ensemble.alphas)
    return {
        "schema": SCHEMA,
        "model": module.title,
        "width": getattr(module.network.template, "width", None),
        "weights": module.network.weights,
        "wall_seconds": round(record.wall, 3),
        "gradient_evaluations": int(record.columns["tried"].max()) + 1,
        "groups": [
            _group(module, alpha, record, reasons, np.flatnonzero(alphas == alpha)) for alpha in dict.fromkeys(alphas)
        ],
        "members": members,
    }


_SENTENCES = {
    "max_time": "ended by the trainer's max_time, can be resumed",
    "early_stopping": "ended by EarlyStopping",
    "interrupted": "interrupted by the trainer, can be resumed",
}


def _stop(reason: StopReason, module: ObservableModule) -> str:
    """Returns the name of the reason to stop; for a member that was still running, the trainer's reason."""
    if reason is not StopReason.RUNNING:
        return reason.name.lower()
    timers = [c for c in module.trainer.callbacks if isinstance(c, Timer)]  # type: ignore[attr-defined]
    over = any((left := timer.time_remaining()) is not None and left <= 0 for timer in timers)
    if over:
        return "max_time"
    return "early_stopping" if stopped_early(module.trainer) else "interrupted"


def _group(
    module: ObservableModule, alpha: float, record: Record, reasons: list[StopReason], rows: NDArray[np.intp]
) -> dict[str, Any]:
    good = np.array([i for i in rows if not reasons[i].failed], dtype=np.intp)
    values = {name: column[good] for name, column in record.columns.items() if name not in ("reason", "dt")}
    width = getattr(module.network.template, "width", None)
    return {
        "alpha": float(alpha),
        "sqrt_h_alpha": None if width is None else float(np.sqrt(width) * alpha),
        "members": len(rows),
        "test_samples": len(module.test_split.y),
        "failed": len(rows) - len(good),
        "stops": sorted({_stop_sentence(module, reasons[i]) for i in rows}),
        "regime": _regime(module, record, [reasons[i] for i in good], good).value,
        "mean": {name: _plain(finite_mean(column)) for name, column in values.items()},
        "std": {name: _plain(_spread(column)) for name, column in values.items()},
    }


def _regime(module: ObservableModule, record: Record, reasons: list[StopReason], good: NDArray[np.intp]) -> Regime:
    """Returns the regime of the members of one alpha that have not failed."""
    if not module.trains_network:
        return Regime.KERNEL
    if "tangent_departure" not in record.columns:
        return Regime.UNKNOWN
    departure, share = record.columns["tangent_departure"][good], module.loss_shares(record)[good]
    ended = all(reason.name.lower() in ENDED_BY_ITSELF for reason in reasons)
    return regime(finite_mean(departure), finite_mean(share), ended)


def _stop_sentence(module: ObservableModule, reason: StopReason) -> str:
    """Describes a reason in words, with the share of the samples if it is less than all."""
    share = getattr(getattr(module, "stop", None), "margin_share", 1.0)
    if reason is StopReason.MARGINS_MET and share < 1:
        return f"margins met by {100 * share:.4g} % of the samples"
    if reason is StopReason.CUSTOM:
        events = cast("FlowingModule", module).events  # only a flow has this reason
        names = [event.name or type(event).__name__ for event in events if event.reason is reason]
        return f"{reason.sentence} ({' or '.join(names)})" if names else reason.sentence
    return _SENTENCES.get(_stop(reason, module)) or reason.sentence


def print_summary(summary: dict[str, Any], folder: Path | None) -> None:
    """Prints the tables of the summary and the paths of the results."""
    groups = summary["groups"]
    console = SafeConsole()
    if not console.is_terminal:
        console = SafeConsole(width=190)  # a log file has no width, so the table must not be folded
    title = f"{summary['model']}: {summary['weights']} weights a member, {summary['wall_seconds']:.1f} s"
    for columns, heading in ((_COLUMNS, title), (_KERNEL_COLUMNS, "the tangent kernel")):
        table = _table(groups, columns, heading)
        if len(table.columns) > 1:
            console.print(table)
    for group in groups:
        console.print(rich_text(_sentence(group)))
        console.print(rich_text(_by_member(summary, group)), soft_wrap=True)
    if any(group["members"] - group["failed"] > 1 for group in groups):
        console.print("± is the standard deviation over the members of an alpha, not the error of their mean")
    if folder is not None:
        console.print(rich_text(f"results in {folder}:"), soft_wrap=True)
        for path in _listed(folder):
            console.print(rich_text(f"  {path}"), soft_wrap=True)


def _listed(folder: Path) -> list[Path]:
    """Returns the files of a run, with the folder of TensorBoard's files instead of these files."""
    files = [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")]
    return sorted({folder / TENSORBOARD if (folder / TENSORBOARD) in p.parents else p for p in files})


def _table(groups: list[dict[str, Any]], columns: list[tuple[str, Any]], title: str) -> Table:
    """Returns a table with a row for each alpha and the columns that have a value."""
    table = Table(title=rich_text(title), title_justify="left")
    shown = [column for column in columns if any(column[1](group) is not None for group in groups)]
    for heading, _ in shown:
        table.add_column(heading, justify="left" if heading == "regime" else "right")
    for group in groups:
        table.add_row(*(rich_text(column(group) or "-") for _, column in shown))
    return table


def _sentence(group: dict[str, Any]) -> str:
    kind = {
        "lazy": "trained lazily: its linearisation at w0 gives nearly the same function",
        "feature": "learnt features: its linearisation at w0 does not describe it",
        "crossover": "trained in the crossover between lazy and feature learning",
        "kernel": "followed a frozen kernel",
        "undecided": "is undecided: its linearisation gives nearly the same function so far, but its loss has not "
        f"fallen to {100 * TRAINED_BELOW:.0f} % of its start",
        "unknown": "ended before its regime was measured",
    }[group["regime"]]
    failed = f"; {group['failed']} of {group['members']} members failed" if group["failed"] else ""
    return f"alpha = {group['alpha']:g} {kind} ({', '.join(group['stops'])}{failed})."


def _by_member(summary: dict[str, Any], group: dict[str, Any]) -> str:
    members = [m for m in summary["members"] if m["alpha"] == group["alpha"]]
    if any(m.get("test/error") is not None for m in members):
        shown = "  ".join(_format_value(m.get("test/error"), "{:.2%}") for m in members)
        return f"  test error by member: {shown}{_sampling_error(group)}"
    return "  test loss by member: " + "  ".join(_format_value(m.get("test/loss"), "{:.3g}") for m in members)


def _sampling_error(group: dict[str, Any]) -> str:
    """Returns a clause with the binomial error of the mean test error; empty in a summary of an older version."""
    mean, samples = group["mean"].get("test/error"), group.get("test_samples")
    if mean is None or not samples:
        return ""
    return f"  (sampling error of {samples} test samples: ± {100 * binomial_error(mean, samples):.2g} %)"


def _format_value(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value).replace("%", " %")


def _percent(name: str) -> Any:
    def text(group: dict[str, Any]) -> str | None:
        mean, std = group["mean"].get(name), group["std"].get(name)
        if mean is None:
            return None
        spread = f" ± {100 * std:.2f}" if std and "ensemble" not in name else ""
        return f"{100 * mean:.2f}{spread} %"

    return text


def _number(name: str) -> Any:
    def text(group: dict[str, Any]) -> str | None:
        mean = group["mean"].get(name)
        return None if mean is None else f"{mean:.3g}"

    return text


def _richness(group: dict[str, Any]) -> str | None:
    """Returns 1/(sqrt(h) alpha) if it is stated."""
    scale = group["sqrt_h_alpha"]
    return f"{1 / scale:.3g}" if scale is not None and states_gamma() else None


_COLUMNS: list[tuple[str, Any]] = [
    ("alpha", lambda group: f"{group['alpha']:g}"),
    ("√h alpha", lambda group: None if group["sqrt_h_alpha"] is None else f"{group['sqrt_h_alpha']:.3g}"),
    ("gamma", _richness),
    ("regime", lambda group: group["regime"]),
    ("train error", _percent("train/error")),
    ("test error", _percent("test/error")),
    ("ensemble", _percent("test/ensemble_error")),
    ("linear", _percent("linearized/test/error")),
    ("frozen", _percent("frozen_activations/test/error")),
    ("test loss", lambda group: None if "test/error" in group["mean"] else _number("test/loss")(group)),
    ("population", _number("population/loss")),
    ("stable", _percent("activation_stability/total")),
    ("‖w-w0‖/‖w0‖", _number("displacement/total")),
    ("‖F-F_lin‖/‖F‖", _number("tangent_departure")),
    ("t1", _number("t1/half_loss")),
    ("t end", _number("t")),
    ("steps", _number("tried")),
    ("lr", _number("lr")),
]

_KERNEL_COLUMNS: list[tuple[str, Any]] = [
    ("alpha", lambda group: f"{group['alpha']:g}"),
    ("‖Θ-Θ0‖/‖Θ0‖", _number("kernel_drift/total")),
    ("alignment with Θ0", _number("kernel_alignment")),
    ("with labels", _number("label_alignment")),
    ("effective rank", _number("kernel_spectrum/effective_rank")),
    ("kappa", _number("laziness_index")),
    ("sup ‖F-F_lin‖", _number("path_distance/sup")),
    ("t_lazy", _number("t_lazy/labels")),
    ("t1 by drift", _number("t1/kernel_drift")),
    ("t1 by departure", _number("t1/tangent_departure")),
]
"""Columns of the observers of the tangent kernel, printed as a separate table."""


def _spread(values: NDArray[np.float64]) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.std(ddof=1)) if len(finite) > 1 else float("nan")


def _plain(value: float) -> float | int | None:
    if not np.isfinite(value):
        return None
    return int(value) if float(value).is_integer() and abs(value) < 2**53 else float(value)
