"""The integrators besides euler: exact solutions, independence of members, resuming, events, and what they refuse."""

import copy
import io
from functools import cache

import numpy as np
import pytest
import torch
from problems import Problem, copied, problem
from scipy.integrate import solve_ivp
from torch import nn
from torch.testing import assert_close

from lazy_lightning.errors import ConfigError, MemoryShortageError
from lazy_lightning.flow import (
    Auto,
    ExplicitPair,
    Implicit,
    Integrator,
    LossReached,
    MarginsMet,
    MomentumFlow,
    Outcome,
    StepsTried,
    StopReason,
    TimeReached,
)
from lazy_lightning.ntk import ObjectiveClosure

NAMES = ["explicit", "implicit", "auto"]
RULES = {"gradient flow": {}, "momentum": {"tau": 0.7}, "by member": {"tau": [0.0, 0.7]}}
T_MAX = 4.0
CLASSES = torch.arange(6) % 3


def flow_of(setting: Problem, **options):
    w = nn.Parameter(setting.w0.clone())
    flow = MomentumFlow([w], members=len(w), compact=True, **{"steps": 21, **options})
    return flow, ObjectiveClosure(w, setting.objective, flow)


def to_end(setting: Problem, **options):
    flow, closure = flow_of(setting, **options)
    while not flow.started or flow.flow_state.running.any():
        flow.step(closure)
        assert flow.flow_state.tried.max() < 20_000
    return flow


def stiff(**options) -> Problem:
    """Lazy, with labels that take long to fit: the margins are met on a time a thousand times the first."""
    return problem((30.0,), (0,), "softhinge(20)", samples=20, inputs=6, width=20, **options)


@cache
def exact(rule: str):
    """(2, N) dw at T_MAX by an 8th-order method at 1e-11."""
    setting = problem(seeds=(0, 1))
    taus = torch.as_tensor(RULES[rule].get("tau", 0.0)).expand(2).tolist()
    found = []
    for row, tau in enumerate(taus):
        own = setting.member([row])
        size = own.w0.numel()

        def rate(t, state, own=own, tau=tau, size=size):
            g = own.gradient(state[:size])
            return -g if tau == 0 else np.concatenate([state[size:], -(state[size:] + g) / tau])

        start = np.zeros(size if tau == 0 else 2 * size)
        found.append(solve_ivp(rate, (0, T_MAX), start, method="DOP853", rtol=1e-11, atol=1e-13).y[:size, -1])
    return torch.from_numpy(np.stack(found))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", NAMES)
def test_trajectory_to_its_tolerance(name, rule):
    """The error at the end is that of the steps, times the number of them at most; it falls with ``tol``."""
    setting, errors = problem(seeds=(0, 1)), []
    for tol in (1e-3, 1e-5):
        flow = to_end(setting, integrator=name, tol=tol, events=[TimeReached(T_MAX)], **RULES[rule])
        assert flow.flow_state.t.tolist() == [T_MAX] * 2
        error = torch.linalg.vector_norm(flow.flow_state.displacement - exact(rule), dim=1)
        errors.append((error / torch.linalg.vector_norm(exact(rule), dim=1)).max())
    assert errors[0] < 20e-3
    assert errors[1] < 20e-5
    assert errors[1] < errors[0] / 10


@pytest.mark.parametrize("rule", [{}, {"tau": 1e-5}, {"mu": 2.0}], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_weights_are_followed_where_outputs_hardly_move(name, rule):
    """At a small alpha dw grows to a sixth of w0 before F has moved by a tenth of the tolerance."""
    setting, ends = problem((1e-5,), width=20, inputs=10), []
    for tol in (1e-3, 1e-7):
        flow, closure = flow_of(setting, integrator=name, tol=tol, dt=1e9, **rule)
        flow.advance(torch.tensor([1e-4]), closure)
        ends.append(flow.flow_state.displacement)
        assert float(flow.flow_state.outputs.square().mean().sqrt()) < 0.1 * 1e-3
    assert float(ends[1].norm()) > 0.1 * float(setting.w0.norm())
    assert float((ends[0] - ends[1]).norm() / ends[1].norm()) < 0.03  # ten times tol is allowed in a step


@pytest.mark.parametrize("tau", [0.7, [0.7]], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_first_steps_from_rest(name, tau):
    """At a seventh of tau dw has an error of a hundredth; the first step of order 1 errs by all of dw."""
    setting, ends = problem((1e-3,), width=20, inputs=10), []
    for integrator, tol in ((name, 1e-3), ("explicit", 1e-9)):
        flow, closure = flow_of(setting, integrator=integrator, tol=tol, dt=1e9, tau=tau)
        flow.advance(torch.tensor([0.1]), closure)
        ends.append(flow.flow_state.displacement)
    assert float((ends[0] - ends[1]).norm() / ends[1].norm()) < 1e-2  # ten times tol is allowed in a step


class WithoutOutputsOf:
    """A tangent closure that has only what the protocol asks for."""

    def __init__(self, closure):
        self._closure = closure

    def __call__(self):
        return self._closure()

    def __getattr__(self, name):
        if name == "outputs_of":
            raise AttributeError(name)
        return getattr(self._closure, name)


@pytest.mark.parametrize("rule", RULES)
def test_closure_without_outputs_of_some_members(rule):
    """New images of the differences are those of all members, of which some are taken: the same numbers."""
    setting, ends = problem((0.3, 3.0), (0,), samples=12, inputs=6, width=20), []
    for wrapped in (lambda closure: closure, WithoutOutputsOf):
        flow, closure = flow_of(setting, integrator="implicit", tol=1e-4, events=[TimeReached(T_MAX)], **RULES[rule])
        closure = wrapped(closure)
        while not flow.started or flow.flow_state.running.any():
            flow.step(closure)
        ends.append(flow.flow_state)
    assert ends[0].tried.tolist() == ends[1].tried.tolist()
    assert_close(ends[0].displacement, ends[1].displacement, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("rule", [{"mu": 3.0}, {"mu": 2.0}], ids=str)
def test_nesterov_flow_by_both(rule):
    setting = problem(seeds=(0, 1))
    ends = [
        to_end(setting, integrator=name, tol=1e-6, events=[TimeReached(T_MAX)], **rule).flow_state.displacement
        for name in ("explicit", "implicit")
    ]
    assert_close(ends[1], ends[0], rtol=0, atol=2e-4 * ends[0].abs().max().item())


@pytest.mark.parametrize(
    "case",
    [
        {"loss": "cross_entropy", "y": CLASSES, "num_outputs": 3},
        {"loss": "softhinge(20)", "y": CLASSES, "num_outputs": 3},
        {"loss": "cross_entropy"},
        {"loss": "mse"},
        {"loss": "quadratic_hinge"},
        {"loss": "softhinge(5)", "chunk_size": 4},
        {"loss": "softhinge(5)", "centering": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["implicit", "auto"])
def test_implicit_and_explicit_agree(name, case):
    setting = problem((0.5, 20.0), **case)
    options = {"events": [TimeReached(T_MAX)]}
    one = to_end(setting, integrator="explicit", tol=1e-8, **options).flow_state
    other = to_end(setting, integrator=name, tol=1e-5, **options).flow_state
    assert_close(other.outputs, one.outputs, rtol=0, atol=3e-3)
    scale = torch.linalg.vector_norm(one.displacement, dim=1, keepdim=True)
    assert_close(other.displacement / scale, one.displacement / scale, rtol=0, atol=3e-3)


def test_explicit_pair_is_of_fifth_order():
    """At fixed steps: the error of dw falls by 2^5 from one halving to the next."""
    setting, errors = problem(), []
    true = exact("gradient flow")[0]
    for dt in (0.1, 0.05):
        flow, closure = flow_of(setting, integrator=FixedPair(1e6, dt), events=[TimeReached(T_MAX)])
        while not flow.started or flow.flow_state.running.any():
            flow.step(closure)
        errors.append(torch.linalg.vector_norm(flow.flow_state.displacement[0] - true).item())
    assert np.log2(errors[0] / errors[1]) == pytest.approx(5, abs=0.3)


class FixedPair(ExplicitPair):
    """The pair at a fixed step size."""

    def __init__(self, tol: float, dt: float) -> None:
        super().__init__(tol)
        object.__setattr__(self, "dt", dt)

    def select(self, rows):
        return self

    def first_dt(self, state, rule):
        return torch.full_like(state.dt, self.dt)

    def attempt(self, attempt):
        return super().attempt(attempt)._replace(dt=torch.full_like(attempt.dt, self.dt))


@pytest.mark.parametrize("rule", [{}, {"tau": [0.0, 0.5, 0.0, 2.0]}], ids=["tau = 0", "several tau"])
@pytest.mark.parametrize("name", NAMES)
def test_members_do_not_depend_on_each_other(name, rule):
    setting = problem((0.1, 20.0), (0, 1), samples=8)
    options = {"integrator": name, "events": [MarginsMet(), TimeReached(30.0)]}
    whole = to_end(setting, **options, **rule).flow_state
    for row in range(4):
        own = {"tau": [rule["tau"][row]]} if rule else {}
        alone = to_end(setting.member([row]), **options, **own).flow_state
        assert alone.tried.tolist() == whole.tried[row : row + 1].tolist()
        # products over members round otherwise than those of one, and differences of F by 1e-4 of a step enlarge that
        assert_close(alone.displacement[0], whole.displacement[row], rtol=1e-5, atol=1e-6)
        assert_close(alone.t[0], whole.t[row], rtol=1e-5, atol=0)


def through_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("tau", [0.0, 0.4])
@pytest.mark.parametrize("name", NAMES)
def test_resumed_is_undisturbed_to_the_bit(name, tau):
    setting = problem((0.1, 10.0), (0, 1), samples=8)
    options = {"integrator": name, "tau": tau, "events": [MarginsMet(), TimeReached(30.0)]}
    bursts = [3, 9, 1, 14, 30, 7, 40]
    flow, closure = flow_of(setting, **options)
    for cut in range(1, len(bursts), 2):
        flow, closure = flow_of(setting, **options)
        other, other_closure = flow_of(setting, **options)
        for i, steps in enumerate(bursts):
            if i == cut:
                saved = through_file(other.state_dict())
                other, other_closure = flow_of(setting, **options)
                other.load_state_dict(saved)
            for each, evaluate in ((flow, closure), (other, other_closure)):
                each.steps = steps
                each.step(evaluate)
        mine, theirs = flow.flow_state.tensors(), other.flow_state.tensors()
        assert mine.keys() == theirs.keys()
        assert [k for k in mine if not torch.equal(mine[k], theirs[k])] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_has_ended_is_saved_without_kernels_and_goes_on(name):
    setting = stiff()
    flow = to_end(setting, integrator=name, events=[TimeReached(5.0)])
    saved = through_file(flow.state_dict())
    assert not [key for held in saved["state"].values() for key in held if key.startswith("memory")]
    other, closure = flow_of(setting, integrator=name, events=[TimeReached(10.0)])
    other.load_state_dict(saved)
    other.reopen(wall=True)
    while other.flow_state.running.any():
        other.step(closure)
    straight = to_end(setting, integrator=name, events=[TimeReached(10.0)])
    assert_close(other.flow_state.outputs, straight.flow_state.outputs, rtol=0, atol=5e-3)


@pytest.mark.parametrize("name", NAMES)
def test_goes_on_from_a_state_of_another_integrator(name):
    setting = stiff()
    first, closure = flow_of(setting, events=[TimeReached(10.0)], steps=30)
    first.step(closure)
    other, closure = flow_of(setting, integrator=name, tol=1e-4, events=[TimeReached(10.0)])
    other.load_state_dict(through_file(first.state_dict()))
    while other.flow_state.running.any():
        other.step(closure)
    straight = to_end(setting, integrator="explicit", tol=1e-7, events=[TimeReached(10.0)])
    assert_close(other.flow_state.outputs, straight.flow_state.outputs, rtol=0, atol=1e-2)  # euler's part


@pytest.mark.parametrize("name", NAMES)
def test_events_are_located(name):
    setting = problem((0.1, 20.0), (0, 1), samples=8)
    at = {tol: to_end(setting, integrator=name, tol=tol, events=[MarginsMet()]).flow_state for tol in (1e-3, 1e-6)}
    coarse, fine = at[1e-3], at[1e-6]
    assert (coarse.reason == int(StopReason.MARGINS_MET)).all()
    smallest = setting.objective.loss.margins(coarse.outputs, setting.objective.y).amin(dim=1)
    assert (smallest >= 1).all()
    assert (smallest < 1.05).all()
    assert_close(coarse.t, fine.t, rtol=0.05, atol=0)
    fallen = to_end(setting, integrator=name, tol=1e-4, events=[LossReached(0.1)]).flow_state
    assert (fallen.loss <= 0.1 * fallen.loss_start).all()
    assert (fallen.loss >= 0.095 * fallen.loss_start).all()


@pytest.mark.parametrize("name", ["implicit", "auto"])
def test_the_outputs_of_ended_members_are_those_of_their_weights(name):
    setting = stiff()
    state = to_end(setting, integrator=name, events=[MarginsMet()]).flow_state
    truth = setting.objective.outputs_at(state.weights())
    assert_close(state.outputs, truth, rtol=0, atol=1e-12)


def test_cost_does_not_grow_with_stiffness():
    """To the margins of a lazy member, euler is bound by its stability and implicit by its accuracy."""
    setting = stiff()
    tried = {
        name: int(to_end(setting, integrator=name, events=[MarginsMet()]).flow_state.tried)
        for name in ("euler", "implicit", "auto")
    }
    assert tried["implicit"] < tried["euler"] / 2.5
    assert tried["auto"] < tried["euler"] / 2


def test_auto_changes_by_member():
    setting = problem((0.05, 30.0), (0,), "softhinge(20)", samples=20, inputs=6, width=20)
    flow, closure = flow_of(setting, integrator="auto", events=[TimeReached(3.0)], steps=7)
    modes = []
    while not flow.started or flow.flow_state.running.any():
        flow.step(closure)
        modes.append(flow.flow_state.memory["mode"].tolist())
        assert flow.trace.t.shape == flow.trace.loss.shape
    assert modes[0] == [0, 0]
    assert [0, 1] in modes or [1, 0] in modes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_single_precision(name, dtype):
    setting = problem((0.5, 5.0), samples=8, dtype=dtype)
    flow = to_end(setting, integrator=name, events=[TimeReached(5.0)])
    reference = to_end(problem((0.5, 5.0), samples=8), integrator="explicit", tol=1e-7, events=[TimeReached(5.0)])
    assert flow.flow_state.displacement.dtype == dtype
    assert_close(flow.flow_state.outputs.double(), reference.flow_state.outputs, rtol=0, atol=1e-2)


def test_members_without_outputs_by_the_weights_error():
    """A closure that returns the loss alone: the error is that of dw."""
    torch.manual_seed(0)
    x, y = torch.randn(20, 3).double(), torch.randn(20, 1).double()
    model = nn.Linear(3, 1).double()
    start = torch.cat([p.detach().reshape(-1) for p in model.parameters()])

    flow = MomentumFlow(model.parameters(), events=[TimeReached(5.0)], steps=700, integrator="explicit", tol=1e-6)

    def closure():
        flow.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        return loss

    flow.step(closure)
    design = torch.cat([x, torch.ones(20, 1).double()], dim=1)
    hessian, target = 2 / 20 * design.T @ design, 2 / 20 * design.T @ y.squeeze()
    best = torch.linalg.solve(hessian, target)
    true = best + torch.linalg.matrix_exp(-5.0 * hessian) @ (start - best)
    assert_close(flow.flow_state.weights()[0], true, rtol=0, atol=1e-5)


class Heun(Integrator):
    """An integrator of one's own: order 2 at a fixed step, with the count of its steps in the memory."""

    name = "heun"
    evaluations = 2
    growth = 1.0

    def memory(self, state, evaluation):
        return {"steps": torch.zeros_like(state.tried)}

    def attempt(self, attempt):
        state, dt = attempt.state, attempt.dt
        h = dt.to(state.gradient.dtype).unsqueeze(1)
        first = state.gradient.clone()
        _, second = attempt.evaluate(attempt.weights.copy_(state.origin + state.displacement - h * first))
        moved = state.displacement - h * (first + second) / 2
        evaluation, gradient = attempt.evaluate(attempt.weights.copy_(state.origin + moved))
        accept = attempt.running
        for old, new in (
            (state.displacement, moved),
            (state.gradient, gradient),
            (state.loss, evaluation.loss),
            (state.outputs, evaluation.outputs),
            (state.gradient_norm, torch.linalg.vector_norm(gradient, dim=1).double()),
        ):
            torch.where(accept.view(-1, *(1,) * (old.ndim - 1)), new, old, out=old)
        state.memory["steps"].add_(accept)
        nothing = torch.zeros_like(accept)
        return Outcome(accept, dt, torch.zeros_like(dt), evaluation, ~nothing, nothing)


def test_an_integrator_of_ones_own():
    setting = problem(seeds=(0, 1))
    flow = to_end(setting, integrator=Heun(), dt=1 / 128, events=[TimeReached(T_MAX), StepsTried(5000)])
    assert flow.flow_state.memory["steps"].tolist() == [512, 512]
    assert flow.flow_state.tried.tolist() == [1024, 1024]
    assert_close(flow.flow_state.displacement, exact("gradient flow"), rtol=0, atol=1e-5)


# ---------------------------------------------------------------------- refused


@pytest.mark.parametrize("tol", [0.0, -1.0, float("nan"), float("inf"), "small", True])
@pytest.mark.parametrize("kind", [ExplicitPair, Implicit, Auto])
def test_tolerance_out_of_range(kind, tol):
    with pytest.raises(ConfigError, match="expected the error of F that a step may make"):
        kind(tol)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"integrator": "leapfrog"}, "unknown integrator 'leapfrog': choose one of euler, explicit, implicit, auto"),
        ({"tol": 1e-3}, "the integrator euler chooses its steps by the controller"),
        ({"integrator": "auto", "controller": "reference"}, "is for the integrator euler"),
        ({"integrator": ExplicitPair(), "tol": 1e-2}, "was given as an object: give tol to it"),
    ],
    ids=str,
)
def test_options_that_do_not_fit(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        flow_of(problem(), **options)


def test_piecewise_linear_loss():
    setting = problem(loss="hinge")
    flow, closure = flow_of(setting, integrator="implicit", events=[StepsTried(100)])
    with pytest.raises(ConfigError, match=r"the loss hinge is piecewise linear.*set integrator to euler"):
        flow.step(closure)
    flow, closure = flow_of(setting, integrator="auto", events=[StepsTried(100)])
    flow.step(closure)
    assert flow.dynamics.integrator.name == "explicit"


def test_plain_closure_has_no_kernel():
    setting = problem()
    flow, closure = setting.flow(integrator="implicit")
    with pytest.raises(ConfigError, match="the integrator implicit needs the tangent kernel"):
        flow.step(closure)


def test_kernels_that_do_not_fit(monkeypatch):
    monkeypatch.setattr("lazy_lightning.memory.available_bytes", lambda device: 1000)
    flow, closure = flow_of(problem(), integrator="implicit")
    with pytest.raises(MemoryShortageError, match=r"1 tangent kernels of 6 x 6 entries needs .* set integrator to exp"):
        flow.step(closure)


def test_rule_without_a_memory_time():
    from lazy_lightning.flow import StepRule

    class Half(StepRule):
        def gain(self, t, dt):
            return torch.full_like(dt, 0.5)

    flow, closure = flow_of(problem(), integrator="explicit", rule=Half())
    with pytest.raises(ConfigError, match=r"has no memory_time, which the integrators other than euler need"):
        flow.step(closure)


def test_non_finite_trial_is_shortened():
    """A closure that gives NaN far from w0: the steps go back, and the flow ends where it cannot pass."""
    setting = problem()
    base = copied(setting)
    flow, closure = flow_of(base, integrator="explicit", events=[TimeReached(50.0), StepsTried(3000)])
    plain = copy.copy(closure)

    def walled():
        evaluation = plain()
        far = (flow.rows.parameters[0].detach() - setting.w0).norm() > 0.05
        return evaluation._replace(loss=torch.where(far, torch.nan, evaluation.loss))

    while not flow.started or flow.flow_state.running.any():
        flow.step(walled)
    assert torch.linalg.vector_norm(flow.flow_state.displacement) <= 0.05
    assert flow.reasons[0] in (StopReason.NON_FINITE, StopReason.DT_UNDERFLOW, StopReason.MAX_STEPS)
