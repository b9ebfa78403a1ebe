"""What lazy training costs, from made sweeps whose errors are known, and from runs that lack a part."""

import pytest
from closeness import assert_close
from made_runs import made_sweep

from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.lazy_comparison import lazy_comparison
from lazy_lightning.runs import load_runs


def made(folder, **options):
    return load_runs(made_sweep(folder, widths=(30, 100), scales=(0.1, 1.0, 10.0, 100.0), arrays=False, **options))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return lazy_comparison(made(tmp_path_factory.mktemp("comparison")))


def test_means_are_those_of_the_widest_network(found):
    """s/(1 + s) stable at s = sqrt(100) alpha; the errors of made_runs."""
    stable = found.table[found.table["part"] == "stable"]
    assert stable["seeds"].tolist() == [4] * 4
    scale = 10 * stable["alpha"].to_numpy(copy=True)
    assert_close(stable["mean"].to_numpy(copy=True), scale / (1 + scale), rtol=1e-9)
    linear = found.table[(found.table["part"] == "test") & found.table["model"].str.startswith("linearised")]
    assert_close(linear["mean"].to_numpy(copy=True), 0 * linear["mean"].to_numpy(copy=True) + 0.1, rtol=1e-12)


def test_best_and_lazy_errors_are_told(found):
    assert found.findings["test error, network"] == "8 % at best (alpha = 0.01), 10 % at alpha = 10"
    held = found.findings["test error, its weights, activations as at $w_0$"]
    assert held.endswith("30.6 % at alpha = 10")
    assert found.findings["stable activations"] == "9.09 % at alpha = 0.01, 99.01 % at alpha = 10"


def test_panels_and_legend(found):
    found.figure.draw_without_rendering()
    assert [axis.get_ylabel().split(" ")[0] for axis in found.figure.axes] == ["train", "test", "ReLUs"]
    assert len(found.figure.legends[0].get_texts()) == 4
    assert "4 seeds" in found.caption


def test_training_errors_of_nothing_are_not_drawn_around_zero(found):
    assert found.figure.axes[0].get_ylim() == (-0.05, 1.0)


@pytest.mark.parametrize(
    ("without", "panels", "models"),
    [
        (("activation_stability",), 2, 3),
        (("linearized", "frozen_activations"), 3, 2),
        (("frozen_activations", "activation_stability"), 2, 2),
    ],
)
def test_what_is_there_is_drawn(tmp_path, without, panels, models):
    found = lazy_comparison(made(tmp_path, without=without))
    assert len(found.figure.axes) == panels
    assert len(found.figure.legends[0].get_texts()) == models
    found.figure.draw_without_rendering()


def test_failed_members_are_left_out_and_said(tmp_path):
    found = lazy_comparison(made(tmp_path, failed=(0,)))
    assert "Left out: 2 failed of 32 members" in found.caption


def test_a_run_with_nothing_to_compare_is_refused(tmp_path):
    without = ("linearized", "frozen_activations", "activation_stability")
    with pytest.raises(AnalysisError, match=r"companions: \[linearized\], or add callbacks/stability.yaml"):
        lazy_comparison(made(tmp_path, without=without))
