"""The collapse of curves against a brute-force quality and known exponents."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulations import coverage

from lazy_lightning.analysis import Curve, collapse_exponent, collapse_quality
from lazy_lightning.analysis.collapse import minima
from lazy_lightning.analysis.student import widening
from lazy_lightning.errors import AnalysisError

NAN = np.nan
WIDTHS = (30.0, 100.0, 300.0)
X = np.logspace(-3, 2, 11)


def master(z):
    """The kernel drift against sqrt(h) alpha."""
    return 1 / (1 + z)


def curves(seeds=5, noise=0.05, shared=False, rng=None, x=X, exponent=0.5, function=master, widths=WIDTHS):
    rng = rng or np.random.default_rng(0)
    return [
        Curve(
            h, x, function(h**exponent * x)[:, None] * np.exp(noise * rng.normal(size=(1 if shared else len(x), seeds)))
        )
        for h in widths
    ]


# ---------------------------------------------------------------------- quality


def errors_of(curve):
    """Covariances of the means of log y, drawn to their means over the curve as 10 to s - 1."""
    own = np.cov(np.log(curve.y)) / curve.y.shape[1]
    s = curve.y.shape[1] - 1
    return [(s * d + 10 * d.mean()) / (s + 10) for d in (np.diagonal(own), np.diagonal(own, 1))]


def brute_quality(curves, exponent):
    terms, differences, compared = [], [], 0
    for one in curves:
        for i in range(len(one.x)):
            found = 0
            for other in curves:
                if other is one:
                    continue
                u = np.log(one.x[i]) + exponent * np.log(one.h / other.h)
                v = np.log(other.x)
                if not v[0] <= u <= v[-1]:
                    continue
                left = min(np.searchsorted(v, u, side="right") - 1, len(v) - 2)
                t = (u - v[left]) / (v[left + 1] - v[left])
                variances, covariances = errors_of(other)
                variance = errors_of(one)[0][i] + (1 - t) ** 2 * variances[left] + t**2 * variances[left + 1]
                variance += 2 * t * (1 - t) * covariances[left]
                differences.append(np.log(one.y[i]).mean() - np.interp(u, v, np.log(other.y).mean(axis=1)))
                terms.append(differences[-1] ** 2 / variance)
                found = 1
            compared += found
    return np.mean(terms), np.sqrt(np.mean(np.square(differences))) / np.log(10), compared


@pytest.mark.parametrize("exponent", [0.0, 0.37, 0.5, -1.3])
@pytest.mark.parametrize("shared", [False, True])
def test_quality_is_its_definition(exponent, shared):
    given = curves(shared=shared)
    found = collapse_quality(given, exponent=exponent)
    value, rms, points = brute_quality(given, exponent)
    assert found.value == pytest.approx(value, rel=1e-10)
    assert found.rms_decades == pytest.approx(rms, rel=1e-10)
    assert found.points == points
    assert str(found).endswith(f"{points} points)")


@pytest.mark.parametrize(("seeds", "shared", "expected"), [(5, False, 1.0), (20, False, 1.0), (5, True, 4 / 3)])
def test_quality_of_a_collapse_is_one(seeds, shared, expected):
    """On power laws, which interpolation does not bend. Student's t^2 of 8 degrees of freedom has mean 8/6."""
    rng = np.random.default_rng(1)
    laws = {"function": lambda z: 1 / z, "shared": shared, "rng": rng, "seeds": seeds}
    found = np.array([collapse_quality(curves(**laws), exponent=0.5).value for _ in range(150)])
    assert found.mean() == pytest.approx(expected, abs=4 * found.std() / np.sqrt(150))
    assert found.std() / np.sqrt(150) < 0.15


def test_curves_that_lie_apart_have_a_large_quality():
    apart = collapse_quality(curves(), exponent=0.0)
    together = collapse_quality(curves(), exponent=0.5)
    assert apart.value > 100 > 5 > together.value
    assert together.rms_decades < 0.05 < apart.rms_decades
    h = np.array(WIDTHS)
    against_z = [Curve(c.h, np.sqrt(h[i]) * X, c.y) for i, c in enumerate(curves())]
    assert collapse_quality(against_z).value == pytest.approx(together.value, rel=1e-8)


def test_rms_is_that_of_a_shift():
    given = [Curve(h, X, h * np.exp(0.01 * np.arange(3)) * np.ones((11, 1))) for h in (10.0, 100.0)]
    assert collapse_quality(given).rms_decades == pytest.approx(1, rel=1e-12)


# ---------------------------------------------------------------------- exponent


@pytest.mark.parametrize("exponent", [0.5, -0.3, 1.2])
def test_the_exponent_is_found(exponent):
    found = collapse_exponent(curves(seeds=8, exponent=exponent))
    assert abs(found.value - exponent) < 2.5 * found.error
    assert found.error < 0.03
    # 0.4 decades of curvature a point are left by the interpolation; the seeds' errors are 2 %.
    assert found.quality < 3
    assert found.rms_decades < 0.03


def test_a_law_without_noise_to_speak_of():
    found = collapse_exponent(curves(noise=1e-4, function=lambda z: z**-1.0))
    assert found.value == pytest.approx(0.5, abs=3e-4)
    assert found.error == pytest.approx(1e-3, rel=0.05)  # the resolution
    assert found.rms_decades < 1e-4


@pytest.mark.parametrize("seeds", [3, 8])
@pytest.mark.parametrize("shared", [False, True])
def test_two_errors_cover_the_exponent(shared, seeds):
    def estimate(rng):
        given = curves(seeds, 0.1, shared, rng)
        found = collapse_exponent(given, bounds=(0.3, 0.7), resamples=60)
        return found.value, found.error

    found = coverage(estimate, 0.5, simulations=80)
    assert found.share > 0.9  # 95.4 % expected, more where the quality happens to be above 1
    assert 0.8 < found.error / found.deviation < 2 * widening(3 * (seeds - 1))
    assert abs(found.bias) < 4


def test_curves_that_do_not_collapse_have_a_larger_error():
    """Finite-width corrections that no exponent takes away: heights that differ by 30 %."""
    given = curves(noise=0.02)
    bad = [Curve(c.h, c.x, np.asarray(c.y) * (1.3 if c.h == 100 else 1.0)) for c in given]
    good, worse = collapse_exponent(given), collapse_exponent(bad)
    assert worse.quality > 100 > 20 * good.quality
    # In the power law, 30 % in height are 0.26/(ln 10)/2 in the exponent between the widths.
    assert 0.03 < worse.error < 0.3
    assert good.error < 0.01


def test_few_points_far_apart_do_not_win():
    """Bumps of different heights between equal ends: the ends alone would agree better than the bumps."""
    rng, x = np.random.default_rng(4), np.logspace(-2, 2, 17)
    bumps = []
    for h, height in ((30.0, 1.0), (300.0, 1.1)):
        y = 1 + height * np.exp(-2 * np.log(x * np.sqrt(h / 95)) ** 2)
        bumps.append(Curve(h, x, y[:, None] * np.exp(0.02 * rng.normal(size=(17, 5)))))
    far = collapse_quality(bumps, exponent=3.2)
    found = collapse_exponent(bumps, bounds=(-3.5, 3.5))
    assert far.value < found.quality
    assert far.points <= 8
    assert abs(found.value - 0.5) < 2.5 * found.error < 0.5


def test_the_best_exponent_has_the_best_quality():
    given = curves()
    best = collapse_exponent(given)
    assert best.quality == collapse_quality(given, exponent=best.value).value
    assert best.rms_decades == collapse_quality(given, exponent=best.value).rms_decades
    for exponent in np.linspace(0.3, 0.7, 41):
        assert collapse_quality(given, exponent=exponent).value > best.quality - 0.02  # of a parabola through steps


def test_minima_lie_between_the_steps():
    at = np.linspace(-1, 1, 21)
    centres = np.array([-0.93, 0.0, 0.512])
    assert minima(at, 3 + (at - centres[:, None]) ** 2) == pytest.approx(centres, abs=1e-12)
    inf = np.inf
    values = np.array(
        [[inf, 1, 2, 3, inf], [inf, 3, 2, 1, inf], [1, 2, inf, inf, inf], [2, 1, 1, 2, 3], [1, 1, 1, 1, 1]]
    )
    assert minima(np.arange(5.0), values) == pytest.approx([-inf, inf, -inf, 1.5, -inf])


# ---------------------------------------------------------------------- invariances


@given(seed=st.integers(0, 10**6), a=st.floats(1e-4, 1e4), b=st.floats(1e-4, 1e4), c=st.floats(1e-2, 1e2))
def test_units_do_not_matter(seed, a, b, c):
    given = curves(3, rng=np.random.default_rng(seed), x=X[::2])
    scaled = [Curve(c * h, a * x, b * y) for h, x, y in given]
    one, other = (collapse_quality(g, exponent=0.47) for g in (given, scaled))
    assert other == pytest.approx(one, rel=1e-7)
    one, other = (collapse_exponent(g, bounds=(0.4, 0.6), resamples=50) for g in (given, scaled))
    assert other == pytest.approx(one, rel=1e-6)


@given(seed=st.integers(0, 10**6))
def test_no_order_matters(seed):
    rng = np.random.default_rng(seed)
    given = curves(4, rng=rng, x=X[::2])
    for curve in given:
        curve.y[rng.random(curve.y.shape) < 0.1] = NAN
    moved = []
    for i in rng.permutation(3):
        rows = rng.permutation(len(given[i].x))
        moved.append(Curve(given[i].h, given[i].x[rows], given[i].y[rows][:, rng.permutation(4)]))
    options = {"bounds": (0.4, 0.6), "resamples": 50}
    assert collapse_exponent(moved, **options) == collapse_exponent(given, **options)


def test_widths_may_have_sweeps_and_seeds_of_their_own():
    rng = np.random.default_rng(3)
    given = []
    for h, points, seeds in ((30.0, 9, 4), (100.0, 14, 7), (300.0, 11, 3)):
        x = np.logspace(-2.5, 1.5, points)
        y = master(np.sqrt(h) * x)[:, None] * np.exp(0.05 * rng.normal(size=(points, seeds)))
        y[3, 0] = NAN
        given.append(Curve(h, x, y))
    found = collapse_exponent(given)
    assert abs(found.value - 0.5) < 2.5 * found.error < 0.1


def test_points_that_one_seed_has_reached_are_left_out():
    given = curves(4)
    spoilt = [Curve(c.h, c.x, np.array(c.y)) for c in given]
    spoilt[1].y[4] = [1e6, NAN, NAN, NAN]
    without = [*given]
    without[1] = Curve(100.0, np.delete(X, 4), np.delete(given[1].y, 4, axis=0))
    assert collapse_quality(spoilt, exponent=0.5) == collapse_quality(without, exponent=0.5)


# ---------------------------------------------------------------------- refusals


def apart():
    return [Curve(h, h**10 * X, curve.y) for h, curve in zip(WIDTHS, curves(), strict=True)]


def flat(seed=0):
    rng = np.random.default_rng(seed)
    return [Curve(h, X, h**0.3 * np.exp(0.01 * rng.normal(size=(11, 4)))) for h in WIDTHS]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: collapse_quality(apart()), r"curve of h = 30, x from 5.9.* to 5.9.*, .* 0 points against h\^0 x"),
        (lambda: collapse_exponent(apart(), bounds=(0.0, 1.0)), r"expected 3 at least: extend the sweeps"),
        (lambda: collapse_exponent(curves(), bounds=(0.6, 1.0)), "best at the smallest exponent"),
        (lambda: collapse_exponent(curves(), bounds=(0.0, 0.4)), "best at the largest exponent"),
        (lambda: collapse_exponent(curves(), bounds=(0.5, 0.5)), "bounds are"),
        (lambda: collapse_exponent(curves(), bounds=(1.0, 0.0)), "bounds are"),
        (lambda: collapse_exponent(curves(), resamples=1), "resamples is 1"),
        (lambda: collapse_quality(curves()[:1]), r"widths are \[30.0\], expected two"),
        (lambda: collapse_quality([]), r"widths are \[\]"),
        (lambda: collapse_quality(curves()[:1] * 2), "each once"),
        (lambda: collapse_quality(curves(widths=(-1.0, 1.0), exponent=0)), "positive"),
        (lambda: collapse_quality(curves(seeds=1)), "Curve of h = 30: it has 1 seeds, expected two"),
        (lambda: collapse_quality(curves(noise=0)), "Curve of h = 30: all its seeds are equal"),
        (lambda: collapse_quality(curves(x=X[:1])), "it has 1 points"),
        (lambda: collapse_quality(curves(x=np.append(X, X[0]))), "x = 0.001 occurs twice"),
        (lambda: collapse_quality(curves(function=lambda z: z - z)), r"h = 30: y\[0, 0\] is 0"),
    ],
)
def test_refused_collapses(call, message):
    with pytest.raises(AnalysisError, match=message):
        call()


def test_flat_curves_have_no_certain_exponent():
    """They lie one above the other whatever the exponent: refused, or of a quality that tells."""
    for seed in range(5):
        try:
            found = collapse_exponent(flat(seed), resamples=50)
        except AnalysisError:
            continue
        assert found.quality > 100
        assert found.error == np.inf
