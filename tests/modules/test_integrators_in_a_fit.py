"""Integrators in fits: through FlowModule and KernelModule, resumed, and refused with a sentence."""

import functools

import pytest
import torch
from fits import digits, fit, module

from lazy_lightning.errors import ConfigError
from lazy_lightning.modules import KernelModule, StoppingCriteria
from lazy_lightning.nn import FC

END = {"stop": StoppingCriteria(max_steps=20_000), "alpha": [0.05, 50.0]}


@pytest.mark.parametrize("name", ["explicit", "implicit", "auto"])
def test_fit_to_the_margins(tmp_path, name):
    """The errors and times of euler, to the error of both, by fewer evaluations where it is stiff."""
    runs = {each: fit(tmp_path / each, module(integrator=each, **END)) for each in ("euler", name)}
    found, expected = runs[name], runs["euler"]
    assert {reason.name for reason in found.module.reasons} == {"MARGINS_MET"}
    assert found.last("t1/half_loss") == pytest.approx(expected.last("t1/half_loss"), rel=0.05)
    assert found.last("t") == pytest.approx(expected.last("t"), rel=0.1)
    truth = found.module.objective.outputs_at(found.module.w.detach())
    torch.testing.assert_close(found.module.train_outputs, truth, rtol=0, atol=1e-10)
    if name != "explicit":
        assert found.last("tried")[1] < expected.last("tried")[1] / 2


@pytest.mark.parametrize("name", ["implicit", "auto"])
def test_deep_in_the_feature_regime(tmp_path, name):
    """Where the kernel changes by orders of magnitude, F of one iteration with a kept kernel is not to be trusted."""
    scale = {"alpha": [0.000375], "seeds": [2], "dt": 1e-3, "network": {"width": 64, "depth": 3}}
    runs = {
        each: fit(tmp_path / each, module(integrator=each, tol=tol, **{**END, **scale}), data=digits(n_train=50))
        for each, tol in ((name, 1e-3), ("explicit", 1e-4))
    }
    assert [reason.name for reason in runs[name].module.reasons] == ["MARGINS_MET"]
    assert runs[name].last("t") == pytest.approx(runs["explicit"].last("t"), rel=3e-3)


def test_auto_gives_the_means_of_euler_within_their_error(tmp_path):
    """What `make phase` takes for granted: the points of its figures do not depend on the integrator."""
    seeds = 4
    runs = {name: fit(tmp_path / name, module(integrator=name, seeds=seeds, **END)) for name in ("euler", "auto")}
    for column in ("test/error", "test/loss", "t1/half_loss", "displacement/total", "tangent_departure"):
        euler, auto = (torch.tensor(runs[name].last(column)).view(-1, seeds) for name in ("euler", "auto"))
        error = euler.std(dim=1) / seeds**0.5
        assert ((auto - euler).mean(dim=1).abs() < 0.5 * error + 1e-12).all(), column


def test_flow_on_a_frozen_kernel(tmp_path):
    ends = {}
    for name in ("euler", "implicit"):
        model = KernelModule(functools.partial(FC, width=12, depth=2), integrator=name, **{**END, "alpha": 1.0})
        ends[name] = fit(tmp_path / name, model)
    assert ends["implicit"].last("tried")[0] < ends["euler"].last("tried")[0] / 2.5
    assert ends["implicit"].last("t") == pytest.approx(ends["euler"].last("t"), rel=0.1)


def test_implicit_without_curvature_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="the loss hinge is piecewise linear"):
        fit(tmp_path, module(integrator="implicit", loss="hinge"), data=digits(n_train=20, n_test=10))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"integrator": "rk4"}, "unknown integrator 'rk4'"),
        ({"integrator": "auto", "tol": 0.0}, "tol is 0.0, expected the error of F"),
        ({"tol": 1e-3}, "the integrator euler chooses its steps by the controller"),
        ({"integrator": "auto", "controller": "reference"}, "is for the integrator euler"),
    ],
    ids=str,
)
def test_options_are_checked_before_any_data_is_read(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        module(**options)
