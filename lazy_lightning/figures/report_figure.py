"""ReportFigure, a figure of a report with its caption and its numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd
from matplotlib.figure import Figure


@dataclass(frozen=True)
class ReportFigure:
    """One figure of a report with its caption, table and findings."""

    name: str
    """Stem of the names of its files."""
    title: str
    caption: str
    """Plain text with a description, the number of seeds, and slopes with their errors."""
    figure: Figure
    table: pd.DataFrame
    """All drawn values in long form."""
    findings: dict[str, str] = field(default_factory=dict)
    """Main results by name, such as {"slope, lazy side, h = 100": "-1.00 ± 0.01"}."""
