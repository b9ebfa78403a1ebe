"""A network, a data set, a loss and an observer of one's own, trained by a plain Lightning Trainer."""

import functools

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from lazy_lightning import FlowModule, StoppingCriteria
from lazy_lightning.callbacks import ClosingSummary, Curves, TangentDeparture
from lazy_lightning.data import FromDataset
from lazy_lightning.modules.observation import NetworkObserver
from lazy_lightning.objective.losses import Loss


class Attention(nn.Module):
    """Any nn.Module whose forward is a function of weights and inputs; the first two arguments come from the data."""

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Linear(input_shape[-1], width)
        self.attend = nn.MultiheadAttention(width, 2, batch_first=True)
        self.head = nn.Linear(width, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        z = torch.tanh(self.embed(x))
        return self.head(self.attend(z, z, z, need_weights=False)[0].mean(dim=1))


class LogCosh(Loss):
    """A loss for regression: log cosh(F - y), with F (..., n) and y (n,)."""

    name = "log_cosh"
    supports = frozenset({"regression"})
    has_margin_stop = False

    def per_sample(self, F: Tensor, y: Tensor) -> Tensor:
        return torch.log(torch.cosh(F - y))


class LargestOutput(NetworkObserver):
    """Columns (E,), one number a member; they are stored in curves.parquet and shown by the loggers."""

    def observe(self, module, observation):
        return {"own/largest_output": module.train_outputs.abs().amax(dim=-1)}


generator = torch.Generator().manual_seed(0)
x = torch.randn(90, 5, 4, generator=generator)  # 90 sequences of 5 vectors
y = x[:, :, 0].mean(dim=1) * x[:, :, 1].mean(dim=1)
data = FromDataset(
    TensorDataset(x, y),
    labels="regression",
    standardise_targets=True,
    centre=False,
    sphere=False,
    n_train=60,
    n_test=30,
)
module = FlowModule(
    functools.partial(Attention, width=8),
    loss=LogCosh(),
    alpha=[0.1, 10.0],
    seeds=2,
    stop=StoppingCriteria(max_steps=100),
)
trainer = Trainer(
    accelerator="cpu",
    precision="64-true",
    max_epochs=-1,
    logger=CSVLogger("runs", name="own_parts"),
    callbacks=[LargestOutput(), TangentDeparture(), Curves(), ClosingSummary()],
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
trainer.fit(module, datamodule=data)
print(trainer.callback_metrics["own/largest_output/alpha=0.1"])
