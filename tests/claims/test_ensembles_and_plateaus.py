"""Claims of arXiv:1906.08034 on ensembles: digits parity, FC of three layers, by command line and run store."""

from __future__ import annotations

import pandas as pd
import pytest
import yaml

from lazy_lightning import load_runs
from lazy_lightning.analysis import ensemble_statistics, plateau, power_law_of_points
from lazy_lightning.cli import main

pytestmark = pytest.mark.slow

DIGITS = ["--config", "digits_fc.yaml", "--data.n_train", "200", "--data.n_test", "797", "--model.dt", "1e-3"]
WIDTHS = (100, 200, 400, 800)
SEEDS = 40
SCALES = [0.03, 1.0e2, 1.0e3, 1.0e4]


@pytest.fixture(scope="module")
def lazy_limit(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Frozen kernels at initialisation, which many seeds can afford."""
    folder = tmp_path_factory.mktemp("kernels")
    for width in WIDTHS:
        where = ["--trainer.logger.save_dir", str(folder), "--model.network.width", str(width)]
        assert main(["kernel", *DIGITS, *where, "--model.alpha", "1.0", "--model.seeds", str(SEEDS)]) == 0
    return load_runs(folder)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """One feature-learning scale and three lazy ones, two widths, ten seeds."""
    folder = tmp_path_factory.mktemp("networks")
    grid = {"model.network.width": [30, 300], "sqrt_h_alpha": SCALES, "seeds": 10}
    (folder / "sweep.yaml").write_text(yaml.safe_dump({"grid": grid}))
    given = ["--sweep", str(folder / "sweep.yaml"), "--out", str(folder / "runs"), "--workers", "0"]
    assert main(["sweep", *DIGITS, *given]) == 0
    return load_runs(folder / "runs")


def test_variance_over_seeds_falls_as_one_over_h(lazy_limit: pd.DataFrame) -> None:
    found = [ensemble_statistics(*rows.outputs.load("test")[:2]) for _, rows in lazy_limit.groupby("h")]
    law = power_law_of_points(WIDTHS, [one.variance for one in found], [one.variance_error for one in found])
    print("Var F against h:", law, [f"{one.variance:.4g} +- {one.variance_error:.2g}" for one in found])
    assert law.slope == pytest.approx(-1, abs=0.15)


def test_lazy_test_error_has_a_plateau(networks: pd.DataFrame) -> None:
    for h, rows in networks[networks["sqrt_h_alpha"] > 1].groupby("h"):
        table = rows.pivot(index="sqrt_h_alpha", columns="seed", values="test/error")
        flat = plateau(table.index, table)
        print(f"h = {h}: test error {flat}")
        assert flat.decades >= 2 - 1e-9


def test_ensemble_beats_its_mean_member_and_matches_a_wider_network(networks: pd.DataFrame) -> None:
    """Ten networks of 30 neurons, averaged, against one of 300: never worse than its mean by two of its errors."""
    for scale in SCALES:
        here = networks[networks["sqrt_h_alpha"] == scale]
        narrow, wide = (ensemble_statistics(*here[here["h"] == h].outputs.load("test")[:2]) for h in (30, 300))
        print(
            f"sqrt(h) alpha = {scale:g}: mean member {narrow.mean_error:.4f} +- {narrow.mean_error_sd:.4f}, their "
            f"ensemble {narrow.ensemble_error:.4f}, wide {wide.mean_error:.4f} +- {wide.mean_error_sd:.4f}"
        )
        assert narrow.ensemble_error < narrow.mean_error
        assert narrow.ensemble_error < wide.mean_error + 2 * wide.mean_error_sd
