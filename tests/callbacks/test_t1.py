"""t1, against curves whose crossing is known."""

import functools
import math
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from closeness import assert_close
from fits import LONG_AND_COARSE, assert_same_curves, fit
from hypothesis import given
from hypothesis import strategies as st
from observed import APART, MEMBERS, interrupted, watch

from lazy_lightning.callbacks import T1, KernelDrift, TangentDeparture
from lazy_lightning.callbacks.t1 import first_crossing
from lazy_lightning.errors import ConfigError
from lazy_lightning.flow import Schedule
from lazy_lightning.modules import KernelModule, StoppingCriteria
from lazy_lightning.modules.observation import Observation
from lazy_lightning.nn import FC

NAN = float("nan")


def cross(t, values, level):
    """Of one member."""
    column = [torch.tensor(x, dtype=torch.float64).unsqueeze(1) for x in (t, values)]
    return float(first_crossing(*column, torch.tensor([level], dtype=torch.float64)))


@pytest.mark.parametrize(
    ("t", "values", "level", "expected"),
    [
        ([1.0, 100.0], [1.0, 0.0], 0.5, 10.0),  # linear in log t
        ([0.0, 4.0], [1.0, 0.0], 0.25, 3.0),  # linear in t from t = 0
        ([0.0, 1.0, 100.0], [2.0, 1.0, 0.0], 0.5, 10.0),
        ([1.0, 2.0, 4.0], [1.0, 0.5, 0.0], 0.5, 2.0),  # on a point
        ([1.0, 2.0], [1.0, 0.9], 0.5, NAN),
        ([1.0, 2.0], [0.4, 0.1], 0.5, 1.0),  # under it from the start
        ([1.0, 2.0, 4.0, 8.0], [1.0, 0.2, 1.0, 0.0], 0.6, math.sqrt(2)),  # the first of two
        ([1.0, 1.0, 4.0], [1.0, 1.0, 0.0], 0.5, 2.0),  # a rejected step repeats the point before
        ([1.0, 2.0, 4.0], [1.0, NAN, NAN], 0.5, NAN),
        ([0.0, 0.0], [1.0, 1.0], 0.5, NAN),
    ],
)
def test_crossing(t, values, level, expected):
    assert cross(t, values, level) == pytest.approx(expected, rel=1e-15, nan_ok=True)


@given(tau=st.floats(0.1, 100.0), level=st.floats(0.05, 0.95))
def test_exponential_decay(tau, level):
    """exp(-t/tau) crosses ``level`` at -tau log(level); the error is quadratic in the steps of 1% in t."""
    t = (1e-3 * tau) * 1.01 ** torch.arange(900, dtype=torch.float64)
    found = cross(t.tolist(), torch.exp(-t / tau).tolist(), level)
    assert found == pytest.approx(-tau * math.log(level), rel=1e-4)


def test_members_apart():
    t = torch.tensor([[1.0, 1.0, 0.0], [100.0, 100.0, 2.0]], dtype=torch.float64)
    values = torch.tensor([[1.0, 1.0, 4.0], [0.0, 0.9, 0.0]], dtype=torch.float64)
    found = first_crossing(t, values, torch.tensor([0.5, 0.5, 2.0], dtype=torch.float64))
    assert_close(found, torch.tensor([10.0, NAN, 1.0], dtype=torch.float64))


def test_of_a_run_is_found_between_observations(tmp_path):
    """It lies between the observations at which the loss is over and under half its start, and then stays."""
    table = fit(
        tmp_path, alpha=[0.1, 10.0], seeds=2, stop=StoppingCriteria(max_steps=400), schedule=LONG_AND_COARSE
    ).table
    for _, member in table.groupby("member"):
        under = member[member["train/loss"] <= member["train/loss"].iloc[0] / 2]
        over = member[member["train/loss"] > member["train/loss"].iloc[0] / 2]
        t1 = under["t1/half_loss"]
        assert over["t1/half_loss"].isna().all()
        assert t1.nunique() == 1
        assert over["t"].iloc[-1] < t1.iloc[0] <= under["t"].iloc[0]


# ---------------------------------------------------------------------- by what other observers see

LOOKED_AT = {"kernel_drift": "kernel_drift/total", "tangent_departure": "tangent_departure"}
ALL = ["half_loss", *LOOKED_AT]


def seen(definition, points, **options):
    """t1 of one member after each point (t, value)."""
    observer = T1([definition], **options)
    others = [KernelDrift(), TangentDeparture(always=True)]
    module = SimpleNamespace(trains_network=True, trainer=SimpleNamespace(callbacks=others))
    found = []
    for index, (t, value) in enumerate(points):
        state = SimpleNamespace(t=torch.tensor([t], dtype=torch.float64))
        columns = {LOOKED_AT[definition]: torch.tensor([value], dtype=torch.float64)}
        observation = Observation(index, state, None, None, False, columns)
        found.append(float(observer.observe(module, observation)[f"t1/{definition}"]))
    return found


@pytest.mark.parametrize("definition", LOOKED_AT)
@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(0, 0), (1, 0.0), (100, 0.2)], [NAN, NAN, 10.0]),  # linear in log t
        ([(0, NAN), (4, 0.4)], [NAN, 1.0]),  # zero at t = 0, where the departure is 0/0
        ([(0, 0), (1, 0.0), (7, NAN), (100, 0.2), (200, NAN)], [NAN, NAN, NAN, 10.0, 10.0]),  # not looked at in between
        ([(0, 0), (1, 0.1), (2, 0.3)], [NAN, 1.0, 1.0]),  # reached on a point
        ([(0, 0), (1, 0.0), (100, 0.2), (200, 0.0), (300, 0.9)], [NAN, NAN, 10.0, 10.0, 10.0]),  # the first of two
        ([(0, 0), (1, 0.05), (2, 0.05), (2, 0.05)], [NAN] * 4),  # has stopped
    ],
)
def test_crossing_of_a_column(definition, points, expected):
    assert seen(definition, points) == pytest.approx(expected, rel=1e-14, nan_ok=True)


@pytest.mark.parametrize("definition", LOOKED_AT)
def test_a_power_of_t_is_located_exactly(definition):
    """However far apart the looks are, and from t = 0 if it grows as t itself."""
    assert seen(definition, [(0, 0), (1, 0.01), (30, 9.0)])[-1] == pytest.approx(10**0.5, rel=1e-12)
    assert seen(definition, [(0, 0), (1, 0.02), (30, 0.6)])[-1] == pytest.approx(5, rel=1e-12)
    assert seen(definition, [(0, 0), (30, 0.6)])[-1] == pytest.approx(5, rel=1e-12)


def test_levels():
    points = [(0, 0), (1, 0.0), (100, 0.2)]
    assert seen("kernel_drift", points, drift_level=0.05)[-1] == pytest.approx(100**0.25)
    assert seen("tangent_departure", points, departure_level=0.15, drift_level=0.01)[-1] == pytest.approx(100**0.75)


def three(**options):
    return [T1(ALL, drift_level=0.05), KernelDrift(**options), TangentDeparture(always=True)]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return watch(tmp_path_factory.mktemp("t1"), *three(), **APART).table


@pytest.mark.parametrize(("definition", "level"), [("kernel_drift", 0.05), ("tangent_departure", 0.1)])
def test_lies_between_the_looks_that_bracket_the_level(table, definition, level):
    crossed = 0
    for _, member in table.groupby("member"):
        looks = member[member[LOOKED_AT[definition]].notna()]
        over = looks[looks[LOOKED_AT[definition]] >= level]
        t1 = member[f"t1/{definition}"].dropna()
        if over.empty:
            assert t1.empty
            continue
        crossed += 1
        before = looks[looks.observation < over.observation.iloc[0]]
        assert t1.nunique() == 1
        assert t1.index[0] == over.index[0]
        assert (before["t"].iloc[-1] if len(before) else 0) <= t1.iloc[0] <= over["t"].iloc[0]
    assert crossed >= 2


def test_order_of_the_observers_does_not_matter(table, tmp_path):
    assert_same_curves(watch(tmp_path, *reversed(three()), **APART).table[table.columns], table)


def test_half_loss_does_not_see_the_others(table, tmp_path):
    alone = watch(tmp_path, T1(), **APART).table
    assert alone["t1/half_loss"].equals(table["t1/half_loss"])
    assert list(alone.filter(like="t1/")) == ["t1/half_loss"]


@pytest.mark.parametrize("bursts", [1, 12])
def test_resumed_run_has_the_undisturbed_table(table, tmp_path, bursts):
    assert_same_curves(interrupted(tmp_path, three, bursts, **APART).table, table)


# ---------------------------------------------------------------------- integrators of long steps

EARLY = {
    "alpha": [0.1 / 6**0.5, 1 / 6**0.5],
    "seeds": 2,
    "network": {"width": 6, "depth": 2},
    "stop": StoppingCriteria(loss=0.4, max_steps=20_000),
}
"""sqrt(h) alpha is 0.1 and 1."""


@functools.cache
def t1_of_small_steps(rule):
    """By the three definitions, (3, 4), from observations that are dense in t of a flow at a small tolerance."""
    with tempfile.TemporaryDirectory() as folder:
        schedule = Schedule(max_burst=7, min_burst=1, t_factor=1.03)
        observers = T1(ALL), KernelDrift(t_factor=None), TangentDeparture(always=True)
        exact = {"integrator": "explicit", "tol": 1e-7, "schedule": schedule, **dict(rule)}
        run = watch(Path(folder), *observers, **EARLY, **exact)
    return torch.tensor([run.last(f"t1/{name}") for name in ALL])


@pytest.mark.parametrize("rule", [{}, {"tau": 0.3}], ids=str)
@pytest.mark.parametrize("integrator", ["explicit", "implicit", "auto"])
def test_of_long_steps_is_that_of_short_ones(tmp_path, integrator, rule):
    run = watch(tmp_path, T1(ALL), *three()[1:], **EARLY, integrator=integrator, **rule)
    found = torch.tensor([run.last(f"t1/{name}") for name in ALL])
    torch.testing.assert_close(found, t1_of_small_steps(tuple(rule.items())), rtol=0.02, atol=0)


@pytest.mark.parametrize("integrator", ["implicit", "auto"])
def test_run_of_long_steps_resumes_to_the_bit(tmp_path, integrator):
    options = {**EARLY, "integrator": integrator}
    whole = watch(tmp_path / "whole", *three(), **options)
    assert_same_curves(interrupted(tmp_path, three, 4, **options).table, whole.table)


def test_on_a_kernel_it_is_half_loss_alone(tmp_path):
    model = KernelModule(functools.partial(FC, width=6, depth=1), stop=StoppingCriteria(max_steps=2))
    assert list(watch(tmp_path, *three(), model=model).table.filter(like="t1/")) == ["t1/half_loss"]


MISSING = {
    "kernel_drift": ([], "needs the KernelDrift observer, .*--config callbacks/ntk.yaml"),
    "tangent_departure": (
        [TangentDeparture()],
        "needs the TangentDeparture observer with always: true, .*--config callbacks/tangent.yaml",
    ),
}


@pytest.mark.parametrize("definition", MISSING)
def test_missing_observer_is_told_with_the_remedy(tmp_path, definition):
    others, message = MISSING[definition]
    with pytest.raises(ConfigError, match=message):
        watch(tmp_path, T1([definition]), *others)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
@pytest.mark.parametrize("definition", MISSING)
def test_observer_missing_from_a_resumed_run_is_told_too(tmp_path, definition):
    others, message = MISSING[definition]
    sessions = iter([three(), [T1([definition]), *others]])
    with pytest.raises(ConfigError, match=message):
        interrupted(tmp_path, lambda: next(sessions), 2, **MEMBERS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"definitions": ["half_loss", "slope"]},
            r"no definition \['slope'\], expected some of half_loss, kernel_drift",
        ),
        ({"definitions": "slope"}, r"no definition \['slope'\]"),
        ({"definitions": []}, "no definition at all"),
        ({"drift_level": 0.0}, "levels > 0, got 0.0 of the drift"),
        ({"departure_level": -1.0}, "-1.0 of departure"),
        ({"departure_level": NAN}, "nan of departure"),
    ],
    ids=str,
)
def test_refused_when_configured(options, message):
    with pytest.raises(ConfigError, match=message):
        T1(**options)


def test_one_definition_needs_no_list():
    assert T1("kernel_drift").definitions == ("kernel_drift",)
