"""One report for all tests that only look at it."""

import pytest
from made_figures import MADE
from made_runs import made_kernels, made_sweep

from lazy_lightning.report import write_report
from lazy_lightning.runs import load_runs


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    made_sweep(folder / "sweep", widths=(30, 100), scales=(0.1, 10.0), seeds=2, failed=(1,))
    made_kernels(folder / "kernels", widths=(30, 100), seeds=2)
    return load_runs(folder)


@pytest.fixture(scope="session")
def made(runs, tmp_path_factory):
    """A report of made figures: two drawn, one refused, one failed."""
    return write_report(runs, tmp_path_factory.mktemp("report") / "out", figures=MADE)
