"""Figures for reports in tests: drawn in no time, with every kind of ending."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.report_figure import ReportFigure
from lazy_lightning.figures.style import paper_style

NUMBERS = np.array([1 / 3, -2.5e-300, 1e22, np.pi])
"""That lose digits in any careless writing."""
HOSTILE = "<script>alert('x')</script> & \"quoted\""


def plain_figure(runs):
    with paper_style():
        figure = Figure(figsize=(2.0, 1.5))
        figure.subplots().plot([1, 2], [1, 2])
    table = pd.DataFrame({"h": 100, "kind": "made", "value": NUMBERS})
    findings = {"slope, h = 100": "-1.00 ± 0.01", HOSTILE: HOSTILE}
    return ReportFigure("plain_figure", "A plain figure", f"Slope -1 over 3 seeds. {HOSTILE}", figure, table, findings)


def wide_figure(runs):
    """Wider than a telephone, with a table longer than a page has room for."""
    with paper_style():
        figure = Figure(figsize=(9.3, 1.5))
        figure.subplots(1, 3)
    table = pd.DataFrame({"h": np.arange(1000.0), "with_a_very_long_name_that_does_not_break": np.nan, "more": 1.0})
    return ReportFigure("wide_figure", "A wide figure", "Three panels.", figure, table)


def refused_figure(runs):
    raise AnalysisError("kernel_drift/total was not observed: stack callbacks/ntk.yaml on the sweep")


def failed_figure(runs):
    raise ZeroDivisionError(f"our mistake {HOSTILE}")


MADE = {f.__name__: f for f in (plain_figure, refused_figure, wide_figure, failed_figure)}
