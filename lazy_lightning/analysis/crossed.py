"""The mean of a crossed table, such as seeds by test samples, or weights by training sets, with its error.

All rows of such a table meet all columns, so its r c numbers are not independent: numbers of one row share the row's
draw, and those of one column the column's.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtr

from lazy_lightning.analysis.number_format import with_error
from lazy_lightning.analysis.seeds import Floats
from lazy_lightning.analysis.student import widening
from lazy_lightning.errors import AnalysisError


class CrossedMean(NamedTuple):
    """The mean of a table (r, c) whose rows and columns are both random draws."""

    mean: float
    """The mean of all numbers."""
    error: float
    """Standard error over new rows and new columns, widened by Student's t; NaN for a single number."""
    row_error: float
    """Standard error over new rows with the same columns, widened; NaN for one row."""
    column_error: float
    """Standard error over new columns with the same rows, widened; NaN for one column."""
    dof: float
    """Effective degrees of freedom of ``error``; NaN for a single number."""
    p_value: float
    """Probability of a mean at least as far from 0 if the true mean is 0 (two-sided, Student's t)."""
    rows: int
    """Number of rows r."""
    columns: int
    """Number of columns c."""

    def __str__(self) -> str:
        return with_error(self.mean, self.error)


def crossed_mean(values: ArrayLike) -> CrossedMean:
    """Returns the mean of a crossed table with its error over rows and columns.

    In the model y_rc = m + a_r + b_c + e_rc with independent a, b, e, the variance of the mean is
    var(a)/r + var(b)/c + var(e)/(r c). The three are estimated by the mean squares of rows, columns and remainder,
    where a negative estimate of var(a) or var(b) is replaced by 0 (S. R. Searle, G. Casella, C. E. McCulloch, *Variance
    Components*, chapter 4). The effective degrees of freedom are those of F. E. Satterthwaite, doi:10.2307/3002019.
    With one row, only the columns are a source of error, and with one column only the rows.

    Args:
        values: finite numbers (r, c); (c,) is one row.

    Raises:
        AnalysisError: there is no number, one is not finite, or there are more than two axes.

    >>> print(crossed_mean([[1.0, 2.0, 3.0], [1.5, 2.5, 3.5], [0.5, 1.5, 2.5]]))
    2.0 ± 1.1
    """
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if table.ndim != 2 or table.size == 0:
        raise AnalysisError(f"values have shape {np.shape(values)}, expected (r, c): rows by columns of a table.")
    if not np.isfinite(table).all():
        row, column = np.argwhere(~np.isfinite(table))[0]
        raise AnalysisError(
            f"values[{row}, {column}] is {table[row, column]:g}, expected a finite number: leave its row or column out."
        )
    r, c = table.shape
    mean = float(table.mean())
    of_rows, of_columns = table.mean(axis=1) - mean, table.mean(axis=0) - mean
    parts = _parts(table - mean, of_rows, of_columns)
    variance = max(0.0, sum(parts.values())) / (r * c)
    dof = _effective_dof(parts, r, c)
    error = math.sqrt(variance)
    return CrossedMean(
        mean=mean,
        error=widening(dof) * error if dof == dof else math.nan,
        row_error=_error_of(of_rows),
        column_error=_error_of(of_columns),
        dof=dof,
        p_value=_p_value(mean, error, dof),
        rows=r,
        columns=c,
    )


def _parts(deviations: Floats, of_rows: Floats, of_columns: Floats) -> dict[str, float]:
    """Returns the mean squares whose sum, over r c, is the variance of the mean, that of the remainder negative."""
    r, c = deviations.shape
    rows = c * float((of_rows**2).sum()) / (r - 1) if r > 1 else math.nan
    columns = r * float((of_columns**2).sum()) / (c - 1) if c > 1 else math.nan
    if r == 1 or c == 1:
        return {"columns": columns} if c > 1 else {"rows": rows} if r > 1 else {}
    remainder = float(((deviations - of_rows[:, None] - of_columns) ** 2).sum()) / ((r - 1) * (c - 1))
    if rows <= remainder or columns <= remainder:
        # of the two components the smaller is 0, and the larger mean square contains the remainder
        larger = max(("rows", rows), ("columns", columns), ("remainder", remainder), key=lambda part: part[1])
        return dict([larger])
    return {"rows": rows, "columns": columns, "remainder": -remainder}


def _effective_dof(parts: dict[str, float], r: int, c: int) -> float:
    if not parts:
        return math.nan
    dofs = {"rows": r - 1, "columns": c - 1, "remainder": (r - 1) * (c - 1)}
    spread = sum(square**2 / dofs[name] for name, square in parts.items())
    total = sum(parts.values())
    return total**2 / spread if spread > 0 and total > 0 else float(min(dofs[name] for name in parts))


def _error_of(deviations: Floats) -> float:
    """Returns the widened standard error of the mean of numbers with these deviations."""
    count = len(deviations)
    if count < 2:
        return math.nan
    return widening(count - 1) * math.sqrt(float((deviations**2).sum()) / (count * (count - 1)))


def _p_value(mean: float, error: float, dof: float) -> float:
    if dof != dof:
        return math.nan
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return 2 * float(stdtr(max(dof, 1.0), -abs(mean) / error))
