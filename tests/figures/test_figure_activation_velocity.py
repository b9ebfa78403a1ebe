"""Velocity and drift of activations: exponents of made sweeps, and poor data."""

import numpy as np
import pytest
from closeness import assert_close
from made_runs import LAYERS, made_sweep

from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.activation_velocity import activation_velocity
from lazy_lightning.figures.layers import some_of
from lazy_lightning.runs import load_runs

EXPONENTS = dict(zip(LAYERS, (0.125, -0.25, 0.25, 0.5), strict=True))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """With exponents in h at fixed sqrt(h) alpha of their own."""
    made = load_runs(made_sweep(tmp_path_factory.mktemp("velocity"), arrays=False))
    for layer in LAYERS:
        made[f"activation_velocity/{layer}"] *= made["h"] ** EXPONENTS[layer] / made["sqrt_h_alpha"]
    return made


def value(found, name):
    return float(found.findings[name].split(" ")[0])


def test_slopes_are_those_of_the_sweep(runs):
    found = activation_velocity(runs)
    for layer, slope in EXPONENTS.items():
        assert value(found, f"activation velocity against h, {layer}") == pytest.approx(slope, abs=1e-9)
        name = f"slope of the activation drift of {layer}, lazy side, h = 300"
        assert value(found, name) == pytest.approx(-1, abs=1e-9)


def test_numbers_drawn_are_in_the_table(runs):
    table = activation_velocity(runs).table
    speed = table[(table["quantity"] == "activation_velocity") & (table["layer"] == "head")]
    assert_close(
        speed["mean"].to_numpy(copy=True), np.sqrt(speed["h"].to_numpy(dtype=float, copy=True)), rtol=1e-8
    )  # alpha has ten digits
    drift = table[table["quantity"] == "activation_drift"]
    assert len(drift) == 3 * 13 * len(LAYERS)
    assert_close(drift["mean"].to_numpy(copy=True), 1 / drift["sqrt_h_alpha"].to_numpy(copy=True), rtol=1e-9)


def test_the_scale_is_one_where_it_can_be(runs, tmp_path):
    assert "at √h α = 1," in activation_velocity(runs).caption
    lazy = load_runs(made_sweep(tmp_path, scales=(10.0, 100.0), arrays=False))
    assert "at √h α = 10," in activation_velocity(lazy).caption


def test_what_is_interpolated_is_called_so(tmp_path):
    """Nothing was trained at the scale 1 of the figure."""
    found = activation_velocity(load_runs(made_sweep(tmp_path, scales=(0.1, 10.0), arrays=False)))
    assert "√h α = 1 (interpolated at every h between trained alphas" in found.caption
    assert any(axis.get_title().endswith("(interpolated at every h)") for axis in found.figure.axes)
    speeds = found.table[found.table["quantity"] == "activation_velocity"]
    assert speeds["interpolated"].all()


@pytest.mark.parametrize(
    ("made", "panels", "said"),
    [
        ({"widths": (100,)}, 4, "because there is only one width"),
        ({"widths": (None,)}, 4, "because there is only one width"),
        ({"without": ("activation_velocity",)}, 4, "Drift over training"),
        ({"without": ("activation_drift",)}, 1, "Velocity of the preactivations"),
        ({"activation_drift__head": 0.0}, 4, "Drift over training"),
        ({"scales": (1.0,), "seeds": 1}, 5, "1 seed"),
        ({"without": ("kernel_",)}, 5, "4 seeds"),
        ({"failed": (3,)}, 5, "Left out: 3 failed of 156 members"),
    ],
)
def test_poor_data_are_drawn_as_far_as_they_go(tmp_path, made, panels, said):
    found = activation_velocity(load_runs(made_sweep(tmp_path / "runs", arrays=False, **made)))
    assert len(found.figure.axes) == panels
    assert said in found.caption
    found.figure.draw_without_rendering()


def test_nothing_observed_is_refused(tmp_path):
    runs = load_runs(made_sweep(tmp_path, without=("activation_",), arrays=False))
    with pytest.raises(AnalysisError, match=r"not measured.*callbacks/activation.yaml"):
        activation_velocity(runs)


def test_of_many_layers_five_are_drawn():
    names = [str(i) for i in range(11)]
    assert some_of(names) == ["0", "2", "5", "8", "10"]
    assert some_of(names[:5]) == names[:5]
    assert some_of(names[:1]) == ["0"]
