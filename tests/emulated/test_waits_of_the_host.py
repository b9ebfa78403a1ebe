"""The host never waits for the device in a tried step, and a fixed number of times in a burst and an observation."""

import pytest
import torch
from problems import problem

from emulated.fitting import DEVICE, fitted, flow, kernel, scaled
from emulated.memory import NAME
from emulated.waits import HostWaitError, counted, forbidden
from lazy_lightning.callbacks import FlowProgressBar, TensorBoardScalars
from lazy_lightning.flow import ConstantStep, GradientChangeController, LossReached, MarginsMet, StepsTried, TimeReached
from lazy_lightning.modules import FlowModule, MiniBatchModule, ObservedModule, StoppingCriteria
from lazy_lightning.nn.shared_starts import SharedStarts
from lazy_lightning.ntk.infinite_width import infinite_width_kernels
from lazy_lightning.ntk.sharing import Sharing

CLASSES = torch.tensor([0, 1, 2, 0, 1, 2])
REAL = torch.linspace(-1.0, 1.0, 6, dtype=torch.float64)
LOSSES = ["hinge", "softhinge(20)", "quadratic_hinge", "mse", "cross_entropy"]
TASKS = {"binary": {}, "multiclass": {"y": CLASSES, "num_outputs": 3}, "regression": {"y": REAL, "margins": False}}
LIMITS = [LossReached(1e-6), TimeReached(3.0), StepsTried(100)]
STOPS = {"margins": [MarginsMet(0.5, 0.9), *LIMITS], "no margins": LIMITS}


def cases():
    for task, options in TASKS.items():
        for loss in LOSSES if task != "regression" else ["mse"]:
            for stop, events in STOPS.items():
                if task != "regression" or stop == "no margins":
                    yield pytest.param(loss, options, events, id=f"{loss} {task} {stop}")


def assert_no_wait_in_a_step(setting, **options):
    flow, closure = setting.flow(steps=2, **options)
    flow.step(closure)
    with forbidden():
        flow._burst(flow.flow_state, closure, flow.dynamics)
    assert flow.flow_state.tried.tolist() == [4, 4]


@pytest.mark.parametrize(("loss", "options", "events"), list(cases()))
def test_no_wait_in_a_tried_step(loss, options, events):
    setting = problem(seeds=(0, 1), loss=loss, device=NAME, width=3, depth=1, **options)
    assert_no_wait_in_a_step(setting, events=events, dt=1e-3)


POLICIES = ["gradient_change", "reference", ConstantStep(), GradientChangeController(1e-2, 1e-4, dt_min=1e-6)]
SETTINGS = [{}, {"chunk_size": 4}, {"activation": "relu"}, {"centering": False}]


@pytest.mark.parametrize("rule", [{}, {"tau": [0.0, 1.0]}, {"mu": 3.0}], ids=str)
@pytest.mark.parametrize(("policy", "options"), list(zip(POLICIES, SETTINGS, strict=True)), ids=str)
def test_no_wait_whatever_steers_the_step(policy, options, rule):
    setting = problem(seeds=(0, 1), device=NAME, width=3, depth=1, **options)
    assert_no_wait_in_a_step(setting, events=[MarginsMet()], dt=1e-3, controller=policy, **rule)


def test_a_wait_would_be_seen():
    """Reads, copies, and operations whose shape depends on values, with the line of the caller."""
    x = torch.randn(5, device=NAME)
    for call in (
        lambda: bool(x.sum() > 0),
        x.cpu,
        x.nonzero,
        lambda: x[x > 0],
        x.tolist,
        lambda: torch.ones(2).to(NAME),
    ):
        with pytest.raises(HostWaitError, match="test_waits_of_the_host"), forbidden():
            call()
    with counted() as waits:
        torch.where(x > 0, x, 0.0).add_(1).masked_fill_(x > 0, 0.0)
    assert waits == []


def waits_of(monkeypatch, owner, method, run):
    """The waits of each call of a method in a run."""
    found, plain = [], getattr(owner, method)

    def counting(*args, **kwargs):
        with counted() as waits:
            result = plain(*args, **kwargs)
        found.append([str(wait) for wait in waits])
        return result

    monkeypatch.setattr(owner, method, counting)
    run()
    return found


@pytest.mark.parametrize("alpha", [[0.1], [0.1, 10.0]], ids=["together", "apart"])
@pytest.mark.parametrize("loss", ["softhinge(20)", "mse"])
@pytest.mark.parametrize("tau", [0.0, 0.5])
def test_a_burst_and_its_observation_take_two_reads(loss, tau, alpha, monkeypatch, tmp_path):
    """The clocks of the members, and the record; also where some members have stopped."""
    module = flow(loss=loss, tau=tau, alpha=alpha, stop=StoppingCriteria(margin=1.0, loss=0.6, max_steps=20))
    found = waits_of(monkeypatch, FlowModule, "training_step", lambda: fitted(tmp_path, DEVICE, module))
    assert len(found) >= 4
    assert [len(waits) for waits in found] == [2] * len(found), found


def test_a_burst_on_the_kernel_takes_two_reads(monkeypatch, tmp_path):
    found = waits_of(
        monkeypatch, FlowModule, "training_step", lambda: fitted(tmp_path, DEVICE, kernel(seeds=1, alpha=[0.1]))
    )
    assert [len(waits) for waits in found] == [2] * len(found), found


def test_a_burst_on_the_kernel_selects_members_with_one_read(monkeypatch, tmp_path):
    found = waits_of(monkeypatch, FlowModule, "training_step", lambda: fitted(tmp_path, DEVICE, kernel()))
    assert max(len(waits) for waits in found) <= 3, found


@pytest.mark.parametrize("options", [{"loss": "mse"}, {"loss": "cross_entropy"}, {"batch_seed": "weights"}], ids=str)
def test_a_mini_batch_step_waits_only_to_observe(options, monkeypatch, tmp_path):
    """With both companions: none in a step, two in an observation (whether all have failed, and the record)."""
    module = scaled(**options)
    observations = waits_of(monkeypatch, MiniBatchModule, "_observe", lambda: fitted(tmp_path, DEVICE, module))
    assert [len(waits) for waits in observations[1:]] == [2] * (len(observations) - 1), observations
    steps = waits_of(
        monkeypatch, MiniBatchModule, "training_step", lambda: fitted(tmp_path / "again", DEVICE, scaled(**options))
    )
    assert steps == [[]] * len(steps)
    assert len(steps) == 4


def test_sinks_read_the_record_alone(monkeypatch, tmp_path):
    sinks = [TensorBoardScalars(), FlowProgressBar()]
    run = lambda: fitted(tmp_path, DEVICE, flow(), sinks, enable_progress_bar=True)  # noqa: E731
    found = waits_of(monkeypatch, ObservedModule, "observe", run)
    assert [len(waits) for waits in found[1:]] == [1] * (len(found) - 1), found


def test_a_companion_flow_reads_once_a_burst(monkeypatch):
    """advance: whether the times are finite, and before each burst who runs and how many steps they need."""
    setting = problem((0.1, 10.0), (0,), device=NAME, width=3, depth=1)
    follower, closure = setting.flow(steps=3, dt=1e-2)
    follower.start(closure)
    bursts = []
    plain = follower.step
    monkeypatch.setattr(follower, "step", lambda closure: bursts.append(0) or plain(closure))
    times = torch.tensor([[0.02, 0.03], [0.05, 0.05]], dtype=torch.float64).to(NAME)
    with counted() as waits:
        follower.advance(times, closure)
    assert len(bursts) > 1
    assert len(waits) == 1 + len(bursts) + 1, [str(wait) for wait in waits]
    torch.testing.assert_close(follower.flow_state.t.cpu(), times[-1].cpu())


def test_expansions_are_copied_to_the_device_once():
    """What is read for each activation and layer: correlations, terms, errors, and which terms count."""
    x = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    moved = x.to(NAME)
    infinite_width_kernels(moved, depth=2, activation="softplus(5)")
    with counted() as waits:
        found = infinite_width_kernels(moved, depth=2, activation="softplus(5)")
    assert len(waits) <= 17, list(map(str, waits))  # four an expansion, of which there are two a layer; finite samples
    torch.testing.assert_close(found.ntk.cpu(), infinite_width_kernels(x, depth=2, activation="softplus(5)").ntk)


def test_members_of_a_kernel_are_found_with_one_read():
    own = torch.tensor([0, 1, 0, 2, 1]).to(NAME)
    with counted() as waits:
        sharing = Sharing.of(own)
    assert len(waits) <= 1
    rows = torch.tensor([0, 4]).to(NAME)
    with counted() as waits:
        sharing.select(rows)
    assert len(waits) <= 1, list(map(str, waits))
    weights = torch.tensor([[1.0], [0.0], [1.0]]).to(NAME)
    with counted() as waits:
        SharedStarts.of_weights(weights, {})
    assert len(waits) <= 1, list(map(str, waits))
