"""The tangent kernel on a GPU. Skipped without one."""

import pytest
import torch
from closeness import assert_close
from device_waits import no_device_waits
from ntk_cases import CASES

from lazy_lightning.ntk import NTKOperator, empirical_ntk, empirical_ntk_by_layer, empirical_ntk_diagonal
from lazy_lightning.ntk.kernel_plan import make_plan
from lazy_lightning.ntk.tangent_model import TangentModel
from lazy_lightning.ntk.tangents import Tangents
from lazy_lightning.ntk.tiles import kernel_tiles

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore:There is a performance drop"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
]

# Other sums, and convolutions by other algorithms.
ROUNDING = 1e-11
# torch's fused kernel for weight normalisation on CUDA takes the root of a float64 norm in float32.
FUSED_WEIGHT_NORM = 1e-5


def tolerance(name):
    return FUSED_WEIGHT_NORM if name.startswith("weight norm") else ROUNDING


@pytest.mark.parametrize("name", CASES)
def test_same_numbers_as_on_the_cpu(name):
    case = CASES[name]
    net, (x1, x2) = case.network(), case.pairs()
    expected = empirical_ntk(net, None, x1, x2)
    for method in ("auto", "jacobian", "jvp"):
        found = empirical_ntk(net, None, x1, x2, method=method, device="cuda")
        assert found.device.type == "cuda"
        assert_close(found.cpu(), expected, rtol=tolerance(name))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.members])
def test_members(name):
    case = CASES[name]
    net, x = case.network(), case.samples(4)
    weights = {n: torch.stack([p, 0.8 * p]).detach() for n, p in net.named_parameters()}
    expected = empirical_ntk(net, weights, x)
    assert_close(empirical_ntk(net, weights, x, device="cuda").cpu(), expected, rtol=tolerance(name))
    own = empirical_ntk_diagonal(net, weights, x, device="cuda", output="trace")
    assert_close(own.cpu(), empirical_ntk_diagonal(net, weights, x, output="trace"), rtol=tolerance(name))


STRUCTURED = [name for name, case in CASES.items() if not case.jacobian and case.members]


@pytest.mark.parametrize("name", STRUCTURED)
@pytest.mark.parametrize("members", [1, 2])
def test_structured_tiles_never_wait_for_the_device(name, members):
    case = CASES[name]
    net, x = case.network().cuda(), case.samples(6).cuda()
    weights = {n: torch.stack([p] * members).detach() for n, p in net.named_parameters()}
    model = TangentModel.of(net, weights)
    tangents = Tangents(model, make_plan(model, x), x, "trace")
    list(kernel_tiles(tangents, tile=2, memory=1 << 30))  # constants and workspaces are made on the first round
    with no_device_waits():
        total = [block.total for block in kernel_tiles(tangents, tile=2, memory=1 << 30)]
    assert len(total) == 6


def test_the_result_may_be_written_to_the_host():
    case = CASES["fc with biases and three outputs"]
    net, x = case.network(), case.samples(6)
    out = torch.zeros(6, 6, dtype=torch.float64)
    for method in ("auto", "jvp"):
        out.zero_()
        empirical_ntk(net, None, x, output="trace", method=method, device="cuda", out=out, tile=4)
        assert_close(out, empirical_ntk(net, None, x, output="trace"), rtol=ROUNDING)


def test_operator_and_layers():
    case = CASES["dilation and groups"]
    net, (x1, x2) = case.network(), case.pairs()
    v = torch.ones(8, dtype=torch.float64)
    found = NTKOperator(net, None, x1, x2, device="cuda") @ v
    assert_close(found.cpu(), NTKOperator(net, None, x1, x2) @ v, rtol=ROUNDING)
    parts = empirical_ntk_by_layer(net, None, x1, x2, device="cuda")
    assert_close(sum(parts.values()).cpu(), empirical_ntk(net, None, x1, x2), rtol=ROUNDING)
