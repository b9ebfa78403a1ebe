"""What a run keeps as arrays: its outputs, and its kernels before and after."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from closeness import assert_close
from command_line import TINY
from fits import fit
from observed import Scaled, StopAt, small, watch
from safetensors import safe_open
from safetensors.torch import load_file

from lazy_lightning.callbacks import KernelDrift, LearningCurves, RunCheckpoint
from lazy_lightning.callbacks.kernel_snapshots import KernelSnapshots
from lazy_lightning.callbacks.outputs import OutputsWriter
from lazy_lightning.cli import main
from lazy_lightning.errors import ConfigError
from lazy_lightning.modules import FlowModule, KernelModule, StoppingCriteria
from lazy_lightning.nn import FC
from lazy_lightning.ntk import empirical_ntk

MEMBERS = {"alpha": [0.1, 10.0], "seeds": 3}
SHORT = {**MEMBERS, "stop": StoppingCriteria(max_steps=12)}
TOTAL = "kernel_drift/total"


def arrays(folder: Path, name: str) -> dict[str, torch.Tensor]:
    path = folder / f"{name}.safetensors"
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["schema"] == "1"
    return load_file(path)


# ---------------------------------------------------------------------- outputs


@pytest.mark.parametrize(
    ("data", "options", "shape"),
    [
        ({}, {}, ()),
        ({}, {"centering": False, "tau": 0.5}, ()),
        ({}, {"alpha": 0.5, "seeds": [3]}, ()),
        ({"labels": "multiclass"}, {"loss": "cross_entropy", "chunk_size": 5}, (10,)),
    ],
    ids=["one output", "not centred", "one member", "classes"],
)
def test_outputs(tmp_path: Path, data: dict[str, Any], options: dict[str, Any], shape: tuple[int, ...]) -> None:
    run = watch(tmp_path, OutputsWriter(), data=small(**data), **{**SHORT, **options})
    module, found = run.module, arrays(tmp_path, "outputs")
    assert found["alpha"].tolist() == list(module.ensemble.alphas)
    assert found["seed"].tolist() == list(module.ensemble.seeds)
    for name, split in (("train", module.data.train), ("test", module.data.test)):
        F = found[f"{name}/outputs"]
        assert F.shape == (len(module.ensemble), len(split.y), *shape)
        assert F.dtype == torch.float64
        assert_close(F, module.centered_outputs(split.x), rtol=1e-12)
        assert F.abs().amax() > 1e-3  # it has been trained
        torch.testing.assert_close(found[f"{name}/labels"], split.y, rtol=0, atol=0)
        torch.testing.assert_close(found[f"{name}/index"], split.index, rtol=0, atol=0)


def test_errors_can_be_computed_from_the_outputs(tmp_path: Path) -> None:
    run = watch(tmp_path, OutputsWriter(), **SHORT)
    found = arrays(tmp_path, "outputs")
    for name in ("train", "test"):
        wrong = found[f"{name}/outputs"] * found[f"{name}/labels"] <= 0
        assert wrong.double().mean(dim=1).tolist() == pytest.approx(run.last(f"{name}/error"), rel=1e-14)


def test_outputs_are_what_predict_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LearningCurves, "on_train_end", lambda *args: None)
    assert main(TINY) == 0
    run = Path("runs/digits_fc/version_0")
    arguments = ["predict", "--config", f"{run}/config.yaml", "--ckpt_path", f"{run}/checkpoint.ckpt"]
    assert main([*arguments, "--trainer.logger.save_dir=again"]) == 0
    predicted = load_file("again/digits_fc/version_0/predictions.safetensors")
    found = arrays(run, "outputs")
    assert_close(found["test/outputs"], predicted["outputs"].T, rtol=1e-12)
    for name in ("labels", "index"):
        assert torch.equal(found[f"test/{name}"], predicted[name])


def test_float32(tmp_path: Path) -> None:
    watch(tmp_path, OutputsWriter(), KernelSnapshots(samples=5), precision="32-true", **SHORT)
    assert arrays(tmp_path, "outputs")["test/outputs"].dtype == torch.float32
    assert arrays(tmp_path, "kernels")["end"].dtype == torch.float32


# ---------------------------------------------------------------------- kernels


@pytest.mark.parametrize(
    ("data", "options"),
    [
        ({}, {}),
        ({"n_kernel": 9}, {"tau": 0.5}),
        ({"labels": "multiclass"}, {"loss": "cross_entropy"}),
    ],
    ids=["test set", "kernel set", "classes"],
)
def test_kernels(tmp_path: Path, data: dict[str, Any], options: dict[str, Any]) -> None:
    drift = KernelDrift(samples=7, output="trace", layers=False, t_factor=None)
    run = watch(tmp_path, KernelSnapshots(samples=7, seeds=2), drift, data=small(**data), **{**SHORT, **options})
    module, found = run.module, arrays(tmp_path, "kernels")
    assert found["member"].tolist() == [0, 1, 3, 4]  # two of the three seeds of each alpha
    assert found["alpha"].tolist() == [0.1, 0.1, 10.0, 10.0]
    assert found["seed"].tolist() == [0, 1, 0, 1]
    split = module.data.kernel if data.get("n_kernel") else module.data.test
    assert torch.equal(found["index"], split.index[:7])
    assert torch.equal(found["labels"], split.y[:7])
    for name, w in (("start", module.w0), ("end", module.w.detach())):
        expected = empirical_ntk(module.network, w[found["member"]], split.x[:7], output="trace", method="jacobian")
        assert_close(found[name], expected, rtol=1e-12)
    change = torch.linalg.matrix_norm(found["end"] - found["start"]) / torch.linalg.matrix_norm(found["start"])
    np.testing.assert_allclose(change, np.array(run.last(TOTAL))[[0, 1, 3, 4]], rtol=1e-9)
    assert change.min() > 1e-6


def test_kernels_of_any_network(tmp_path: Path) -> None:
    """With buffers of each seed's own."""
    run = watch(tmp_path, KernelSnapshots(samples=5, split="train"), model=FlowModule(Scaled, **SHORT))
    module, found = run.module, arrays(tmp_path, "kernels")
    rows = found["member"]
    buffers = {name: b[rows] for name, b in module.member_buffers().items()}
    x = module.data.train.x[:5]
    expected = empirical_ntk(
        module.network, module.w.detach()[rows], x, output="trace", method="jacobian", buffers=buffers
    )
    assert_close(found["end"], expected, rtol=1e-12)


def test_frozen_kernels_have_outputs_and_no_snapshots(tmp_path: Path) -> None:
    model = KernelModule(functools.partial(FC, width=6, depth=1), **{**MEMBERS, "stop": StoppingCriteria(max_steps=5)})
    run = watch(tmp_path, OutputsWriter(), KernelSnapshots(samples=50), model=model)
    assert not (tmp_path / "kernels.safetensors").exists()
    F = arrays(tmp_path, "outputs")["test/outputs"]
    assert_close(F, run.module.centered_outputs(run.module.data.test.x), rtol=1e-12)
    assert_close(F[:3], F[3:], rtol=1e-9)  # centred outputs of a kernel do not depend on alpha


def test_what_is_wrong_is_told_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="split is kernel, but the kernel set is empty"):
        watch(tmp_path, KernelSnapshots(split="kernel"), **SHORT)
    with pytest.raises(ConfigError, match="a kernel needs 2 samples at least, but the test set has 1"):
        watch(tmp_path / "b", KernelSnapshots(), data=small(n_test=1), **SHORT)
    for options in ({"samples": 1}, {"seeds": 0}):
        with pytest.raises(ConfigError, match="needs samples >= 2 and seeds >= 1"):
            KernelSnapshots(**options)
    assert not (tmp_path / "curves.parquet").exists()


# ---------------------------------------------------------------------- how a run ends


def test_a_resumed_run_keeps_what_it_would_have(tmp_path: Path) -> None:
    whole, first, second = tmp_path / "whole", tmp_path / "first", tmp_path / "second"
    watch(whole, OutputsWriter(), KernelSnapshots(samples=5), **SHORT)
    watch(first, OutputsWriter(), KernelSnapshots(samples=5), RunCheckpoint(), StopAt(4), **SHORT)
    watch(second, OutputsWriter(), KernelSnapshots(samples=5), ckpt_path=first / "checkpoint.ckpt", **SHORT)
    for name in ("outputs", "kernels"):
        expected, found, cut = (arrays(folder, name) for folder in (whole, second, first))
        assert set(found) == set(expected)
        for key in expected:
            assert torch.equal(found[key], expected[key]), key
        changes = "test/outputs" if name == "outputs" else "end"
        assert not torch.equal(cut[changes], expected[changes])  # a run that was stopped keeps where it was


def test_a_member_that_has_failed_leaves_the_others(tmp_path: Path) -> None:
    class Spoil(KernelSnapshots):
        """One member blows up."""

        def on_train_batch_end(self, trainer: Any, module: Any, *args: Any) -> None:
            if module.observations == 4:
                module.w.data[1] = torch.nan
                module.flow.flow_state.displacement[1] = torch.nan

    watch(tmp_path, OutputsWriter(), Spoil(samples=5, seeds=3), **{**SHORT, "stop": StoppingCriteria(max_steps=40)})
    finite = arrays(tmp_path, "outputs")["test/outputs"].isfinite().all(dim=1)
    assert finite.tolist() == [True, False, True, True, True, True]
    assert arrays(tmp_path, "kernels")["end"].isfinite().flatten(1).all(dim=1).tolist() == finite.tolist()


def test_nothing_is_written_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pytorch_lightning.Trainer.log_dir", None)
    fit(tmp_path / "x", callbacks=[OutputsWriter(), KernelSnapshots(samples=5)], stop=StoppingCriteria(max_steps=3))
    assert not list(tmp_path.rglob("*.safetensors"))
