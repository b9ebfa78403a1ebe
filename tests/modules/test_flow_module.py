"""FlowModule through a plain Trainer."""

import functools

import numpy as np
import pytest
import torch
from closeness import assert_close
from fits import LONG_AND_COARSE, assert_same_curves, digits, fit, module
from torch import nn

from lazy_lightning.callbacks import LazinessIndex
from lazy_lightning.data import TeacherStudent
from lazy_lightning.errors import ConfigError
from lazy_lightning.flow import GradientChangeController, StopReason
from lazy_lightning.modules import FlowModule, StoppingCriteria
from lazy_lightning.objective import member_blocks
from lazy_lightning.objective.losses import build_loss


def numbers(column):
    return torch.tensor(list(column), dtype=torch.float64)


def test_converges_to_zero_training_error(tmp_path):
    run = fit(tmp_path, alpha=[0.1, 10.0], seeds=2, stop=StoppingCriteria(max_steps=3000), schedule=LONG_AND_COARSE)
    assert run.module.flow.reasons == [StopReason.MARGINS_MET] * 4
    assert run.last("train/error") == [0.0] * 4
    assert min(run.last("train/margin_min")) >= 1.0
    assert max(run.last("test/error")) < 0.5
    assert run.table[run.table.observation == 0]["train/error"].tolist() == [1.0] * 4
    assert run.table[run.table.observation == 0]["t"].tolist() == [0.0] * 4


def test_columns_are_those_of_the_final_weights(tmp_path):
    """Recomputed from the weights alone."""
    run = fit(tmp_path, alpha=[0.1, 10.0], seeds=2)
    m = run.module
    test, loss = m.data.test, build_loss("softhinge(20)")
    with torch.no_grad():
        f = m.network(m.w, test.x) - m.network(m.w0, test.x)
    F = f[..., 0] * torch.tensor([0.1, 0.1, 10.0, 10.0], dtype=torch.float64).unsqueeze(1)
    assert_close(numbers(run.last("test/loss")), loss.per_sample(F, test.y).mean(dim=1))
    assert run.last("test/error") == (F * test.y <= 0).double().mean(dim=1).tolist()
    moved, start = (x.norm(dim=1) for x in (m.w - m.w0, m.w0))
    # w - w0 loses what w0 has more digits of: the displacement itself is held apart.
    assert_close(numbers(run.last("displacement/total")), moved / start, rtol=1e-10)
    assert_close(m(test.x), F)


def test_alphas_and_seeds_of_the_rows(tmp_path):
    table = fit(tmp_path, alpha=[0.1, 10.0], seeds=[3, 1], stop=StoppingCriteria(max_steps=2)).table
    first = table[table.observation == 0]
    assert first.alpha.tolist() == [0.1, 0.1, 10.0, 10.0]
    assert first.seed.tolist() == [3, 1, 3, 1]


def test_members_of_a_run_are_those_of_runs_alone(tmp_path):
    """Observed at other times, and yet on the same trajectory."""
    together = fit(tmp_path / "both", alpha=[0.1, 10.0], seeds=2).module.flow.flow_state
    alone = fit(tmp_path / "one", alpha=10.0, seeds=[1]).module.flow.flow_state
    assert_close(alone.displacement[0], together.displacement[3], rtol=1e-11)
    assert_close(alone.t[0], together.t[3], rtol=1e-11)


def test_multiclass_until_the_loss_is_reached(tmp_path):
    run = fit(
        tmp_path,
        data=digits(labels="multiclass"),
        loss="cross_entropy",
        stop=StoppingCriteria(loss=0.5, max_steps=500),
        schedule=LONG_AND_COARSE,
    )
    assert run.module.flow.reasons == [StopReason.LOSS_REACHED]
    # At F = 0 all ten classes are as likely: log 10.
    assert run.table["train/loss"].iloc[0] == pytest.approx(np.log(10), rel=1e-14)
    assert run.table["train/loss"].iloc[-1] <= 0.5 * np.log(10)
    assert run.module(run.module.data.test.x).shape == (1, 50, 10)


def test_regression_to_t_max(tmp_path):
    data = TeacherStudent(d=5, n_train=40, n_test=30)
    run = fit(tmp_path, data=data, loss="mse", stop=StoppingCriteria(t_max=2.0))
    assert run.module.flow.reasons == [StopReason.T_MAX]
    assert run.last("t") == [2.0]
    assert not {"train/error", "test/ensemble_error", "train/margin_min"} & set(run.table)
    assert run.last("test/loss")[0] < run.table["test/loss"].iloc[0]


def test_float32(tmp_path):
    """The same start, rounded; the same run within its digits, where no decision is near its edge."""
    single = fit(tmp_path / "32", precision="32-true", stop=StoppingCriteria(max_steps=20))
    double = fit(tmp_path / "64", stop=StoppingCriteria(max_steps=20))
    assert single.module.w.dtype == torch.float32
    assert torch.equal(single.module.w0, double.module.w0.float())
    assert single.module.flow.flow_state.t.dtype == torch.float64
    assert single.last("train/loss")[0] == pytest.approx(double.last("train/loss")[0], rel=1e-4)


def test_chunks(tmp_path):
    whole, parts = (fit(tmp_path / str(size), chunk_size=size, alpha=[0.1, 10.0]).table for size in (None, 17))
    for name in ("t", "train/loss", "test/loss", "displacement/total", "tangent_departure"):
        # Sixty steps carry the rounding of the first on.
        assert_close(numbers(parts[name]), numbers(whole[name]), rtol=1e-11)


def test_two_fits_are_identical(tmp_path):
    torch.manual_seed(1)
    one = fit(tmp_path / "a", alpha=[0.1, 10.0], seeds=2, tau=0.5).table
    torch.manual_seed(2)
    torch.rand(7)
    assert_same_curves(one, fit(tmp_path / "b", alpha=[0.1, 10.0], seeds=2, tau=0.5).table)


def test_network_with_buffers_and_torch_layers(tmp_path):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.Tanh(), nn.Linear(5, 1))
            self.register_buffer("scale", torch.randn(()))

        def forward(self, x):
            return self.layers(self.scale * x)

    model = FlowModule(Scaled, seeds=2, stop=StoppingCriteria(max_steps=10))
    run = fit(tmp_path, model)
    assert len(set(model.member_buffers()["scale"].tolist())) == 2
    assert max(run.last("train/loss")) < 1.0


def test_without_centering(tmp_path):
    run = fit(tmp_path, centering=False, alpha=2.0, stop=StoppingCriteria(max_steps=3))
    m = run.module
    with torch.no_grad():
        assert_close(m(m.data.test.x), 2 * m.network(m.w, m.data.test.x)[..., 0])


def test_wall_time(tmp_path):
    run = fit(tmp_path, stop=StoppingCriteria(margin=1e9, max_wall=0.3))
    assert run.module.flow.reasons == [StopReason.MAX_WALL]
    assert run.module.wall >= 0.3
    assert run.last("reason") == [float(StopReason.MAX_WALL)]


def test_poisoned_data_fails_every_member_and_ends(tmp_path):
    data = digits()
    data.setup()
    data.train.x[0] = torch.nan
    run = fit(tmp_path, data=data, seeds=2)
    assert run.module.flow.reasons == [StopReason.NON_FINITE] * 2
    assert run.table.observation.max() == 0  # nothing was left to run


def test_margin_statistics_follow_the_margin_asked_for(tmp_path):
    run = fit(tmp_path, stop=StoppingCriteria(margin=0.0, max_steps=3000), schedule=LONG_AND_COARSE)
    assert run.module.flow.reasons == [StopReason.MARGINS_MET]
    assert run.last("train/margin_met") == [1.0]
    assert run.last("train/margin_min")[0] < 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "mse", "stop": None}, "nothing would stop this run"),
        ({"loss": "mse", "stop": StoppingCriteria(margin_share=0.5)}, "nothing would stop this run"),
        ({"alpha": 0.0}, "alpha must be > 0"),
        ({"alpha": [1.0, -2.0]}, "alpha must be > 0"),
        ({"alpha": [1.0, 1.0]}, "twice"),
        ({"alpha": []}, "at least one"),
        ({"seeds": 0}, "at least one"),
        ({"seeds": [-1]}, "seeds must be >= 0"),
        ({"tau": -1.0}, "tau"),
        ({"tau": 1.0, "mu": 2.0}, "either tau or mu"),
        ({"controller": "fast"}, "'fast'"),
        ({"loss": "hunge"}, "'hunge'"),
        ({"stop": StoppingCriteria(max_wall=0.0)}, "max_wall"),
        ({"stop": StoppingCriteria(margin_share=2.0)}, "margin_share"),
    ],
    ids=str,
)
def test_refused_when_configured(options, message):
    with pytest.raises(ConfigError, match=message):
        module(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "bf16-mixed"}, "bf16-mixed.*64-true"),
        ({"dt": 0.0}, "dt is 0.0, expected the first step size"),
        ({"chunk_size": 0}, "chunk_size"),
        ({"data": TeacherStudent(d=5, n_train=4, n_test=4)}, "regression task"),
    ],
    ids=["bf16-mixed", "dt", "chunk_size", "task"],
)
def test_refused_when_fitted(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        fit(tmp_path, **options)


def test_controller_with_its_own_numbers(tmp_path):
    run = fit(
        tmp_path,
        controller=GradientChangeController(1e-3, 1e-3, growth=2.0),
        stop=StoppingCriteria(max_steps=4),
        dt=1e-6,
    )
    assert run.last("dt") == [1.6e-5]


def test_validation_test_and_prediction(tmp_path):
    run = fit(tmp_path, alpha=[0.1, 10.0], seeds=2)
    data = digits()
    (values,) = run.trainer.test(run.module, datamodule=data, verbose=False)
    for alpha, rows in ((0.1, (0, 1)), (10.0, (2, 3))):
        assert values[f"test/loss/alpha={alpha:g}"] == pytest.approx(np.mean([run.last("test/loss")[i] for i in rows]))
    (predicted,) = run.trainer.predict(run.module, datamodule=data)
    assert predicted.shape == (50, 4)
    assert_close(predicted.T, run.module(run.module.data.test.x))


def test_factory_may_be_any_callable(tmp_path):
    flat = functools.partial(nn.Sequential, nn.Flatten())
    with pytest.raises(ConfigError, match="no parameters"):
        fit(tmp_path, FlowModule(flat))


def test_a_fit_evaluates_its_members_in_blocks_and_gives_the_same_numbers(tmp_path, monkeypatch):
    whole = fit(tmp_path / "whole", alpha=[0.1, 10.0], seeds=2, callbacks=[LazinessIndex()])
    assert whole.module.objective.block_size > 4  # small networks are one block
    monkeypatch.setattr(member_blocks, "BLOCK_BYTES", 1)
    blocks = fit(tmp_path / "blocks", alpha=[0.1, 10.0], seeds=2, callbacks=[LazinessIndex()])
    assert blocks.module.objective.block_size == 2
    assert_close(blocks.module.w.detach(), whole.module.w.detach(), rtol=1e-12)
    assert blocks.table["tried"].tolist() == whole.table["tried"].tolist()
    for column in ("test/loss", "tangent_departure", "laziness_index"):
        assert_close(numbers(blocks.last(column)), numbers(whole.last(column)), rtol=1e-9)
