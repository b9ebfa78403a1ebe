"""KernelReference: held or computed again, in any tiles, it compares as the dense kernels do."""

import pytest
import torch
from closeness import assert_close
from ntk_cases import Lambda, lin
from torch import nn

from lazy_lightning import memory
from lazy_lightning.errors import ConfigError, RunError
from lazy_lightning.nn.initial_members import InitialMembers
from lazy_lightning.ntk import empirical_ntk_by_layer
from lazy_lightning.ntk.alignment import kernel_alignment, label_alignment, relative_drift
from lazy_lightning.ntk.kernel_plan import make_plan
from lazy_lightning.ntk.reference import TOTAL, KernelReference
from lazy_lightning.ntk.tangent_model import TangentModel
from lazy_lightning.ntk.tangents import Tangents

SAMPLES, OWN = 7, [1, 0, 1]


def normalised(num_outputs):
    """With a layer that has no structure, a layer without parameters, and a buffer in which members differ."""
    net = Lambda(
        lambda m, x: m.head(m.norm(m.body(m.scale * x)).tanh()),
        body=lin(3, 4),
        norm=nn.LayerNorm(4),
        head=lin(4, num_outputs),
    )
    net.register_buffer("scale", 1 + torch.rand(()))
    return net


class Setting:
    """Two seeds at the start, and three members that started from them and moved."""

    def __init__(self, outputs=1, contraction="full", labels=None, dtype=torch.float64):
        start = InitialMembers(normalised, [0, 1], (3,), outputs)
        draw = torch.Generator().manual_seed(0)
        moved = torch.randn(3, start.w0.shape[1], generator=draw, dtype=torch.float64)
        self.network, self.contraction, self.labels = start.network, contraction, labels
        self.x = torch.randn(SAMPLES, 3, generator=draw, dtype=torch.float64).to(dtype)
        self.w0, self.buffers = start.w0.to(dtype), {n: b.to(dtype) for n, b in start.buffers.items()}
        self.w = self.w0[OWN] + 0.1 * moved.to(dtype)

    def model(self, w, rows):
        return TangentModel.of(self.network, w, buffers={n: b[rows] for n, b in self.buffers.items()})

    def compared(self, **options):
        start = self.model(self.w0, [0, 1])
        tangents = Tangents(start, make_plan(start, self.x), self.x, self.contraction)
        reference = KernelReference(tangents, labels=self.labels, **options)
        return reference, reference.compare(self.model(self.w, OWN), torch.tensor(OWN))

    def dense(self, w, rows):
        """(E, n c, n c) by layer and in total, from the definition."""
        buffers = {n: b[rows] for n, b in self.buffers.items()}
        kernels = empirical_ntk_by_layer(
            self.network, w, self.x, output=self.contraction, method="jacobian", buffers=buffers
        )
        if self.contraction == "full":
            kernels = {name: k.permute(0, 1, 3, 2, 4).flatten(3).flatten(1, 2) for name, k in kernels.items()}
        return {**kernels, TOTAL: sum(kernels.values())}


def classes(outputs):
    return torch.arange(SAMPLES) % outputs


def signs():
    return torch.tensor([1.0, -1.0, -1.0, 1.0, 1.0, -1.0, 1.0], dtype=torch.float64)


CASES = {
    "one output, labels": (1, "full", signs(), signs()),
    "one output, trace": (1, "trace", signs(), signs()),
    "classes, all pairs of outputs": (3, "full", classes(3), nn.functional.one_hot(classes(3), 3).flatten().double()),
    "classes, trace": (3, "trace", classes(3), classes(3)),
    "a class that does not occur": (3, "full", classes(2), nn.functional.one_hot(classes(2), 3).flatten().double()),
    "real targets": (
        2,
        "full",
        torch.arange(14.0).sqrt().view(7, 2).double(),
        torch.arange(14.0).sqrt().double(),
    ),
    "real targets, trace": (2, "trace", torch.arange(14.0).sqrt().view(7, 2), torch.arange(14.0).sqrt().view(7, 2)),
}


@pytest.mark.parametrize("hold", [True, False])
@pytest.mark.parametrize("tile", [None, 1, 3, SAMPLES, 100])
@pytest.mark.parametrize("case", CASES)
def test_is_the_comparison_of_the_dense_kernels(case, tile, hold):
    outputs, contraction, labels, expected_labels = CASES[case]
    setting = Setting(outputs, contraction, labels)
    reference, found = setting.compared(hold=hold, tile=tile)
    now, start = setting.dense(setting.w, OWN), setting.dense(setting.w0, [0, 1])
    assert reference.holds is hold
    assert list(found) == [*reference.start.plan.layers, TOTAL]
    assert set(found) == set(now) == {"body", "norm", "head", TOTAL}
    for name, comparison in found.items():
        assert_close(comparison.drift, relative_drift(now[name], start[name][OWN]), rtol=1e-13)
        assert_close(comparison.alignment, kernel_alignment(now[name], start[name][OWN]), rtol=1e-13)
        assert_close(comparison.label_alignment, label_alignment(now[name], expected_labels), rtol=1e-13)


@pytest.mark.parametrize("hold", [True, False])
def test_no_drift_at_the_start(hold):
    setting = Setting(3)
    setting.w = setting.w0[OWN]
    _, found = setting.compared(hold=hold, tile=3)
    for comparison in found.values():
        assert_close(comparison.drift, torch.zeros(3, dtype=torch.float64), scale=1.0)
        assert_close(comparison.alignment, torch.ones(3, dtype=torch.float64))


def test_float32():
    """Sums are float64; the entries are rounded."""
    double, single = Setting(3), Setting(3, dtype=torch.float32)
    for name, comparison in single.compared(hold=True)[1].items():
        assert comparison.drift.dtype == torch.float64
        assert_close(comparison.drift, double.compared()[1][name].drift, rtol=1e-5)


def test_holds_what_takes_up_to_a_quarter_of_the_memory(monkeypatch):
    setting = Setting(3)
    reference, _ = setting.compared()
    assert reference.nbytes == 3 * 2 * (SAMPLES * 3) ** 2 * 8
    assert reference.holds
    monkeypatch.setattr(memory, "available_bytes", lambda device: 4 * reference.nbytes)
    assert setting.compared()[0].holds
    monkeypatch.setattr(memory, "available_bytes", lambda device: 4 * reference.nbytes - 1)
    assert not setting.compared()[0].holds


@pytest.mark.parametrize("hold", [True, False])
def test_members_that_are_not_finite_keep_to_themselves(hold):
    setting = Setting(2)
    expected = setting.compared(hold=hold)[1][TOTAL].drift
    setting.w[1] = torch.nan
    drift = setting.compared(hold=hold)[1][TOTAL].drift
    assert drift[1].isnan()
    assert_close(drift[[0, 2]], expected[[0, 2]])


def test_without_labels_there_is_no_alignment_with_them():
    _, found = Setting().compared()
    assert found[TOTAL].drift.shape == (3,)
    with pytest.raises(ConfigError, match="no labels to align with"):
        _ = found[TOTAL].label_alignment


def test_tile_must_be_positive():
    with pytest.raises(ConfigError, match="tile must be >= 1"):
        Setting().compared(tile=0)


def test_what_is_to_be_held_and_does_not_fit_is_told(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda device: 1000)
    with pytest.raises(RunError, match=r"Theta_0 by layer of .* free on cpu: set hold: false"):
        Setting(3).compared(hold=True)
