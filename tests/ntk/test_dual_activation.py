"""The dual of an activation against closed forms, independent quadrature, and what must hold for any phi."""

import itertools
import math

import numpy as np
import pytest
import torch
from closeness import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.activations import ACTIVATIONS, Activation, activation
from lazy_lightning.ntk.dual_activation import dual_activation, second_moments

SPECS = [*ACTIVATIONS, "softplus(1)", "softplus(20)"]
SMOOTH = [spec for spec in SPECS if spec != "relu"]
VARIANCES = torch.tensor([1e-3, 0.3, 1.0, 1.0, 2.5, 9.0], dtype=torch.float64)
CORRELATIONS = [0.0, 0.3, -0.6, 0.95, -0.999, 1 - 1e-9, 1.0, -1.0]


def normal(x):
    return special.ndtr(x), np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def softplus(beta):
    return lambda z: (np.logaddexp(beta * z, 0) / beta, special.expit(beta * z))


# phi and phi' by numpy and scipy, without the normalising constant.
SCIPY = {
    "erf": lambda z: (special.erf(z), 2 / math.sqrt(math.pi) * np.exp(-z * z)),
    "gelu": lambda z: (z * normal(z)[0], normal(z)[0] + z * normal(z)[1]),
    "linear": lambda z: (z, np.ones_like(z)),
    "softplus": softplus(5),
    "softplus(1)": softplus(1),
    "softplus(20)": softplus(20),
    "swish": lambda z: (z * special.expit(z), special.expit(z) * (1 + z * special.expit(-z))),
    "tanh": lambda z: (np.tanh(z), 1 / np.cosh(np.clip(z, -300, 300)) ** 2),
}


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def pair(phi, q1, q2, rho):
    """The dual of one pair, two numbers."""
    dual = dual_activation(phi, f64([[rho * math.sqrt(q1 * q2)]]), f64([q1]), f64([q2]))
    return float(dual.value), float(dual.slope)


def size(phi, q1, q2):
    """What no dual exceeds, by Cauchy and Schwarz: value and slope."""
    one, two = second_moments(phi, q1), second_moments(phi, q2)
    return tuple((a[:, None] * b).sqrt() for a, b in zip(one, two, strict=True))


def worst(phi, dual, expected, q1, q2):
    pairs = zip(dual, expected, size(phi, q1, q2), strict=True)
    return max(float(((a - b).abs() / s).max()) for a, b, s in pairs)


def trapezoids(functions, q1, q2, rho, step):
    """The plain trapezoidal rule in two independent coordinates: exact to exp(-2 pi d / step), d the nearest pole."""
    z = step * np.arange(-math.ceil(11 / step), math.ceil(11 / step) + 1)
    weights = np.exp(-z * z / 2)
    weights /= weights.sum()
    u, v = math.sqrt(q1) * z, math.sqrt(q2) * (rho * z[:, None] + math.sqrt(1 - rho * rho) * z)
    return [weights @ (fu[:, None] * fv) @ weights for fu, fv in zip(functions(u), functions(v), strict=True)]


@pytest.mark.parametrize("spec", SMOOTH)
@pytest.mark.parametrize(("q1", "q2", "rho"), [(1, 1, 0.3), (0.3, 2.5, -0.6), (1e-3, 1, 0.9), (2, 1, 1 - 1e-6)])
def test_two_dimensional_quadrature(spec, q1, q2, rho):
    phi = activation(spec)
    step = 0.02 if spec == "softplus(20)" else 0.06
    expected = [phi.scale**2 * e for e in trapezoids(SCIPY[spec], q1, q2, rho, step)]
    sizes = size(phi, f64([q1]), f64([q2]))
    for actual, exact, largest in zip(pair(phi, q1, q2, rho), expected, sizes, strict=True):
        assert actual == pytest.approx(exact, rel=0, abs=1e-13 * float(largest))


def test_dblquad():
    phi, q1, q2, rho = activation("tanh"), 0.7, 1.6, 0.4
    determinant = q1 * q2 * (1 - rho**2)

    def density(u, v):
        form = q2 * u * u - 2 * rho * math.sqrt(q1 * q2) * u * v + q1 * v * v
        return math.exp(-form / (2 * determinant)) / (2 * math.pi * math.sqrt(determinant))

    def integrand(u, v):
        return phi.scale**2 * math.tanh(u) * math.tanh(v) * density(u, v)

    expected, _ = integrate.dblquad(integrand, -10, 10, -7, 7, epsabs=1e-12, epsrel=1e-12)
    assert pair(phi, q1, q2, rho)[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("rho", CORRELATIONS)
def test_series_against_the_arcsine(rho):
    phi = activation("erf")
    c = rho * (VARIANCES[:, None] * VARIANCES[1:]).sqrt()
    series = dual_activation(Activation("not erf", phi.phi), c, VARIANCES, VARIANCES[1:])
    closed = dual_activation(phi, c, VARIANCES, VARIANCES[1:])
    assert worst(phi, series, closed, VARIANCES, VARIANCES[1:]) < 1e-14


@pytest.mark.parametrize("rho", [r for r in CORRELATIONS if abs(r) < 0.9999])
def test_series_against_the_arccosine(rho):
    phi = activation("relu")
    c = rho * (VARIANCES[:, None] * VARIANCES[1:]).sqrt()
    series = dual_activation(Activation("not relu", phi.phi), c, VARIANCES, VARIANCES[1:])
    closed = dual_activation(phi, c, VARIANCES, VARIANCES[1:])
    assert worst(phi, series, closed, VARIANCES, VARIANCES[1:]) < 1e-14


@pytest.mark.parametrize("rho", CORRELATIONS)
def test_series_against_sine(rho):
    phi = Activation("sine", torch.sin)
    c = rho * (VARIANCES[:, None] * VARIANCES).sqrt()
    damping = phi.scale**2 * torch.exp(-(VARIANCES[:, None] + VARIANCES) / 2)
    dual = dual_activation(phi, c, VARIANCES, VARIANCES)
    assert worst(phi, dual, (damping * c.sinh(), damping * c.cosh()), VARIANCES, VARIANCES) < 2e-14


@pytest.mark.parametrize("rho", [0.5, -0.9, 0.99])
def test_a_step_away_from_zero(rho):
    """Its coefficients oscillate in k, the worst case for summing an octave by few of its powers."""
    phi = Activation("step", lambda z: torch.tanh(6 * (z - 0.7)))
    expected = trapezoids(lambda z: (np.tanh(6 * (z - 0.7)), 6 / np.cosh(6 * (z - 0.7)) ** 2), 1.0, 1.5, rho, 0.03)
    for actual, exact in zip(pair(phi, 1.0, 1.5, rho), expected, strict=True):
        assert actual == pytest.approx(phi.scale**2 * exact, abs=3e-14)


@pytest.mark.parametrize(("steepness", "place"), [(300, 2.0), (30, 2.0)])
def test_a_step_away_from_zero_too_steep_for_the_nodes_is_refused(steepness, place):
    phi = Activation("step", lambda z: torch.tanh(steepness * (z - place)))
    with pytest.raises(ConfigError, match="'step' is too rough"):
        pair(phi, 1.0, 1.5, 0.5)


@pytest.mark.parametrize("spec", SPECS)
def test_normalised_at_unit_variance(spec):
    phi, one = activation(spec), f64([1.0])
    assert second_moments(phi, one).value.item() == pytest.approx(1, rel=1e-14)
    assert dual_activation(phi, one[:, None], one).value.item() == pytest.approx(1, rel=1e-14)
    assert pair(phi, 1.0, 1.0, 1.0)[0] == pytest.approx(1, rel=1e-14)


@pytest.mark.parametrize("spec", SPECS)
def test_parallel_pairs_have_the_one_dimensional_moments(spec):
    """On the diagonal of one set to the bit; between two sets to rounding, relu's angle of zero too."""
    phi = activation(spec)
    c = VARIANCES.sqrt()[:, None] * VARIANCES.sqrt()
    moments = second_moments(phi, VARIANCES)
    one_set, two_sets = dual_activation(phi, c, VARIANCES), dual_activation(phi, c, VARIANCES, VARIANCES)
    for own, cross, moment in zip(one_set, two_sets, moments, strict=True):
        assert torch.equal(own.diagonal(), moment)
        assert ((cross.diagonal() - moment) / moment).abs().max() < 1e-13


@pytest.mark.parametrize("spec", SMOOTH)
def test_second_moments_against_scipy(spec):
    phi = activation(spec)
    z = 0.005 * np.arange(-2400, 2401)
    weights = np.exp(-z * z / 2) / np.exp(-z * z / 2).sum()
    for q in (1e-3, 1.0, 9.0):
        moments = second_moments(phi, f64([q]))
        for actual, values in zip(moments, SCIPY[spec](math.sqrt(q) * z), strict=True):
            assert actual.item() == pytest.approx(phi.scale**2 * (weights @ values**2), rel=3e-14)


@pytest.mark.parametrize("spec", SPECS)
def test_slope_is_the_derivative_in_the_covariance(spec):
    phi, q1, q2, step = activation(spec), 0.8, 1.7, 0.04
    around = [pair(phi, q1, q2, (0.5 + k * step) / math.sqrt(q1 * q2))[0] for k in range(-3, 4)]
    weights = np.array([-1, 9, -45, 0, 45, -9, 1]) / 60 / step
    assert pair(phi, q1, q2, 0.5 / math.sqrt(q1 * q2))[1] == pytest.approx(weights @ around, rel=1e-7)


@pytest.mark.parametrize("spec", SPECS)
def test_zero_variance_is_a_constant(spec):
    """A sample of zeros without bias: u = 0, so the pair is phi(0) E[phi(v)]."""
    phi = activation(spec)
    dual = dual_activation(phi, f64([[0.0], [0.0]]), f64([0.0, 1.0]), f64([1.0]))
    z = torch.zeros((), dtype=torch.float64)
    mean = math.sqrt(dual.value[1].item())  # rho = 0
    assert dual.value[0].item() == pytest.approx(float(phi(z)) * mean, abs=1e-14)
    assert second_moments(phi, f64([0.0])).value.item() == pytest.approx(float(phi(z)) ** 2, rel=1e-14)


@settings(max_examples=20)
@given(
    st.sampled_from(ACTIVATIONS),
    st.integers(1, 6),
    st.integers(1, 4),
    st.floats(-3, 1),
    st.integers(0, 2**31),
    st.booleans(),
)
def test_one_set_is_symmetric_and_positive(spec, n, d, log_size, seed, twice):
    generator = torch.Generator().manual_seed(seed)
    x = math.exp(log_size / 2) * torch.randn(n, d, dtype=torch.float64, generator=generator)
    x = torch.cat([x, x]) if twice else x
    c = x @ x.mT
    dual = dual_activation(activation(spec), (c + c.mT) / 2, c.diagonal())
    cross = dual_activation(activation(spec), (c + c.mT) / 2, c.diagonal(), c.diagonal())
    for kernel, other in zip(dual, cross, strict=True):
        assert torch.equal(kernel, kernel.mT)
        assert torch.linalg.eigvalsh(kernel)[0] >= -1e-13 * kernel.trace()
        assert_close(other, kernel, rtol=1e-7 if spec == "relu" else 5e-14)  # relu: rho has half the angle's digits


def test_tiles_and_prefixes_do_not_matter():
    """A pair does not feel the others, whatever the tile it falls in."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 6, dtype=torch.float64, generator=generator)
    c, q = x @ x.mT / 6, x.square().sum(1) / 6
    phi = activation("softplus(5)")
    whole = dual_activation(phi, c, q)
    some = dual_activation(phi, c[390:, 5:9], q[390:], q[5:9])
    for kernel, part in zip(whole, some, strict=True):
        assert_close(part, kernel[390:, 5:9], rtol=3e-14)


def test_sharp_softplus_approaches_relu():
    gaps = []
    for beta in (5, 10, 20, 40):
        soft, hard = (pair(activation(spec), 1.0, 1.3, 0.9)[0] for spec in (f"softplus({beta})", "relu"))
        gaps.append(abs(soft - hard))
    assert all(after < 0.5 * before for before, after in itertools.pairwise(gaps))


def test_too_rough_is_refused():
    with pytest.raises(ConfigError, match=r"'softplus\(1000\)' is too rough.* 65536 Hermite terms leave"):
        pair(activation("softplus(1000)"), 1.0, 1.0, 1.0)


def test_not_finite_is_refused():
    with pytest.raises(ConfigError, match="nan"):
        pair(activation("tanh"), math.nan, 1.0, 0.0)


def test_shapes_that_do_not_fit():
    with pytest.raises(ConfigError, match=r"covariances of shape \(2, 3\) came with variances of shapes \(2,\)"):
        dual_activation(activation("relu"), torch.ones(2, 3), torch.ones(2))


def test_in_inference_mode_and_float32():
    with torch.inference_mode():
        c, q = torch.full((2, 2), 0.5), torch.ones(2)
        dual = dual_activation(activation("swish"), c, q)
    assert dual.value.dtype == dual.slope.dtype == torch.float64
    assert_close(dual.value[0, 1], f64(pair(activation("swish"), 1.0, 1.0, 0.5)[0]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("spec", SPECS)
def test_cuda_equals_cpu(spec):
    phi = activation(spec)
    c = 0.9 * (VARIANCES[:, None] * VARIANCES).sqrt()
    on_cpu, on_gpu = (dual_activation(phi, c.to(d), VARIANCES.to(d), VARIANCES.to(d)) for d in ("cpu", "cuda"))
    for a, b in zip(on_gpu, on_cpu, strict=True):
        assert a.is_cuda
        assert_close(a.cpu(), b, rtol=3e-14)
