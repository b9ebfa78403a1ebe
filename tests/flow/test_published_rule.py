"""The preset ``reference`` is the published rule: the same accepted steps and outputs as a plain rendering of it."""

import functools
import importlib.util
from pathlib import Path

import pytest
import torch
import torch.nn.functional as nnf
from torch import nn
from torch.testing import assert_close

from lazy_lightning.flow import MomentumFlow, StepsTried
from lazy_lightning.nn import FC
from lazy_lightning.nn.initial_members import InitialMembers
from lazy_lightning.objective.centering import Centering
from lazy_lightning.objective.full_batch import Objective, raw_outputs
from lazy_lightning.objective.losses import build_loss

PLAIN = Path(__file__).parents[2] / "benchmarks/plain_flow.py"
STEPS, ALPHAS = 250, (0.01, 1.0, 100.0)

pytestmark = pytest.mark.skipif(not PLAIN.is_file(), reason="the tests do not lie in a checkout")


@pytest.fixture(scope="module")
def plain():
    spec = importlib.util.spec_from_file_location("plain_flow", PLAIN)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def template(width: int) -> FC:
    return FC(width, 2, input_shape=6, activation="softplus(5)").double()


@pytest.mark.parametrize("tau", [0.0, 0.3])
def test_same_steps_and_outputs(plain, tau):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(25, 6, dtype=torch.float64, generator=draw)
    y = torch.randn(25, dtype=torch.float64, generator=draw).sign()
    factory = functools.partial(FC, width=12, depth=2, activation="softplus(5)")
    members = InitialMembers(factory, [0] * len(ALPHAS), (6,), 1)
    w0 = members.w0.double()
    centering = Centering(torch.tensor(ALPHAS, dtype=torch.float64))
    f0 = raw_outputs(members.network, w0, x, {})
    objective = Objective(members.network, build_loss("softhinge(20)"), centering, x, y, f0, {})
    w = nn.Parameter(w0.clone())
    events = [StepsTried(STEPS)]
    flow = MomentumFlow([w], members=3, tau=tau, controller="reference", dt=1.0, events=events, steps=STEPS)
    flow.step(lambda: objective.backward(w))

    for row, alpha in enumerate(ALPHAS):
        model = template(12)
        nn.utils.vector_to_parameters(w0[row].clone(), model.parameters())

        def penalty(F, y=y):
            return nnf.softplus(1 - F * y, 20, 40)

        run = plain.plain_flow(model, x, penalty, alpha, STEPS, tau=tau)
        times = flow.trace.t[:, row].unique_consecutive()
        times = times[times > 0]
        assert len(times) == len(run.times) == int(flow.flow_state.accepted[row])
        # t sums up to 250 steps; dt itself is the same to the bit
        assert_close(times, torch.tensor(run.times, dtype=torch.float64), rtol=1e-12, atol=0)
        # rounding of alpha (f - f0) grows with alpha
        assert_close(flow.flow_state.outputs[row], run.outputs, rtol=0, atol=1e-13 * max(1.0, alpha))
