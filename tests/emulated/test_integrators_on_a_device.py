"""The integrators on the device: numbers of the CPU, and how often an attempt waits for the device."""

import pytest
import torch
from problems import problem
from torch import nn

from emulated.memory import NAME
from emulated.waits import counted
from lazy_lightning.flow import MarginsMet, MomentumFlow, TimeReached
from lazy_lightning.flow.evaluator import Evaluator
from lazy_lightning.flow.step import try_step
from lazy_lightning.ntk import ObjectiveClosure


def made(device, name, **options):
    setting = problem((0.1, 20.0), (0,), samples=8, device=device, width=4, depth=1)
    w = nn.Parameter(setting.w0.clone())
    flow = MomentumFlow([w], members=2, compact=True, integrator=name, steps=21, **options)
    return flow, ObjectiveClosure(w, setting.objective, flow)


@pytest.mark.parametrize("rule", [{}, {"tau": [0.0, 0.5]}], ids=["tau = 0", "by member"])
@pytest.mark.parametrize("name", ["explicit", "implicit", "auto"])
def test_same_trajectory_as_on_the_host(name, rule):
    ends = []
    for device in ("cpu", NAME):
        flow, closure = made(device, name, events=[MarginsMet(), TimeReached(5.0)], **rule)
        while not flow.started or any(flow.clock().running):
            flow.step(closure)
        ends.append(flow.flow_state)
    host, there = ends
    assert there.tried.tolist() == host.tried.tolist()
    torch.testing.assert_close(there.displacement.cpu(), host.displacement, rtol=1e-8, atol=1e-10)


@pytest.mark.skipif(NAME == "cuda", reason="no record of synchronisations")
@pytest.mark.parametrize(("name", "most"), [("explicit", 0), ("implicit", 6)])
def test_waits_in_an_attempt(name, most):
    """None in the explicit pair; in the implicit formulas who begins, is rescaled, factorized or accepted."""
    flow, closure = made(NAME, name, events=[TimeReached(50.0)])
    flow.step(closure)
    buffer, evaluate = flow.rows.buffer(2), Evaluator(flow.rows, closure)
    with counted() as waits:
        try_step(flow.flow_state, buffer, evaluate, flow.dynamics)
    assert len(waits) <= most, [str(wait) for wait in waits]
