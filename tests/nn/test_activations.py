import copy
import itertools
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, jvp, vmap

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.activations import ACTIVATIONS, Softplus, activation, second_moment

# Torch's own forward differentiation scripts some decompositions when it is first used.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")

SPECS = [*ACTIVATIONS, "softplus(1)", "softplus(50)"]
SCIPY = {
    "softplus": lambda z: special.log1p(math.exp(-abs(5 * z))) / 5 + max(z, 0.0),
    "swish": lambda z: z * special.expit(z),
    "tanh": math.tanh,
    "erf": math.erf,
    "gelu": lambda z: z * special.ndtr(z),
    "relu": lambda z: max(z, 0.0),
    "linear": lambda z: z,
}
CLOSED = {
    "relu": 0.5,
    "linear": 1.0,
    "erf": 2 / math.pi * math.asin(2 / 3),
    "gelu": 1 / 3 + 1 / (2 * math.pi * math.sqrt(3)),
}


def quad_moment(phi):
    def integrand(z):
        return phi(z) ** 2 * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    sides = [integrate.quad(integrand, *side, epsabs=0, epsrel=1e-13, limit=200) for side in ((-13, 0), (0, 13))]
    return sum(value for value, _ in sides)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_scale_against_scipy(name):
    assert activation(name).scale == pytest.approx(quad_moment(SCIPY[name]) ** -0.5, rel=3e-14)


@pytest.mark.parametrize("name", CLOSED)
def test_quadrature_against_closed_forms(name):
    assert second_moment(activation(name).phi) == pytest.approx(CLOSED[name], rel=1e-14)
    assert activation(name).scale == pytest.approx(CLOSED[name] ** -0.5, rel=1e-15)


@pytest.mark.parametrize("degree", range(0, 9))
def test_quadrature_of_monomials(degree):
    expected = math.prod(range(1, 2 * degree, 2))
    assert second_moment(lambda z: z**degree) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("beta", [1e-3, 0.1, 5.0, 100.0, 1e4, 1e6])
def test_sharp_and_flat_softplus(beta):
    def phi(z):
        return (math.log1p(math.exp(-abs(beta * z))) + max(beta * z, 0.0)) / beta

    cuts = [-13, -1, -40 / beta, 0, 40 / beta, 1, 13] if beta > 40 else [-13, 0, 13]
    density = 1 / math.sqrt(2 * math.pi)
    expected = sum(
        integrate.quad(lambda z: density * phi(z) ** 2 * math.exp(-z * z / 2), a, b, epsabs=0, epsrel=1e-12, limit=200)[
            0
        ]
        for a, b in itertools.pairwise(cuts)
    )
    assert Softplus(beta).scale == pytest.approx(expected**-0.5, rel=1e-12)


@pytest.mark.parametrize("spec", SPECS)
def test_normalised_and_shaped(spec):
    phi = activation(spec)
    assert second_moment(phi) == pytest.approx(1.0, rel=1e-14)
    for dtype in (torch.float32, torch.float64):
        out = phi(torch.zeros(2, 3, 4, dtype=dtype))
        assert out.shape == (2, 3, 4)
        assert out.dtype == dtype


@pytest.mark.parametrize("spec", SPECS)
def test_derivatives_to_second_order(spec):
    phi = activation(spec)
    z = torch.tensor([-3.0, -0.7, 0.2, 1.3], dtype=torch.float64, requires_grad=True)
    assert gradcheck(phi, z, check_forward_ad=True)
    if spec != "linear":
        assert gradgradcheck(phi, z)


@pytest.mark.parametrize("spec", SPECS)
def test_torch_func(spec):
    phi = activation(spec)
    z = torch.linspace(-2.1, 2, 12, dtype=torch.float64).reshape(3, 4)
    torch.testing.assert_close(vmap(phi)(z), phi(z), rtol=1e-15, atol=0)
    slope = vmap(vmap(grad(phi)))(z)
    torch.testing.assert_close(jvp(phi, (z,), (torch.ones_like(z),))[1], slope, rtol=1e-13, atol=1e-15)
    # A Hessian-vector product, forward over reverse.
    _, curvature = jvp(grad(lambda z: phi(z).sum()), (z,), (torch.ones_like(z),))
    assert curvature.isfinite().all()


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("factor", [1.0, 0.125, 3.7])
def test_absorb(spec, factor):
    phi = activation(spec)
    u = torch.linspace(-4, 4, 33, dtype=torch.float64)
    a, c = phi.absorb(u, factor)
    torch.testing.assert_close(c * a, phi(factor * u), rtol=1e-14, atol=1e-16)


def test_softplus_keeps_full_precision_beyond_torch_threshold():
    z = torch.tensor([4.2, 5.0, 6.0, 9.0], dtype=torch.float64)  # beta z from 21 to 45
    phi = activation("softplus(5)")
    expected = z + torch.log1p(torch.exp(-5 * z)) / 5
    torch.testing.assert_close(phi(z) / phi.scale, expected, rtol=2e-16, atol=0)
    tail = torch.tensor([-10.0], dtype=torch.float64)
    torch.testing.assert_close(phi(tail) / phi.scale, torch.exp(5 * tail) / 5, rtol=1e-14, atol=0)


def test_copies_and_pickles():
    for name in ACTIVATIONS:
        phi = activation(name)
        z = torch.randn(5)
        for other in (copy.deepcopy(phi), pickle.loads(pickle.dumps(phi))):  # noqa: S301
            assert torch.equal(other(z), phi(z))


@settings(max_examples=25, deadline=None)
@given(st.floats(0.01, 1000))
def test_softplus_spec_round_trip(beta):
    for text in (f"softplus({beta!r})", f"softplus(beta={beta!r})", f" softplus ( beta = {beta!r} ) "):
        assert activation(text).beta == beta
    assert activation(activation(f"softplus({beta!r})").name).beta == beta


def test_default_beta_and_passthrough():
    assert activation("softplus").beta == 5.0
    phi = activation("relu")
    assert activation(phi) is phi
    assert "relu" in repr(phi)


@pytest.mark.parametrize("spec", ["sotfplus", "", "softplus(5", "relu[2]", "softplus(a=5)"])
def test_unknown_names_list_the_known(spec):
    with pytest.raises(ConfigError, match=r"erf, gelu, linear, relu, softplus, swish, tanh"):
        activation(spec)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("relu(5)", "only softplus"),
        ("softplus(x)", "not a number"),
        ("softplus(0)", "positive"),
        ("softplus(-1)", "positive"),
        ("softplus(inf)", "positive"),
        ("softplus(nan)", "positive"),
    ],
)
def test_bad_parameters(spec, words):
    with pytest.raises(ConfigError, match=words):
        activation(spec)
