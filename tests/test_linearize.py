"""The first-order model against explicit Jacobians and finite differences."""

import numpy as np
import pytest
import torch
from closeness import assert_close
from problems import problem
from torch.func import jacrev

from lazy_lightning.flow import ConstantStep, StepsTried
from lazy_lightning.linearize import tangent_departure, tangent_outputs


@pytest.fixture(scope="module", params=["softplus(5)", "tanh"])
def network(request):
    """f of two members, w0 and a displacement."""
    base = problem(seeds=(0, 1), activation=request.param)
    direction = torch.randn(base.w0.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return lambda w: base.objective.network(w, base.objective.x), base.w0, direction


@pytest.mark.parametrize("graph", [True, False])
def test_against_the_explicit_jacobian(network, graph):
    f, w0, direction = network
    with torch.set_grad_enabled(graph):
        found = tangent_outputs(f, w0, direction)
    for row in range(2):
        jacobian = jacrev(lambda w: f(w.unsqueeze(0))[0, :, 0])(w0[row])
        assert_close(found[row, :, 0], jacobian @ direction[row])


def test_against_central_differences(network):
    """Their error falls as the square of the step, until rounding: 1e-16/1e-4."""
    f, w0, direction = network
    found = tangent_outputs(f, w0, direction)
    errors = [
        float(((f(w0 + s * direction) - f(w0 - s * direction)) / (2 * s) - found).abs().max())
        for s in (1e-2, 1e-3, 1e-4)
    ]
    assert np.polyfit([-2, -3, -4], np.log10(errors), 1)[0] == pytest.approx(2, abs=0.1)


def test_departure_vanishes_as_one_over_alpha():
    """dw ~ 1/alpha, so F departs from its linearisation by a relative 1/alpha."""
    alphas = [1e2, 1e3, 1e4, 1e5]
    base = problem(alphas, loss="softhinge(5)")
    state = base.to_end(controller=ConstantStep(), events=[StepsTried(20)], dt=1.0).flow
    o = base.objective
    linear = o.centering(tangent_outputs(lambda w: o.network(w, o.x), base.w0, state.displacement), torch.zeros(1))
    departure = tangent_departure(state.outputs.unsqueeze(-1), linear)
    # The next order in dw is of relative size 1/alpha, at most a hundredth.
    assert np.polyfit(np.log(alphas), departure.log().numpy(), 1)[0] == pytest.approx(-1, abs=0.005)


@pytest.mark.parametrize(
    ("F", "linear", "expected"),
    [
        ([3.0, 4.0], [3.0, 4.0], 0.0),
        ([3.0, 4.0], [0.0, 0.0], 1.0),
        ([3.0, 4.0], [0.0, 4.0], 0.6),
        ([0.0, 0.0], [0.0, 0.0], float("nan")),
    ],
)
def test_departure(F, linear, expected):
    assert_close(tangent_departure(torch.tensor([F]), torch.tensor([linear])), torch.tensor([expected]))
