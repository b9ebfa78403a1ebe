"""What a figure of a report comes with: its caption, and the numbers that it shows."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd
from matplotlib.figure import Figure


@dataclass(frozen=True)
class ReportFigure:
    """One figure of a report."""

    name: str
    """Stem of its files."""
    title: str
    caption: str
    """Plain text: what is seen, over how many seeds, with slopes and their errors."""
    figure: Figure
    table: pd.DataFrame
    """Every number that is drawn, in long form."""
    findings: dict[str, str] = field(default_factory=dict)
    """Numbers worth a line of their own, such as {"slope, lazy side, h = 100": "-1.00 ± 0.01"}."""
