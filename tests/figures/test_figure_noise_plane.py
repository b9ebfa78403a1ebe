"""The plane of alpha and the temperature of SGD: a table with known laws."""

import itertools

import numpy as np
import pandas as pd
import pytest

from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.noise_plane import noise_plane, temperatures
from lazy_lightning.report import write_report

RATES = (0.1, 1.0, 10.0)


def made() -> pd.DataFrame:
    """Displacements alpha^-1 T^0.5 g of seed factors g; at the highest T and least alpha no margins are met."""
    rows = []
    for rate, alpha, seed in itertools.product(RATES, (0.1, 1.0, 10.0), range(3)):
        met = (rate, alpha) != (10.0, 0.1)
        rows.append(
            {
                "h": 30, "alpha": alpha, "seed": seed, "model.optimizer.lr": rate, "data.batch_size": 10,
                "displacement/total": (rate / 10) ** 0.5 / alpha * (1 + 0.1 * (seed - 1)),
                "test/error": 0.05 * rate**0.1,
                "reason": "margins_met" if met else "max_steps",
            }
        )  # fmt: skip
    return pd.DataFrame(rows).assign(
        path="run",
        run="run",
        family="family",
        sqrt_h_alpha=1.0,
        wall_seconds=1.0,
        **{"status": "finished", "model": "network", "model.batch_seed": "weights", "model.stop_margin": 1.0},
    )


def test_exponents_of_the_temperature_are_found_and_errors_state_what_they_are_over():
    drawn = noise_plane(made())
    for alpha in (1, 10):
        text = drawn.findings[f"exponent of T, displacement, alpha = {alpha}"]
        assert float(text.split(" ± ")[0]) == pytest.approx(0.5, abs=1e-6)
        assert "3 temperatures, over seeds of weights and batches" in text
    assert "exponent of T, displacement, alpha = 0.1" not in drawn.findings  # two temperatures
    assert "over seeds of weights and batches" in drawn.findings["test error, alpha = 1"]
    assert "Left out: 3 of 27 members" in drawn.caption
    assert "standard error over seeds of weights and batches, widened" in drawn.caption
    table = drawn.table[drawn.table["quantity"] == "displacement/total"]
    assert len(table) == 8
    np.testing.assert_allclose(table["mean"], table["T"] ** 0.5 / table["alpha"], rtol=1e-12)
    assert set(table["over"]) == {"seeds of weights and batches"}


def test_temperatures_need_one_constant_rate():
    rows = made()
    assert temperatures(rows).unique().tolist() == [0.01, 0.1, 1.0]
    assert temperatures(rows.assign(**{"model.lr_scheduler": "InverseDecay"})).isna().all()
    assert temperatures(rows.drop(columns="model.optimizer.lr")).isna().all()
    assert temperatures(rows.assign(**{"model.optimizer": "Adam"})).isna().all()
    assert temperatures(rows.assign(**{"model.optimizer": "SGD", "model.optimizer.momentum": 0.9})).isna().all()
    assert temperatures(rows.assign(**{"data.n_train": 5})).unique().tolist() == [0.02, 0.2, 2.0]
    with pytest.raises(AnalysisError, match="at two temperatures lr/batch"):
        noise_plane(rows[rows["model.optimizer.lr"] == 1.0])


def test_a_report_draws_the_plane_across_rates_and_batch_sizes(tmp_path):
    drawn = [figure.name for figure in write_report(made(), tmp_path, tensorboard=False, figures={}).drawn]
    assert drawn == ["noise_plane"]
    assert (tmp_path / "temperatures/noise_plane.png").is_file()
    others = write_report(made().assign(**{"model.stop_margin": None}), tmp_path, tensorboard=False, figures={})
    assert not others.drawn
