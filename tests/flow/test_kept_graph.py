"""A closure that keeps the graph of its loss (to log it, or with retain_graph) is no trouble when members leave."""

import pytest
import torch
from torch import nn

from lazy_lightning.flow import ConstantStep, LossReached, MomentumFlow, StepsTried, StopReason


@pytest.mark.parametrize("split", [False, True], ids=["one matrix", "two parameters"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_graphs_kept_while_members_leave(dtype, split):
    curvature = torch.tensor([1.0, 2.0, 30.0], dtype=dtype)
    shapes = [(3, 2), (3, 2)] if split else [(3, 4)]
    kept = []

    def run(keep):
        params = [nn.Parameter(torch.ones(shape, dtype=dtype)) for shape in shapes]
        events = [LossReached(0.5), StepsTried(40)]
        flow = MomentumFlow(params, members=3, compact=True, steps=4, dt=0.01, controller=ConstantStep(), events=events)

        def closure():
            rows = curvature if flow.active is None else curvature[flow.active]
            loss = rows * torch.cat([p.flatten(1) for p in params], dim=1).square().sum(dim=1) / 2
            loss.sum().backward(retain_graph=keep)
            if keep:
                kept.append(loss)
            return loss

        for _ in range(12):
            flow.step(closure)
        return flow

    flow = run(keep=True)
    assert flow.reasons == [StopReason.LOSS_REACHED, StopReason.LOSS_REACHED, StopReason.LOSS_REACHED]
    assert len(set(flow.flow_state.tried.tolist())) == 3  # one after the other
    assert torch.equal(flow.flow_state.displacement, run(keep=False).flow_state.displacement)
    kept[0].sum().backward()  # of no use any more, but no error
