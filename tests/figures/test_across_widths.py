"""Interpolation to what widths have in common, and the power laws in h through it."""

import numpy as np
import pytest
from closeness import assert_close
from hypothesis import given
from hypothesis import strategies as st

from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.across_widths import across_widths, common_range, interpolated
from lazy_lightning.figures.sweep_table import WidthCurve

INTERPOLATED = 1e-12
"""log, a line and exp: some roundings, times the size of the logarithm."""


def curve(h, alpha, values, seeds=None):
    values = np.asarray(values, dtype=np.float64).reshape(len(alpha), -1)
    return WidthCurve(h, np.asarray(alpha, dtype=np.float64), values, tuple(seeds or range(values.shape[1])))


def law(h, alpha, exponent=-0.7, slope=-1.3):
    return curve(h, alpha, h**exponent * np.asarray(alpha) ** slope)


@given(
    slope=st.floats(-3, 3),
    exponent=st.floats(-2, 2),
    at=st.floats(0.11, 90.0),
    step=st.sampled_from([2, 3, 5, 9]),
)
def test_power_laws_come_out_whatever_the_grids(slope, exponent, at, step):
    curves = [law(h, np.geomspace(0.1 / h**0.01, 100.0, step + i), exponent, slope) for i, h in enumerate((10, 40, 90))]
    found = across_widths(curves, at, "alpha")
    assert_close(np.log(found.values[:, 0]), np.log(found.h**exponent * at**slope), rtol=INTERPOLATED, scale=10.0)
    assert found.law is not None
    assert found.law.slope == pytest.approx(exponent, abs=1e-10)


def test_points_of_the_grid_are_themselves():
    alpha = np.array([0.1, 0.7, 5.0])
    assert_close(np.array([interpolated(alpha, alpha**2, a) for a in alpha]), alpha**2, rtol=INTERPOLATED)


def test_beyond_the_points_is_not_known():
    alpha = np.array([0.1, 1.0, 10.0, 100.0])
    y = np.array([0.0, 2.0, np.nan, 3.0])
    assert np.isnan(interpolated(alpha, y, 0.5))  # a zero has no logarithm
    assert np.isnan(interpolated(alpha, y, 101.0))
    assert interpolated(alpha, y, 10.0) == pytest.approx(np.sqrt(6.0))  # a hole is bridged
    assert np.isnan(interpolated(alpha, 0 * y, 1.0))


def test_seeds_keep_their_columns():
    wide = curve(300.0, [1.0], [[1.0, 2.0]], seeds=(0, 7))
    narrow = curve(30.0, [1.0], [[5.0, 3.0]], seeds=(7, 3))
    found = across_widths([wide, narrow], 1.0, "alpha")
    assert_close(found.h, np.array([30.0, 300.0]))
    assert_close(found.values, np.array([[np.nan, 3.0, 5.0], [1.0, np.nan, 2.0]]))  # seeds 0, 3, 7


def test_by_scale_and_by_alpha():
    curves = [law(h, [1.0, 10.0], exponent=0.0, slope=-1.0) for h in (4, 16)]
    assert common_range(curves, "alpha") == (1.0, 10.0)
    assert common_range(curves, "scale") == (4.0, 20.0)
    assert_close(across_widths(curves, 8.0, "scale").values[:, 0], np.array([2 / 8, 4 / 8]), rtol=INTERPOLATED)
    table = across_widths(curves, 8.0, "scale").long(layer="a")
    assert_close(table["alpha"].to_numpy(copy=True), np.array([4.0, 2.0]))
    assert_close(table["sqrt_h_alpha"].to_numpy(copy=True), np.array([8.0, 8.0]))


def test_grids_of_one_scale_to_ten_digits_have_it_in_common():
    """As a sweep is configured: alpha = 1/sqrt(h), written with ten digits."""
    curves = [curve(h, [float(f"{h**-0.5:.10g}")], [float(h)]) for h in (30.0, 100.0, 300.0)]
    low, high = common_range(curves, "scale")
    assert low == pytest.approx(high, rel=1e-9)
    assert_close(across_widths(curves, high, "scale").values[:, 0], np.array([30.0, 100.0, 300.0]), rtol=1e-9)


def test_nothing_in_common_is_told():
    with pytest.raises(AnalysisError, match=r"no alpha in common: one starts at 5, another ends at 2"):
        common_range([law(10, [1.0, 2.0]), law(20, [5.0, 6.0])], "alpha")


def test_two_widths_have_no_slope_and_no_width_is_left_out():
    curves = [law(10, [1.0]), law(20, [1.0]), curve(np.nan, [1.0], [1.0])]
    found = across_widths(curves, 1.0, "alpha")
    assert found.h.tolist() == [10, 20]
    assert found.law is None
