"""sqrt(h) alpha as the control parameter: the network with a 1/h head, converted, takes the same steps."""

import pytest
import torch
from closeness import assert_close
from problems import problem

from lazy_lightning.flow import MarginsMet, StepsTried
from lazy_lightning.nn.parametrisation import to_mean_field

OPTIONS = {"controller": "reference", "events": [MarginsMet(), StepsTried(60)]}


# sqrt(16) is a power of two: scaling by it rounds nothing, so the two runs agree to the bit.
@pytest.mark.parametrize(("width", "rtol"), [(16, 0.0), (7, 1e-12)])
@pytest.mark.parametrize(("alpha", "tau", "centering"), [(0.1, 0.0, True), (3.0, 0.5, True), (3.0, 0.0, False)])
def test_same_steps_same_outputs(width, rtol, alpha, tau, centering):
    common = {"width": width, "centering": centering, "seeds": (0, 1)}
    own = problem(alphas=(alpha,), **common).to_end(dt=1.0, tau=tau, **OPTIONS).flow_state
    alpha_mf, dt_mf = to_mean_field(alpha, 1.0, width)
    tau_mf = to_mean_field(alpha, tau, width).t
    other = problem(alphas=(alpha_mf,), head="mean_field", **common).to_end(dt=dt_mf, tau=tau_mf, **OPTIONS).flow_state
    assert torch.equal(own.accepted, other.accepted)
    assert (own.accepted < own.tried).all()  # some steps were rejected
    assert_close(other.outputs, own.outputs, rtol=rtol)
    assert_close(other.displacement, own.displacement, rtol=rtol)
    assert_close(other.t, width * own.t, rtol=rtol)
