"""Fits in float32 pairs: the trajectories of float64 at any alpha, and checkpoints to the bit."""

from __future__ import annotations

import functools

import pytest
import torch
from fits import digits, fit, module
from torch import nn

from lazy_lightning.errors import ConfigError
from lazy_lightning.flow import Schedule
from lazy_lightning.modules import FlowModule, KernelModule, StoppingCriteria

COLUMNS = ("train/loss", "test/loss", "train/output_rms", "displacement/total")


@pytest.mark.parametrize("integrator", ["euler", "explicit", "implicit"])
@pytest.mark.parametrize("alpha", [3e-5, 1.0, 3e9])
def test_float32_in_pairs_follows_float64(tmp_path, integrator, alpha):
    stop = StoppingCriteria(t_max=min(1.0, alpha), max_steps=200)
    options = {"alpha": alpha, "integrator": integrator, "stop": stop}
    wide = fit(tmp_path / "64", **options)
    paired = fit(tmp_path / "32", precision="32-true", paired=True, **options)
    assert paired.last("t") == wide.last("t")
    for column in COLUMNS:
        assert paired.last(column) == pytest.approx(wide.last(column), rel=2e-5), column
    assert paired.module.w.dtype == torch.float32
    torch.testing.assert_close(paired.module.w, paired.module.w0 + paired.module.dw, rtol=0, atol=0)


def test_resumed_run_in_pairs_is_the_same_to_the_bit(tmp_path):
    def made(steps: int) -> FlowModule:
        return module(alpha=1e6, seeds=2, paired=True, stop=StoppingCriteria(max_steps=steps), schedule=Schedule())

    whole = fit(tmp_path / "whole", made(40), precision="32-true")
    half = fit(tmp_path / "half", made(17), precision="32-true")
    path = tmp_path / "half.ckpt"
    half.trainer.save_checkpoint(path)
    saved = torch.load(path, weights_only=True)["state_dict"]
    assert torch.equal(saved["w0"], whole.module.w0)
    resumed = fit(tmp_path / "resumed", made(40), precision="32-true", ckpt_path=path)
    assert torch.equal(resumed.module.dw, whole.module.dw)
    assert torch.equal(resumed.module.train_outputs, whole.module.train_outputs)


def test_chunks_of_samples_give_the_same_flow_in_pairs(tmp_path):
    options = {"alpha": 1e6, "paired": True, "stop": StoppingCriteria(max_steps=10)}
    whole = fit(tmp_path / "whole", precision="32-true", **options)
    chunked = fit(tmp_path / "chunks", precision="32-true", chunk_size=17, **options)
    assert chunked.last("train/loss") == pytest.approx(whole.last("train/loss"), rel=1e-5)


def test_what_pairs_do_not_compute_is_refused():
    for options in ({"centering": False}, {"data_seeds": 2}, {"decay_rate": 0.1}):
        with pytest.raises(ConfigError, match=f"model.paired is true, so model.{next(iter(options))} must be"):
            module(paired=True, **options)
    with pytest.raises(ConfigError, match=r"model.paired runs on one device, got 2"):
        module(paired=True, seeds=2).check_devices(2)
    with pytest.raises(ConfigError, match=r"model.paired is for networks"):
        KernelModule(functools.partial(nn.Linear, 4, 1), paired=True)


def test_network_without_pair_rules_is_refused_before_the_flow_starts(tmp_path):
    network = functools.partial(nn.Sequential, nn.Flatten(), nn.Linear(64, 4), nn.Hardtanh(), nn.Linear(4, 1))
    model = FlowModule(network, paired=True, stop=StoppingCriteria(max_steps=2))
    with pytest.raises(ConfigError, match=r"no rule for torch's hardtanh"):
        fit(tmp_path, model, digits(), precision="32-true")
