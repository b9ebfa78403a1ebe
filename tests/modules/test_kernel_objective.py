"""The objective of a frozen kernel: its formula, and a flow that decides as that of the linearised network does."""

import functools
from dataclasses import replace

import pytest
import torch
from closeness import assert_close
from problems import Problem, problem

from lazy_lightning.flow.events import MarginsMet
from lazy_lightning.modules.kernel_objective import KernelObjective, kernel_outputs
from lazy_lightning.nn.fc import FC
from lazy_lightning.nn.initial_members import InitialMembers
from lazy_lightning.nn.linearize import LinearizedNetwork
from lazy_lightning.ntk.features import KernelFeatures
from lazy_lightning.ntk.frozen_kernel import frozen_kernels
from lazy_lightning.objective.full_batch import drop_single_output, raw_outputs
from lazy_lightning.objective.losses import build_loss

ALPHAS, SEEDS = (0.01, 1.0, 1e4), (0, 1)
CLASSES = torch.tensor([0, 1, 2, 0, 1, 2])
REAL = torch.linspace(-1, 2, 6, dtype=torch.float64)
CASES = {
    "softhinge": {"loss": "softhinge(5)"},
    "quadratic hinge": {"loss": "quadratic_hinge"},
    "mse": {"loss": "mse", "y": REAL, "margins": False},
    "mse, several outputs": {"loss": "mse", "y": torch.stack([REAL, REAL**2], 1), "num_outputs": 2, "margins": False},
    "cross entropy": {"loss": "cross_entropy", "y": CLASSES, "num_outputs": 3},
    "one versus all": {"loss": "softhinge(5)", "y": CLASSES, "num_outputs": 3},
}


def network(name, alphas=ALPHAS, seeds=SEEDS, **options):
    return problem(alphas, seeds, **{**CASES[name], **options})


def outputs_of(base):
    return base.objective.f0.shape[-1]


def kernel(base, kind="full"):
    """The objective on the tangent kernel at w0, at v = 0."""
    o, c = base.objective, outputs_of(base)
    features = KernelFeatures.of(
        frozen_kernels(o.network, base.w0, {}, o.x, None, outputs=c, kernel_outputs=kind)
    ).train
    start = None
    if not o.centering.enabled:
        start = raw_outputs(o.network, base.w0, o.x, {}) * o.centering.column(o.x.dtype)
    objective = KernelObjective(features, start, o.centering, o.loss, o.y, c, o.reports_margins)
    return Problem(objective, base.w0.new_zeros(len(base.w0), len(o.y) * c))


def linearized(base, alphas=ALPHAS, seeds=SEEDS):
    """The objective of the first-order network, at w0, in terms of dw if it is centred."""
    o = base.objective
    inner = functools.partial(FC, width=5, depth=2, activation="softplus(5)")
    factory = functools.partial(LinearizedNetwork, inner, tangent=o.centering.enabled)
    members = InitialMembers(factory, [seed for _ in alphas for seed in seeds], o.x.shape[1:], outputs_of(base))
    f0 = o.centering.base(lambda w: raw_outputs(members.network, w, o.x, members.buffers), members.w0)
    return Problem(replace(o, network=members.network, f0=f0, buffers=members.buffers), members.w0)


def somewhere(base):
    """The evaluation and the gradient at a v where all losses have a slope."""
    v = torch.linspace(-1, 1, base.w0.numel(), dtype=base.w0.dtype).view_as(base.w0).cos().requires_grad_()
    v.data /= base.objective.centering.alpha.unsqueeze(1)
    return v, base.objective.backward(v), v.grad


# ---------------------------------------------------------------------- the formula


def formula(objective, v):
    """F of each member and output, (E, n, c), written out."""
    o, (members, c) = objective, (len(v), objective.outputs)
    shared = o.features.shape[-1] == len(o.y)
    full = torch.stack([torch.kron(phi, torch.eye(c, dtype=phi.dtype)) if shared else phi for phi in o.features])
    moved = torch.einsum("e,eij,ej->ei", o.centering.alpha.to(v.dtype), full, v).view(members, -1, c)
    return moved if o.start is None else moved + o.start


@pytest.mark.parametrize("centering", [True, False], ids=["centred", "from f0"])
@pytest.mark.parametrize("kind", ["full", "mean"])
@pytest.mark.parametrize("name", CASES)
def test_loss_outputs_margins_and_gradient(name, kind, centering):
    """L = 1/(alpha^2 n) sum ell(F, y), by autograd of the formula as it stands."""
    base = kernel(network(name, centering=centering), kind)
    o = base.objective
    v, evaluation, gradient = somewhere(base)
    F = drop_single_output(formula(o, v))
    L = o.loss.per_sample(F, o.y).mean(-1) / o.centering.alpha**2
    (expected,) = torch.autograd.grad(L.sum(), v)
    for row in range(len(v)):
        assert_close(evaluation.outputs[row], F[row])
        assert_close(evaluation.loss[row], L[row])
        assert_close(gradient[row], expected[row])
    if o.reports_margins:
        assert_close(evaluation.margins, o.loss.margins(F, o.y), rtol=1e-12)
    assert (evaluation.margins is None) is not o.reports_margins


@pytest.mark.parametrize("name", CASES)
def test_starts_where_the_network_does_with_a_gradient_as_long(name):
    """At w0 the network and its kernel have one loss, one F, and ‖Phi^T slope‖ = ‖J^T slope‖."""
    base = network(name, centering=False)
    there, here = base.run(dt=1e-9).flow_state, kernel(base).run(dt=1e-9).flow_state
    assert_close(here.loss_start, there.loss_start)
    assert_close(here.gradient_norm, there.gradient_norm, rtol=1e-7)


def test_evaluations_leave_no_graph_and_do_not_add_up():
    base = kernel(network("cross entropy"))
    v, evaluation, gradient = somewhere(base)
    again = base.objective.backward(v)
    assert not any(part.requires_grad for part in (*evaluation, gradient) if part is not None)
    assert_close(v.grad, gradient, rtol=0)
    assert_close(again.loss, evaluation.loss, rtol=0)


@pytest.mark.parametrize("centering", [True, False], ids=["centred", "from f0"])
def test_selected_members_are_the_same(centering):
    base = kernel(network("one versus all", centering=centering))
    rows = torch.tensor([4, 0])
    v, whole, gradient = somewhere(base)
    chosen = v.detach()[rows].requires_grad_()
    part = base.objective.select(rows).backward(chosen)
    assert_close(part.outputs, whole.outputs[rows])
    assert_close(part.margins, whole.margins[rows])
    assert_close(part.loss[1], whole.loss[0])
    assert_close(chosen.grad[1], gradient[0])
    assert base.objective.select(None) is base.objective


def test_half_the_digits():
    single, double = (kernel(network("cross entropy", dtype=d)) for d in (torch.float32, torch.float64))
    (_, one, g), (_, other, h) = somewhere(single), somewhere(double)
    assert one.outputs.dtype == one.loss.dtype == g.dtype == torch.float32
    for row in range(len(g)):
        assert_close(one.outputs[row], other.outputs[row].float())
        assert_close(g[row], h[row].float(), rtol=2e-5)


def test_one_shared_kernel_is_a_full_one_of_equal_blocks():
    base = kernel(network("cross entropy"), "mean")
    blocks = torch.stack([torch.kron(phi, torch.eye(3, dtype=phi.dtype)) for phi in base.objective.features])
    other = Problem(replace(base.objective, features=blocks), base.w0)
    (v, one, g), (_, two, h) = somewhere(base), somewhere(other)
    assert_close(one.outputs, two.outputs)
    assert_close(g, h)
    assert kernel_outputs(blocks, v, base.objective.centering, None, 3).shape == (6, 6, 3)


# ---------------------------------------------------------------------- whole runs


def assert_same_decisions(one, other):
    """The same clock to the bit; the same losses and F to rounding, each member on its own scale."""
    assert one.reason.tolist() == other.reason.tolist()
    assert one.tried.tolist() == other.tried.tolist()
    assert one.accepted.tolist() == other.accepted.tolist()
    assert_close(one.t, other.t, rtol=0)
    assert_close(one.dt, other.dt, rtol=0)
    for row in range(len(one.t)):
        assert_close(one.outputs[row], other.outputs[row], rtol=1e-10)
        assert_close(one.loss[row], other.loss[row], rtol=1e-9)
        assert_close(one.gradient_norm[row], other.gradient_norm[row], rtol=1e-8)
        assert_close(one.displacement[row].norm(), other.displacement[row].norm(), rtol=1e-9)


@pytest.mark.parametrize("rule", [{"tau": 0.0}, {"tau": 0.5}], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_same_run_as_the_linearised_network(name, rule):
    """Every step is accepted and rejected alike, at every alpha; the rejections show in ``accepted``."""
    base = network(name)
    runs = [p.run(steps=70, dt=10.0, **rule).flow_state for p in (kernel(base), linearized(base))]
    assert (runs[0].accepted < runs[0].tried).all()
    assert_same_decisions(*runs)


@pytest.mark.parametrize("tau", [0.0, 0.5])
def test_same_run_without_centering(tau):
    base = network("one versus all", (0.5, 2.0), centering=False)
    runs = [p.run(steps=70, tau=tau).flow_state for p in (kernel(base), linearized(base, (0.5, 2.0)))]
    assert_same_decisions(*runs)


def test_same_run_with_a_bound_on_the_outputs_and_a_growing_memory():
    base = network("softhinge")
    runs = [p.run(steps=70, controller="reference", mu=3.0).flow_state for p in (kernel(base), linearized(base))]
    assert_same_decisions(*runs)


def test_same_end():
    """All margins met, each member at its own step, while those that have ended are left out."""
    base = network("softhinge")
    options = {"compact": True, "events": [MarginsMet(0.3)]}
    runs = [p.to_end(steps=50, **options).flow_state for p in (kernel(base), linearized(base))]
    assert len(set(runs[0].tried.tolist())) > 1
    assert_same_decisions(*runs)


@pytest.mark.parametrize("tau", [0.0, 0.5])
@pytest.mark.parametrize("kind", ["full", "mean"])
@pytest.mark.parametrize("name", CASES)
def test_outputs_do_not_depend_on_alpha(name, kind, tau):
    flow = kernel(network(name), kind).run(steps=50, tau=tau).flow_state
    for row in range(2, 6):  # members 0 and 1 have the first alpha
        assert_close(flow.outputs[row], flow.outputs[row % 2], rtol=1e-11)
        assert_close(flow.t[row], flow.t[row % 2], rtol=0)


@pytest.mark.parametrize("tau", [0.0, 0.7])
def test_first_outputs_follow_the_equation(tau):
    """F' = -(1/n) Theta ell', or tau F'' + F' the same: one short constant step, over its length."""
    base = kernel(network("cross entropy", centering=False, alphas=(0.5, 2.0)))
    o, dt = base.objective, 1e-3
    flow = base.run(dt=dt, tau=tau).flow_state
    F0 = o.start.clone().requires_grad_()
    (slope,) = torch.autograd.grad(build_loss("cross_entropy").per_sample(F0, o.y).sum(), F0)
    theta = o.features @ o.features.mT
    rate = -torch.einsum("eij,ej->ei", theta, slope.flatten(1)).view_as(F0) / len(o.y)
    gain = 1.0 if tau == 0 else -torch.expm1(torch.tensor(-dt / tau, dtype=torch.float64))
    assert flow.accepted.tolist() == [1] * 4
    assert_close((flow.outputs - o.start) / (dt * gain), rate, rtol=1e-8)  # exact for a linear model
