"""Steps that are recorded once and replayed are the steps taken eagerly, also as members leave and runs go on.

Without a CUDA device the recorder is one that repeats the step: what is shown then is that a recording changes its own
state in its own memory, is kept as long as it is valid, and no longer. The last tests need a device.
"""

import copy

import pytest
import torch
from closeness import assert_close
from device_waits import no_device_waits
from problems import problem

from lazy_lightning.flow import LossReached, MomentumFlow, StepsTried, StopReason
from lazy_lightning.ntk import ObjectiveClosure

ALPHAS, SEEDS = (0.01, 1.0, 100.0), (0, 1)
EVENTS = [LossReached(0.7), StepsTried(150)]
INTEGRATORS = pytest.mark.parametrize("integrator", ["euler", "explicit", "auto"])
RULES = pytest.mark.parametrize("tau", [0.0, 0.3])
on_device = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Repeats:
    """A recorder for the host; counts the recordings and their steps."""

    def __init__(self) -> None:
        self.recordings = self.steps = 0

    def __call__(self, step):
        self.recordings += 1

        def repeated():
            self.steps += 1
            return step()

        return repeated


def made(tau, *, graphs, device="cpu", steps=7, monkeypatch=None, integrator="euler"):
    setting = problem(ALPHAS, SEEDS, "softhinge(20)", samples=16, width=8, device=device)
    options = {
        "tau": tau,
        "controller": "gradient_change",
        "dt": 0.1,
        "events": EVENTS,
        "steps": steps if integrator == "euler" else 21,
        "compact": True,
        "integrator": integrator,
    }
    flow, _ = setting.flow(**options, cuda_graphs=graphs)
    if monkeypatch is not None:
        monkeypatch.setattr(flow, "recorder", Repeats(), raising=False)
        monkeypatch.setattr(flow, "_may_record", lambda part: not (flow._advancing or part.reads_the_host))
    if integrator == "euler":
        return flow, kept_closure(setting, flow)
    return flow, ObjectiveClosure(flow.rows.parameters[0], setting.objective, flow)


def kept_closure(setting, flow):
    """Selects the running members once for each set of them, as the modules do."""
    selected = []

    def closure():
        if not selected or selected[0][0] is not flow.active:
            selected[:] = [(flow.active, setting.objective.select(flow.active))]
        return selected[0][1].backward(flow.rows.parameters[0])

    return closure


def followed(flow, closure, bursts=30):
    for _ in range(bursts):
        flow.step(closure)
    return flow


def assert_same(found, expected, rtol=0.0):
    assert found.reasons == expected.reasons
    others = found.flow_state.tensors()
    for name, value in expected.flow_state.tensors().items():
        if value is not None:
            assert_close(others[name].cpu().double(), value.cpu().double(), rtol=rtol)


@RULES
@INTEGRATORS
def test_recorded_steps_are_the_eager_ones(tau, integrator, monkeypatch):
    eager = followed(*made(tau, graphs=False, integrator=integrator))
    assert len(set(eager.flow_state.tried.tolist())) > 2, "members are to end at different times"
    flow = followed(*made(tau, graphs=True, monkeypatch=monkeypatch, integrator=integrator))
    assert_same(flow, eager)
    sets_of_members = len(set(eager.flow_state.tried.tolist()))
    assert 1 < flow.recorder.recordings <= sets_of_members + 1
    if integrator != "auto":
        assert flow.recorder.steps * flow.dynamics.integrator.evaluations >= eager.flow_state.tried.max()


def test_explicit_part_of_auto_is_recorded_while_the_implicit_one_decides_on_the_host(monkeypatch):
    """What the recording has selected stays while the other part follows other members."""
    flow, closure = made(0.0, graphs=True, monkeypatch=monkeypatch, integrator="auto")
    both = 0
    for _ in range(30):
        flow.step(closure)
        parts = {mode for mode, runs in zip(flow._modes, flow.clock().running, strict=True) if runs}
        both += len(parts) == 2
        if flow._recording is not None:
            assert flow._recording.kept[3] in closure._selected
    assert both > 0, "both parts are to follow some members"
    assert flow.recorder.recordings <= 2 * len(ALPHAS) * len(SEEDS)


def test_a_state_that_is_loaded_is_recorded_anew(monkeypatch):
    """The tensors of the first state are not those of the second."""
    eager, plain = made(0.0, graphs=False)
    flow, closure = made(0.0, graphs=True, monkeypatch=monkeypatch)
    for one, each in ((eager, plain), (flow, closure)):
        one.step(each)
        saved = copy.deepcopy(one.state_dict())
        followed(one, each, 2)
        one.load_state_dict(saved)
        followed(one, each, 2)
    assert_same(flow, eager)
    assert flow.recorder.recordings == 2


def test_another_closure_is_recorded_anew(monkeypatch):
    eager, plain = made(0.0, graphs=False)
    flow, closure = made(0.0, graphs=True, monkeypatch=monkeypatch)
    half = lambda closure: lambda: closure()._replace(flat=None)  # noqa: E731  # another object, the same function
    followed(eager, plain, 1)
    followed(eager, half(plain), 1)
    followed(flow, closure, 1)
    followed(flow, half(closure), 1)
    assert_same(flow, eager)
    assert flow.recorder.recordings == 2


def test_times_are_landed_on_between_recorded_bursts(monkeypatch):
    """``advance`` steps with other dynamics, which no recording knows."""
    runs = [made(0.0, graphs=False), made(0.0, graphs=True, monkeypatch=monkeypatch)]
    for flow, closure in runs:
        flow.step(closure)
        flow.advance(flow.flow_state.t + 0.01, closure)
        flow.reopen(wall=False)
        flow.flow_state.reason.masked_fill_(flow.flow_state.reason == int(StopReason.T_MAX), int(StopReason.RUNNING))
        flow._clock = None
        followed(flow, closure, 3)
    assert_same(runs[1][0], runs[0][0])


# ---------------------------------------------------------------------- on a device

REPLAYED = 1e-9
"""Libraries may choose other algorithms while recording; chaos over a hundred steps."""


@pytest.mark.gpu
@on_device
@RULES
@INTEGRATORS
def test_replayed_steps_are_the_eager_ones(tau, integrator):
    eager = followed(*made(tau, graphs=False, device="cuda", integrator=integrator))
    flow = followed(*made(tau, graphs=True, device="cuda", integrator=integrator))
    assert flow.cuda_graphs, "the recording has failed"
    assert flow._recording is not None
    assert_same(flow, eager, rtol=REPLAYED)


@pytest.mark.gpu
@on_device
def test_replayed_burst_never_waits_for_the_device():
    flow, closure = made(0.0, graphs=True, device="cuda", steps=10)
    flow.step(closure)
    recording = flow._recording
    with no_device_waits():
        flow._burst(flow.flow_state, closure, flow.dynamics, recording)
    assert flow.flow_state.tried.max() == 20


@pytest.mark.gpu
@on_device
def test_what_cannot_be_recorded_runs_eagerly():
    """A closure that reads a number back."""
    flow, closure = made(0.0, graphs=True, device="cuda")

    def reading():
        found = closure()
        assert float(found.loss.sum()) >= 0
        return found

    with pytest.warns(UserWarning, match="run eagerly"):
        followed(flow, reading)
    assert_same(flow, followed(*made(0.0, graphs=False, device="cuda")), rtol=REPLAYED)


def test_nothing_is_recorded_unless_asked_for():
    flow, closure = made(0.0, graphs=False)
    followed(flow, closure, 2)
    assert flow._recording is None
    assert isinstance(flow, MomentumFlow)
