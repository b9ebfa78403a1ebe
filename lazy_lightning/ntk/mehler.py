"""Mehler's expansion of E[f(u) f(v)] over Gaussian pairs, in orthonormal Hermite polynomials h_k.

    E[f(u) f(v)] = sum_k a_k(q1) a_k(q2) rho^k,   a_k(q) = E[f(sqrt(q) z) h_k(z)],   rho = c / sqrt(q1 q2).

Three things make it accurate and cheap. The coefficients come from Gauss-Legendre panels that shrink towards zero,
as for :func:`lazy_lightning.nn.activations.second_moment`. The number of terms K is chosen from what is missing of
E[f(sqrt(q) z)^2], which is the worst that can be missing anywhere: a function with poles at distance d from the real
line needs K of about (16 / d)^2 q, some hundreds for softplus(5) and tens of thousands for softplus(50). And of each
octave K..2K beyond 256 only some 32 powers of each parity are summed, with the weights of a quadrature over the
integers, exact where the summand is a polynomial of degree 21 in k; a rule of lower degree on the same powers shows how
far that can be trusted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lazy_lightning.errors import ConfigError

_REACH = 14.0  # the Hermite functions times the root of the Gaussian weight are 1e-21 there
_SMALLEST_POWER = -24  # panels [2^k, 2^(k+1)] down to this k: kinks and steps at zero
_NODES_PER_PANEL = 48
_FIRST_TERMS, _MOST_TERMS = 256, 65536
_PER_OCTAVE, _DEGREES, _FEWER_DEGREES = 32, 22, 18
_AIM, _TOLERANCE = 1e-14, 1e-8  # missing share of the second moment: where terms are enough, where it is an error
_NEGLIGIBLE, _NOTHING = 1e-19, 1e-100
_TINY = torch.finfo(torch.float64).tiny
_SAMPLES_AT_ONCE = 256
_PAIRS_AT_ONCE = {"cpu": 2**15, "cuda": 2**24}  # a tile stays in the cache, or fills the device

Function = Callable[[Tensor], Tensor]
"""Elementwise."""


class _HermiteRule(NamedTuple):
    """Integrals against h_k on one grid, and sums over k on few of them."""

    terms: int  # K
    nodes: Tensor  # (M,), z
    weights: Tensor  # (M,), of the expectation over z ~ N(0, 1)
    powers: Tensor  # (J,), the k that are kept, int64 on the CPU
    functions: Tensor  # (M, J), weights * h_k(z) * the root of the weight of k in the sum over k
    checks: Tensor  # (C, J), for each octave and parity the sum of lower degree less the sum, of the squares
    starts: Tensor  # (C,), the first k of each


class _Expansion(NamedTuple):
    """The Hermite coefficients of n samples, on the powers of one rule."""

    coefficients: Tensor  # (J, n), a_k(q) times the root of the weight of k
    error: Tensor  # the largest share of E[f^2] that they leave out at the largest correlation


def expected_products(f: Function, name: str, rho: Tensor, q1: Tensor, q2: Tensor | None) -> Tensor:
    """E[f(u) f(v)] of all pairs, (n1, n2); f is phi or its derivative."""
    closest = _largest_correlation(rho, apart=q2 is None)
    widest = torch.cat([q1, q1 if q2 is None else q2]).max()
    rule = _sufficient_rule(f, widest, closest)  # its tensors are on the device of the samples
    left = _expand(f, q1, rule, closest)
    right = left if q2 is None else _expand(f, q2, rule, closest)
    _check_error(float(torch.maximum(left.error, right.error) + _unresolved(f, widest, rule)), name, rule.terms)
    return _sum_over_pairs(left.coefficients, right.coefficients, rho, rule.powers, symmetric=q2 is None)


def _sufficient_rule(f: Function, widest: Tensor, closest: float) -> _HermiteRule:
    """The shortest rule that leaves nothing out at the largest variance and correlation: f is roughest there."""
    terms = _FIRST_TERMS
    device = widest.device
    while terms < _MOST_TERMS and _expand(f, widest[None], _hermite_rule(terms, device), closest).error > _AIM:
        terms *= 2
    return _hermite_rule(terms, device)


def _expand(f: Function, q: Tensor, rule: _HermiteRule, closest: float) -> _Expansion:
    """The coefficients at every variance, and their worst error for pairs no closer than ``closest``."""
    nodes, weights, functions, checks = rule.nodes, rule.weights, rule.functions, rule.checks
    damping = closest ** rule.starts.double()
    parts, errors = [], []
    for variances in torch.split(q, _SAMPLES_AT_ONCE):
        # An exponential tail would fill the matrix product with denormals, ten times as slow.
        values = F.hardshrink(f(variances.sqrt()[:, None] * nodes), _NOTHING)
        parts.append(functions.mT @ values.mT)
        moments, squares = values.square() @ weights, parts[-1].square()
        truncation = (moments - squares.sum(0)).abs() * closest**rule.terms
        errors.append((truncation + damping @ (checks @ squares).abs()) / moments.clamp(min=_TINY))
    return _Expansion(torch.cat(parts, dim=1), torch.cat(errors).max())


def _unresolved(f: Function, widest: Tensor, rule: _HermiteRule) -> Tensor:
    """What the second moment changes by, as a share, on panels half as long: much if f is steep away from zero."""
    z, weights = _finer_panels(rule.terms, widest.device)
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    finer = f(widest.sqrt() * z).square() @ (weights * density)
    coarse = f(widest.sqrt() * rule.nodes).square() @ rule.weights
    return (finer - coarse).abs() / finer.clamp(min=_TINY)


def _sum_over_pairs(left: Tensor, right: Tensor, rho: Tensor, powers: Tensor, *, symmetric: bool) -> Tensor:
    """sum_j left_j right_j rho^(k_j), (n1, n2), a tile at a time; of one set what is above the diagonal, at least."""
    out = torch.empty_like(rho)
    rows = max(1, _PAIRS_AT_ONCE.get(rho.device.type, 2**24) // rho.shape[1])
    spans = [(start, start + rows, start if symmetric else 0) for start in range(0, len(rho), rows)]
    strengths = [left[:, start:stop].abs().amax(1) * right[:, first:].abs().amax(1) for start, stop, first in spans]
    # One copy to the host for all tiles.
    for (start, stop, first), strength in zip(spans, torch.stack(strengths).cpu() if spans else (), strict=True):
        tile, part = out[start:stop, first:], rho[start:stop, first:]
        log = part.abs().clamp(min=_TINY).log()
        even, odd = (
            _power_series(left[:, start:stop], right[:, first:], _kept(powers, strength, parity), log)
            for parity in (0, 1)
        )
        torch.addcmul(even, part.sign(), odd, out=tile)
    return out


def _kept(powers: Tensor, strength: Tensor, parity: int) -> list[tuple[int, int]]:
    """Position and power of the even or odd terms that are not negligible, on the host."""
    kept = ((powers % 2 == parity) & (strength > _NEGLIGIBLE * strength.max())).nonzero().flatten()
    return list(zip(kept.tolist(), powers[kept].tolist(), strict=True))


def _power_series(left: Tensor, right: Tensor, kept: list[tuple[int, int]], log: Tensor) -> Tensor:
    """sum_j left_j right_j exp(k_j log) over the pairs (j, k_j) that are kept, by Horner's rule."""
    exponents = [k for _, k in kept]
    steps = [k - below for k, below in zip(exponents, [0, *exponents], strict=False)]
    total, factor, last_step = torch.zeros_like(log), torch.ones_like(log), 0
    for (j, _), step in zip(reversed(kept), reversed(steps), strict=True):
        total.addcmul_(left[j, :, None], right[j])
        if step != last_step:
            # What a term of an octave adds at exp(-100) is nothing, and denormals are slow.
            factor, last_step = (step * log).clamp_(min=-100.0).exp_(), step
        total *= factor
    return total


def _largest_correlation(rho: Tensor, *, apart: bool) -> float:
    size = rho.abs()
    if apart:
        size.fill_diagonal_(0.0)  # set exactly, by its own integral
    return float(size.max()) if size.numel() else 0.0


def expected_squares(f: Function, q: Tensor) -> Tensor:
    """(n,) the second moments E[f(sqrt(q) z)^2] of a standard normal z."""
    rule = _hermite_rule(_FIRST_TERMS, q.device)
    parts = torch.split(q, _SAMPLES_AT_ONCE)
    return torch.cat([f(part.sqrt()[:, None] * rule.nodes).square() @ rule.weights for part in parts])


@lru_cache(maxsize=24)
def _hermite_rule(terms: int, device: torch.device) -> _HermiteRule:
    """The rule for k < ``terms``, a power of two times the first; what it holds is copied to a device once."""
    rule = _rule_on_host(terms)
    nodes, weights, functions, checks, starts = (
        t.to(device) for t in (rule.nodes, rule.weights, rule.functions, rule.checks, rule.starts)
    )
    return _HermiteRule(terms, nodes, weights, rule.powers, functions, checks, starts)


@lru_cache(maxsize=24)
def _finer_panels(terms: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Nodes and weights on panels half as long as those of a rule."""
    z, weights = (torch.from_numpy(a).to(device) for a in _panels(2 * math.sqrt(terms)))
    return z, weights


@lru_cache(maxsize=12)
def _rule_on_host(terms: int) -> _HermiteRule:
    """The rule on the CPU."""
    z, weights = _panels(math.sqrt(terms))
    # With the root of the Gaussian density on either side, no number here leaves the range of float64.
    root = np.exp(-(z**2) / 4) * (2 * math.pi) ** -0.25
    powers, multiplicities, checks, starts = _kept_powers(terms)
    functions = _hermite_functions(z, root, powers)
    functions *= (weights * root)[:, None] * np.sqrt(multiplicities)
    arrays = (z, weights * root**2, powers, functions, checks, starts)
    return _HermiteRule(terms, *(torch.from_numpy(a) for a in arrays))


@lru_cache(maxsize=24)
def _panels(frequency: float) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights on [-14, 14]: panels shrink towards zero and resolve ``frequency``."""
    unit_nodes, unit_weights = np.polynomial.legendre.leggauss(_NODES_PER_PANEL)
    longest = _NODES_PER_PANEL / frequency
    graded = [2.0**k for k in range(_SMALLEST_POWER, math.floor(math.log2(longest)) + 1)]
    even = np.linspace(graded[-1], _REACH, 1 + math.ceil((_REACH - graded[-1]) / longest))
    edges = np.concatenate([[0.0], graded[:-1], even])
    half_lengths = np.diff(edges)[:, None] / 2
    positive = (edges[:-1, None] + half_lengths * (1 + unit_nodes)).ravel()
    weights = (half_lengths * unit_weights).ravel()
    return np.concatenate([-positive[::-1], positive]), np.concatenate([weights[::-1], weights])


def _hermite_functions(z: np.ndarray, root: np.ndarray, powers: np.ndarray) -> np.ndarray:
    """root * h_k(z) for the wanted k, (M, J), by the three-term recurrence."""
    wanted = {int(k): j for j, k in enumerate(powers)}
    out = np.empty((len(z), len(powers)))
    previous, current = np.zeros_like(z), root
    for k in range(int(powers[-1]) + 1):
        if k in wanted:
            out[:, wanted[k]] = current
        previous, current = current, (z * current - math.sqrt(k) * previous) / math.sqrt(k + 1)
    return out


def _kept_powers(terms: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The powers summed for 0 <= k < ``terms``, ascending, how many each stands for, and the checks of the octaves."""
    blocks = [(np.arange(_FIRST_TERMS), np.ones(_FIRST_TERMS), np.zeros(_FIRST_TERMS))]
    start = _FIRST_TERMS
    while start < terms:
        picked, weights, coarse = _sum_rule(start // 2)
        blocks += [(start + parity + 2 * picked, weights, coarse / weights - 1) for parity in (0, 1)]
        start *= 2
    powers, multiplicities, differences = (np.concatenate(column) for column in zip(*blocks, strict=True))
    member = np.repeat(np.arange(len(blocks)), [len(block[0]) for block in blocks])
    checks = differences * (member == np.arange(1, len(blocks))[:, None])
    order = np.argsort(powers)
    starts = np.array([block[0][0] for block in blocks[1:]], dtype=np.int64)
    return powers[order], multiplicities[order], checks[:, order], starts


@lru_cache(maxsize=12)
def _sum_rule(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points and positive weights with sum_i w_i p(x_i) = p(0) + ... + p(count - 1) for degrees below 22.

    The integers next to Chebyshev's points, with the weights of least norm; then those for degrees below 18.
    """
    points = (1 - np.cos(math.pi * (np.arange(_PER_OCTAVE) + 0.5) / _PER_OCTAVE)) / 2
    picked = np.unique(np.rint(points * (count - 1)).astype(np.int64))
    basis = np.polynomial.legendre.legvander(np.linspace(-1, 1, count), _DEGREES - 1)
    weights, coarse = (
        np.linalg.lstsq(basis[picked, :degrees].T, basis[:, :degrees].sum(0), rcond=None)[0]
        for degrees in (_DEGREES, _FEWER_DEGREES)
    )
    return picked, weights, coarse


def _check_error(error: float, name: str, terms: int) -> None:
    if not error <= _TOLERANCE:
        raise ConfigError(
            f"activation {name!r} is too rough for its dual: {terms} Hermite terms leave {error:.1e} of a second"
            f" moment open, expected {_TOLERANCE:g} at most: take a smoother activation (for softplus a smaller beta,"
            " or relu), or scale the inputs down."
        )
