import pytest
import torch

from lazy_lightning.errors import ConfigError
from lazy_lightning.objective.centering import Centering

ALPHA = torch.tensor([0.5, 2.0], dtype=torch.float64)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_alpha_refused(value):
    with pytest.raises(ConfigError, match="alpha must be > 0"):
        Centering(torch.tensor([1.0, value]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("enabled", "expected"), [(True, [[1.0], [4.0]]), (False, [[1.5], [6.0]])])
def test_alpha_times_the_change(enabled, expected, dtype):
    """f = 3 and f0 = 1 for both members."""
    centering = Centering(ALPHA, enabled=enabled)
    f0 = centering.base(lambda w: w, torch.ones(2, 1, 1, dtype=dtype))
    F = centering(torch.full((2, 1, 1), 3.0, dtype=dtype), f0)
    assert F.dtype == dtype
    assert F[..., 0].tolist() == expected


def test_base_keeps_no_graph():
    w = torch.ones(2, 1, 1, requires_grad=True)
    assert not Centering(ALPHA).base(lambda w: 2 * w, w).requires_grad


@pytest.mark.parametrize("enabled", [True, False])
def test_select(enabled):
    part = Centering(ALPHA, enabled=enabled).select(torch.tensor([1]))
    assert (part.alpha.tolist(), part.enabled) == ([2.0], enabled)
    assert Centering(ALPHA).select(None).alpha is ALPHA


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("enabled", [True, False])
def test_from_change_and_offset_follow_the_closed_formula(enabled, dtype):
    """F = alpha (df + f0) without centering, alpha df with it, to the bit; F(0) is that of df = 0."""
    random = torch.Generator().manual_seed(0)
    df, f0 = (torch.randn(2, 5, 3, dtype=dtype, generator=random) for _ in range(2))
    centering = Centering(ALPHA, enabled=enabled)
    F = torch.stack([a * (d if enabled else d + f) for a, d, f in zip(ALPHA.to(dtype), df, f0, strict=True)])
    assert torch.equal(centering.from_change(df, f0), F)
    assert torch.equal(centering.from_change(df, lambda: f0), F)
    offset = centering.offset(lambda: f0)
    start = centering.from_change(torch.zeros_like(df), f0)
    assert offset is None and not start.any() if enabled else torch.equal(offset, start)


def test_initial_outputs_are_evaluated_only_without_centering():
    def never():
        raise AssertionError("evaluated")

    df = torch.ones(2, 1, 1)
    centering = Centering(ALPHA)
    assert centering.offset(never) is None
    assert torch.equal(centering.from_change(df, never), centering.column(df.dtype) * df)
    assert centering.initial_outputs(df, never) is df
    assert Centering(ALPHA, enabled=False).initial_outputs(torch.zeros_like(df), lambda: df) is df


@pytest.mark.parametrize("enabled", [True, False])
def test_weights_of_the_loss_and_of_its_slope(enabled):
    """L = 1/(alpha^2 n) sum ell for any centering; alpha = 0.1 has a square that is rounded."""
    alpha = torch.tensor([0.1, 2.0, 1e7], dtype=torch.float64)
    centering = Centering(alpha, enabled=enabled)
    assert centering.loss_divisor(3).tolist() == [a * a * 3 for a in alpha.tolist()]
    assert centering.loss_weight(3).tolist() == [1 / (a * a * 3) for a in alpha.tolist()]
    assert centering.slope_weight(3, torch.float64).tolist() == [1 / (a * 3) for a in alpha.tolist()]
    assert centering.loss_divisor(3, torch.float32).dtype == torch.float32
    assert torch.equal(centering.loss_weight(1), alpha**-2)
