"""Fits in float32 pairs: the trajectories of float64 at any alpha, and checkpoints to the bit."""

from __future__ import annotations

import functools

import pytest
import torch
from fits import digits, fit, module
from torch import nn

from lazy_lightning.callbacks import ActivationDrift, KernelDrift, Sharpness
from lazy_lightning.errors import ConfigError
from lazy_lightning.flow import Schedule
from lazy_lightning.modules import FlowModule, KernelModule, StoppingCriteria
from lazy_lightning.objective.paired_batch import PairedObjective

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


def test_observers_measure_the_networks_weights_in_pairs(tmp_path):
    """What evaluates the objective at the weights w must not be given that of their change dw."""
    stop = StoppingCriteria(max_steps=30)
    runs = [
        fit(
            tmp_path / precision,
            module(alpha=[1.0, 30.0], paired=paired, stop=stop),
            callbacks=[Sharpness(vectors=2), ActivationDrift(), KernelDrift()],
            precision=precision,
        )
        for paired, precision in ((False, "64-true"), (True, "32-true"))
    ]
    plain, paired = (one.table[one.table.observation == one.table.observation.max()] for one in runs)
    measured = [name for name in plain if name.startswith(("sharpness/", "activation_", "kernel_drift/"))]
    measured.remove("sharpness/error")  # a residual, that of rounding in float64
    assert len(measured) > 12
    for name in measured:
        digits_left = 5e-3 if name.startswith("sharpness/") else 1e-4  # after twenty of Lanczos' steps in float32
        assert paired[name].tolist() == pytest.approx(plain[name].tolist(), rel=digits_left), name


def test_hessian_products_in_pairs_are_those_at_the_weights(tmp_path):
    model = fit(tmp_path, alpha=2.0, stop=StoppingCriteria(max_steps=5)).module
    paired = PairedObjective.of(model.objective, model.w0)
    v = torch.randn_like(model.w)
    expected = model.objective.hessian_product(model.w.detach(), v)
    found = paired.hessian_product(model.w.detach() - model.w0, v)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    assert found.abs().max() > 0


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
