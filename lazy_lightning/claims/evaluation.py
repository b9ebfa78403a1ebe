"""Evaluation of claims on the runs of their experiments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from lazy_lightning.claims.claim import Claim, Measurement, Verdict, overall
from lazy_lightning.errors import LazyLightningError


@dataclass(frozen=True)
class Evaluated:
    """A claim with its measured numbers, or the reason why there are none."""

    claim: Claim
    measured: tuple[Measurement, ...] = ()
    reason: str = ""
    """Why nothing was measured; empty if something was."""

    @property
    def verdicts(self) -> list[Verdict]:
        """The verdict on each number."""
        return [self.claim.expected.verdict(one) for one in self.measured]

    @property
    def verdict(self) -> Verdict | None:
        """The verdict on all numbers, None if there are none."""
        return overall(self.verdicts) if self.measured else None


def evaluate(claims: Iterable[Claim], runs: Mapping[str, pd.DataFrame]) -> list[Evaluated]:
    """Evaluates claims on tables of runs by experiment; a claim whose runs are missing or too few has a reason instead.

    Args:
        claims: the claims.
        runs: for each experiment that is stored, its table of :func:`~lazy_lightning.runs.load_runs`.
    """
    return [_evaluated(claim, runs.get(claim.experiment)) for claim in claims]


def _evaluated(claim: Claim, runs: pd.DataFrame | None) -> Evaluated:
    if runs is None:
        return Evaluated(claim, reason=f"the experiment {claim.experiment} has not been run")
    try:
        return Evaluated(claim, tuple(claim.measure(runs)))
    except LazyLightningError as error:  # also of a run without the arrays or curves that are measured
        return Evaluated(claim, reason=str(error))
