"""What holds of every tangent kernel: it is a Gram matrix, linear over layers, blind to how it was cut into tiles."""

import functools

import numpy as np
import pytest
import torch
from closeness import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from ntk_cases import CASES, Lambda, contracted, jacobian
from torch import nn
from torch.func import functional_call

from lazy_lightning.nn import FC
from lazy_lightning.ntk import empirical_ntk, empirical_ntk_by_layer, empirical_ntk_diagonal
from lazy_lightning.ntk.kernel_plan import make_plan
from lazy_lightning.ntk.tangent_model import TangentModel
from lazy_lightning.ntk.tangents import Tangents
from lazy_lightning.ntk.tiles import kernel_tiles

CUT = ["fc with biases and three outputs", "dilation and groups", "pre-activation block, group norm", "called twice"]
SAMPLES = 8


@functools.cache
def whole(name):
    """A network, samples and the kernel of autograd."""
    case = CASES[name]
    net, x = case.network(), case.samples(SAMPLES, 4)
    return net, x, contracted(jacobian(net, x), jacobian(net, x), "full")


@st.composite
def networks(draw):
    """A fully connected network and some samples."""
    sizes = {"width": draw(st.integers(1, 6)), "depth": draw(st.integers(0, 3)), "num_outputs": draw(st.integers(1, 3))}
    bias, last = draw(st.sampled_from([(0.0, 0.0), (0.4, 0.0), (0.1, 0.7)]))
    inputs, activation = draw(st.integers(1, 4)), draw(st.sampled_from(["softplus(5)", "relu", "tanh", "linear"]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draw(st.integers(0, 99)))
        net = FC(activation=activation, bias=bias, last_bias=last, input_shape=inputs, **sizes).double()
        return net, torch.randn(draw(st.integers(1, 6)), inputs, dtype=torch.float64)


def flat(kernel):
    """(n c, n c)"""
    n, c = kernel.shape[0], kernel.shape[2]
    return kernel.transpose(1, 2).reshape(n * c, n * c)


@pytest.mark.parametrize("name", CUT)
@settings(max_examples=8)
@given(
    tile=st.one_of(st.none(), st.integers(1, SAMPLES + 2)),
    memory=st.one_of(st.none(), st.integers(0, 20), st.integers(100, 20000)),
    start=st.integers(0, SAMPLES - 1),
)
def test_tiles_and_memory_change_nothing(name, tile, memory, start):
    net, x, expected = whole(name)
    ask = functools.partial(empirical_ntk, net, None, tile=tile, memory=memory)
    assert_close(ask(x), expected, rtol=1e-13)
    assert_close(ask(x[:5], x[start:]), expected[:5, start:], rtol=1e-13)


@settings(max_examples=12)
@given(st.integers(1, SAMPLES), st.one_of(st.none(), st.integers(0, 5000)), st.booleans())
def test_tiles_cover_each_pair_once(tile, memory, symmetric):
    net, x, _ = whole("dilation and groups")
    model = TangentModel.of(net)
    tangents = Tangents(model, make_plan(model, x), x, "trace")
    seen = np.zeros((SAMPLES, SAMPLES), dtype=int)
    for block in kernel_tiles(tangents, None if symmetric else tangents, tile=tile, memory=memory):
        seen[block.rows, block.cols] += 1
        if block.mirrored:
            seen[block.cols, block.rows] += 1
        assert block.total.shape == (1, block.rows.stop - block.rows.start, block.cols.stop - block.cols.start)
        assert max(block.total.shape) <= tile
    assert (seen == 1).all()


@settings(max_examples=8)
@given(st.integers(1, SAMPLES + 1))
def test_own_products_in_any_tiles(tile):
    net, x, expected = whole("dilation and groups")
    own = expected.diagonal(dim1=0, dim2=1).movedim(-1, 0)
    assert_close(empirical_ntk_diagonal(net, None, x, tile=tile), own, rtol=1e-13)


@given(networks())
def test_symmetric_without_negative_eigenvalues(pair):
    net, x = pair
    kernel = flat(empirical_ntk(net, None, x))
    size = kernel.abs().max() + 1e-300
    assert_close(kernel, kernel.T, scale=size)
    assert torch.linalg.eigvalsh(kernel).min() > -1e-13 * size * len(kernel)


@given(networks())
def test_equals_autograd_for_networks_of_any_size(pair):
    net, x = pair
    assert_close(empirical_ntk(net, None, x), contracted(jacobian(net, x), jacobian(net, x), "full"), rtol=1e-13)


@given(networks())
def test_layers_add_up(pair):
    net, x = pair
    parts = empirical_ntk_by_layer(net, None, x)
    assert_close(sum(parts.values()), empirical_ntk(net, None, x), rtol=1e-13)
    some = list(parts)[::2]
    chosen = empirical_ntk(net, None, x, layers=some)
    assert_close(chosen, sum(parts[name] for name in some), rtol=1e-13)
    assert_close(empirical_ntk(net, None, x, layers="last"), parts["head"], rtol=1e-13)


@given(networks(), st.randoms(use_true_random=False))
def test_reordered_samples_give_the_kernel_reordered(pair, random):
    net, x = pair
    order = random.sample(range(len(x)), len(x))
    kernel = empirical_ntk(net, None, x)
    assert_close(empirical_ntk(net, None, x[order]), kernel[order][:, order], rtol=1e-13)


@given(networks(), st.floats(1e-6, 1e6))
def test_scaled_outputs_scale_the_kernel_by_the_square(pair, scale):
    net, x = pair
    scaled = Lambda(lambda m, x: scale * m.net(x), net=net)
    assert_close(empirical_ntk(scaled, None, x), scale**2 * empirical_ntk(net, None, x), rtol=1e-13)


@given(networks())
def test_the_other_side_is_the_transpose(pair):
    net, x = pair
    other = x.flip(0)[:3] + 0.5
    there, back = empirical_ntk(net, None, x, other), empirical_ntk(net, None, other, x)
    assert_close(there, back.transpose(0, 1).mT, rtol=1e-13)


def test_a_linear_model_has_the_gram_matrix_of_its_inputs():
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert_close(empirical_ntk(nn.Linear(3, 1, bias=False).double(), None, x, output="trace"), x @ x.T)
    net = FC(1, 0, input_shape=3, last_bias=0.5).double()
    assert_close(empirical_ntk(net, None, x, output="trace"), x @ x.T / 3 + 0.25)


STEPPED = ["fc with biases and three outputs", "stride and padding", "pre-activation block, group norm", "attention"]


@pytest.mark.parametrize("name", STEPPED)
@pytest.mark.parametrize("loss", ["mse", "softmax"])
def test_a_step_of_gradient_descent_follows_the_kernel(name, loss):
    """f(w - s grad L) - f(w) = -s Theta dL/df + O(s^2), on samples that were not trained on too."""
    case = CASES[name]
    net, (x1, x2) = case.network(), case.pairs()
    weights = {n: p.detach() for n, p in net.named_parameters()}

    def f(weights, x):
        return functional_call(net, weights, (x,))

    def cost(outputs):
        return outputs.square().sum() if loss == "mse" else -outputs.log_softmax(1)[:, 0].sum()

    gradients = torch.func.grad(lambda w: cost(f(w, x1)))(weights)
    slope = torch.func.grad(cost)(f(weights, x1))
    predicted = -torch.einsum("ijkl,jl->ik", empirical_ntk(net, None, x2, x1), slope)
    steps, errors = [1e-5, 1e-6, 1e-7], []
    for step in steps:
        moved = {n: w - step * gradients[n] for n, w in weights.items()}
        errors.append(float(((f(moved, x2) - f(weights, x2)) - step * predicted).norm()))
    assert errors[-1] < 1e-4 * float((steps[-1] * predicted).norm())
    assert np.polyfit(np.log(steps[:2]), np.log(errors[:2]), 1)[0] == pytest.approx(2, abs=0.05)
