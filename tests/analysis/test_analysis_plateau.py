"""Plateaus: the criterion by brute force, true plateaus kept, changes found."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from simulations import tried

from lazy_lightning.analysis import plateau
from lazy_lightning.analysis.student import widening
from lazy_lightning.errors import AnalysisError

NAN = np.nan
X = np.logspace(0, 5, 11)
SEEDS = np.array([-0.01, 0.0, 0.004, 0.01])


def noisy(rng, seeds, x=X, noise=0.01, offsets=0.0, falls=0.0):
    return 0.1 + falls / x[:, None] + noise * rng.normal(size=(len(x), seeds)) + offsets * rng.normal(size=seeds)


def start_of(x, y, **options):
    """Infinite where there is no plateau."""
    found = tried(plateau, x, y, **options)
    return found.start if found else np.inf


# ---------------------------------------------------------------------- the criterion


def brute_start(x, y, sigmas):
    """Contrast after contrast, each by its own paired t-test against the pooled noise."""
    s = y.shape[1]
    for first in range(len(x) - 2):
        z, u = y[first:], np.log(x[first:])
        n = len(u)
        noise = z - z.mean(axis=0) - z.mean(axis=1, keepdims=True) + z.mean()
        dof = (n - 1) * (s - 1)
        confidence = (2 * stats.norm.cdf(sigmas) - 1) ** (1 / (n + 1))
        slope, height = np.polyfit(u - u.mean(), z.mean(axis=1), 1)
        contrasts = [(z[i].mean() - z.mean(), np.eye(n)[i] - 1 / n) for i in range(n)]
        farthest = np.abs(u - u.mean()).max()
        contrasts.append((slope * farthest, farthest * (u - u.mean()) / ((u - u.mean()) ** 2).sum()))
        assert height == pytest.approx(z.mean())
        seeds = stats.sem(z.mean(axis=0))
        for change, weights in contrasts:
            error = np.sqrt((noise**2).sum() / dof * (weights**2).sum() / s)
            if abs(change) > max(stats.t.ppf((1 + confidence) / 2, dof) * error, seeds):
                break
        else:
            return x[first]
    return np.inf


@pytest.mark.parametrize("seeds", [2, 5])
@pytest.mark.parametrize("sigmas", [1.0, 2.0])
def test_the_stretch_is_that_of_its_definition(seeds, sigmas):
    rng = np.random.default_rng(0)
    starts = []
    for offsets in (0.0, 0.03):
        for falls in (0.0, 0.1, 0.5):
            for _ in range(12):
                y = noisy(rng, seeds, offsets=offsets, falls=falls)
                starts.append(start_of(X, y, sigmas=sigmas))
                assert starts[-1] == brute_start(X, y, sigmas)
    assert len(set(starts)) > 4


def test_what_is_reported():
    y = 0.2 + 0.3 / X[:, None] + SEEDS  # changes are below the error of the mean, 0.0042, from x = 100 on
    found = plateau(X, y)
    assert (found.start, found.end, found.points, found.seeds) == (X[4], X[-1], 7, 4)
    assert found.decades == pytest.approx(3, rel=1e-12)
    assert found.value == pytest.approx(y[4:].mean(), rel=1e-14)
    assert found.error == pytest.approx(widening(3) * stats.sem(SEEDS), rel=1e-10)
    assert str(found) == f"{found.value:.4f} ± {found.error:.4f} over 3 decades"


# ---------------------------------------------------------------------- true plateaus, and none


@pytest.mark.parametrize("seeds", [2, 5, 20])
@pytest.mark.parametrize("offsets", [0.0, 0.03])
@pytest.mark.parametrize("points", [4, 11])
def test_a_true_plateau_is_seldom_cut_and_its_value_covered(points, offsets, seeds):
    rng, x = np.random.default_rng(1), X[:points]
    found = []
    for _ in range(150):
        y = noisy(rng, seeds, x, offsets=offsets)
        if start_of(x, y) == x[0]:
            found.append(plateau(x, y))
    assert len(found) > 0.89 * 150  # 95.4 % expected where changes must be resolved, a standard deviation is 1.7 %
    assert np.mean([abs(p.value - 0.1) < 2 * p.error for p in found]) > 0.9


@pytest.mark.parametrize(("seeds", "latest"), [(3, 110.0), (20, 320.0)])
def test_a_fall_is_not_part_of_it(seeds, latest):
    """0.5/x against noise of 0.01: resolved below x = 50 or so, and with more seeds somewhat above."""
    rng = np.random.default_rng(2)
    starts = np.array([start_of(X, noisy(rng, seeds, falls=0.5)) for _ in range(100)])
    assert np.quantile(starts, 0.1) > 20
    assert np.quantile(starts, 0.9) < latest


def test_changes_are_judged_by_paired_differences():
    """Offsets of the seeds hide no change that is larger than the error of their mean."""
    rng = np.random.default_rng(3)
    offsets = 0.05 * (np.arange(20) - 9.5) / np.std(np.arange(20))  # the mean is known to 0.011
    y = noisy(rng, 20, noise=1e-3, falls=0.1)
    assert plateau(X, y).start > 30
    assert plateau(X, y + offsets).start == pytest.approx(10.0)  # a change of 0.009 is smaller, of 0.03 larger


def test_lazy_seeds_have_a_plateau_however_well_their_changes_are_resolved():
    """Each seed goes to its limit as 1/x: changes and their paired errors fall alike."""
    rng = np.random.default_rng(4)
    y = 0.2 + 0.01 * rng.normal(size=10) + (0.5 + 0.1 * rng.normal(size=10)) / X[:, None]
    found = plateau(X, y)
    assert 30 < found.start < 1000
    assert found.points >= 5


def test_a_slow_drift_is_seen_by_the_line_through_all_points():
    """Each point alone is within its errors of the mean."""
    noise = np.random.default_rng(5).normal(size=(len(X), 8))
    noise -= noise.mean(axis=1, keepdims=True)
    noise -= noise.mean(axis=0)
    error = np.sqrt((noise**2).sum() / 70 / 8)  # 2.9 of these are allowed to each of 11 normal numbers
    y = 0.1 + 2 * error * np.linspace(-1, 1, len(X))[:, None] + noise
    assert plateau(X, y).start > X[0]
    steps = 2 * error * np.where(np.arange(len(X)) % 2, 1, -1)[:, None]  # as far from the mean, but no drift
    assert plateau(X, 0.1 + steps + noise).start == X[0]


def test_sigmas_widen_the_plateau():
    y = noisy(np.random.default_rng(6), 8, falls=0.5)
    assert plateau(X, y, sigmas=6.0).start < plateau(X, y, sigmas=2.0).start


# ---------------------------------------------------------------------- corner cases


def test_equal_data_are_a_plateau():
    for value in (0.1, 0.0, -3.0, 1e-300):
        found = plateau(X, np.full((11, 4), value))
        assert (found.value, found.points) == (pytest.approx(value, rel=1e-12), 11)
        assert found.error < 1e-15
    found = plateau(X, np.tile(SEEDS, (11, 1)))
    assert found.points == 11


def test_a_step_ends_it():
    y = np.where(X[:, None] < 50, 0.3, 0.2) + 0.1 * SEEDS
    assert plateau(X, y).start == pytest.approx(100)


def test_missing_seeds():
    rng = np.random.default_rng(7)
    y = noisy(rng, 6)
    padded = np.full((11, 8), NAN)
    padded[:, [0, 2, 3, 4, 6, 7]] = y
    assert plateau(X, padded) == plateau(X, y)
    padded[0, 0] = NAN  # this seed has no part in the whole stretch
    assert plateau(X, padded) == plateau(X, y[:, 1:])


@given(seed=st.integers(0, 10**6), a=st.floats(1e-4, 1e4), b=st.floats(1e-4, 1e4), sign=st.sampled_from([-1, 1]))
def test_units_do_not_matter(seed, a, b, sign):
    y = noisy(np.random.default_rng(seed), 4, falls=0.3)
    found, scaled = tried(plateau, X, y), tried(plateau, a * X, sign * b * y)
    if found is None or scaled is None:
        assert found is scaled
        return
    assert scaled.points == found.points
    assert scaled.value == pytest.approx(sign * b * found.value, rel=1e-10)
    assert scaled.error == pytest.approx(b * found.error, rel=1e-8)
    assert scaled.start == pytest.approx(a * found.start, rel=1e-14)
    assert scaled.decades == pytest.approx(found.decades, rel=1e-12)


@given(seed=st.integers(0, 10**6), shift=st.floats(-1.0, 1.0))
def test_an_offset_moves_the_value_alone(seed, shift):
    y = noisy(np.random.default_rng(seed), 4, falls=0.3)
    found, shifted = tried(plateau, X, y), tried(plateau, X, y + shift)
    if found is None or shifted is None:
        assert found is shifted
        return
    assert shifted.value == pytest.approx(found.value + shift, abs=1e-12)
    assert shifted.error == pytest.approx(found.error, rel=1e-8)
    assert shifted.points == found.points


@given(seed=st.integers(0, 10**6))
def test_the_order_of_points_and_seeds_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    y = noisy(rng, 5, falls=0.3)
    rows, columns = rng.permutation(11), rng.permutation(5)
    assert tried(plateau, X[rows], y[rows][:, columns]) == tried(plateau, X, y)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plateau(X, X[:, None] + SEEDS), "no plateau: of 11 points .* within 2 errors; extend .* to larger x"),
        (lambda: plateau(X[:2], np.ones((2, 3))), "no plateau: of 2 points"),
        (lambda: plateau(X, np.ones(11)), "two at least, got 1"),
        (lambda: plateau(X, np.full((11, 3), NAN)), "two at least, got 0"),
        (lambda: plateau(X, np.full((11, 3), np.inf)), r"y\[0, 0\] is inf"),
        (lambda: plateau(X, np.ones((11, 3)), sigmas=0.0), "sigmas is 0.0"),
        (lambda: plateau([1.0, 2.0, 2.0], np.ones((3, 3))), "x = 2 occurs twice"),
    ],
)
def test_refused_plateaus(call, message):
    with pytest.raises(AnalysisError, match=message):
        call()
