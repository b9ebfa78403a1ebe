"""Backward differences against polynomials, for which they are exact."""

import itertools

import pytest
import torch
from torch.testing import assert_close

from lazy_lightning.flow.differences import MAX_ORDER, ROWS, Formulas, advanced, interpolated, predicted, rescaled

FORMULAS = Formulas.on(torch.device("cpu"))


def differences_at(polynomial, t, h):
    """(1, 8, 1) of a function at steps h before t."""
    values = [polynomial(t - i * h) for i in range(ROWS)]
    rows = []
    for _ in range(ROWS):
        rows.append(values[0])
        values = [a - b for a, b in itertools.pairwise(values)]
    return torch.tensor(rows, dtype=torch.float64).view(1, -1, 1)


def polynomial(degree):
    return lambda t: sum((k + 1) * (0.3 * t) ** k for k in range(degree + 1))


@pytest.mark.parametrize("order", range(1, MAX_ORDER + 1))
def test_prediction_continues_a_polynomial(order):
    f, orders = polynomial(order), torch.tensor([order])
    found, _ = predicted(differences_at(f, 1.0, 0.1), orders, FORMULAS)
    assert found.item() == pytest.approx(f(1.1), rel=1e-13)


@pytest.mark.parametrize("order", range(1, MAX_ORDER + 1))
def test_advanced_are_those_at_the_next_point(order):
    f, orders = polynomial(order + 2), torch.tensor([order])
    old = differences_at(f, 1.0, 0.1)
    increment = f(1.1) - predicted(old, orders, FORMULAS)[0]
    new = advanced(old, increment, orders, FORMULAS)
    assert_close(new[:, : order + 3], differences_at(f, 1.1, 0.1)[:, : order + 3], rtol=0, atol=1e-12)


@pytest.mark.parametrize("factor", [0.2, 0.9, 1.0, 3.0])
@pytest.mark.parametrize("order", range(1, MAX_ORDER + 1))
def test_rescaled_are_those_of_the_other_step(order, factor):
    f = polynomial(order)
    new = rescaled(differences_at(f, 1.0, 0.1), torch.tensor([order]), torch.tensor([factor], dtype=torch.float64))
    expected = differences_at(f, 1.0, factor * 0.1)
    assert_close(new[:, : order + 1], expected[:, : order + 1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", range(1, MAX_ORDER + 1))
def test_formula_of_order_k_differentiates_a_polynomial_of_degree_k(order):
    """d + psi = h y' / a_k, where d is zero because the prediction is exact."""
    f, h, orders = polynomial(order), 0.1, torch.tensor([order])
    _, psi = predicted(differences_at(f, 1.0, h), orders, FORMULAS)
    slope = sum((k + 1) * k * 0.3 * (0.3 * 1.1) ** (k - 1) for k in range(1, order + 1))
    assert psi.item() == pytest.approx(h * slope / FORMULAS.leading[order].item(), rel=1e-12)


@pytest.mark.parametrize("order", range(1, MAX_ORDER + 1))
def test_interpolated_is_a_polynomial_of_the_order(order):
    f, share = polynomial(order), torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    differences = differences_at(f, 1.0, 0.1).expand(3, -1, -1)
    found = interpolated(differences, torch.full((3,), order), share)
    expected = torch.tensor([[f(0.9)], [f(0.93)], [f(1.0)]], dtype=torch.float64)
    assert_close(found, expected, rtol=1e-13, atol=0)
