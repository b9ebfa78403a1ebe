"""Values of another type or size than a constructor takes end in one sentence, and precision is not left unsaid."""

from __future__ import annotations

import functools
import json
import warnings
from datetime import timedelta

import numpy as np
import pytest
from fits import digits, fit, module
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger

from lazy_lightning.callbacks import ClosingSummary
from lazy_lightning.errors import ConfigError
from lazy_lightning.modules import FlowModule, KernelModule, MiniBatchModule, StoppingCriteria
from lazy_lightning.modules.ensemble import Ensemble
from lazy_lightning.nn import FC
from lazy_lightning.runs.run_folder import Status, _status

KINDS = [FlowModule, KernelModule, MiniBatchModule]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "given",
    [
        {"alpha": None},
        {"alpha": []},
        {"alpha": "1"},
        {"alpha": [1.0, None]},
        {"alpha": True},
        {"seeds": None},
        {"seeds": []},
        {"seeds": 0},
        {"seeds": 1.0},
        {"seeds": "3"},
        {"seeds": [0, 2**63]},
        {"seeds": 2**63},
        {"seeds": 10**9},
        {"seeds": range(10**9)},
        {"seeds": [-1]},
        {"loss": None},
        {"loss": 3},
    ],
    ids=str,
)
def test_members_and_loss(kind, given):
    (name,) = given
    with pytest.raises(ConfigError, match=rf"^{name} "):
        kind(FC, **given)


@pytest.mark.parametrize("kind", KINDS[:2])
@pytest.mark.parametrize(
    "given",
    [{"dt": None}, {"dt": 0.0}, {"dt": "1"}, {"dt": float("inf")}, {"controller": None}, {"controller": 3}],
    ids=str,
)
def test_steps(kind, given):
    (name,) = given
    with pytest.raises(ConfigError, match=rf"^{name} "):
        kind(FC, **given)


def test_empty_alpha_is_called_by_its_name():
    with pytest.raises(ConfigError, match=r"alpha is \[\]"):
        Ensemble.of([], 1)


def test_what_numpy_gives_is_taken():
    assert Ensemble.of(np.float64(2.0), np.int64(2)) == Ensemble.of(2.0, 2)
    assert Ensemble.of(np.array([1.0, 2.0]), np.arange(2)) == Ensemble.of([1.0, 2.0], 2)
    assert Ensemble.of(1, [2**63 - 1]).seeds == (2**63 - 1,)


def test_single_precision_is_said_once(tmp_path):
    with pytest.warns(UserWarning, match=r"float32.*Trainer\(precision=.64-true") as caught:
        fit(tmp_path / "a", module(stop=StoppingCriteria(max_steps=2)), precision="32-true")
    assert len([w for w in caught if "float32" in str(w.message)]) == 1
    with warnings.catch_warnings(record=True) as silent:
        warnings.simplefilter("always")
        fit(tmp_path / "b", module(stop=StoppingCriteria(max_steps=2)))
    assert not [w for w in silent if "float32" in str(w.message)]


@pytest.mark.parametrize("kind", ["flow", "scaled"])
def test_max_time_is_named(kind, tmp_path):
    network = functools.partial(FC, width=4, depth=1)
    model = (
        MiniBatchModule(network)
        if kind == "scaled"
        else FlowModule(network, dt=1e-9, stop=StoppingCriteria(max_steps=10**7))
    )
    trainer = Trainer(
        accelerator="cpu",
        precision="64-true",
        max_epochs=-1,
        max_time=timedelta(seconds=0.3),
        logger=CSVLogger(tmp_path, name="", version=""),
        callbacks=[ClosingSummary()],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        log_every_n_steps=1,
    )
    trainer.fit(model, digits(n_train=20, n_test=10, batch_size=10 if kind == "scaled" else None))
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [m["stop"] for m in summary["members"]] == ["max_time"]
    assert "max_time" in summary["groups"][0]["stops"][0]
    assert _status(summary["members"][0]) is Status.UNFINISHED
