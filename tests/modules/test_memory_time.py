"""tau as a number, a list, or the published runs' rule, and the warning where it is longer than t1."""

from __future__ import annotations

import functools
import math
import warnings

import pytest
import torch
from fits import digits, fit, module
from torch import nn

from lazy_lightning.errors import ConfigError
from lazy_lightning.modules import FlowModule, KernelModule, StoppingCriteria
from lazy_lightning.modules.ensemble import Ensemble
from lazy_lightning.modules.memory_time import expected_t1, memory_times, warning_of_long_memory
from lazy_lightning.nn import FC
from lazy_lightning.runs import configuration

ROSTER = Ensemble.of([0.01, 1.0, 1e4], 2)
SHORT = {"stop": StoppingCriteria(max_steps=3), "dt": 1e-6}


class WithWidth(nn.Module):
    def __init__(self, width=100):
        super().__init__()
        self.width = width


@pytest.mark.parametrize(
    ("tau", "each"),
    [
        (0.5, 0.5),
        ([0.1, 0.2, 0.3], [0.1, 0.1, 0.2, 0.2, 0.3, 0.3]),
        ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        ("published", [1e-4, 1e-4, 1e-2, 1e-2, 1.0, 1.0]),
    ],
    ids=str,
)
def test_of_each_member(tau, each):
    assert memory_times(tau, ROSTER, WithWidth()) == pytest.approx(each)


def test_rule_is_that_of_the_reference_code():
    """c_tau min(sqrt(h) alpha, 1e3) with c_tau = 1e-3."""
    for h in (30, 1000):
        for alpha in (1e-3, 1.0, 1e3):
            ensemble = Ensemble.of(alpha, 1)
            assert memory_times("published", ensemble, WithWidth(h)) == pytest.approx([1e-3 * min(h**0.5 * alpha, 1e3)])


def test_rule_without_a_width(tmp_path):
    with pytest.raises(ConfigError, match="has no attribute width"):
        memory_times("published", ROSTER, nn.Linear(1, 1))


@pytest.mark.parametrize("kind", [FlowModule, KernelModule])
@pytest.mark.parametrize("tau", ["fast", None, [], [1.0, 2.0], [1.0, 2.0, "3"], True, -1.0, math.nan])
def test_refused(kind, tau):
    with pytest.raises(ConfigError, match="tau"):
        kind(FC, alpha=[0.1, 1.0, 10.0], seeds=5, tau=tau)


@pytest.mark.parametrize("kind", [FlowModule, KernelModule])
def test_a_rule_and_its_numbers_are_one_run(tmp_path, kind):
    build = functools.partial(kind, functools.partial(FC, width=9, depth=1), alpha=[0.01, 1.0], seeds=2, **SHORT)
    named = fit(tmp_path / "a", build(tau="published"))
    listed = fit(tmp_path / "b", build(tau=[3e-5, 3e-3]))
    assert torch.equal(named.module.flow.dynamics.rule.tau, torch.tensor([3e-5, 3e-5, 3e-3, 3e-3], dtype=torch.float64))
    assert named.last("train/loss") == listed.last("train/loss")
    assert named.last("t") == listed.last("t")


def test_identity_of_a_number_stays():
    """Of 0.1.0."""
    config = {"model": {"class_path": "lazy_lightning.modules.FlowModule", "init_args": {"tau": 1.0}}}
    assert configuration.family(config) == "f2a9676d795d"


def test_longer_than_t1_is_said(tmp_path):
    with pytest.warns(UserWarning, match=r"tau of the momentum exceeds .* at alpha = 0.001 *\)"):
        fit(tmp_path, module(alpha=[0.001, 100.0], tau=0.02, **SHORT))


@pytest.mark.parametrize("tau", [0.0, "published", [1e-6, 1e-3]])
def test_shorter_is_not(tmp_path, tau):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*|.*does not have many workers.*|.*torch.jit.*")
        fit(tmp_path, module(alpha=[0.001, 1.0], tau=tau, **SHORT))


def test_t1_that_is_expected_is_near_the_one_that_comes(tmp_path):
    """Lazy: half of the loss at the first speed is a lower estimate; small alpha: sqrt(h) alpha is one to a factor."""
    run = fit(tmp_path, module(alpha=[0.001, 100.0], stop=StoppingCriteria(loss=0.45), dt=1e-4), digits())
    found = torch.tensor(run.last("t1/half_loss"), dtype=torch.float64)
    start = fit(
        tmp_path / "start",
        module(alpha=[0.001, 100.0], **{**SHORT, "stop": StoppingCriteria(max_steps=1), "dt": 1e-12}),
    )
    state = start.module.flow.flow_state
    expected = expected_t1(state, start.module.ensemble, start.module.network.template)
    ratio = found / expected
    assert ((ratio > 0.3) & (ratio < 30)).all(), (found, expected)
    assert warning_of_long_memory(expected.tolist(), expected, start.module.ensemble) is None
