"""The share of unchanged gates, counted by hand; the error with gates held; networks without gates."""

from __future__ import annotations

import functools

import pytest
import torch
from closeness import assert_close
from observed import column, last, small, watch

from lazy_lightning.callbacks import ActivationStability
from lazy_lightning.errors import ConfigError
from lazy_lightning.flow import ConstantStep
from lazy_lightning.modules import FlowModule, StoppingCriteria
from lazy_lightning.nn import FC

NETWORK = functools.partial(FC, width=9, depth=2, activation="relu")


def fitted(tmp_path, samples=200, network=NETWORK, **options):
    given = {
        "alpha": [0.1, 1000.0],
        "seeds": 2,
        "dt": 0.5,
        "controller": ConstantStep(),
        "stop": StoppingCriteria(max_steps=60),
    }
    return watch(tmp_path, ActivationStability(samples), model=FlowModule(network, **given | options))


def test_shares_are_those_counted_by_hand(tmp_path):
    run = fitted(tmp_path, samples=7)
    m, x = run.module, run.module.test_split.x[:7]
    for name, z0 in m.network.preactivations(m.w0, x).items():
        if name == "head":
            continue
        z = m.network.preactivations(m.w.detach(), x)[name]
        expected = ((z > 0) == (z0 > 0)).double().mean(dim=(1, 2))
        layer = {"hidden.0": "activation", "hidden.1": "activation#2"}[name]
        assert_close(last(run, f"activation_stability/{layer}"), expected)
    layers = [last(run, f"activation_stability/{layer}") for layer in ("activation", "activation#2")]
    assert_close(last(run, "activation_stability/total"), sum(layers) / 2)


def test_all_at_the_start_and_nearly_all_when_lazy(tmp_path):
    run = fitted(tmp_path)
    assert column(run.table, "activation_stability/total", 0).tolist() == [1.0] * 4
    feature, lazy = last(run, "activation_stability/total").view(2, 2)
    assert feature.max() < 0.95
    assert lazy.min() > 0.999


def test_held_error_is_that_of_the_held_network(tmp_path):
    run = fitted(tmp_path, chunk_size=5)
    m, split = run.module, run.module.test_split
    F = (m.network.with_frozen_gates(m.w.detach(), m.w0, split.x) - m.network(m.w0, split.x))[..., 0]
    assert_close(last(run, "activation_stability/held_error"), (F * split.y <= 0).double().mean(dim=1))


def test_chunks_do_not_matter(tmp_path):
    whole, parts = fitted(tmp_path / "a"), fitted(tmp_path / "b", chunk_size=5)
    assert_close(last(parts, "activation_stability/total"), last(whole, "activation_stability/total"))


def test_smooth_networks_are_passed_over(tmp_path):
    run = fitted(tmp_path, network=functools.partial(FC, width=9, depth=2))
    assert not any(name.startswith("activation_stability") for name in run.table)


def test_regression_has_no_error(tmp_path):
    data = small()
    data.setup()
    data.train, data.test = (split._replace(y=0.5 * split.y) for split in (data.train, data.test))
    data.task = "regression"
    model = FlowModule(NETWORK, loss="mse", stop=StoppingCriteria(max_steps=3))
    run = watch(tmp_path, ActivationStability(), model=model, data=data)
    assert "activation_stability/total" in run.table
    assert "activation_stability/held_error" not in run.table


def test_refused():
    with pytest.raises(ConfigError, match="samples >= 1"):
        ActivationStability(0)


def test_device_of_the_shares_is_the_module_s(tmp_path):
    assert last(fitted(tmp_path), "activation_stability/total").dtype == torch.float64
