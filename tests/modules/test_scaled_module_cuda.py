"""Mini-batch training on a GPU is that on the CPU. Skipped without one."""

import functools
from pathlib import Path

import pytest
import torch
from closeness import assert_close
from fits import digits
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger

from lazy_lightning.callbacks import ActivationStability, Curves, RunCheckpoint
from lazy_lightning.modules import LearningRateSearch, MiniBatchModule
from lazy_lightning.nn import CNN, FC
from lazy_lightning.nn.initial_members import InitialMembers

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
COMPANIONS = ["linearized", "frozen_activations"]


def train(folder: Path, accelerator: str, network=None, *, precision="64-true", epochs=2, ckpt_path=None, **options):
    """The module, and its curves."""
    network = network or functools.partial(FC, width=12, depth=2, activation="relu")
    module = MiniBatchModule(network, alpha=[0.1, 10.0], seeds=2, companions=COMPANIONS, **options)
    curves = Curves()
    trainer = Trainer(
        accelerator=accelerator,
        devices=1,
        precision=precision,
        max_epochs=epochs,
        callbacks=[curves, ActivationStability(), RunCheckpoint()],
        logger=CSVLogger(folder, name="", version=""),
        num_sanity_val_steps=0,
        limit_val_batches=0,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = digits(n_train=45, n_test=30, batch_size=20, labels="multiclass")
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    return module, curves.table(module)


NUMBERS = ["train/loss", "test/loss", "linearized/train/loss", "frozen_activations/test/loss"]


def test_same_training_as_on_the_cpu(tmp_path):
    gpu, cpu = (train(tmp_path / kind, kind)[1] for kind in ("gpu", "cpu"))
    for name in [*NUMBERS, "activation_stability/total"]:
        a, b = (torch.tensor(table[name].to_numpy(copy=True)) for table in (gpu, cpu))
        assert_close(a, b, rtol=1e-9)


def test_rates_are_those_found_on_the_cpu(tmp_path):
    search = LearningRateSearch((1.0, 1e-2), steps=5)
    gpu, cpu = (train(tmp_path / kind, kind, search=search)[0] for kind in ("gpu", "cpu"))
    assert gpu._rates == cpu._rates


def test_convolutions_over_members(tmp_path):
    """Grouped by vmap; in float32 the algorithms differ."""
    network = functools.partial(CNN, width=4, stages=1, activation="relu")
    members = InitialMembers(network, range(3), (1, 8, 8), 1)
    x = torch.randn(5, 1, 8, 8, dtype=torch.float64)
    w = members.w0.double()
    expected = members.network(w, x, {})
    members.network.template.to("cuda")
    assert_close(members.network(w.cuda(), x.cuda(), {}).cpu(), expected, rtol=1e-10)
    single = members.network(w.cuda().float(), x.cuda().float(), {}).cpu()
    assert_close(single, expected.float(), rtol=1e-2)  # TF32 is on for convolutions by default


def test_resumed_on_the_gpu(tmp_path):
    whole = train(tmp_path / "whole", "gpu", epochs=3)[1]
    train(tmp_path / "part", "gpu", epochs=1)
    rest = train(tmp_path / "rest", "gpu", epochs=3, ckpt_path=tmp_path / "part/checkpoint.ckpt")[1]
    for name in NUMBERS:
        assert rest[name].tolist()[-1] == pytest.approx(whole[name].tolist()[-1], rel=1e-12)
