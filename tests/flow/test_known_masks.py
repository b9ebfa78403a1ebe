"""On a CPU a step leaves out what changes no member: the same numbers as with all operations, and fewer of them."""

import pytest
import torch
from problems import problem
from torch.utils._python_dispatch import TorchDispatchMode

from lazy_lightning.flow import MarginsMet, StepsTried, TimeReached, controllers, euler, events, gradient_change
from lazy_lightning.flow import integrator as integrators
from lazy_lightning.flow import step as steps
from lazy_lightning.flow.known_masks import holds_for_all, holds_for_none

USERS = (controllers, euler, events, gradient_change, integrators, steps)
CASES = {
    "gradient_change": {},
    "reference": {"controller": "reference", "events": [MarginsMet(0.5, share=0.8), StepsTried(300)]},
    "momentum": {"tau": 0.5},
    "hinge": {"loss": "hinge", "events": [StepsTried(300)]},
    "float32 to its rounding": {"dtype": torch.float32, "loss": "mse", "events": [StepsTried(600)]},
    "landing": {"events": [TimeReached(0.7), StepsTried(300)]},
    "all members stay in the batch": {"compact": False},
    "explicit": {"integrator": "explicit", "tol": 1e-2},
}


def run(dtype=torch.float64, loss="softhinge(5)", **options):
    given = {"dt": 1.0, "events": [MarginsMet(0.5), StepsTried(300)], "steps": 20, "compact": True, **options}
    flow = problem((0.1, 1.0, 30.0), (0, 1), loss, samples=8, dtype=dtype).to_end(**given)
    return flow.flow_state.tensors()


@pytest.mark.parametrize("name", CASES)
def test_the_numbers_are_those_of_all_operations_to_the_bit(name, monkeypatch):
    short = run(**CASES[name])
    for module in USERS:
        for function in ("holds_for_all", "holds_for_none"):
            monkeypatch.setattr(module, function, lambda mask: False, raising=False)
    for key, found in run(**CASES[name]).items():
        assert torch.equal(short[key].nan_to_num(-1.0), found.nan_to_num(-1.0)), key


class Count(TorchDispatchMode):
    """Counts the operations that are not views."""

    def __init__(self):
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.operations += not function.is_view
        return function(*args, **(kwargs or {}))


def test_a_step_of_which_all_is_accepted_takes_few_operations():
    flow, closure = problem().flow(events=[MarginsMet(0.5)], dt=1e-3, steps=1)
    for _ in range(3):
        flow.step(closure)
    assert flow.flow_state.accepted.item() == 3
    state, buffer = flow.flow_state, torch.empty_like(flow.flow_state.displacement)
    evaluation, gradient = steps.Evaluator(flow.rows, closure)(state.weights())
    with torch.no_grad(), Count() as count:
        steps.try_step(state, buffer, lambda weights: (evaluation, gradient), flow.dynamics)
    assert count.operations <= 38  # of which two let dt grow; 57 without what is known


def test_nothing_is_known_of_masks_on_other_devices():
    there = torch.ones(2, dtype=torch.bool, device="meta")
    assert not holds_for_all(there)
    assert not holds_for_none(there)
    here = torch.tensor([True, False])
    assert (holds_for_all(here), holds_for_none(here), holds_for_none(~here & here)) == (False, False, True)
