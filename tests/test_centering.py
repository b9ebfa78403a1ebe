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
