"""A statement of a paper with the number that decides it, and the decision."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from lazy_lightning.analysis import mean_and_error
from lazy_lightning.analysis.number_format import with_error
from lazy_lightning.analysis.seeds import Floats


class Verdict(enum.StrEnum):
    """Whether a measured number agrees with what is expected."""

    MET = "met"
    NOT_MET = "not met"
    UNRESOLVED = "not resolved"


class Measurement(NamedTuple):
    """A measured number with its error."""

    value: float
    """The number."""
    error: float
    """One standard error, widened for few seeds by Student's t: two of it cover the true value in 95 % of cases."""
    label: str = ""
    """What distinguishes it from the other numbers of the claim, for example ``h = 100``."""

    @classmethod
    def mean(cls, values: Floats, label: str = "") -> Measurement:
        """Returns the mean of values (s,) over seeds with its error."""
        mean, error = mean_and_error(values[None])
        return cls(float(mean[0]), float(error[0]), label)

    def __str__(self) -> str:
        number = with_error(self.value, self.error)
        return f"{self.label}: {number}" if self.label else number


class Expected(NamedTuple):
    """The interval in which the true number lies if the statement holds; an end may be infinite."""

    low: float
    high: float

    @classmethod
    def near(cls, value: float, tolerance: float) -> Expected:
        """Returns the interval value ± tolerance."""
        return cls(value - tolerance, value + tolerance)

    def __str__(self) -> str:
        if self.low == -math.inf:
            return f"below {self.high:g}"
        if self.high == math.inf:
            return f"above {self.low:g}"
        return f"{self.low:g} to {self.high:g}"

    def verdict(self, measured: Measurement) -> Verdict:
        """Compares the 95 % interval, value ± 2 error, with the expected one.

        The statement is met if the measured interval lies inside the expected one, not met if it lies outside, and
        not resolved if the two overlap in part or the error is not known: more seeds or a larger size are needed.

        >>> str(Expected.near(-1, 0.1).verdict(Measurement(-1.02, 0.03)))
        'met'
        >>> str(Expected.near(-1, 0.1).verdict(Measurement(-1.02, 0.3)))
        'not resolved'
        """
        low, high = measured.value - 2 * measured.error, measured.value + 2 * measured.error
        if self.low <= low and high <= self.high:
            return Verdict.MET
        if high < self.low or low > self.high:
            return Verdict.NOT_MET
        return Verdict.UNRESOLVED


@dataclass(frozen=True)
class Claim:
    """A statement with the function that measures its number from the runs of an experiment."""

    name: str
    """Identifier in tests and files."""
    statement: str
    """The statement, as a sentence."""
    source: str
    """The paper and its section."""
    experiment: str
    """Key of :data:`~lazy_lightning.claims.experiments.EXPERIMENTS`."""
    quantity: str
    """The measured number in words, with what its error is over."""
    expected: Expected
    """The interval of the statement."""
    measure: Callable[[pd.DataFrame], Sequence[Measurement]]
    """Measures the number, or several of the same kind (one for each width), from a table of runs; raises AnalysisError
    if the runs do not suffice."""
    figure: str | None = None
    """The figure of the report that shows it, a key of
    :data:`~lazy_lightning.figures.catalogue.EVERY_FIGURE`."""
    remark: str = ""
    """What limits the measurement, as a sentence."""


def overall(verdicts: Sequence[Verdict]) -> Verdict:
    """Returns the verdict on several numbers: met if all are, not met if one is not."""
    for decisive in (Verdict.NOT_MET, Verdict.UNRESOLVED):
        if decisive in verdicts:
            return decisive
    return Verdict.MET
