"""Integrators on a network whose passes are recorded are those on an eager one, also as members leave.

Without a CUDA device the recorder is one that overwrites its results at each call, as graphs do. The last tests need a
device.
"""

import pytest
import torch
from device_waits import no_device_waits
from problems import problem
from torch import nn
from torch.testing import assert_close

from lazy_lightning.flow import MarginsMet, MomentumFlow, TimeReached
from lazy_lightning.ntk import ObjectiveClosure
from lazy_lightning.objective import full_batch
from lazy_lightning.objective.paired_batch import PairedObjective
from lazy_lightning.objective.recorded_pass import EAGER_CALLS, RecordedPass

NAMES = pytest.mark.parametrize("name", ["euler", "explicit", "implicit", "auto"])
on_device = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Overwriting:
    """Makes functions whose outputs and gradients lie in the same memory at each call."""

    def __init__(self) -> None:
        self.made = self.calls = 0

    def __call__(self, function, weights):
        self.made += 1
        outer = self
        x = weights.detach().clone().requires_grad_(True)
        held = {"x": x, "grad": torch.zeros_like(x)}

        class Static(torch.autograd.Function):
            @staticmethod
            def forward(ctx, w):
                outer.calls += 1
                held["x"].detach().copy_(w)
                with torch.enable_grad():
                    held["graph"] = function(held["x"])
                held.setdefault("outputs", torch.empty_like(held["graph"])).copy_(held["graph"].detach())
                return held["outputs"].detach()

            @staticmethod
            def backward(ctx, u):
                (gradient,) = torch.autograd.grad(held["graph"], held["x"], u)
                return held["grad"].copy_(gradient).detach()

        return Static.apply


def followed(name, *, recorded, device="cpu", paired=False, times=None, **rule):
    setting = problem((0.1, 1.0, 20.0), (0, 1), "softhinge(20)", samples=10, width=5, depth=2, device=device)
    objective, w0 = setting.objective, setting.w0
    if paired:
        objective, w0 = PairedObjective.of(objective, w0), torch.zeros_like(w0)
    w = nn.Parameter(w0.clone())
    events = [MarginsMet(), TimeReached(3.0)]
    flow = MomentumFlow([w], members=len(w), compact=True, integrator=name, steps=21, events=events, dt=1e-3, **rule)
    closure = ObjectiveClosure(w, objective, flow)
    closure._records = recorded
    if times is not None:
        flow.advance(torch.tensor(times, device=device), closure)
        return flow, closure
    while not flow.started or any(flow.clock().running):
        flow.step(closure)
    return flow, closure


def assert_same(found, expected):
    assert found.reasons == expected.reasons
    others = found.flow_state.tensors()
    for key, value in expected.flow_state.tensors().items():
        if value is not None:
            assert torch.equal(others[key].nan_to_num(nan=0.5), value.nan_to_num(nan=0.5)), key


@NAMES
@pytest.mark.parametrize("rule", [{}, {"tau": 0.3}], ids=["tau = 0", "tau > 0"])
@pytest.mark.parametrize("paired", [False, True])
def test_numbers_of_the_eager_network(name, rule, paired, monkeypatch):
    recorder = Overwriting()
    monkeypatch.setattr(full_batch, "RecordedPass", lambda outputs: RecordedPass(outputs, recorder))
    eager, _ = followed(name, recorded=False, paired=paired, **rule)
    flow, _ = followed(name, recorded=True, paired=paired, **rule)
    assert_same(flow, eager)
    assert len(set(eager.flow_state.tried.tolist())) > 1, "members are to end at different times"
    assert recorder.made > 1
    assert recorder.calls > 20


def test_parts_of_auto_keep_their_recordings(monkeypatch):
    """A recording for each set of members that one part follows, not one for each burst."""
    recorder = Overwriting()
    monkeypatch.setattr(full_batch, "RecordedPass", lambda outputs: RecordedPass(outputs, recorder))
    flow, closure = followed("auto", recorded=True)
    assert flow.flow_state.memory["mode"].sum() > 0
    assert recorder.made <= 2 * len(flow.reasons)
    assert len(closure._selected) == 2


def test_first_passes_are_eager():
    recorder = Overwriting()
    passes = RecordedPass(lambda w: w.square(), recorder)
    for _ in range(EAGER_CALLS):
        passes(torch.ones(1, 2))
    assert recorder.made == 0
    first = passes(torch.ones(1, 2))
    second = passes(torch.full((1, 2), 3.0))
    assert (recorder.made, recorder.calls) == (1, 2)
    assert first.tolist() == [[1.0, 1.0]], "results are the caller's own"
    assert second.tolist() == [[9.0, 9.0]]


def test_what_cannot_be_recorded_stays_eager():
    def refusing(function, weights):
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    passes = RecordedPass(lambda w: 2 * w, refusing)
    for _ in range(EAGER_CALLS):
        passes(torch.ones(1, 1))
    with pytest.warns(UserWarning, match="made eagerly: operation not permitted when stream") as record:
        found = [passes(torch.ones(1, 1)).item() for _ in range(3)]
    assert found == [2.0, 2.0, 2.0]
    assert len(record) == 1


def test_chunks_are_not_recorded():
    objective = problem(samples=6, chunk_size=3).objective
    assert objective.recorded() is objective


def test_a_selection_has_no_recording_of_the_whole():
    objective = problem((1.0, 2.0)).objective.recorded()
    assert objective.select(torch.tensor([0])).whole_pass is None


# ---------------------------------------------------------------------- on a device


@pytest.mark.gpu
@on_device
@NAMES
@pytest.mark.parametrize("rule", [{}, {"tau": 0.3}], ids=["tau = 0", "tau > 0"])
@pytest.mark.parametrize("paired", [False, True])
def test_graphs_are_the_eager_network(name, rule, paired):
    eager, _ = followed(name, recorded=False, paired=paired, device="cuda", **rule)
    flow, closure = followed(name, recorded=True, paired=paired, device="cuda", **rule)
    assert any(chosen.whole_pass._replayed is not None for _, chosen in closure._selected.values())
    assert flow.reasons == eager.reasons
    for key in ("t", "loss", "displacement"):
        assert_close(getattr(flow.flow_state, key), getattr(eager.flow_state, key), rtol=1e-7, atol=1e-9, msg=key)


@pytest.mark.gpu
@on_device
def test_graphs_and_host_agree():
    host, _ = followed("auto", recorded=False)
    flow, _ = followed("auto", recorded=True, device="cuda")
    assert flow.reasons == host.reasons
    assert_close(flow.flow_state.displacement.cpu(), host.flow_state.displacement, rtol=1e-6, atol=1e-8)


@pytest.mark.gpu
@on_device
def test_landing_on_times_with_graphs_is_landing_eagerly():
    times = [[0.01], [0.02], [0.5]]
    eager, _ = followed("euler", recorded=False, device="cuda", times=times)
    flow, _ = followed("euler", recorded=True, device="cuda", times=times)
    assert_close(flow.flow_state.displacement, eager.flow_state.displacement, rtol=1e-8, atol=1e-10)


@pytest.mark.gpu
@on_device
def test_replayed_passes_never_wait_for_the_device():
    flow, closure = followed("explicit", recorded=True, device="cuda", times=[[0.01]])
    objective = closure.objective
    with no_device_waits():
        for _ in range(3):
            objective.backward(flow.rows.parameters[0])
    assert flow.rows.parameters[0].grad is not None
