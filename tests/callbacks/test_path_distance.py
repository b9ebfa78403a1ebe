"""PathDistance, against linearised networks that are trained on their own, and against closed forms."""

import functools
import math

import numpy as np
import pytest
import torch
from closeness import assert_close
from fits import assert_same_curves
from observed import APART, MEMBERS, Seen, column, interrupted, last, prolonged, small, watch
from torch import nn

from lazy_lightning import memory
from lazy_lightning.callbacks import PathDistance
from lazy_lightning.callbacks.laziness_index import LazinessIndex
from lazy_lightning.callbacks.path_distance import rms_distance
from lazy_lightning.data import Stripe, TeacherStudent
from lazy_lightning.errors import RunError
from lazy_lightning.flow import ConstantStep, GradientChangeController, MomentumFlow
from lazy_lightning.modules import FlowModule, KernelModule, StoppingCriteria
from lazy_lightning.modules.kernel_objective import KernelObjective
from lazy_lightning.nn import FC
from lazy_lightning.nn.initial_members import InitialMembers
from lazy_lightning.nn.linearize import LinearizedNetwork
from lazy_lightning.ntk import empirical_ntk
from lazy_lightning.ntk.laziness import PowerMethod
from lazy_lightning.objective.full_batch import Objective

RMS, SUP = "path_distance/rms", "path_distance/sup"
NETWORK = functools.partial(FC, width=6, depth=1)
SHORT = {**MEMBERS, "stop": StoppingCriteria(max_steps=30)}


class Trials(Seen):
    """And the times after each step."""

    def __init__(self):
        super().__init__()
        self.times = []

    def observe(self, module, observation):
        t, trace = observation.state.t, observation.trace
        times = t.clone().unsqueeze(0) if trace is None else t.repeat(len(trace.t), 1)
        if trace is not None:
            times[:, slice(None) if observation.rows is None else observation.rows] = trace.t
        self.times.append(times)
        return super().observe(module, observation)


def linearised(module, seen, **rule):
    """F_lin at each observation, (E, n) or (E, n, c): the first-order network by forward mode, over the same times."""
    x, y = module.train_split.x, module.train_split.y
    factory = functools.partial(LinearizedNetwork, NETWORK)
    members = InitialMembers(factory, module.ensemble.seeds, module.data.input_shape, module.data.num_outputs)
    f0 = module.initial_outputs(x)
    objective = Objective(members.network, module.loss, module.centering, x, y, f0, members.buffers)
    w = nn.Parameter(members.w0.clone())
    flow = MomentumFlow([w], members=len(w), dt=1e100, steps=50, integrator=module._flow_options["integrator"], **rule)
    for times in seen.times:
        flow.advance(times, lambda: objective.backward(w))
        assert torch.equal(flow.flow_state.t, times[-1])
        yield flow.flow_state.outputs


# ---------------------------------------------------------------------- what the companion is


@pytest.mark.parametrize(
    ("data", "options"),
    [
        ({}, {}),
        ({}, {"tau": 0.5}),
        ({}, {"mu": 3.0}),
        ({}, {"loss": "mse"}),
        ({}, {"centering": False, "controller": "reference"}),
        ({}, APART),
        ({"labels": "multiclass"}, {"loss": "cross_entropy"}),
        ({"labels": "multiclass"}, {"loss": "mse", "centering": False}),
    ],
    ids=["default", "tau", "mu", "mse", "not centred", "apart", "classes", "classes, not centred"],
)
def test_is_the_distance_to_the_trained_linearisation(tmp_path, data, options):
    seen = Trials()
    run = watch(tmp_path, seen, PathDistance(), data=small(**data), **{**SHORT, **options})
    rule = {name: options[name] for name in ("tau", "mu") if name in options}
    sup = torch.zeros(4, dtype=torch.float64)
    for i, linear in enumerate(linearised(run.module, seen, **rule)):
        distance = (seen.moments[i].outputs - linear).flatten(1).square().mean(1).sqrt()
        sup = torch.maximum(sup, distance)
        assert_close(column(run.table, RMS, i), distance, rtol=1e-10, scale=1.0)
        assert_close(column(run.table, SUP, i), sup, rtol=1e-10, scale=1.0)
    assert sup.min() > 1e-4


def test_companion_solves_its_own_equation(tmp_path):
    """Under the square loss F_lin = (1 - exp(-Theta t/n)) y, within the first order of the step."""
    observer, seen = PathDistance(), Seen()
    m = watch(tmp_path, observer, seen, loss="mse", alpha=[0.3, 30.0], controller=ConstantStep(), dt=0.01).module
    x, y, t = m.train_split.x, m.train_split.y, float(seen.moments[-1].t[0])
    kernel = empirical_ntk(m.network, m.w0, x, output="trace", method="jacobian")[0]
    exact = y - torch.linalg.matrix_exp(-kernel * t / len(y)) @ y
    for row in (0, 1):
        assert_close(observer._companion.flow.flow_state.outputs[row], exact, rtol=0.02)
    assert t == pytest.approx(0.6)


def test_nothing_is_between_the_linearised_network_and_itself(tmp_path):
    model = FlowModule(functools.partial(LinearizedNetwork, NETWORK), **SHORT)
    run = watch(tmp_path, PathDistance(), model=model)
    assert max(run.last("train/loss")) < 1.0
    assert max(run.last(SUP)) < 1e-11


def test_float32(tmp_path):
    single, double = (watch(tmp_path / p, PathDistance(), precision=p, alpha=0.1) for p in ("32-true", "64-true"))
    np.testing.assert_allclose(single.last(RMS), double.last(RMS), rtol=1e-3)


def test_one_sample_and_real_targets(tmp_path):
    for data in (Stripe(d=4, n_train=1, n_test=3), TeacherStudent(d=4, n_train=6, n_test=3)):
        run = watch(tmp_path / type(data).__name__, PathDistance(), data=data, loss="mse", **SHORT)
        assert 0 < min(run.last(RMS)) < 1


def test_rms_over_samples_and_outputs():
    assert rms_distance(torch.zeros(2, 3, 4), torch.full((2, 3, 4), 2.0)).tolist() == [2.0, 2.0]


# ---------------------------------------------------------------------- what is claimed


@pytest.mark.parametrize("options", [{"dt": 1e-3}, {"tau": 0.5}, {"controller": "reference"}, {"loss": "mse"}], ids=str)
def test_falls_as_one_over_alpha(tmp_path, options):
    """Over four decades: the errors of the steps, larger than most of these distances, cancel."""
    alphas = [30.0, 300.0, 3e3, 3e5]
    run = watch(tmp_path, PathDistance(), alpha=alphas, stop=StoppingCriteria(max_steps=150), **options)
    for name in (RMS, SUP):
        slopes = np.diff(np.log(run.last(name))) / np.diff(np.log(alphas))
        assert slopes == pytest.approx(-1, abs=0.1)


def test_a_tolerance_that_hides_the_distance_is_reported(tmp_path, caplog):
    """At 0.3/alpha the distance is that of smaller steps within a tenth."""
    options = {"network": {"width": 6, "depth": 2}, "alpha": 300.0, "stop": StoppingCriteria(loss=0.3)}
    found, reported = {}, {}
    for tol in (1e-2, 1e-3, 1e-6):
        caplog.clear()
        found[tol] = watch(tmp_path / str(tol), PathDistance(), **options, integrator="auto", tol=tol).last(SUP)[0]
        reported[tol] = [text for record in caplog.records if "hides the distance" in (text := record.getMessage())]
    assert [len(messages) for messages in reported.values()] == [1, 0, 0]
    assert "set model.tol to 1e-03 or less, or model.integrator to euler" in reported[1e-2][0]
    assert found[1e-3] == pytest.approx(found[1e-6], rel=0.1)


BOUND = "path_distance/bound"
QUICK = PowerMethod(max_iterations=100, starts=1)
SQUARE = {"loss": "mse", "stop": StoppingCriteria(max_steps=60)}


@pytest.mark.parametrize("centering", [True, False])
def test_lazy_paths_keep_the_bound_of_the_paper(tmp_path, centering):
    """While K = t ‖D f‖^2 is at most about one, where the bound is of use; small times are where it is tight."""
    observers = LazinessIndex(method=QUICK), PathDistance()
    run = watch(tmp_path, *observers, alpha=[10.0, 100.0], seeds=2, centering=centering, **SQUARE)
    table = run.table[run.table.t * run.table["laziness/jacobian_norm"] ** 2 < 1.5]
    later = table[table.t > 0]
    assert len(later) > 20
    assert (later[SUP] <= later[BOUND]).all()
    assert (table[table.t == 0][BOUND] == 0).all()
    first = later[later.observation == later.observation.min()]
    assert (first[SUP] > 1e-4 * first[BOUND]).all()


def test_bound_is_made_of_the_norms_that_are_recorded(tmp_path):
    run = watch(tmp_path, LazinessIndex(method=QUICK), PathDistance(), **MEMBERS, **SQUARE)
    k = run.table.t * run.table["laziness/jacobian_norm"] ** 2
    expected = k**2 * run.table["laziness_index"] * run.table["laziness/target_distance"]
    np.testing.assert_allclose(run.table[BOUND], expected, rtol=1e-12)


@pytest.mark.parametrize("options", [{"loss": "softhinge(20)"}, {**SQUARE, "tau": 0.5}], ids=["other loss", "momentum"])
def test_where_there_is_no_theorem_there_is_no_bound(tmp_path, options):
    run = watch(tmp_path, LazinessIndex(method=QUICK), PathDistance(), **{**SHORT, **options})
    assert SUP in run.table
    assert BOUND not in run.table


def test_norms_over_fewer_samples_make_an_estimate(tmp_path):
    run = watch(tmp_path, LazinessIndex(samples=5, method=QUICK), PathDistance(), **{**MEMBERS, **SQUARE})
    assert BOUND not in run.table
    assert f"{BOUND}_estimate" in run.table


def test_sup_is_the_largest_so_far(tmp_path):
    table = watch(tmp_path, PathDistance(), **APART).table
    for _, member in table.groupby("member"):
        assert (member[SUP] == member[RMS].cummax()).all()


# ---------------------------------------------------------------------- what it costs, and whom


@pytest.mark.parametrize("rule", [{}, {"tau": 0.5}], ids=str)
def test_main_run_is_not_disturbed(tmp_path, rule):
    observed = watch(tmp_path / "a", PathDistance(), **APART, **rule).table
    bare = watch(tmp_path / "b", **APART, **rule).table
    assert_same_curves(observed.drop(columns=[RMS, SUP]), bare)


def test_costs_one_evaluation_a_step_of_the_network(tmp_path, monkeypatch):
    members = []
    backward = KernelObjective.backward
    monkeypatch.setattr(KernelObjective, "backward", lambda self, v: (members.append(len(v)), backward(self, v))[1])
    run = watch(tmp_path / "lazy", PathDistance(), alpha=[10.0, 100.0], stop=StoppingCriteria(max_steps=100))
    assert max(run.last("accepted")) <= len(members) <= max(run.last("tried")) + 1
    members.clear()
    run = watch(tmp_path / "apart", PathDistance(), **APART)
    assert len(members) < 2 * max(run.last("tried"))
    assert sum(members) < 1.5 * sum(run.last("tried"))  # those who have stopped are left out


def test_kernel_of_a_seed_is_decomposed_once(tmp_path, monkeypatch):
    import lazy_lightning.callbacks.path_distance as room

    shapes, of = [], room.KernelFeatures.of
    monkeypatch.setattr(room.KernelFeatures, "of", lambda kernel: (shapes.append(kernel.shape), of(kernel))[1])
    watch(tmp_path, PathDistance(), alpha=[0.1, 1.0, 10.0], seeds=[4, 2], stop=StoppingCriteria(max_steps=2))
    assert shapes == [(2, 20, 20)]


def test_without_a_network_there_is_nothing_to_compare(tmp_path):
    run = watch(tmp_path, PathDistance(), model=KernelModule(NETWORK, stop=StoppingCriteria(max_steps=3)))
    assert RMS not in run.table


# ---------------------------------------------------------------------- what goes wrong


def test_where_the_companion_cannot_follow_the_distance_is_not_known(tmp_path):
    """At a kink of the hinge its steps shrink to nothing; with a shortest step it goes on."""
    data, network = small(pca=None), {"width": 30, "depth": 2}
    options = {"loss": "hinge", "stop": StoppingCriteria(max_steps=150), "data": data, "network": network}
    stuck = watch(tmp_path / "a", PathDistance(), **options).table
    first = stuck[RMS].isna().argmax()
    assert first > 1
    assert stuck[first:][[RMS, SUP]].isna().all(axis=None)
    forced = watch(
        tmp_path / "b", PathDistance(), controller=GradientChangeController(1e-2, 1e-4, dt_min=1e-3), **options
    ).table
    assert forced[RMS].notna().all()


class Gate(nn.Module):
    """The output at w0 is infinite for one seed."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 1)
        if float(self.head.bias.detach()) < 0:
            self.head.weight.data.fill_(math.inf)

    def forward(self, x):
        return self.head(x.flatten(1)).tanh() * self.head.weight.mean()


def test_member_that_is_not_finite_keeps_to_itself(tmp_path):
    run = watch(tmp_path, PathDistance(), model=FlowModule(Gate, seeds=6, stop=StoppingCriteria(max_steps=5)))
    failed = ~torch.isfinite(run.module.w0).all(dim=1)
    assert 0 < failed.sum() < 6
    assert torch.equal(last(run, RMS).isnan(), failed)


# ---------------------------------------------------------------------- resuming


@pytest.mark.parametrize("bursts", [1, 9])
@pytest.mark.parametrize(
    "rule", [{}, {"tau": 0.5}, {"mu": 3.0}, {"precision": "32-true"}], ids=["gradient flow", "tau", "mu", "float32"]
)
def test_resumed_run_has_the_undisturbed_table(tmp_path, rule, bursts):
    whole = watch(tmp_path / "whole", PathDistance(), **APART, **rule).table
    second = interrupted(tmp_path, lambda: [PathDistance()], bursts, **APART, **rule).table
    assert whole.observation.max() > 9
    assert_same_curves(second, whole)


@pytest.mark.parametrize("between", [0, 2])
def test_prolonged_run_goes_on_where_it_was(tmp_path, between):
    """Also if it was opened on the way when there was nothing left to do."""
    run = prolonged(tmp_path, lambda: [PathDistance()], between=between, **MEMBERS)
    whole = watch(tmp_path / "whole", PathDistance(), **MEMBERS, stop=StoppingCriteria(max_steps=40)).table
    assert_close(last(run, RMS), torch.tensor(whole[RMS].tail(4).to_numpy()), rtol=1e-11)
    for _, member in run.table.groupby("member"):
        assert (member[SUP] == member[RMS].cummax()).all()


def test_added_to_a_resumed_run(tmp_path):
    """The companion catches up from t = 0 by steps of its own."""
    observers = iter([[], [PathDistance()]])
    late = interrupted(tmp_path, lambda: next(observers), **SHORT)
    whole = watch(tmp_path / "whole", PathDistance(), **SHORT)
    assert last(late, RMS)[0] == pytest.approx(whole.last(RMS)[0], rel=0.1)
    assert np.isfinite(late.last(RMS)).all()


def test_memory_that_is_not_there_is_told_before_the_kernel_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda device: 1000)
    with pytest.raises(RunError, match=r"decomposing 1 kernel of .* free on cpu: leave PathDistance out"):
        watch(tmp_path, PathDistance())
