"""A rule, a controller and events of a user's own: by script and by configuration, with compaction and resume."""

import copy
import json
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from command_line import QUIET, error_of
from fits import fit
from problems import problem

from lazy_lightning.callbacks import ClosingSummary, RunCheckpoint
from lazy_lightning.cli import main
from lazy_lightning.errors import ConfigError
from lazy_lightning.flow import (
    ConstantStep,
    Controller,
    Decision,
    Event,
    Momentum,
    MomentumFlow,
    StepRule,
    StepsTried,
    StopReason,
    TimeReached,
)
from lazy_lightning.modules import StoppingCriteria
from lazy_lightning.runs.configuration import family

TAU = (0.0, 0.3, 0.3, 0.5)


class OwnMomentum(StepRule):
    """A memory time for each member, written without the package's class."""

    def __init__(self, tau: list[float]) -> None:
        self.tau = torch.as_tensor(tau, dtype=torch.float64)

    def gain(self, t, dt):
        return torch.where(self.tau == 0, 1.0, -torch.expm1(-dt / self.tau))

    def select(self, rows):
        return OwnMomentum(self.tau[rows])

    def to(self, device):
        return OwnMomentum(self.tau.to(device))


class OneTau(StepRule):
    def __init__(self, tau: float = 0.2) -> None:
        self.tau = tau

    def gain(self, t, dt):
        return -torch.expm1(-dt / self.tau)


@dataclass(frozen=True)
class Doubling(Controller):
    growth: float

    def __call__(self, dt, change):
        accept = change.gradient < 1e-2
        return Decision(accept, torch.where(accept, dt * self.growth, dt / 4))


class LossBelow(Event):
    """A level for each member."""

    def __init__(self, levels: list[float]) -> None:
        self.levels = torch.as_tensor(levels, dtype=torch.float64)

    def __call__(self, moment):
        return moment.evaluation.loss <= self.levels * moment.loss_start

    def select(self, rows):
        return LossBelow(self.levels[rows])

    def to(self, device):
        return LossBelow(self.levels.to(device))


class Later(Event):
    """A limit that may be raised."""

    limit = True
    name = "late enough"

    def __init__(self, t: float) -> None:
        self.t = t

    def __call__(self, moment):
        return moment.t >= self.t


class AfterBurst(Event):
    def after_burst(self, state):
        return state.tried >= 12


def four(**options) -> MomentumFlow:
    given = {"controller": "gradient_change", "dt": 0.1, "compact": True, "steps": 7, "events": [StepsTried(60)]}
    return problem(alphas=(0.1, 1.0), seeds=(0, 1), width=6, samples=8).to_end(**{**given, **options})


def test_own_rule_is_the_one_that_it_repeats():
    events = [LossBelow([0.9, 0.5, 0.7, 0.3]), StepsTried(60)]
    ours, theirs, given = (
        four(events=events, **rule).flow_state
        for rule in ({"rule": OwnMomentum(list(TAU))}, {"tau": TAU}, {"rule": Momentum(TAU)})
    )
    assert torch.equal(ours.displacement, theirs.displacement)
    assert torch.equal(given.displacement, theirs.displacement)
    assert len(set(ours.tried.tolist())) > 1  # members have left, so that the parts were compacted


def test_members_that_leave_change_nothing_for_the_others():
    options = {"controller": Doubling(2.0), "dt": 1e-3, "events": [LossBelow([0.9, 0.5, 0.7, 0.3]), StepsTried(60)]}
    together, apart = four(**options).flow_state, four(**options, steps=60).flow_state
    assert torch.equal(together.t, apart.t)
    assert torch.equal(together.reason, apart.reason)
    assert int(StopReason.CUSTOM) in together.reason.tolist()


def test_an_event_after_a_burst_and_an_object_of_another_class():
    class Plain:
        reason = StopReason.LOSS_REACHED

        def __call__(self, moment):
            return moment.evaluation.loss < 0.9 * moment.loss_start

    assert four(events=[AfterBurst(), StepsTried(60)], compact=False).flow_state.tried.tolist() == [14] * 4
    assert StopReason.LOSS_REACHED in four(events=[Plain(), StepsTried(60)]).reasons


def test_a_limit_of_ones_own_may_be_raised():
    setting = problem(width=6, samples=8)
    flow = setting.to_end(controller=ConstantStep(), dt=0.01, events=[Later(0.05)])
    assert flow.reasons == [StopReason.CUSTOM]
    for events, expected in (([Later(0.05)], StopReason.CUSTOM), ([Later(0.1)], StopReason.RUNNING)):
        other, _ = setting.flow(controller=ConstantStep(), dt=0.01, events=events)
        other.load_state_dict(copy.deepcopy(flow.state_dict()))
        other.reopen(wall=False)
        assert other.reasons == [expected]


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="GPU")]),
    ],
)
def test_they_are_recorded(device, monkeypatch):
    """As a CUDA graph; without a device, by a recorder that repeats the step."""

    def followed(graphs):
        setting = problem(alphas=(0.1, 1.0), seeds=(0, 1), width=6, samples=8, device=device)
        events = [LossBelow([0.9, 0.5, 0.7, 0.3]), StepsTried(60)]
        parts = {"rule": OwnMomentum(list(TAU)), "controller": Doubling(2.0), "events": events}
        flow, _ = setting.flow(**parts, dt=1e-3, compact=True, steps=7, cuda_graphs=graphs)
        if device == "cpu" and graphs:
            monkeypatch.setattr(flow, "recorder", lambda step: step, raising=False)
            monkeypatch.setattr(flow, "_may_record", lambda part: True)
        selected = []

        def closure():
            if not selected or selected[0][0] is not flow.active:
                selected[:] = [(flow.active, setting.objective.select(flow.active))]
            return selected[0][1].backward(flow.rows.parameters[0])

        for _ in range(12):
            flow.step(closure)
        return flow

    eager, recorded = followed(False), followed(True)
    assert recorded.cuda_graphs, "the recording has failed"
    assert recorded._recording is not None
    assert recorded.reasons == eager.reasons
    torch.testing.assert_close(recorded.flow_state.t, eager.flow_state.t, rtol=1e-9 * (device == "cuda"), atol=0.0)


def test_what_is_refused():
    w = torch.zeros(2, 3, requires_grad=True)
    for options, message in (
        ({"rule": Momentum(1.0), "tau": 0.5}, "either rule or tau"),
        ({"rule": 3}, "expected a StepRule"),
        ({"rule": OwnMomentum([0.1] * 3)}, "gain|size of tensor"),
        ({"events": [3]}, "derives from Event"),
        ({"events": [TimeReached]}, "derives from Event"),
    ):
        with pytest.raises((ConfigError, RuntimeError), match=message):
            MomentumFlow([w], members=2, **options)


def test_a_module_goes_on_with_them_to_the_bit(tmp_path):
    def run(folder, steps, **more):
        parts = {"rule": OneTau(), "controller": Doubling(1.5), "events": [Later(1e3), StepsTried(steps)], "dt": 1e-3}
        return fit(tmp_path / folder, stop=StoppingCriteria(margin=1e9, max_steps=40), **parts, **more)

    whole = run("whole", 30)
    run("part", 15, callbacks=[RunCheckpoint()])
    rest = run("rest", 30, ckpt_path=tmp_path / "part/checkpoint.ckpt")
    assert torch.equal(whole.module.flow.flow_state.displacement, rest.module.flow.flow_state.displacement)


def test_the_summary_names_the_event(tmp_path):
    stop = StoppingCriteria(margin=1e9)  # the event alone ends the run
    fit(tmp_path, events=[Later(1e-6)], callbacks=[ClosingSummary()], stop=stop)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["groups"][0]["stops"] == ["ended by an event (late enough)"]
    assert summary["members"][0]["stop"] == "custom"


@pytest.mark.usefixtures("own_folder")
def test_by_configuration(monkeypatch, capsys):
    own = types.ModuleType("own_parts")
    for thing in (OneTau, Doubling, Later):
        monkeypatch.setattr(thing, "__module__", "own_parts")
        setattr(own, thing.__name__, thing)
    monkeypatch.setitem(sys.modules, "own_parts", own)
    parts = {
        "rule": {"class_path": "own_parts.OneTau", "init_args": {"tau": 0.1}},
        "controller": {"class_path": "own_parts.Doubling", "init_args": {"growth": 1.5}},
        "events": [{"class_path": "own_parts.Later", "init_args": {"t": 0.01}}],
    }
    file = Path("own.yaml")
    file.write_text(yaml.safe_dump({"model": {"class_path": "FlowModule", "init_args": {**parts, "dt": 1e-3}}}))
    assert main([*QUIET, "--config=own.yaml", "--model.stop.max_steps=100"]) == 0
    assert "ended by an event (late enough)" in capsys.readouterr().out
    wrong = "{class_path: own_parts.Later, init_args: {t: 1.0}}"
    assert "is not a" in error_of([*QUIET, f"--model.controller={wrong}"], capsys)


def test_the_defaults_leave_the_identity_of_a_member():
    config = {"model": {"class_path": "lazy_lightning.modules.FlowModule", "init_args": {"dt": 1.0}}}
    more = copy.deepcopy(config)
    more["model"]["init_args"] |= {"rule": None, "events": None}
    assert family(config) == family(more)
    more["model"]["init_args"]["rule"] = {"class_path": "own_parts.OneTau"}
    assert family(config) != family(more)
