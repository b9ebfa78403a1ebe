"""What only a GPU can show. Skipped without one."""

import pytest
import torch
from closeness import assert_close
from device_waits import no_device_waits
from problems import problem

from lazy_lightning.flow import MarginsMet, StepsTried
from lazy_lightning.flow.evaluator import Evaluator
from lazy_lightning.flow.step import try_step

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

RULES = pytest.mark.parametrize("tau", [0.0, 0.5])


def start(device="cuda", steps=3, **options):
    """Three steps are made, so that constants and workspaces are on the device."""
    setting = problem((0.1, 10.0), (0, 1), "softhinge(20)", samples=16, width=16, device=device)
    events = [MarginsMet(), StepsTried(100)]
    flow, closure = setting.flow(controller="reference", dt=0.3, events=events, steps=steps, **options)
    flow.step(closure)
    return flow, closure


@RULES
def test_burst_never_waits_for_the_device(tau):
    flow, closure = start(tau=tau, steps=5)
    with no_device_waits():
        flow._burst(flow.flow_state, closure, flow.dynamics)
    assert flow.flow_state.tried.tolist() == [10] * 4


@RULES
def test_step_replays_from_a_cuda_graph(tau):
    """Recorded once and replayed, the steps are those taken eagerly."""
    eager, closure = start(tau=tau)
    eager.steps = 12
    eager.step(closure)

    flow, closure = start(tau=tau)
    state, dynamics = flow.flow_state, flow.dynamics
    buffer, evaluate = torch.empty_like(state.displacement), Evaluator(flow.rows, closure)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            try_step(state, buffer, evaluate, dynamics)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        try_step(state, buffer, evaluate, dynamics)  # recorded, not run
    for _ in range(9):
        graph.replay()

    assert torch.equal(state.accepted, eager.flow_state.accepted)
    # Libraries may choose another algorithm while recording: rounding only.
    for name in ("t", "dt", "displacement", "loss"):
        for row in range(4):
            assert_close(getattr(state, name)[row], getattr(eager.flow_state, name)[row], rtol=1e-12)


@RULES
def test_same_trajectory_as_on_the_cpu(tau):
    gpu, cpu = (start(device, steps=30, tau=tau)[0].flow_state for device in ("cuda", "cpu"))
    assert torch.equal(gpu.origin.cpu(), cpu.origin)
    assert torch.equal(gpu.accepted.cpu(), cpu.accepted)
    for row in range(4):
        assert_close(gpu.displacement[row].cpu(), cpu.displacement[row], rtol=1e-11)  # 30 steps, other sums


def test_state_returns_to_another_device():
    flow, _ = start()
    other, closure = start("cpu")
    other.load_state_dict(flow.state_dict())
    assert other.flow_state.t.device.type == "cpu"
    assert torch.equal(other.flow_state.displacement, flow.flow_state.displacement.cpu())
    other.step(closure)


def test_building_members_leaves_the_generators_of_the_gpu():
    before = torch.cuda.get_rng_state()
    problem(device="cuda")
    assert torch.equal(torch.cuda.get_rng_state(), before)
