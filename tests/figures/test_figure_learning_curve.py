"""Learning curves, bias and variance, and errors by width: tables with known laws, and small trainings."""

import itertools

import numpy as np
import pandas as pd
import pytest
from fits import digits, fit, module

from lazy_lightning import load_runs
from lazy_lightning.analysis import bias_variance
from lazy_lightning.callbacks import ClosingSummary, OutputsWriter
from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.bias_by_samples import bias_by_samples
from lazy_lightning.figures.draws import AVERAGED
from lazy_lightning.figures.error_by_samples import error_by_samples
from lazy_lightning.figures.error_by_width import error_by_width
from lazy_lightning.modules import StoppingCriteria
from lazy_lightning.report import write_report

SIZES = (100, 200, 400, 800)
EXPONENTS = {0.1: -0.5, 10.0: -0.25}


def made(sizes=SIZES):
    """Errors n^exponent at each sqrt(h) alpha, with a factor of the training set and one of the weights."""
    rows = []
    for n, h, (scale, exponent), data, seed in itertools.product(
        sizes, (30, 100), EXPONENTS.items(), (3, 5, 7), (0, 1)
    ):
        error = 0.8 * n**exponent * (1 + 0.02 * (data - 5)) * (1 + 0.1 * (seed - 0.5)) * (1 + 3 / h)
        rows.append({"h": h, "alpha": scale / h**0.5, "sqrt_h_alpha": scale, "seed": seed, "test/error": error})
        rows[-1] |= {"data.n_train": n, "data.train_seed": data, "model": "network"}
    kernels = [row | {"model": "kernel at init", "alpha": 1.0} for row in rows if row["sqrt_h_alpha"] == 10.0]
    return pd.DataFrame(rows + kernels).assign(status="finished")


def test_exponents_of_learning_curves_are_found():
    drawn = error_by_samples(made())
    for h, (scale, exponent) in itertools.product((30, 100), EXPONENTS.items()):
        text = drawn.findings[f"exponent of n, h = {h}, sqrt(h) alpha = {scale:g}"]
        assert float(text.split(" ± ")[0]) == pytest.approx(exponent, abs=1e-4)
        assert "(n from 100 to 800)" in text
    assert sum("kernel at init" in name for name in drawn.findings) == 2
    assert f"standard error over {AVERAGED}, widened" in drawn.caption
    assert "mean of 3 training sets" in drawn.caption
    members = drawn.table[drawn.table["curve"] == "h = 30, sqrt(h) alpha = 0.1"]
    np.testing.assert_allclose(members["mean"], 100 * 0.8 * 1.1 * np.array(SIZES) ** -0.5, rtol=1e-12)


def test_errors_by_width_are_those_of_the_largest_training_set():
    table = error_by_width(made()).table
    lazy = table[table["line"] == "largest alpha"]
    assert lazy["h"].tolist() == [30.0, 100.0]
    np.testing.assert_allclose(lazy["mean"], 80 * 800**-0.25 * (1 + 3 / np.array([30, 100])), rtol=1e-12)
    kernel = table[table["line"] == "kernel at init"]
    np.testing.assert_allclose(kernel["mean"], lazy["mean"], rtol=1e-12)


def test_one_size_is_no_learning_curve():
    with pytest.raises(AnalysisError, match=r"no width was trained at two data\.n_train"):
        error_by_samples(made([100]))


def test_a_report_of_trainings_has_the_parts_of_the_error(tmp_path):
    """Of every training set with every seed of the weights, from the outputs that the runs have stored."""
    for n in (16, 32, 48):
        model = module(alpha=[0.3, 30.0], seeds=2, data_seeds=3, stop=StoppingCriteria(max_steps=40))
        fit(tmp_path / "runs" / str(n), model, digits(n_train=n), callbacks=[ClosingSummary(), OutputsWriter()])
    runs = load_runs(tmp_path / "runs")
    report = write_report(runs, tmp_path / "report", tensorboard=False, figures={})  # those across n alone
    assert not report.failed
    drawn = {figure.name: figure for figure in report.drawn}
    assert {"error_by_samples", "bias_by_samples"} <= set(drawn)
    row = drawn["bias_by_samples"].table.query("n == 32 and alpha == 30").iloc[0]
    chosen = runs[(runs["data.n_train"] == 32) & (runs["alpha"] == 30.0)].sort_values(["data.train_seed", "seed"])
    outputs = chosen.outputs.load("test")
    expected = bias_variance(outputs.outputs.reshape(3, 2, -1), outputs.labels)
    assert [row["bias2"], row["data"], row["weights"]] == pytest.approx(list(expected[:3]))
    with pytest.raises(AnalysisError, match="no point has outputs of two training sets"):
        bias_by_samples(runs[runs["data.train_seed"] == 0])
