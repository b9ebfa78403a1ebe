"""MiniBatchModule through a plain Trainer: against plain training, finite differences, and members by themselves."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from closeness import assert_close
from fits import assert_same_curves, digits
from observed import StopAt
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn

from lazy_lightning.callbacks import T1, Curves, OutputsWriter, RunCheckpoint, TangentDeparture, WeightDisplacement
from lazy_lightning.data import FlowData
from lazy_lightning.errors import ConfigError
from lazy_lightning.flow import StopReason
from lazy_lightning.modules import LearningRateSearch, MiniBatchModule
from lazy_lightning.modules.ensemble import Ensemble
from lazy_lightning.modules.inverse_decay import InverseDecay
from lazy_lightning.modules.learning_rates import format_rates
from lazy_lightning.nn import FC, InitialMembers
from lazy_lightning.nn.linearize import LinearizedNetwork
from lazy_lightning.objective.losses import build_loss

MEMBERS = {"alpha": [0.1, 10.0], "seeds": 2}
NETWORK = functools.partial(FC, width=12, depth=2, activation="relu")


def small(**options) -> FlowData:
    return digits(**{"n_train": 45, "n_test": 30, "batch_size": 20, **options})


def scaled(**options) -> MiniBatchModule:
    return MiniBatchModule(options.pop("network", NETWORK), **{**MEMBERS, **options})


def trainer(folder: Path, *callbacks: Callback, **options) -> Trainer:
    return Trainer(
        accelerator="cpu",
        devices=1,
        callbacks=list(callbacks),
        logger=CSVLogger(folder, name="", version=""),
        num_sanity_val_steps=0,
        enable_checkpointing=any(isinstance(c, Checkpoint) for c in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        limit_val_batches=0,
        **{"precision": "64-true", "max_epochs": 2, **options},
    )


def train(folder: Path, module: MiniBatchModule, *callbacks: Callback, data: FlowData | None = None, **options):
    """The module, and the table of its curves."""
    curves = Curves()
    checkpoint = options.pop("ckpt_path", None)
    run = trainer(folder, curves, WeightDisplacement(), *callbacks, **options)
    run.fit(module, datamodule=data or small(), ckpt_path=checkpoint, weights_only=True)
    return module, curves.table(module)


# ---------------------------------------------------------------------- against plain training


class Weights(Callback):
    """After every step."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def on_train_batch_end(self, trainer, module, *args):
        w = (
            module.w[0]
            if isinstance(module, MiniBatchModule)
            else torch.cat([p.reshape(-1) for p in module.parameters()])
        )
        self.seen.append(w.detach().clone())


class Plain(LightningModule):
    """What one would write by hand."""

    def __init__(self, network: nn.Module, optimizer, scheduler) -> None:
        super().__init__()
        self.network, self.build, self.schedule = network, optimizer, scheduler

    def training_step(self, batch, batch_idx):
        x, y = batch
        return torch.nn.functional.softplus(-y * self.network(x)[:, 0]).mean()

    def validation_step(self, batch, batch_idx):
        """Data come with a validation set."""

    def configure_optimizers(self):
        optimizer = self.build(self.parameters())
        return [optimizer], [] if self.schedule is None else [self.schedule(optimizer)]


RULES = {
    "SGD": functools.partial(torch.optim.SGD, lr=0.3),
    "momentum": functools.partial(torch.optim.SGD, lr=0.3, momentum=0.9, nesterov=True),
    "Adam": functools.partial(torch.optim.Adam, lr=0.01),
    "RMSprop": functools.partial(torch.optim.RMSprop, lr=0.01),
}
SCHEDULES = {
    "constant": None,
    "inverse": functools.partial(InverseDecay, c=0.5),
    "cosine": functools.partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=5),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("rule", RULES)
def test_without_scale_and_centering_it_is_plain_training(tmp_path, rule, schedule):
    """Step by step. dw is summed up apart from w0, which rounds otherwise; adaptive rules magnify that near zero."""
    data = small()
    data.setup()
    ours, theirs = Weights(), Weights()
    module = scaled(alpha=1.0, seeds=[3], centering=False, optimizer=RULES[rule], lr_scheduler=SCHEDULES[schedule])
    train(tmp_path / "ours", module, ours, max_epochs=3)
    members = InitialMembers(NETWORK, [3], data.input_shape, 1)
    template = members.network.template.requires_grad_(True)
    torch.nn.utils.vector_to_parameters(members.w0[0].clone(), template.parameters())
    trainer(tmp_path / "theirs", theirs, max_epochs=3).fit(Plain(template, RULES[rule], SCHEDULES[schedule]), small())
    assert len(ours.seen) == len(theirs.seen) == 9
    for one, other in zip(ours.seen, theirs.seen, strict=True):
        assert_close(one, other, rtol=1e-12)
    assert (ours.seen[-1] - members.w0[0]).norm() > 0.1


def test_gradient_is_that_of_the_scaled_loss(tmp_path):
    """One step of SGD against the loss written down from the formula, at alpha = 10 with centering."""
    data, rate = small(batch_size=45), 0.2
    module, _ = train(
        tmp_path, scaled(optimizer=functools.partial(torch.optim.SGD, lr=rate)), data=data, max_steps=1, max_epochs=-1
    )
    x, y = data.train.x, data.train.y
    w = module.w0[2:3].clone().requires_grad_()
    F = 10.0 * (module.network(w, x) - module.network(module.w0[2:3], x))[0, :, 0]
    loss = build_loss("cross_entropy").per_sample(F, y).mean() / 10.0**2
    (gradient,) = torch.autograd.grad(loss, w)
    assert_close(module.displacement()[2], -rate * gradient[0], rtol=1e-12)


# ---------------------------------------------------------------------- members


def test_members_are_those_of_runs_alone(tmp_path):
    options = {"companions": ["linearized", "frozen_activations"]}
    together, table = train(tmp_path / "a", scaled(**options))
    alone, _ = train(tmp_path / "b", scaled(alpha=10.0, seeds=[1], **options))
    for name in together.models:
        assert_close(alone.displacement(name)[0], together.displacement(name)[3], rtol=1e-11)
    assert set(table[table.observation == 0]["train/error"]) == {1.0}


def test_member_that_blows_up_takes_nobody_with_it(tmp_path):
    build = functools.partial(torch.optim.SGD, lr=0.1)
    lost, table = train(tmp_path / "a", scaled(optimizer=build, learning_rates=[0.1, 1e200]))
    alone, _ = train(tmp_path / "b", scaled(optimizer=build, alpha=0.1))
    assert lost.reasons == [StopReason.MAX_STEPS] * 2 + [StopReason.NON_FINITE] * 2
    assert_close(lost.displacement()[:2], alone.displacement(), rtol=1e-11)
    last = table[table.observation == table.observation.max()]
    assert last["test/error"].notna().tolist() == [True, True, False, False]


def test_each_alpha_has_its_rate(tmp_path):
    _, table = train(tmp_path, scaled(learning_rates=[0.5, 0.25], lr_scheduler=InverseDecay))
    last = table[table.observation == table.observation.max()]
    assert last["lr"].tolist() == pytest.approx([0.5 / (1 + 1 / 3)] * 2 + [0.25 / (1 + 1 / 3)] * 2)
    assert last["t"].tolist() == pytest.approx([3 * 0.5 * 1.75] * 2 + [3 * 0.25 * 1.75] * 2)
    assert last["tried"].tolist() == [6] * 4


def test_clipping_is_of_each_member(tmp_path):
    module, _ = train(
        tmp_path,
        scaled(optimizer=functools.partial(torch.optim.SGD, lr=1.0)),
        gradient_clip_val=1e-3,
        max_steps=1,
        max_epochs=-1,
    )
    assert_close(module.displacement().norm(dim=1), torch.full((4,), 1e-3).double(), rtol=1e-3)


def test_accumulated_batches_are_one_step(tmp_path):
    module, table = train(tmp_path, scaled(), accumulate_grad_batches=2)
    assert table["tried"].max() == module.steps == 4
    assert module.reasons == [StopReason.MAX_STEPS] * 4


def test_observed_are_powers_of_two_and_ends_of_epochs(tmp_path):
    _, table = train(tmp_path, scaled(), max_epochs=3, data=small(n_train=120))
    assert table[table.member == 0]["tried"].tolist() == [0, 1, 2, 4, 6, 12, 18]


def test_float32(tmp_path):
    single, _ = train(tmp_path / "a", scaled(companions=["linearized"]), precision="32-true")
    double, _ = train(tmp_path / "b", scaled(companions=["linearized"]))
    assert single.w.dtype == torch.float32
    for name in single.models:
        assert_close(single.displacement(name).double(), double.displacement(name), rtol=1e-3)


def test_several_outputs(tmp_path):
    data = small(labels="multiclass", n_train=60)
    module, table = train(tmp_path, scaled(companions=["linearized"]), data=data, max_epochs=6)
    assert module.train_outputs.shape == (4, 60, 10)
    assert table["linearized/test/error"].iloc[-1] < 0.9


def test_observed_samples_are_a_part(tmp_path):
    module, _ = train(tmp_path, scaled(observed_samples=7))
    assert module.train_outputs.shape == (4, 7)


# ---------------------------------------------------------------------- companions


def test_linearised_outputs_are_those_of_finite_differences(tmp_path):
    """Central differences of f at w0 along dw: an error of third order in the step, and of rounding over it."""
    network = functools.partial(FC, width=12, depth=2, activation="softplus(5)")
    module, _ = train(tmp_path, scaled(network=network, companions=["linearized"]))
    x, dw, step = module.test_split.x, module.displacement("linearized"), 1e-5
    ahead, behind = (module.network(module.w0 + s * step * dw, x) for s in (1, -1))
    expected = (ahead - behind)[..., 0] / (2 * step) * module.centering.alpha.unsqueeze(1)
    assert_close(module._evaluated("linearized", train=False), expected, rtol=1e-8)


def test_linearised_companion_is_a_linearised_network_trained_alone(tmp_path):
    beside, _ = train(tmp_path / "a", scaled(companions=["linearized"]))
    alone, _ = train(tmp_path / "b", scaled(network=functools.partial(LinearizedNetwork, NETWORK)))
    assert_close(beside.displacement("linearized"), alone.displacement(), rtol=1e-9)


@pytest.mark.parametrize("companion", ["linearized", "frozen_activations"])
def test_companions_set_out_as_the_network_does(tmp_path, companion):
    """One step from w0: the gradient of all models is the same there, to first order and with the same gates."""
    module, _ = train(tmp_path, scaled(companions=[companion]), max_steps=1, max_epochs=-1)
    assert_close(module.displacement(companion), module.displacement(), rtol=1e-12)


@pytest.mark.parametrize("centering", [True, False])
def test_distance_to_companions_falls_with_alpha(tmp_path, centering):
    """~ 1/alpha, for a smooth network; without centering F starts at alpha f0, so it is compared at small f0."""
    network = functools.partial(FC, width=12, depth=2, activation="softplus(5)")
    options = {"network": network, "alpha": [100.0, 1000.0], "seeds": 1, "centering": centering}
    _, table = train(tmp_path, scaled(companions=["linearized"], loss="mse", learning_rates=[0.1, 0.1], **options))
    near, far = table[table.observation == table.observation.max()]["linearized/distance"]
    if centering:
        assert near / far == pytest.approx(10.0, rel=0.05)
    else:
        assert min(near, far) > 0


# ---------------------------------------------------------------------- the search


def loss_of_a_trial(module: MiniBatchModule, member: int, rate: float, steps: int) -> float:
    """By a loop written from the formula: the mean over the last quarter of the steps, on the run's first batches."""
    alpha, w0 = module.ensemble.alphas[member], module.w0[member : member + 1]
    w, losses = w0.clone(), []
    batches = [batch for epoch in range(steps) for batch in module.data.mini_batches().epoch(epoch)]
    for x, y in batches[:steps]:
        w.requires_grad_()
        F = alpha * (module.network(w, x) - module.network(w0, x))[0, :, 0]
        loss = torch.nn.functional.softplus(-y * F).mean()
        (gradient,) = torch.autograd.grad(loss / alpha**2, w)
        w = (w - rate * gradient).detach()
        losses.append(float(loss.detach()))
    return sum(losses[-(steps // 4) :]) / (steps // 4)


def test_search_finds_the_best_of_trials(tmp_path):
    candidates, steps = (10.0, 0.3, 1e-4), 8
    search = LearningRateSearch(candidates, steps)
    module, table = train(tmp_path, scaled(optimizer=functools.partial(torch.optim.SGD, lr=1.0), search=search))
    found = table[table.observation == 0].set_index("member")["lr"]
    for members in ((0, 1), (2, 3)):
        losses = [sum(loss_of_a_trial(module, m, rate, steps) for m in members) for rate in candidates]
        assert set(found[list(members)]) == {candidates[losses.index(min(losses))]}


def test_search_is_not_a_part_of_the_training(tmp_path):
    searched, _ = train(tmp_path / "a", scaled(search=LearningRateSearch((0.05,), 3)))
    given, _ = train(tmp_path / "b", scaled(learning_rates=[0.05, 0.05]))
    assert torch.equal(searched.displacement(), given.displacement())


def test_rates_of_companions_are_their_own():
    rates = {"network": [0.1, 1.0], "linearized": [1.0, 1.0]}
    assert "linearized: 1 at alpha = 0.1" in format_rates(rates, Ensemble.of([0.1, 10.0], 1))


def test_where_no_rate_ends_well_the_smallest_is_taken():
    losses = torch.full((2, 1), torch.nan)
    assert LearningRateSearch((1.0, 0.1)).best(losses, Ensemble.of(1.0, 1)) == [0.1]


# ---------------------------------------------------------------------- resuming

FULL = {
    "companions": ["linearized", "frozen_activations"],
    "lr_scheduler": InverseDecay,
    "search": LearningRateSearch((0.1, 0.01), 2),
}


class SaveAt(StopAt):
    """Saves, and lets the run go on."""

    def on_train_batch_end(self, trainer, *args):
        self.left -= 1
        if self.left == 0:
            trainer.save_checkpoint(f"{trainer.log_dir}/checkpoint.ckpt")


@pytest.mark.parametrize("how", [StopAt, SaveAt])
@pytest.mark.parametrize("batches", [1, 2, 3, 4])
def test_resumed_run_has_the_undisturbed_table(tmp_path, how, batches):
    """In the middle of an epoch (of three batches), and at its end."""
    whole, expected = train(tmp_path / "whole", scaled(**FULL), max_epochs=3)
    train(tmp_path / "first", scaled(**FULL), how(batches), *[RunCheckpoint()] * (how is StopAt), max_epochs=3)
    second, table = train(
        tmp_path / "second", scaled(**FULL), max_epochs=3, ckpt_path=tmp_path / "first/checkpoint.ckpt"
    )
    assert_same_curves(table, expected)
    for name in whole.models:
        assert torch.equal(second.displacement(name), whole.displacement(name))


def test_run_that_has_ended_stays_as_it_is(tmp_path):
    first, table = train(tmp_path / "a", scaled(), RunCheckpoint())
    second, again = train(tmp_path / "b", scaled(), ckpt_path=tmp_path / "a/checkpoint.ckpt")
    assert torch.equal(second.w, first.w)
    assert_same_curves(again, table)


def test_more_epochs_go_on(tmp_path):
    train(tmp_path / "a", scaled(), RunCheckpoint(), max_epochs=1)
    second, _ = train(tmp_path / "b", scaled(), ckpt_path=tmp_path / "a/checkpoint.ckpt")
    whole, _ = train(tmp_path / "c", scaled(), max_epochs=2)
    assert torch.equal(second.w, whole.w)


def test_evaluated_from_a_checkpoint(tmp_path):
    _, table = train(tmp_path / "a", scaled(), RunCheckpoint())
    (values,) = trainer(tmp_path / "b", Curves()).test(
        scaled(), datamodule=small(), ckpt_path=tmp_path / "a/checkpoint.ckpt", verbose=False, weights_only=True
    )
    last = table[table.observation == table.observation.max()]
    assert values["test/loss/alpha=10"] == pytest.approx(last[last.alpha == 10.0]["test/loss"].mean())


def test_other_observers_have_what_they_look_at(tmp_path):
    """t1 is found between observations, the departure at the end."""
    _, table = train(
        tmp_path, scaled(learning_rates=[0.3, 0.3]), T1(), TangentDeparture(samples=10), OutputsWriter(), max_epochs=12
    )
    last = table[table.observation == table.observation.max()]
    assert last["tangent_departure"].notna().all()
    assert last["t1/half_loss"].notna().any()
    assert (tmp_path / "outputs.safetensors").is_file()


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"companions": ["kernel"]}, "companions are linearized and frozen_activations, got kernel"),
        ({"learning_rates": [1.0]}, "one number > 0 for each of the 2 alphas"),
        ({"learning_rates": [1.0, -1.0]}, "one number > 0"),
        ({"learning_rates": [1.0, 1.0], "search": LearningRateSearch()}, "leave one of them out"),
        ({"optimizer": torch.optim.LBFGS}, "LBFGS does not act entry by entry"),
        (
            {"optimizer": functools.partial(torch.optim.SGD, lr=-1.0)},
            r"refuses its arguments \(Invalid learning rate: -1",
        ),
        ({"observed_samples": 0}, "observed_samples must be >= 1"),
        ({"alpha": -1.0}, "alpha must be > 0"),
    ],
    ids=str,
)
def test_refused(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        scaled(**options)


class Never(LearningRateSearch):
    """What is refused is refused before the trials, which may take long."""

    def search(self, module):
        raise AssertionError("searched")


def test_nothing_that_would_end_it(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing would stop this run: set --trainer\.max_epochs"):
        train(tmp_path, scaled(search=Never()), max_epochs=-1)


def test_plateau_schedules_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="ReduceLROnPlateau looks at one loss"):
        train(tmp_path, scaled(search=Never(), lr_scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau))


@pytest.mark.parametrize("wrong", [{"candidates": ()}, {"candidates": (0.0,)}, {"steps": 0}], ids=str)
def test_search_is_checked(wrong):
    with pytest.raises(ConfigError):
        LearningRateSearch(**wrong)


@pytest.mark.parametrize("c", [-1.0, float("nan")])
def test_decay_is_checked(c):
    with pytest.raises(ConfigError, match="InverseDecay got c"):
        InverseDecay(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0), c=c)
