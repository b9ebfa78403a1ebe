"""The structured kernels of the convolutional networks, against Jacobians formed row by row with autograd."""

from __future__ import annotations

import functools

import pytest
import torch
from closeness import assert_close
from image_networks import BUILDS, built, images
from ntk_cases import contracted, jacobian

from lazy_lightning.nn import FC, Symmetrized
from lazy_lightning.ntk import empirical_ntk
from lazy_lightning.ntk.kernel_plan import make_plan
from lazy_lightning.ntk.regression import KernelRegression
from lazy_lightning.ntk.tangent_model import TangentModel

KINDS = {
    "ntk": {},
    "ntk bias": {"bias": 0.7, "gain": 1.3},
    "standard": {"parametrisation": "standard"},
    "standard bias": {"parametrisation": "standard", "bias": 1.0, "fan": "average"},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", BUILDS)
def test_structured_kernel_is_that_of_the_jacobian(name, kind):
    """Every layer has structure: insisting on it falls back nowhere."""
    net, x1, x2 = built(BUILDS[name], num_outputs=2, **KINDS[kind]), images(3), images(2, seed=1)
    j1, j2 = jacobian(net, x1), jacobian(net, x2)
    for output in ("full", "trace"):
        found = empirical_ntk(net, None, x1, output=output, method="structured")
        assert_close(found, contracted(j1, j1, output), rtol=1e-12)
    assert_close(empirical_ntk(net, None, x1, x2, output="full"), contracted(j1, j2, "full"), rtol=1e-12)


@pytest.mark.parametrize("name", BUILDS)
def test_no_layer_is_left_to_its_jacobian(name):
    net = built(BUILDS[name], bias=0.5)
    plan = make_plan(TangentModel.of(net, None), images(3))
    assert not plan.jacobian
    assert len(plan.structured) == sum(hasattr(m, "bias_scale") for m in net.modules())


@pytest.mark.parametrize("build", [functools.partial(FC, width=6, depth=2), *BUILDS.values()])
def test_doubling_gives_the_kernel_and_the_flow_of_centering(build):
    """Theta and F(0) = 0 are the same for g - g0 and for the doubled network, so their kernel flows are."""
    plain, doubled = built(build), built(functools.partial(Symmetrized, build))
    x, x_test = images(6), images(4, seed=1)
    kernels = [
        (empirical_ntk(net, None, x, output="trace"), empirical_ntk(net, None, x_test, x, output="trace"))
        for net in (plain, doubled)
    ]
    for one, other in zip(*kernels, strict=True):
        assert_close(other, one, rtol=1e-12)
    y = torch.tensor([1.0, -1.0] * 3, dtype=torch.float64)
    outputs = [KernelRegression(k, y, test_kernel=k_test).test_outputs(50.0) for k, k_test in kernels]
    assert_close(outputs[1], outputs[0], rtol=1e-9)
    assert not doubled(x).any()
