"""Mini-batch training beside the linearised network and the network with frozen activations."""

import functools

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger

from lazy_lightning import FC, MiniBatchModule
from lazy_lightning.callbacks import ActivationStability, ClosingSummary, Curves, TangentDeparture
from lazy_lightning.data import Digits
from lazy_lightning.modules import LearningRateSearch

module = MiniBatchModule(
    functools.partial(FC, width=32, depth=2, activation="relu"),
    loss="cross_entropy",
    alpha=[0.1, 100.0],
    seeds=2,
    optimizer=functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    search=LearningRateSearch(candidates=[1.0, 0.1, 0.01], steps=20),  # a learning rate for each alpha
    companions=["linearized", "frozen_activations"],  # trained on the same batches
)
trainer = Trainer(
    accelerator="cpu",
    precision="64-true",
    max_epochs=3,
    log_every_n_steps=5,
    logger=CSVLogger("runs", name="mini_batches"),
    callbacks=[ActivationStability(), TangentDeparture(), Curves(), ClosingSummary()],
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(module, datamodule=Digits(n_train=300, n_test=200, labels="multiclass", batch_size=50))

for alpha in ("0.1", "100"):
    for model in ("", "linearized/", "frozen_activations/"):
        error = trainer.callback_metrics[f"{model}test/error/alpha={alpha}"]
        print(f"alpha = {alpha}: {model or 'network/'}test/error = {float(error):.1%}")
