"""KernelSpectrum in a run, against the functions on dense kernels."""

import functools

import pytest
import torch
from closeness import assert_close
from fits import assert_same_curves
from observed import APART, MEMBERS, Poison, Scaled, Seen, column, interrupted, last, prolonged, small, watch

from lazy_lightning.callbacks import KernelSpectrum
from lazy_lightning.callbacks.kernel_spectrum import NAMES
from lazy_lightning.errors import ConfigError
from lazy_lightning.flow import StopReason
from lazy_lightning.modules import FlowModule, KernelModule, StoppingCriteria
from lazy_lightning.nn import FC
from lazy_lightning.ntk import empirical_ntk
from lazy_lightning.ntk.intrinsic_dimension import intrinsic_dimension

COLUMNS = [f"kernel_spectrum/{name}" for name in NAMES]
SHORT = {**MEMBERS, "stop": StoppingCriteria(max_steps=12)}


def expected(module, w, split, samples=None, directions=10):
    """By one decomposition of numpy's, member by member."""
    x, y = split.x[:samples], split.y[:samples]
    kernels = empirical_ntk(module.network, w, x, output="trace", method="jacobian", buffers=module.member_buffers())
    Y = y.view(len(y), -1) if y.is_floating_point() else torch.nn.functional.one_hot(y).double()
    H = torch.eye(len(y)).double() - 1 / len(y)
    rank = [K.trace() ** 2 / (K @ K).trace() for K in kernels]
    top = [torch.linalg.eigvalsh(K)[-1] / len(y) for K in kernels]
    shares = [(torch.linalg.eigh(H @ K @ H)[1].mT @ H @ Y).square().sum(1).flip(0) for K in kernels]
    share = [s[:directions].sum() / s.sum() for s in shares]
    return [*map(torch.stack, (rank, top, share)), intrinsic_dimension(kernels).value]


@pytest.mark.parametrize(
    ("data", "options", "model"),
    [
        (small(n_test=30), {}, {}),
        (small(n_test=30, labels="multiclass"), {"directions": 3}, {"loss": "cross_entropy"}),
        (small(n_kernel=25), {}, {}),
        (small(n_kernel=25), {"split": "train", "samples": 15, "directions": 2}, {}),
    ],
    ids=["test set", "classes", "kernel set", "train set"],
)
def test_are_those_of_the_dense_kernels(tmp_path, data, options, model):
    m = (run := watch(tmp_path, KernelSpectrum(**options), data=data, **{**SHORT, **model})).module
    split = getattr(data, options.get("split") or ("kernel" if data.n_kernel else "test"))
    given = (options.get("samples"), options.get("directions", 10))
    for i, w in ((0, m.w0), (run.table.observation.max(), m.w.detach())):
        for name, values in zip(COLUMNS, expected(m, w, split, *given), strict=True):
            assert_close(column(run.table, name, i), values, rtol=1e-10)


def test_any_network(tmp_path):
    run = watch(tmp_path, KernelSpectrum(), model=FlowModule(Scaled, **SHORT))
    for name, values in zip(COLUMNS, expected(run.module, run.module.w.detach(), run.module.data.test), strict=True):
        assert_close(last(run, name), values, rtol=1e-10)


def test_at_the_start_and_where_each_member_stops(tmp_path):
    seen = Seen()
    run = watch(tmp_path, seen, KernelSpectrum(), **APART)
    running = torch.stack([moment.running for moment in seen.moments])
    assert len(running.sum(dim=0).unique()) > 1  # they stop apart
    for name in COLUMNS:
        found = torch.stack([column(run.table, name, i) for i in range(len(running))])
        looked = ~running
        looked[0] = True
        assert torch.equal(~found.isnan(), looked)
        for member in range(4):
            assert len(found[~running[:, member], member].unique()) == 1


def test_always(tmp_path):
    seen = Seen()
    run = watch(tmp_path, seen, KernelSpectrum(always=True), **SHORT)
    for i, moment in enumerate(seen.moments):
        for name, values in zip(COLUMNS, expected(run.module, moment.w, run.module.data.test), strict=True):
            assert_close(column(run.table, name, i), values, rtol=1e-10)


def test_float32(tmp_path):
    single, double = (watch(tmp_path / p, KernelSpectrum(), precision=p, **SHORT) for p in ("32-true", "64-true"))
    for name in COLUMNS:
        assert_close(last(single, name), last(double, name), rtol=1e-3)


def test_member_that_is_not_finite_keeps_to_itself(tmp_path):
    run, clean = (
        watch(tmp_path / str(len(more)), *more, KernelSpectrum(always=True), **SHORT) for more in ([Poison()], [])
    )
    for name in COLUMNS:
        assert last(run, name)[1].isnan()
        assert_close(last(run, name)[[0, 2, 3]], last(clean, name)[[0, 2, 3]], rtol=1e-11)
    assert run.last("reason") == [float(StopReason.MAX_STEPS)] * 4


@pytest.mark.parametrize("bursts", [1, 9])
@pytest.mark.parametrize("always", [False, True])
def test_resumed_run_has_the_undisturbed_table(tmp_path, always, bursts):
    whole = watch(tmp_path / "whole", KernelSpectrum(always=always), **APART).table
    second = interrupted(tmp_path, lambda: [KernelSpectrum(always=always)], bursts, **APART).table
    assert_same_curves(second, whole)


def test_members_that_a_raised_limit_lets_go_on_are_looked_at_again(tmp_path):
    run = prolonged(tmp_path, lambda: [KernelSpectrum()], **MEMBERS)
    assert min(run.last("tried")) > 15
    for name, values in zip(COLUMNS, expected(run.module, run.module.w.detach(), run.module.data.test), strict=True):
        assert_close(last(run, name), values, rtol=1e-10)
    between = run.table[(run.table.tried > 15) & (run.table.reason == StopReason.RUNNING)]
    assert len(between)
    assert between[COLUMNS].isna().all(axis=None)


def test_without_a_network_there_is_nothing_to_measure(tmp_path):
    model = KernelModule(functools.partial(FC, width=6, depth=1), stop=StoppingCriteria(max_steps=2))
    assert COLUMNS[0] not in watch(tmp_path, KernelSpectrum(), model=model).table


@pytest.mark.parametrize("options", [{"samples": 3}, {"directions": 0}], ids=str)
def test_refused_when_configured(options):
    with pytest.raises(ConfigError, match="directions >= 1 and samples >= 4"):
        KernelSpectrum(**options)


@pytest.mark.parametrize(
    ("options", "data", "message"),
    [
        ({}, {"n_test": 3}, "4 samples at least, but the test set has 3: set a larger data.n_test"),
        ({"split": "kernel"}, {}, "set data.n_kernel"),
    ],
    ids=str,
)
def test_refused_at_the_start(tmp_path, options, data, message):
    with pytest.raises(ConfigError, match=message):
        watch(tmp_path, KernelSpectrum(**options), data=small(**data))
