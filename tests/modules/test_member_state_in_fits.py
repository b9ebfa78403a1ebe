"""What a constructor draws or freezes, in whole fits: members of other seeds, checkpoints, networks of all kinds."""

import pytest
import torch
from closeness import assert_close
from fits import digits, fit
from pytorch_lightning import Trainer
from torch import nn

from lazy_lightning.errors import ConfigError
from lazy_lightning.modules import FlowModule, MiniBatchModule, StoppingCriteria


class Masked(nn.Module):
    """A mask and a permutation, drawn by NumPy and torch, and a frozen layer in front."""

    def __init__(self, input_shape, num_outputs: int):
        super().__init__()
        self.frozen = nn.Linear(64, 8).requires_grad_(False)
        self.free = nn.Linear(8, 8)
        self.head = nn.Linear(8, num_outputs)
        self.register_buffer("mask", torch.rand(8) > 0.4)
        self.order = torch.randperm(8)

    def forward(self, x):
        z = torch.tanh(self.frozen(x.flatten(1)))[:, self.order]
        return self.head(torch.where(self.mask, torch.tanh(self.free(z)), 0.0))


def flow(network, **options):
    return FlowModule(network, **{"stop": StoppingCriteria(max_steps=20), "seeds": 1, **options})


def test_a_seed_alone_is_what_it_is_beside_others(tmp_path):
    alone = fit(tmp_path / "alone", flow(Masked))
    together = fit(tmp_path / "together", flow(Masked, seeds=[0, 1]))
    for column in ("train/loss", "test/error"):
        first = together.table[together.table.seed == 0][column].to_numpy()
        assert_close(torch.tensor(alone.table[column].to_numpy()), torch.tensor(first), rtol=1e-9)
    assert together.last("train/loss")[0] != together.last("train/loss")[1]


def test_frozen_parameters_stay_and_are_not_among_the_weights(tmp_path):
    done = fit(tmp_path, flow(Masked, seeds=2))
    network, buffers = done.module.network, done.module.member_buffers()
    assert network.weights == 8 * 8 + 8 + 8 + 1
    assert {"frozen.weight", "frozen.bias", "mask", "order"} == set(buffers)
    again = fit(tmp_path / "again", flow(Masked, seeds=2, stop=StoppingCriteria(max_steps=1)))
    for name, value in again.module.member_buffers().items():
        assert torch.equal(value, buffers[name])


def test_scaled_module_trains_free_parameters_alone(tmp_path):
    model = MiniBatchModule(Masked, loss="softhinge(20)", seeds=2)
    trainer = Trainer(
        accelerator="cpu", precision="64-true", max_epochs=1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, num_sanity_val_steps=0, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(model, digits(batch_size=20))
    assert model.displacement().shape == (2, 81)
    assert bool(model.displacement().any(dim=1).all())


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.parametrize("seeds", [[3], [0, 1]])
def test_a_checkpoint_gives_what_the_fit_gave(tmp_path, seeds):
    done = fit(tmp_path, flow(Masked, seeds=seeds))
    done.trainer.save_checkpoint(tmp_path / "one.ckpt")
    expected = done.module.held_out()
    other = flow(Masked, seeds=seeds)
    trainer = Trainer(accelerator="cpu", precision="64-true", logger=False, enable_progress_bar=False)
    outputs = trainer.predict(other, digits(), ckpt_path=tmp_path / "one.ckpt", weights_only=True)
    assert_close(torch.cat(outputs).T, expected)


class Constant(nn.Module):
    """A plain tensor in float64, which single precision must not be promoted by."""

    def __init__(self, input_shape, num_outputs: int):
        super().__init__()
        self.inner = nn.Linear(64, num_outputs)
        self.weights = torch.linspace(0, 1, 64)
        self.phase = torch.ones(64, dtype=torch.complex128)

    def forward(self, x):
        return self.inner((x.flatten(1) * self.weights * self.phase).real)


def test_constants_follow_the_precision_of_the_run(tmp_path):
    done = fit(tmp_path, flow(Constant, seeds=2), precision="32-true")
    assert done.module.held_out().dtype == torch.float32


class Recurrent(nn.Module):
    def __init__(self, input_shape, num_outputs: int):
        super().__init__()
        self.recurrent = nn.LSTM(8, 4, batch_first=True)
        self.head = nn.Linear(4, num_outputs)

    def forward(self, x):
        return self.head(self.recurrent(x.squeeze(1))[0][:, -1])


class Attending(Recurrent):
    def __init__(self, input_shape, num_outputs: int):
        super().__init__(input_shape, num_outputs)
        layer = nn.TransformerEncoderLayer(8, 2, 8, 0.0, batch_first=True)
        self.recurrent = nn.TransformerEncoder(layer, 1)
        self.head = nn.Linear(8, num_outputs)

    def forward(self, x):
        return self.head(self.recurrent(x.squeeze(1)).mean(1))


def test_preactivations_of_layers_that_give_tuples(tmp_path):
    with pytest.warns(UserWarning, match="evaluated one after the other"):
        recurrent = fit_weights(Recurrent, [0, 1])
    x = torch.zeros(3, 1, 8, 8, dtype=torch.float64)
    assert recurrent.network.preactivations(recurrent.w0, x)["recurrent"].shape == (2, 3, 8, 4)
    attending = fit_weights(Attending, [0, 1])
    values = attending.network.preactivations(attending.w0, x)
    prefix = "recurrent.layers.0"
    assert values[f"{prefix}.self_attn"].shape == (2, 3, 8, 8)
    assert torch.equal(values[f"{prefix}.self_attn"], values[f"{prefix}.self_attn.out_proj"])
    assert list(values) == list(attending.network.layers)


def fit_weights(network, seeds):
    from lazy_lightning.nn.initial_members import InitialMembers

    return InitialMembers(network, seeds, (1, 8, 8), 1)


@pytest.mark.parametrize("seeds", [1, 2])
def test_an_lstm_is_fitted(tmp_path, seeds):
    model = flow(Recurrent, seeds=seeds)
    trainer = Trainer(
        accelerator="cpu", precision="64-true", max_epochs=-1, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, limit_val_batches=0,
    )  # fmt: skip
    if seeds == 1:
        trainer.fit(model, digits())
    else:
        with pytest.warns(UserWarning, match="evaluated one after the other"):
            trainer.fit(model, digits())
    assert (model.w != model.w0).any()


def test_outputs_that_the_data_do_not_ask_for(tmp_path):
    with pytest.raises(ConfigError, match="Sequential puts out 3 numbers a sample, but the data have 1"):
        fit(tmp_path, flow(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 3))))
