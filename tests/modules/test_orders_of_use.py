"""Fit, validate, test and predict in any order, with new trainers and the same one: a fit starts at w0, to the bit."""

from __future__ import annotations

import functools
import random

import pytest
import torch
from fits import assert_same_curves, digits
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger

from lazy_lightning.callbacks import Curves, RunCheckpoint
from lazy_lightning.errors import ConfigError
from lazy_lightning.modules import FlowModule, KernelModule, MiniBatchModule, StoppingCriteria
from lazy_lightning.nn import FC

NETWORK = functools.partial(FC, width=5, depth=1)
FLOW = {"alpha": [0.1, 10.0], "loss": "hinge", "dt": 0.01, "stop": StoppingCriteria(max_steps=6)}
KINDS = {
    "flow": (functools.partial(FlowModule, NETWORK, **FLOW), {}),
    "kernel": (functools.partial(KernelModule, NETWORK, **FLOW), {}),
    "scaled": (functools.partial(MiniBatchModule, NETWORK, alpha=[0.1, 10.0]), {"batch_size": 8}),
}
EVALUATIONS = ("validate", "test", "predict")


class Machine:
    """A module, and all that can be done with it."""

    def __init__(self, kind: str, folder) -> None:
        self.build, options = KINDS[kind]
        self.module, self.folder, self.uses = self.build(), folder, 0
        self.data = digits(n_train=20, n_test=10, n_val=8, pca=3, **options)
        self.reference = self.fit()
        self.checkpoint = self.last_folder / "checkpoint.ckpt"
        self.end = torch.load(self.checkpoint, weights_only=True)["state_dict"]

    def trainer(self, *callbacks) -> Trainer:
        self.uses += 1
        self.last_folder = self.folder / str(self.uses)
        return Trainer(
            accelerator="cpu",
            precision="64-true",
            max_epochs=2 if isinstance(self.module, MiniBatchModule) else -1,
            logger=CSVLogger(self.last_folder, name="", version=""),
            callbacks=list(callbacks),
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=1 if self.uses % 2 else 0,
        )

    def fit(self, *, before: str | None = None, ckpt_path=None):
        """By a new trainer, that has evaluated before if ``before`` says so."""
        curves = Curves()
        trainer = self.trainer(curves, RunCheckpoint())
        if before is not None:
            getattr(trainer, before)(self.module, self.data, verbose=False)
        trainer.fit(self.module, self.data, ckpt_path=ckpt_path, weights_only=True)
        return curves.table(self.module)

    def do(self, operation: str) -> None:
        name, _, how = operation.partition(" ")
        if name == "fit":
            assert_same_curves(self.fit(before=how or None), self.reference)
        elif name == "resume":
            self.fit(ckpt_path=self.checkpoint)
            now = self.module.state_dict()
            assert all(torch.equal(now[key], value) for key, value in self.end.items())
        else:
            options = {} if name == "predict" else {"verbose": False}
            path = self.checkpoint if how else None
            getattr(self.trainer(), name)(self.module, self.data, ckpt_path=path, weights_only=True, **options)


OPERATIONS = ["fit", "fit validate", "fit test", "resume", *EVALUATIONS, *(f"{name} ckpt" for name in EVALUATIONS)]


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_every_fit_starts_at_w0(kind, seed, tmp_path):
    """All operations, each after another one, in an order by chance."""
    machine = Machine(kind, tmp_path)
    order = OPERATIONS * 2
    random.Random(seed).shuffle(order)
    for operation in [*order, "fit"]:
        machine.do(operation)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_module_is_tested_and_then_fitted(kind, tmp_path):
    machine = Machine(kind, tmp_path)
    machine.module = machine.build()
    machine.do("test ckpt")
    machine.do("fit")


@pytest.mark.parametrize("kind", KINDS)
def test_load_from_checkpoint_says_what_to_do(kind):
    with pytest.raises(ConfigError, match="give ckpt_path"):
        type(KINDS[kind][0]()).load_from_checkpoint("checkpoint.ckpt", network=NETWORK)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_the_same_trainer_fits_again(tmp_path):
    """A flow from w0; mini-batches are refused, because the trainer has counted its epochs."""
    for kind in ("flow", "scaled"):
        machine = Machine(kind, tmp_path / kind)
        curves = Curves()
        trainer = machine.trainer(curves)
        trainer.fit(machine.module, machine.data)
        if kind == "scaled":
            with pytest.raises(ConfigError, match="make a new Trainer"):
                trainer.fit(machine.module, machine.data)
        else:
            trainer.fit(machine.module, machine.data)
            assert_same_curves(curves.table(machine.module), machine.reference)
