"""The laziness index of a model at its weights: how soon training would bend what it starts as a straight line.

For h : w -> (h(w, x_1), ..., h(w, x_n)), with outputs measured by ‖h‖^2 = 1/n sum_i ‖h(w, x_i)‖^2 (arXiv:1812.07956),

    kappa(w) = ‖h(w) - y‖ ‖D^2 h(w)‖ / ‖D h(w)‖^2

compares how far the weights must go to fit y, ‖h - y‖/‖D h‖, with how far they can go before D h has changed by
its own size, ‖D h‖/‖D^2 h‖. Small is lazy. Scaled outputs h = alpha (f - f0) have kappa = ‖h - y‖ ‖D^2 f‖ / (alpha
‖D f‖^2), so kappa ~ 1/alpha where f - f0 starts at zero.

In NTK parametrisation kappa ~ 1/sqrt(h), up to a slow factor: the norm of D^2 f is that of the most bent direction, and
where one neuron's own curvature makes it, the largest of h neurons decides. Measured on ten random inputs between h =
32 and 512 the exponent is -0.52 for two-layer linear networks, -0.47 for three layers of softplus(1), but -0.35 for two
of tanh or softplus(5).

Both norms are operator norms, found by power methods that need products with derivatives alone, no Jacobian, no
Hessian. Weights are (E, N), one row a member, and what is found for a member does not depend on the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.directional_derivative import pullback
from lazy_lightning.nn.linearize import tangent_outputs
from lazy_lightning.objective.full_batch import chunks
from lazy_lightning.objective.losses import MSE
from lazy_lightning.seeding import generator

OutputFunction = Callable[[Tensor, Tensor], Tensor]
"""From weights (E, N) and samples (n, ...) to outputs (E, n, ...)."""


@dataclass(frozen=True)
class PowerMethod:
    """How long a power method goes on, and from where.

    Args:
        tolerance: a member ends when an iteration raises its value by less than this, relatively; never less than
            ten roundings of the dtype. What is still missing then may be ten times as much.
        max_iterations: and ends here at last.
        starts: random starts of the second derivative's norm, of which the best counts.
        seed: of the random starts.
        check_every: iterations between two checks whether all members have ended, each a wait for the device.

    Raises:
        ConfigError: a number out of range.
    """

    tolerance: float = 1e-5
    max_iterations: int = 200
    starts: int = 3
    seed: int = 0
    check_every: int = 5

    def __post_init__(self) -> None:
        check_arguments(PowerMethod, vars(self))
        if not 0 <= self.tolerance < 1:
            raise ConfigError(f"tolerance is {self.tolerance}, expected 0 <= tolerance < 1: set for example 1e-5")
        for name, least in (("max_iterations", 1), ("starts", 1), ("seed", 0), ("check_every", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}, expected >= {least}: set a larger {name}")


class Laziness(NamedTuple):
    """kappa and the three norms it is made of, (E,) each."""

    kappa: Tensor
    jacobian_norm: Tensor
    second_derivative_norm: Tensor
    target_distance: Tensor


def laziness(
    outputs: OutputFunction,
    w: Tensor,
    x: Tensor,
    distance: Tensor,
    alpha: Tensor,
    *,
    method: PowerMethod | None = None,
    chunk_size: int | None = None,
) -> Laziness:
    """kappa at ``w`` of h = alpha (f - f0), by :func:`jacobian_norm` and :func:`second_derivative_norm`.

    Args:
        outputs: f, see :data:`OutputFunction`.
        w: (E, N).
        x: (n, ...) the samples.
        distance: (E,) ‖h(w) - y‖, see :func:`target_distance`.
        alpha: (E,).
        method: when to be content.
        chunk_size: samples differentiated at once, to bound memory; None for all.
    """
    jacobian = jacobian_norm(outputs, w, x, method=method, chunk_size=chunk_size)
    second = second_derivative_norm(outputs, w, x, method=method, chunk_size=chunk_size)
    return Laziness(laziness_index(distance, jacobian, second, alpha), jacobian, second, distance)


def laziness_index(distance: Tensor, jacobian: Tensor, second: Tensor, alpha: Tensor) -> Tensor:
    """kappa = ‖h - y‖ ‖D^2 f‖ / (alpha ‖D f‖^2) for h = alpha (f - f0), (E,) each.

    >>> laziness_index(*(torch.tensor([v]) for v in (1.0, 2.0, 0.5, 10.0)))
    tensor([0.0125])
    """
    return distance * second / (alpha.to(jacobian.dtype) * jacobian.square())


def path_bound(kappa: Tensor, jacobian: Tensor, distance: Tensor, t: Tensor) -> Tensor:
    """How far F may be from its linearisation after the flow time t, K^2 kappa ‖F(w0) - y‖ with K = t ‖D f‖^2, (E,).

    The quantitative theorem for the square loss of arXiv:1812.07956 has this with Lipschitz constants of f and D f in a
    ball around w0, as long as the ball holds the path; their values at w0, which are no larger, stand for them here.
    So it is the bound's leading order, good where training is lazy; beyond ‖F(w0) - y‖ it has no content.

    Args:
        kappa: (E,) at w0.
        jacobian: (E,) ‖D f(w0)‖.
        distance: (E,) ‖F(w0) - y‖.
        t: (E,) flow time.

    >>> path_bound(*(torch.tensor([v]) for v in (0.01, 2.0, 1.0, 0.5)))
    tensor([0.0400])
    """
    return (t.to(kappa.dtype) * jacobian.square()).square() * kappa * distance


def target_distance(F: Tensor, y: Tensor) -> Tensor:
    """‖F - y‖ = (1/n sum_i ‖F_i - y_i‖^2)^(1/2), (E,), with integer classes as one-hot targets.

    Args:
        F: (E, n), or (E, n, c).
        y: (n,) labels +-1 or real numbers, (n, c) real numbers, or (n,) integer classes.

    >>> target_distance(torch.zeros(1, 4), torch.tensor([1.0, -1.0, -1.0, 1.0]))
    tensor([1.])

    Raises:
        ConfigError: the shapes do not fit.
    """
    return (2 * MSE().per_sample(F, y).mean(dim=-1)).sqrt()


@torch.no_grad()
def jacobian_norm(
    outputs: OutputFunction,
    w: Tensor,
    x: Tensor,
    *,
    method: PowerMethod | None = None,
    chunk_size: int | None = None,
) -> Tensor:
    """‖D f(w)‖ = max over unit u of ‖J u‖ = (lambda_max(Theta)/n)^(1/2), (E,); arguments as of :func:`laziness`.

    Power iteration u <- J^T J u / ‖J^T J u‖: every iterate is a lower bound, and none is lower than the one before.

    >>> x = torch.tensor([[3.0], [4.0]])  # f = w x has J = x
    >>> jacobian_norm(lambda w, x: w * x.T, torch.ones(1, 1), x) ** 2
    tensor([12.5000])
    """
    method = method or PowerMethod()

    def step(directions: Tensor) -> tuple[Tensor, Tensor]:
        value, u = _power_step(outputs, w, x, directions[0], chunk_size)
        return value, u.unsqueeze(0)

    _check_weights(w)
    return _climb(step, _random_directions(0, 1, w, method), method)


@torch.no_grad()
def second_derivative_norm(
    outputs: OutputFunction,
    w: Tensor,
    x: Tensor,
    *,
    method: PowerMethod | None = None,
    chunk_size: int | None = None,
) -> Tensor:
    """‖D^2 f(w)‖ = max over unit u, v of ‖D^2 f(u, v)‖, (E,), from below; arguments as of :func:`laziness`.

    A symmetric bilinear map into a Hilbert space has this maximum at some u = v, so this is the largest second
    derivative along a line too. It is sought over u and v apart: with v held, D^2 f(., v) is the Jacobian of
    w -> J(w) v, and an iteration of its power method cannot lower ‖D^2 f(u, v)‖; then u and v change places. Unlike
    the symmetric power method it needs no shift to be monotone, and is not slowed down by one.

    The maximum is not a convex problem: what is found is a lower bound, a local maximum, the best of several starts. Of
    72 tiny networks whose maximum is known one start missed it in 9, by up to 26 %, and three in 2, by 1 % at most.
    Costs some ten evaluations of the samples for each of u and v, an iteration.

    >>> f = lambda w, x: (w[:, :1] * w[:, 1:]) * x.T  # w_1 w_2 x: D^2 f(u, u) = 2 u_1 u_2 x
    >>> second_derivative_norm(f, torch.zeros(1, 2), torch.tensor([[2.0]]))
    tensor([2.0000])
    """
    method = method or PowerMethod()

    def step(directions: Tensor) -> tuple[Tensor, Tensor]:
        u, v = directions
        _, u = _power_step(_derivative_along(outputs, v), w, x, u, chunk_size)
        value, v = _power_step(_derivative_along(outputs, u), w, x, v, chunk_size)
        return value, torch.stack([u, v])

    _check_weights(w)
    found = [_climb(step, _random_directions(start, 2, w, method), method) for start in range(method.starts)]
    return torch.stack(found).amax(dim=0)


def _check_weights(w: Tensor) -> None:
    if w.is_complex():
        raise ConfigError(
            "weights are complex, expected real ones: hold real and imaginary parts as real weights and use "
            "torch.view_as_complex in the network"
        )


def _derivative_along(outputs: OutputFunction, v: Tensor) -> OutputFunction:
    """w, x -> J(w, x) v."""
    return lambda w, x: tangent_outputs(lambda moved: outputs(moved, x), w, v)


def _power_step(
    outputs: OutputFunction, w: Tensor, x: Tensor, u: Tensor, chunk_size: int | None
) -> tuple[Tensor, Tensor]:
    """‖J u‖ (E,), and J^T J u of length one (E, N); u itself where that is zero."""
    square, image = torch.zeros_like(w[:, 0]), torch.zeros_like(w)
    for part in chunks(len(x), chunk_size):
        change, pulled = _push_and_pull(outputs, w, x[part], u)
        square += change.flatten(1).square().sum(dim=1)
        image += pulled
    length = torch.linalg.vector_norm(image, dim=1, keepdim=True)
    return (square / len(x)).sqrt(), torch.where(length == 0, u, image / length)


def _push_and_pull(outputs: OutputFunction, w: Tensor, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """J u (E, n, ...) and J^T J u (E, N)."""

    def at(weights: Tensor) -> Tensor:
        return outputs(weights, x)

    change = tangent_outputs(at, w, u)
    return change, pullback(at, w, change)


def _climb(step: Callable[[Tensor], tuple[Tensor, Tensor]], directions: Tensor, method: PowerMethod) -> Tensor:
    """The value (E,) at the end of a power method.

    Each member stays where it has ended, so that it does not matter how long the others go on.

    Args:
        step: from directions (K, E, N) to a value (E,) and the next directions.
        directions: where to start.
        method: when to end.
    """
    tolerance = max(method.tolerance, 10 * torch.finfo(directions.dtype).eps)
    value, directions = step(directions)
    running = torch.ones_like(value, dtype=torch.bool)
    for iteration in range(1, method.max_iterations):
        if iteration % method.check_every == 0 and not bool(running.any()):
            break
        found, moved = step(directions)
        directions = torch.where(running.unsqueeze(-1), moved, directions)
        grown = found > value * (1 + tolerance)
        value = torch.where(running, torch.fmax(value, found), value)
        running = running & grown
    return value


def _random_directions(start: int, vectors: int, w: Tensor, method: PowerMethod) -> Tensor:
    """(vectors, E, N) of length one, the same for all members, that neither the other starts nor the others change."""
    stream = generator(f"laziness/{start}", method.seed)
    drawn = torch.randn(vectors, 1, w.shape[1], dtype=torch.float64, generator=stream)
    length: Tensor = torch.linalg.vector_norm(drawn, dim=-1, keepdim=True)
    return (drawn / length).to(w.device, w.dtype).expand(-1, len(w), -1)
