"""Metrics over the member axis: by batches, by brute force, and with failed members."""

from itertools import pairwise

import pytest
import torch
from closeness import assert_close
from hypothesis import given
from hypothesis import strategies as st

from lazy_lightning.objective.losses import build_loss
from lazy_lightning.objective.metrics import EnsembleError, MarginStatistics, MemberError, MemberLoss

E, N, C = 4, 23, 3
DRAW = torch.Generator().manual_seed(0)
GROUP = torch.tensor([0, 0, 1, 1])
NAN = float("nan")
TASKS = {
    "binary": (
        torch.randn(E, N, generator=DRAW, dtype=torch.float64),
        torch.randn(N, generator=DRAW, dtype=torch.float64).sign(),
    ),
    "classes": (
        torch.randn(E, N, C, generator=DRAW, dtype=torch.float64),
        torch.randint(C, (N,), generator=DRAW),
    ),
}
tasks = pytest.mark.parametrize(("F", "y"), TASKS.values(), ids=TASKS)


def metrics(loss="softhinge(20)"):
    loss = build_loss(loss)
    return {
        "loss": MemberLoss(loss, E),
        "error": MemberError(loss, E),
        "ensemble": EnsembleError(loss, GROUP),
        "margins": MarginStatistics(loss, E, target=0.5),
    }


def value(metric, F, y, sizes=(N,)):
    for f, t in zip(F.split(sizes, dim=1), y.split(sizes), strict=True):
        metric.update(f, t)
    found = metric.compute()
    return torch.stack(list(found.values())) if isinstance(found, dict) else found


@tasks
@given(cuts=st.lists(st.integers(1, N - 1), max_size=4, unique=True))
def test_by_batches_as_in_one(F, y, cuts):
    edges = [0, *sorted(cuts), N]
    sizes = [b - a for a, b in pairwise(edges)]
    for name, metric in metrics().items():
        assert_close(value(metric, F, y, sizes), value(metrics()[name], F, y))


@tasks
def test_reset_forgets(F, y):
    for metric in metrics().values():
        first = value(metric, F, y)
        metric.reset()
        assert torch.equal(value(metric, F, y), first)


def right(f, label):
    """Whether one sample is classified rightly, in plain words."""
    return f * label > 0 if f.ndim == 0 else int(f.argmax()) == int(label)


@tasks
def test_errors_by_brute_force(F, y):
    wrong = torch.tensor([[not right(F[e, i], y[i]) for i in range(N)] for e in range(E)])
    assert_close(value(metrics()["error"], F, y), wrong.double().mean(dim=1))
    mean = torch.stack([F[g == GROUP].mean(dim=0) for g in (0, 0, 1, 1)])
    wrong = torch.tensor([[not right(mean[e, i], y[i]) for i in range(N)] for e in range(E)])
    assert_close(value(metrics()["ensemble"], F, y), wrong.double().mean(dim=1))


@tasks
def test_loss_is_the_mean_of_ell(F, y):
    loss = build_loss("softhinge(20)")
    assert_close(value(metrics()["loss"], F, y), loss.per_sample(F, y).mean(dim=1))


def test_margins():
    F, y = torch.tensor([[1.0, -0.5, 2.0, 0.5]]).expand(E, -1).double(), torch.tensor([1.0, 1, 1, -1]).double()
    assert_close(value(metrics()["margins"], F, y, [4])[:, 0], torch.tensor([-0.5, 0.5, 0.5]).double())


def test_untrained_member_has_error_one():
    F, y = TASKS["binary"]
    assert value(metrics()["error"], torch.zeros_like(F), y).tolist() == [1.0] * E


@tasks
def test_failed_member_is_left_out(F, y):
    broken = F.clone()
    broken[1] = NAN
    error, ensemble = value(metrics()["error"], broken, y), value(metrics()["ensemble"], broken, y)
    assert error.isnan().tolist() == [False, True, False, False]
    assert_close(ensemble[:2], value(metrics()["error"], F, y)[0].expand(2))  # member 0 is all of its group
    assert_close(ensemble[2:], value(metrics()["ensemble"], F, y)[2:])


@tasks
def test_group_that_failed_has_no_error(F, y):
    broken = F.clone()
    broken[:2] = torch.inf
    assert value(metrics()["ensemble"], broken, y).isnan().tolist() == [True, True, False, False]


@tasks
def test_float32_is_counted_in_float64(F, y):
    y = y.float() if y.is_floating_point() else y
    for name, metric in metrics().items():
        found = value(metric, F.float(), y)
        assert found.dtype == torch.float64, name
        assert_close(found, value(metrics()[name], F, TASKS["binary"][1] if y.is_floating_point() else y), rtol=1e-6)
