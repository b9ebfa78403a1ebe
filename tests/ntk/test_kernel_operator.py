"""Products with a kernel that is never formed, its eigenpairs and its trace, against the kernel itself."""

import functools

import numpy as np
import pytest
import torch
from closeness import assert_close
from ntk_cases import CASES, Lambda, contracted, jacobian, lin, recurrent
from scipy.sparse.linalg import LinearOperator, cg, eigsh
from torch import nn

from lazy_lightning.errors import ConfigError
from lazy_lightning.ntk import NTKOperator, empirical_ntk, empirical_ntk_diagonal, hutchinson_trace, top_eigenpairs

pytestmark = [
    pytest.mark.filterwarnings("ignore:There is a performance drop"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
]

NAMES = list(CASES)


@functools.cache
def setting(name="fc with biases and three outputs"):
    case = CASES[name]
    return case.network(), *case.pairs()


def dense(net, x1, x2=None, **options):
    """(n1 c, n2 c)"""
    kernel = empirical_ntk(net, None, x1, x2, **options)
    n, m, c, _ = kernel.shape
    return kernel.transpose(1, 2).reshape(n * c, m * c)


def vector(*shape, seed=0):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NAMES)
def test_products_are_those_of_the_kernel(name):
    net, x1, x2 = setting(name)
    kernel, operator = dense(net, x1, x2), NTKOperator(net, None, x1, x2)
    assert operator.shape == kernel.shape
    right, left = vector(kernel.shape[1]), vector(kernel.shape[0], 2)
    assert_close(operator @ right, kernel @ right, rtol=1e-12)
    assert_close(operator.T @ left, kernel.T @ left, rtol=1e-12)


@pytest.mark.parametrize("options", [{}, {"chunk_size": 2}, {"vectors": 1}, {"chunk_size": 3, "vectors": 2}], ids=str)
def test_chunks_and_vectors_at_once_change_nothing(options):
    net, x1, x2 = setting()
    operator = NTKOperator(net, None, x1, x2, **options)
    columns = vector(operator.shape[1], 5)
    assert_close(operator @ columns, dense(net, x1, x2) @ columns, rtol=1e-12)


def test_matrices_vectors_and_transposes_have_their_shapes():
    net, x1, x2 = setting()
    operator = NTKOperator(net, None, x1, x2)
    assert (operator.shape, operator.T.shape) == ((15, 12), (12, 15))
    assert (operator @ vector(12)).shape == (15,)
    assert (operator @ vector(12, 1)).shape == (15, 1)
    assert (operator @ vector(12).float()).dtype == torch.float64
    assert (operator.symmetric, NTKOperator(net, None, x1).symmetric) == (False, True)
    assert (operator.members, operator.dtype, operator.device.type) == (None, torch.float64, "cpu")


@pytest.mark.parametrize("layers", ["last", ["hidden.0", "hidden.1"]])
def test_some_layers(layers):
    net, x1, x2 = setting()
    operator = NTKOperator(net, None, x1, x2, layers=layers)
    assert_close(operator @ vector(12), dense(net, x1, x2, layers=layers) @ vector(12), rtol=1e-12)


def test_members_have_their_own_products():
    net, x1, x2 = setting()
    weights = {n: torch.stack([p, 0.5 * p]).detach() for n, p in net.named_parameters()}
    operator = NTKOperator(net, weights, x1, x2)
    assert operator.members == 2
    columns = vector(2, 12, 3)
    for row in range(2):
        alone = NTKOperator(net, {n: w[row] for n, w in weights.items()}, x1, x2)
        assert_close((operator @ columns)[row], alone @ columns[row], rtol=1e-12)
        assert_close((operator @ columns[..., 0])[row], alone @ columns[row, :, 0], rtol=1e-12)
    assert NTKOperator(net, {n: w[:1] for n, w in weights.items()}, x1).members == 1


def test_scipy_sees_the_same_map():
    net, x1, x2 = setting()
    linear, kernel = NTKOperator(net, None, x1, x2).to_scipy(), dense(net, x1, x2).numpy()
    assert isinstance(linear, LinearOperator)
    assert (linear.shape, linear.dtype) == (kernel.shape, np.float64)
    right, left = vector(12, 3).numpy(), vector(15, 2).numpy()
    assert_close(linear @ right, kernel @ right, rtol=1e-12)
    assert_close(linear.H @ left, kernel.T @ left, rtol=1e-12)
    assert_close(linear @ right[:, 0], kernel @ right[:, 0], rtol=1e-12)
    assert_close(linear.rmatvec(left[:, 0]), kernel.T @ left[:, 0], rtol=1e-12)
    assert_close(linear @ right[::-1, 0], kernel @ right[::-1, 0], rtol=1e-12)


def test_scipy_solves_with_it():
    """Ridge regression by conjugate gradients."""
    net, x1, _ = setting()
    y, ridge = vector(15).numpy(), 0.3
    linear, kernel = NTKOperator(net, None, x1).to_scipy(), dense(net, x1).numpy()
    shifted = LinearOperator(linear.shape, matvec=lambda v: linear @ v + ridge * v, dtype=np.float64)
    found, failed = cg(shifted, y, rtol=1e-12, maxiter=500)
    assert not failed
    assert_close(found, np.linalg.solve(kernel + ridge * np.eye(15), y), rtol=1e-9)


@pytest.mark.parametrize("count", [1, 4, 14])
def test_largest_eigenpairs(count):
    net, x1, _ = setting()
    kernel = dense(net, x1)
    found = top_eigenpairs(NTKOperator(net, None, x1), count)
    expected = torch.linalg.eigvalsh(kernel).flip(0)[:count]
    assert_close(found.values, expected, rtol=1e-12)
    assert_close(kernel @ found.vectors, found.vectors * found.values, rtol=1e-12, scale=expected[0])
    assert_close(found.vectors.T @ found.vectors, torch.eye(count, dtype=torch.float64), rtol=1e-12)
    assert found.errors.max() < 1e-12 * expected[0]


def test_eigenpairs_are_repeated_and_say_their_error():
    net, x1, _ = setting()
    operator = NTKOperator(net, None, x1)
    first, again = (top_eigenpairs(operator, 2, tolerance=1e-2, seed=1) for _ in range(2))
    assert torch.equal(first.vectors, again.vectors)
    exact = torch.linalg.eigvalsh(dense(net, x1))
    assert ((first.values[:, None] - exact).abs().min(dim=1).values <= first.errors + 1e-12 * exact[-1]).all()
    assert_close(eigsh(operator.to_scipy(), k=2, which="LA")[0][::-1].copy(), exact.flip(0)[:2], rtol=1e-12)


def test_single_precision_eigenpairs():
    net, x1, _ = setting()
    found = top_eigenpairs(NTKOperator(net, None, x1, dtype=torch.float32), 2)
    assert found.values.dtype == torch.float32
    assert_close(found.values.double(), torch.linalg.eigvalsh(dense(net, x1)).flip(0)[:2], rtol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_trace_estimate_is_within_its_error(seed):
    net, x1, _ = setting()
    exact = empirical_ntk_diagonal(net, None, x1, output="trace").sum()
    found = hutchinson_trace(NTKOperator(net, None, x1), 200, seed=seed)
    assert 0 < found.error < 0.2 * exact
    assert abs(found.value - exact) < 4 * found.error


def test_trace_error_falls_as_the_root_of_the_vectors():
    net, x1, _ = setting()
    operator = NTKOperator(net, None, x1)
    few, many = (hutchinson_trace(operator, count).error for count in (100, 1600))
    assert few / many == pytest.approx(4, rel=0.3)


def test_trace_of_members():
    net, x1, _ = setting()
    weights = {n: torch.stack([p, 0.5 * p]).detach() for n, p in net.named_parameters()}
    found = hutchinson_trace(NTKOperator(net, weights, x1), 100)
    exact = empirical_ntk_diagonal(net, weights, x1, output="trace").sum(dim=1)
    assert (found.value - exact).abs().lt(4 * found.error).all()


def test_trace_of_a_diagonal_kernel_is_exact():
    """A linear model on orthogonal inputs: v^T K v is tr K for all signs."""
    net, x = lin(4, 1, bias=False).double(), torch.diag(torch.tensor([1.0, 2.0, 3.0, 0.0], dtype=torch.float64))
    found = hutchinson_trace(NTKOperator(net, None, x), 3)
    assert_close(found.value, torch.tensor(14.0, dtype=torch.float64))
    assert found.error < 1e-14


REFUSED = [
    (lambda o, p: o @ vector(11), r"a vector of shape \(11,\) .* expected \(12,\) or \(12, 'k'\)"),
    (lambda o, p: o @ vector(12, 2, 2), r"shape \(12, 2, 2\)"),
    (lambda o, p: p @ vector(12), r"shape \(12,\) .* expected \(2, 12\)"),
    (lambda o, p: p.to_scipy(), "no member axis, this one has 2: give one member"),
    (lambda o, p: top_eigenpairs(o, 1), "leave x2 out"),
    (lambda o, p: hutchinson_trace(o), "leave x2 out"),
]


@pytest.mark.parametrize(("work", "told"), REFUSED)
def test_refused_products(work, told):
    net, x1, x2 = setting()
    weights = {n: torch.stack([p, 0.5 * p]).detach() for n, p in net.named_parameters()}
    with pytest.raises(ConfigError, match=told):
        work(NTKOperator(net, None, x1, x2), NTKOperator(net, weights, x1, x2))


@pytest.mark.parametrize("count", [0, 15, -1])
def test_refused_counts(count):
    net, x1, _ = setting()
    with pytest.raises(ConfigError, match=rf"count is {count}, expected 1 to 14"):
        top_eigenpairs(NTKOperator(net, None, x1), count)
    with pytest.raises(ConfigError, match=r"at least 2 vectors, got 1"):
        hutchinson_trace(NTKOperator(net, None, x1), 1)


OPTIONS = [
    ({"layers": ["hidden.7"]}, r"layers names \['hidden.7'\]"),
    ({"vectors": 0}, "vectors is 0"),
    ({"x1": torch.zeros(0, 4)}, "no samples"),
    ({"x2": torch.zeros(0, 4)}, "no samples"),
]


@pytest.mark.parametrize(("options", "told"), OPTIONS)
def test_refused_options(options, told):
    net, x1, _ = setting()
    with pytest.raises(ConfigError, match=told):
        NTKOperator(net, None, **{"x1": x1, **options})


def test_refused_chunk():
    net, x1, _ = setting()
    with pytest.raises(ConfigError, match=r"chunk_size must be >= 1, .* got 0"):
        NTKOperator(net, None, x1, chunk_size=0) @ vector(15)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return 3 * ctx.saved_tensors[0] ** 2 * grad


class OnceForTransforms(Once):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])


@pytest.mark.parametrize("cube", [Once, OnceForTransforms])
@pytest.mark.parametrize("beside", [0.0, 1.0])
def test_networks_without_second_derivatives_are_told(cube, beside):
    """A second derivative would be zero without a word, here, or that of the other summand."""
    net = Lambda(lambda m, x: cube.apply(m.body(x)) + beside * m.body(x), body=lin(3, 2)).double()
    with pytest.raises(ConfigError, match=r"cannot be differentiated along a change of its weights .*: replace"):
        NTKOperator(net, None, vector(4, 3)) @ vector(8)
    own = jacobian(net, vector(4, 3))
    assert_close(empirical_ntk(net, None, vector(4, 3)), contracted(own, own, "full"))


def test_coupled_samples_are_refused():
    net = nn.Sequential(lin(3, 4), nn.BatchNorm1d(4), lin(4, 1))
    with pytest.raises(ConfigError, match=r"BatchNorm1d.* call model.eval"):
        NTKOperator(net, None, torch.zeros(3, 3))


def test_a_recurrent_network_has_products_for_one_member():
    net, x = recurrent().double(), vector(3, 3, 3)
    assert_close(NTKOperator(net, None, x) @ vector(6), dense(net, x) @ vector(6), rtol=1e-12)
