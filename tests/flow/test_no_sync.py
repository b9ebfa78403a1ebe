"""A burst never waits for the device: no operation of a tried step reads a value back to the host.

On the CPU this is seen in the operations dispatched: those that need a tensor's values to go on are a fixed list.
"""

import pytest
import torch
from problems import problem
from torch.utils._python_dispatch import TorchDispatchMode

from lazy_lightning.flow import ConstantStep, GradientChangeController, LossReached, MarginsMet, StepsTried, TimeReached
from lazy_lightning.flow.evaluator import Evaluator
from lazy_lightning.flow.step import try_step

READS = {"_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "masked_select", "unique", "allclose"}


class Operations(TorchDispatchMode):
    """Names of the operations dispatched, the backward pass's too; ``index by mask`` for a boolean index."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.seen.append(name)
        if name.startswith("index") and len(args) > 1 and isinstance(args[1], (list, tuple)):
            masks = [i for i in args[1] if isinstance(i, torch.Tensor) and i.dtype in (torch.bool, torch.uint8)]
            self.seen += ["index by mask"] * len(masks)
        return func(*args, **(kwargs or {}))


def reads_of(call):
    with Operations() as operations:
        call()
    assert len(operations.seen) > 20
    return sorted(set(operations.seen) & (READS | {"index by mask"}))


CLASSES = torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize("rule", [{}, {"tau": [0.0, 1.0]}, {"mu": 3.0}], ids=str)
@pytest.mark.parametrize(
    "policy", ["gradient_change", "reference", ConstantStep(), GradientChangeController(1e-2, 1e-4)], ids=str
)
@pytest.mark.parametrize(
    "case",
    [
        {"loss": "hinge"},
        {"loss": "softhinge(20)"},
        {"loss": "quadratic_hinge"},
        {"loss": "softhinge(20)", "chunk_size": 4},
        {"loss": "softhinge(20)", "activation": "tanh"},
        {"loss": "softhinge(20)", "y": CLASSES, "num_outputs": 3},
        {"loss": "cross_entropy", "y": CLASSES, "num_outputs": 3},
        {"loss": "mse", "margins": False},
    ],
    ids=str,
)
def test_tried_step_reads_nothing_back(case, policy, rule):
    setting = problem(seeds=(0, 1), **case)
    events = [LossReached(0.5), TimeReached(3.0), StepsTried(9)] + [MarginsMet()] * setting.objective.reports_margins
    flow, closure = setting.flow(controller=policy, events=events, steps=1, **rule)
    flow.step(closure)
    buffer, evaluate = flow.rows.buffer(2), Evaluator(flow.rows, closure)
    assert reads_of(lambda: try_step(flow.flow_state, buffer, evaluate, flow.dynamics)) == []


def test_a_read_would_be_seen():
    x = torch.randn(5)

    def call():
        for _ in range(20):
            x.add(1)
        bool(x.sum() > 0)
        x[x > 0]
        x[x > 0] = 0.0

    assert "_local_scalar_dense" in reads_of(call)
    assert "index by mask" in reads_of(call)
