import math

import pytest
import torch
from scipy import stats
from torch.func import functional_call, vmap

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.layers import NTKLinear


@pytest.mark.parametrize("bias", [0.0, 0.3])
@pytest.mark.parametrize("power", [0.5, 1.0])
def test_formula(bias, power):
    layer = NTKLinear(7, 4, bias, fan_in_power=power).double()
    x = torch.randn(2, 3, 7, dtype=torch.float64)
    expected = x @ layer.weight.T / 7**power + (bias * layer.bias if bias else 0)
    torch.testing.assert_close(layer(x), expected, rtol=1e-14, atol=1e-15)


def test_no_bias_parameter_by_default():
    assert [name for name, _ in NTKLinear(3, 2).named_parameters()] == ["weight"]
    assert [name for name, _ in NTKLinear(3, 2, 1.0).named_parameters()] == ["weight", "bias"]


def test_standard_normal_from_the_global_generator():
    torch.manual_seed(3)
    layer = NTKLinear(300, 100, 0.5)
    assert stats.kstest(layer.weight.detach().ravel().numpy(), "norm").pvalue > 1e-3
    assert stats.kstest(layer.bias.detach().numpy(), "norm").pvalue > 1e-3
    torch.manual_seed(3)
    again = NTKLinear(300, 100, 0.5)
    assert torch.equal(again.weight, layer.weight)
    assert torch.equal(again.bias, layer.bias)
    torch.manual_seed(3)
    layer.reset_parameters()
    assert torch.equal(again.weight, layer.weight)


def test_default_dtype():
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        assert NTKLinear(2, 2, 1.0).bias.dtype == torch.float64
    finally:
        torch.set_default_dtype(before)
    assert NTKLinear(2, 2).weight.dtype == before


@pytest.mark.parametrize("bias", [0.0, 0.3])
@pytest.mark.parametrize("defer", [True, False])
@pytest.mark.parametrize("n", [2, 9])
def test_members_against_vmap(bias, defer, n):
    layer = NTKLinear(5, 4, bias).double()
    params = {k: torch.randn(3, *p.shape, dtype=torch.float64) for k, p in layer.named_parameters()}
    a = torch.randn(3, n, 5, dtype=torch.float64)
    expected = vmap(lambda p, a: functional_call(layer, p, (a,)))(params, 0.7 * a)
    u, c = layer.apply_members(a.mT, 0.7, params["weight"], params.get("bias"), defer=defer)
    assert (c == 1.0) != defer
    torch.testing.assert_close((c * u).mT, expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("args", [(0, 3), (3, 0), (3, 3, -1.0), (3, 3, math.nan)])
def test_bad_sizes(args):
    with pytest.raises(ConfigError, match="expected"):
        NTKLinear(*args)


def test_repr_tells_the_scales():
    assert "bias=0.5" in repr(NTKLinear(4, 2, 0.5))
