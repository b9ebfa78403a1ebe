"""What observers measure, against its definition."""

import math

import pytest
import torch
from closeness import assert_close
from fits import fit, module
from observed import watch
from pytorch_lightning import Callback

from lazy_lightning.analysis.regime import Regime, regime
from lazy_lightning.callbacks import ActivationDrift, TangentDeparture
from lazy_lightning.callbacks import regime as regime_module
from lazy_lightning.errors import ConfigError
from lazy_lightning.modules import StoppingCriteria
from lazy_lightning.modules.observation import Observer
from lazy_lightning.nn.linearize import tangent_departure
from lazy_lightning.nn.linearize import tangent_outputs as tangent

MEMBERS = {"alpha": [0.1, 10.0], "seeds": 2}


def numbers(run, column):
    return torch.tensor(run.last(column), dtype=torch.float64)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("run"), **MEMBERS)


def test_displacement_by_layer(run):
    dw, w0 = run.module.flow.flow_state.displacement, run.module.w0
    sizes = {"hidden.0": 12 * 64, "hidden.1": 12 * 12, "head": 12}
    for (layer, size), part, start in zip(
        sizes.items(), dw.split(list(sizes.values()), 1), w0.split(list(sizes.values()), 1), strict=True
    ):
        assert_close(numbers(run, f"displacement/{layer}"), part.norm(dim=1) / start.norm(dim=1))
        assert_close(numbers(run, f"dw_max/{layer}"), part.abs().amax(dim=1))
        assert_close(numbers(run, f"dw_mean/{layer}"), part.abs().sum(dim=1) / size)
    assert_close(numbers(run, "displacement/total"), dw.norm(dim=1) / w0.norm(dim=1))


def test_activation_drift(run):
    m = run.module
    x = m.data.test.x[:20]
    now, start = (m.network.preactivations(w, x) for w in (m.w.detach(), m.w0))
    for layer, z in now.items():
        drift = (z - start[layer]).flatten(1).pow(2).mean(dim=1).sqrt()
        assert_close(numbers(run, f"activation_drift/{layer}"), drift)
    first = run.table[run.table.observation == 0]
    assert (first.filter(like="activation_drift/") == 0).all(axis=None)


def gradient_at(m, w):
    at = w.clone().requires_grad_(True)
    m.objective.backward(at)
    return at.grad


@pytest.mark.parametrize("options", [{}, {"tau": 0.5}, {"centering": False, "chunk_size": 13}], ids=str)
def test_activation_velocity(tmp_path, options):
    """Against the difference of two tiny steps of gradient flow, forth and back; the same in every record."""
    run = fit(tmp_path, **MEMBERS, **options, stop=StoppingCriteria(max_steps=5))
    m, x, s = run.module, run.module.data.test.x[:20], 1e-4
    step = s * gradient_at(m, m.w0)
    step = step * m.centering.alpha.unsqueeze(1)  # alike for all: the gradient is ~ 1/alpha
    behind, ahead = (m.network.preactivations(m.w0 + sign * step, x) for sign in (1, -1))
    for layer, z in ahead.items():
        rate = (z - behind[layer]) / (2 * s * m.centering.alpha.view(-1, 1, 1))
        assert_close(numbers(run, f"activation_velocity/{layer}"), rate.flatten(1).square().mean(1).sqrt(), rtol=1e-6)
        assert (run.table.groupby("member")[f"activation_velocity/{layer}"].nunique() == 1).all()


def test_tangent_departure_at_the_end_only(run):
    m = run.module
    x, s = m.data.test.x[:20], 1e-5
    step = s * m.flow.flow_state.displacement
    # Central differences, relative to a step of which the square is 1e-10.
    J = (m.network(m.w0 + step, x) - m.network(m.w0 - step, x)) / (2 * s)
    with torch.no_grad():
        expected = tangent_departure(m(x), m.centering(J, torch.zeros_like(J))[..., 0])
    assert_close(numbers(run, "tangent_departure"), expected, rtol=1e-7)
    before = run.table[run.table.observation < run.table.observation.max()]
    assert before["tangent_departure"].isna().all()


def test_tangent_departure_without_centering_starts_at_zero(tmp_path):
    """F = alpha f starts at alpha f0, and so does its linearisation: a lazy run stays with it."""
    model = module(alpha=1e4, centering=False)
    found = watch(tmp_path, TangentDeparture(samples=20, always=True), model=model).table["tangent_departure"]
    assert found.iloc[0] == 0
    assert found.max() < 1e-2  # the flow must bring alpha f0, some 1e3, down to order one: F is small at the end


def test_tangent_departure_always(tmp_path):
    run = fit(tmp_path, callbacks=[TangentDeparture(samples=10, always=True)], stop=StoppingCriteria(max_steps=5))
    assert run.last("t")[0] > 0
    assert run.table[run.table.t > 0]["tangent_departure"].notna().all()  # at t = 0, F = 0


def test_tangent_departure_is_not_measured_again_of_members_that_have_ended(tmp_path, monkeypatch):
    """Each observation takes a pass over the members of its burst alone."""
    sizes = []
    monkeypatch.setattr(regime_module, "tangent_outputs", lambda f, w, dw: sizes.append(len(w)) or tangent(f, w, dw))
    model = module(**MEMBERS, stop=StoppingCriteria(max_steps=2000))
    table = watch(tmp_path, TangentDeparture(samples=10, always=True), model=model).table
    ended = table.groupby("observation")["reason"].apply(lambda reasons: int((reasons != 0).sum()))
    assert 0 < ended.iloc[-2] < 4
    assert sizes == [4, *(4 - ended.iloc[:-1])]
    x = model.data.test.x[:10]
    with torch.no_grad():
        linear = tangent(lambda w: model.network(w, x), model.w0, model.w - model.w0)
        expected = tangent_departure(model(x), model.centering(linear, torch.zeros_like(linear))[..., 0])
    assert_close(torch.tensor(table["tangent_departure"].to_numpy()[-4:]), expected, rtol=1e-9)


def test_lazy_and_feature(run):
    departure = run.last("tangent_departure")
    assert max(departure[2:]) < min(departure[:2])


@pytest.mark.parametrize(
    ("departure", "loss_share", "ended", "expected"),
    [
        (0.0, 0.01, False, Regime.LAZY),
        (0.0999, 0.5, False, Regime.LAZY),
        (0.1, 0.5, False, Regime.CROSSOVER),
        (0.5, 0.01, False, Regime.CROSSOVER),
        (0.51, 0.01, False, Regime.FEATURE),
        (math.inf, 0.01, False, Regime.FEATURE),
        (math.nan, 0.01, True, Regime.UNKNOWN),
        (0.0, 0.51, False, Regime.UNDECIDED),
        (0.2, 1.0, False, Regime.UNDECIDED),
        (0.0, math.nan, False, Regime.UNDECIDED),
        (0.0, 0.9, True, Regime.LAZY),
        (0.6, 1.0, False, Regime.FEATURE),
    ],
)
def test_regime(departure, loss_share, ended, expected):
    assert regime(departure, loss_share, ended) is expected


def test_activation_drift_needs_samples():
    with pytest.raises(ConfigError, match="samples >= 1"):
        ActivationDrift(samples=0)


class Own(Observer):
    """What a user would write."""

    def observe(self, module, observation):
        return {"twice_t": 2 * observation.state.t}


def test_observer_of_ones_own(tmp_path):
    table = fit(tmp_path, callbacks=[Own()], **MEMBERS, stop=StoppingCriteria(max_steps=5)).table
    assert (table["twice_t"] == 2 * table["t"]).all()


class Bursts(Callback):
    """The tried steps at each burst's end, as Lightning sees them."""

    def __init__(self):
        self.tried = []

    def on_train_batch_end(self, trainer, module, *args):
        self.tried.append(int(module.flow.flow_state.tried.max()))


def test_one_observation_a_burst(tmp_path):
    bursts = Bursts()
    run = fit(tmp_path, callbacks=[bursts])
    assert run.table.tried.tolist() == [0, *bursts.tried]
    assert run.table.observation.tolist() == list(range(len(bursts.tried) + 1))
    assert run.trainer.global_step == len(bursts.tried)
