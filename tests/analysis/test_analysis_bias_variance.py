"""Bias and variance over training sets and weights, on functions made of known parts."""

import numpy as np
import pytest

from lazy_lightning.analysis import bias_variance
from lazy_lightning.errors import AnalysisError


def made(rng, sets, seeds, samples, bias, data, weights, rest):
    """F = y + bias + a_d + b_w + c_dw with these standard deviations, and y."""
    y = rng.choice([-1.0, 1.0], size=samples)
    parts = (
        data * rng.normal(size=(sets, 1, samples))
        + weights * rng.normal(size=(1, seeds, samples))
        + rest * rng.normal(size=(sets, seeds, samples))
    )
    return y + bias + parts, y


@pytest.mark.parametrize("known", [(0.5, 0.3, 0.2, 0.1), (0.0, 1.0, 0.0, 0.5), (1.0, 0.0, 0.7, 0.0)])
@pytest.mark.parametrize(("sets", "seeds"), [(2, 2), (5, 3)])
def test_the_parts_of_a_made_function_are_recovered(known, sets, seeds):
    """Unbiased: 200000 samples average the estimates of two sets and two seeds to their expectations."""
    F, y = made(np.random.default_rng(0), sets, seeds, 200_000, *known)
    found = bias_variance(F, y)
    assert found[:4] == pytest.approx([part**2 for part in known], abs=0.02)
    assert found.of_weights == pytest.approx(known[2] ** 2 + known[3] ** 2, abs=0.02)
    assert found.error == pytest.approx(sum(part**2 for part in known), abs=0.03)


def test_their_sum_is_the_mean_squared_error_of_the_members():
    F, y = made(np.random.default_rng(1), 4, 3, 50, 0.4, 0.5, 0.6, 0.7)
    found = bias_variance(F, y)
    assert found.variance == pytest.approx(found.data + found.of_weights)
    assert found.error == pytest.approx(((F - y) ** 2).mean())  # both estimate the error of a new member


def test_several_outputs_are_averaged():
    F, y = made(np.random.default_rng(2), 3, 4, 60, 0.4, 0.5, 0.6, 0.7)
    whole = bias_variance(F.reshape(3, 4, 20, 3), y.reshape(20, 3))
    assert list(whole) == pytest.approx(list(bias_variance(F, y)))


@pytest.mark.parametrize(
    ("outputs", "targets", "message"),
    [
        (np.zeros((1, 2, 3)), np.zeros(3), r"\(1, 2, 3\) and targets \(3,\)"),
        (np.zeros((2, 1, 3)), np.zeros(3), "two seeds of the weights at least"),
        (np.zeros((2, 2, 3)), np.zeros(4), r"targets \(4,\)"),
        (np.full((2, 2, 3), np.nan), np.zeros(3), "not all finite"),
    ],
)
def test_refused_tables(outputs, targets, message):
    with pytest.raises(AnalysisError, match=message):
        bias_variance(outputs, targets)
