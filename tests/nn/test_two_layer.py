"""Two-layer networks: written out by hand, their starts, their members, their kernel."""

import functools

import pytest
import torch
from closeness import assert_close
from ntk_cases import contracted, jacobian
from torch.func import functional_call, vmap

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn import TwoLayer
from lazy_lightning.ntk import empirical_ntk


def built(seed=0, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TwoLayer(**{"width": 8, "input_shape": 3, **options}).double()


@pytest.mark.parametrize(("scaling", "power"), [("sqrt", 0.5), ("mean", 1.0)])
@pytest.mark.parametrize("outputs", [1, 2])
def test_by_hand(scaling, power, outputs):
    net, x = built(scaling=scaling, num_outputs=outputs), torch.randn(5, 3, dtype=torch.float64)
    a, b = net.hidden.weight, net.head.weight
    expected = sum(torch.outer((x @ a[j]).relu(), b[:, j]) for j in range(8)) / 8**power
    assert_close(net(x), expected)


@pytest.mark.parametrize("tau", [0.5, 2.0])
def test_start(tau):
    net = built(width=4000, tau=tau, input_shape=5)
    assert net.head.weight.detach().abs().unique().tolist() == pytest.approx([tau])
    assert float(net.head.weight.detach().mean()) == pytest.approx(0.0, abs=5 * tau / 4000**0.5)
    assert float(net.hidden.weight.detach().std()) == pytest.approx(tau, rel=5 * (2 * 20000) ** -0.5)
    assert len(built(width=50, signed=False).head.weight.detach().abs().unique()) == 50


@pytest.mark.parametrize("seed", range(3))
def test_symmetric_start_is_zero(seed):
    net = built(seed, symmetric=True, num_outputs=2)
    assert net(torch.randn(6, 3, dtype=torch.float64)).abs().max() < 1e-15  # the order of a sum
    assert net.head.weight.detach().any()


@pytest.mark.parametrize("options", [{}, {"activation": "tanh", "num_outputs": 2, "input_shape": (1, 2, 2)}], ids=str)
def test_members_equal_vmap(options):
    net = built(**options)
    params = {n: torch.randn(3, *p.shape, dtype=torch.float64) for n, p in net.named_parameters()}
    x = torch.randn(7, *net.input_shape, dtype=torch.float64)
    assert_close(net.forward_members(params, x), vmap(lambda p: functional_call(net, p, (x,)))(params))


@pytest.mark.parametrize("options", [{}, {"scaling": "mean", "num_outputs": 2, "activation": "tanh"}], ids=str)
def test_structured_kernel_is_that_of_the_jacobian(options):
    net, x = built(**options), torch.randn(6, 3, dtype=torch.float64)
    j = jacobian(net, x)
    assert_close(empirical_ntk(net, None, x, output="full", method="structured"), contracted(j, j, "full"), rtol=1e-13)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"width": 7, "symmetric": True}, "even if symmetric"),
        ({"width": 0}, "width is 0"),
        ({"scaling": "cube"}, "scaling is 'cube', expected 'sqrt' or 'mean'"),
        ({"tau": 0.0}, "tau is 0.0, expected a positive number"),
        ({"input_shape": None}, "input_shape is None"),
    ],
    ids=str,
)
def test_refused(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        functools.partial(TwoLayer, **{"input_shape": 3, **options})()
