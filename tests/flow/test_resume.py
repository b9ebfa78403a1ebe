"""A saved flow goes on to the bit."""

import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import problem

from lazy_lightning.flow import MarginsMet, StepsTried

DTYPES = [torch.float32, torch.float64]
TOTAL = 60


def start(dtype, tau, **options):
    events = [MarginsMet(), StepsTried(50)]
    setting = problem((0.1, 10.0), (0, 1), samples=8, dtype=dtype)
    return setting.flow(tau=tau, controller="reference", dt=0.3, events=events, compact=True, **options)


def through_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def run(flow, closure, bursts):
    for steps in bursts:
        flow.steps = steps
        flow.step(closure)
    return {name: x for name, x in flow.flow_state.tensors().items() if x is not None}


@settings(max_examples=10)
@given(
    bursts=st.lists(st.integers(1, 12), min_size=2, max_size=9),
    cut=st.integers(0, 8),
    tau=st.sampled_from([0.0, 0.4]),
    dtype=st.sampled_from(DTYPES),
)
def test_resumed_is_undisturbed_to_the_bit(bursts, cut, tau, dtype):
    cut = min(cut, len(bursts))
    flow, closure = start(dtype, tau)
    undisturbed = run(flow, closure, bursts)

    first, closure = start(dtype, tau)
    if cut:
        run(first, closure, bursts[:cut])
    saved = through_file(first.state_dict())
    second, closure = start(dtype, tau)
    second.load_state_dict(saved)
    resumed = run(second, closure, bursts[cut:]) if cut < len(bursts) else second.flow_state.tensors()

    for name, expected in undisturbed.items():
        assert resumed[name].dtype == expected.dtype, name
        assert torch.equal(resumed[name], expected), name
    assert torch.equal(second.param_groups[0]["params"][0], flow.param_groups[0]["params"][0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_clocks_and_counts_keep_their_types(dtype):
    flow, closure = start(dtype, 0.4)
    flow.step(closure)
    second, _ = start(dtype, 0.4)
    second.load_state_dict(through_file(flow.state_dict()))
    kinds = {name: x.dtype for name, x in second.flow_state.tensors().items() if x is not None}
    assert kinds["t"] == kinds["dt"] == torch.float64
    assert kinds["tried"] == kinds["accepted"] == torch.int64
    assert kinds["reason"] == torch.int8
    assert kinds["velocity"] == kinds["displacement"] == dtype


def test_a_loaded_flow_does_not_share_memory_with_the_file():
    flow, closure = start(torch.float64, 0.0)
    flow.step(closure)
    saved = flow.state_dict()
    t = next(iter(saved["state"].values()))["t"].clone()
    second, closure = start(torch.float64, 0.0)
    second.load_state_dict(saved)
    run(second, closure, [5])
    assert torch.equal(next(iter(saved["state"].values()))["t"], t)


def test_origin_stays_shared_with_who_gave_it():
    w0 = problem((0.1, 10.0), (0, 1), samples=8).w0
    flow, closure = start(torch.float64, 0.0)
    flow.step(closure)
    second, _ = start(torch.float64, 0.0, origin=w0)
    second.load_state_dict(through_file(flow.state_dict()))
    assert second.origin is w0


def test_flow_that_has_not_begun():
    flow, closure = start(torch.float64, 0.0)
    second, closure = start(torch.float64, 0.0)
    second.load_state_dict(through_file(flow.state_dict()))
    assert not second.started
    second.step(closure)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"width": 7}, "same network"),
        ({"seeds": (0,)}, "same network"),
        ({"dtype": torch.float32}, "float32"),
        ({"tau": 0.4}, "velocity"),
    ],
    ids=str,
)
def test_flow_of_something_else_is_refused(other, message):
    options = {"seeds": (0, 1), **other}
    tau = options.pop("tau", 0.0)
    flow, closure = problem(seeds=(0, 1)).flow()
    flow.step(closure)
    second, _ = problem(**options).flow(tau=tau)
    with pytest.raises(ValueError, match=message):
        second.load_state_dict(flow.state_dict())


def test_momentum_can_be_switched_off():
    """tau > 0 to tau = 0 needs nothing that was not saved."""
    flow, closure = start(torch.float64, 0.4)
    run(flow, closure, [5])
    second, closure = start(torch.float64, 0.0)
    second.load_state_dict(through_file(flow.state_dict()))
    run(second, closure, [5])
    assert (second.flow_state.t > flow.flow_state.t).all()
