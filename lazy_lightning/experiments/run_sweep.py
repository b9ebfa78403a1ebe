"""Trains what a sweep wants until there is nothing left: kernels and bisections want more once networks are trained."""

from __future__ import annotations

from collections.abc import Sequence

from lazy_lightning.errors import RunError
from lazy_lightning.experiments.batching import Batch
from lazy_lightning.experiments.costs import CostModel
from lazy_lightning.experiments.execution import Execution
from lazy_lightning.experiments.sweep import BatchLimits, Sweep
from lazy_lightning.experiments.sweep_progress import SweepProgress


def run_sweep(
    sweep: Sweep,
    execution: Execution,
    progress: SweepProgress,
    costs: CostModel,
    limits: BatchLimits,
    retry_failed: bool = False,
) -> None:
    """Until all is trained, or a signal has stopped it.

    Raises:
        RunError: a run that has ended is wanted again, which would never end.
    """
    begun: set[str] = set()
    while not execution.stopped:
        rows = sweep.rows()
        batches = sweep.batches(rows, costs.of(rows), limits, retry_failed)
        if not batches:
            return
        progress.set_total(len(sweep.status(rows, retry_failed).wanted))
        _require_progress(batches, begun)
        execution.train(batches)
        retry_failed = False  # once is enough


def _require_progress(batches: Sequence[Batch], begun: set[str]) -> None:
    again = [batch.key for batch in batches if batch.key in begun]
    if again:
        raise RunError(
            f"the run {again[0]} has ended, but its members are not found in the index: its config.yaml is not the one "
            "that was planned; please report this"
        )
    begun.update(batch.key for batch in batches)
