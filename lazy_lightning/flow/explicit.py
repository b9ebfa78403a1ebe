"""The explicit Runge-Kutta pair of order 5(4) by Dormand and Prince, with the error measured on the outputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lazy_lightning.flow.evaluation import Evaluation
from lazy_lightning.flow.first_step import time_of_first_fall
from lazy_lightning.flow.gradient_change import exceeds_rounding, is_noise, relative_gradient_change
from lazy_lightning.flow.integrator import (
    Attempt,
    Integrator,
    Outcome,
    check_tolerance,
    finite,
    keep,
    keep_evaluation,
    margin_memory,
    relative_norm,
    rms,
)
from lazy_lightning.flow.interpolant import Within
from lazy_lightning.flow.location import relocate
from lazy_lightning.flow.rules import StepRule
from lazy_lightning.flow.state import FlowState

# J. R. Dormand, P. J. Prince, "A family of embedded Runge-Kutta formulae", J. Comput. Appl. Math. 6 (1980) 19.
_NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
"""The weights of order 5 less those of order 4."""
_INTERPOLATION = (
    (-8048581381 / 2820520608, 8663915743 / 2820520608, -12715105075 / 11282082432),
    (0.0, 0.0, 0.0),
    (131558114200 / 32700410799, -68118460800 / 10900136933, 87487479700 / 32700410799),
    (-1754552775 / 470086768, 14199869525 / 1410260304, -10690763975 / 1880347072),
    (127303824393 / 49829197408, -318862633887 / 49829197408, 701980252875 / 199316789632),
    (-282668133 / 205662961, 2019193451 / 616988883, -1453857185 / 822651844),
    (40617522 / 29380423, -110615467 / 29380423, 69997945 / 29380423),
)
"""Coefficients of s^2, s^3 and s^4 in the weight of each stage after a share s of the step, of order 4 (L. F. Shampine,
"Some practical Runge-Kutta formulas", Math. Comp. 46 (1986) 135). That of s is 1 for the first stage, else 0."""
_SAFETY, _SHRINK, _GROW = 0.9, 0.2, 5.0
_PROPORTIONAL, _INTEGRAL = 0.17, 0.04
"""Exponents of the present and the previous error in the controller of Hairer and Wanner, Solving ODEs II, IV.2."""
_WEIGHTS = 10.0
"""The error of dw relative to dw may be this many times ``tol``: where alpha is small, dw can change by its own size
while F hardly moves."""
_STIFF = 2.0
"""dt times the largest curvature above which a step counts as stiff; the pair is unstable above 3.25."""


@dataclass(frozen=True)
class ExplicitPair(Integrator):
    """Order 5 for w' = v, v' = -(v + g)/tau (w' = -g where tau is 0), with proportional-integral control of dt.

    An attempt costs six gradients and one forward pass: the error of a step is the change of F between the results of
    order 5 and 4, an rms over the outputs, compared with ``tol``. An error norm over weights alone would weigh the
    stiff directions, in which F moves most, like all others; beside that of F, the error of dw may be ten times ``tol``
    relative to dw. Where the closure reports no outputs, ``tol`` is the error of dw relative to dw.

    Args:
        tol: the error that a step may make.
    """

    tol: float = 1e-3
    name: ClassVar[str] = "explicit"
    evaluations: ClassVar[int] = 7
    interpolates: ClassVar[bool] = True
    growth: ClassVar[float] = _GROW  # type: ignore[misc]

    def __post_init__(self) -> None:
        check_tolerance(self.tol)

    def memory(self, state: FlowState, evaluation: Evaluation) -> dict[str, Tensor]:
        """The error of the last accepted step, the count of steps near the limit of stability, and the margins."""
        memory = {"error": torch.full_like(state.t, 1e-4), "stiff": torch.zeros_like(state.tried)}
        return memory | margin_memory(evaluation)

    def first_dt(self, state: FlowState, rule: StepRule) -> Tensor:
        """The first step size, from :func:`time_of_first_fall`."""
        return time_of_first_fall(state, rule)

    def attempt(self, attempt: Attempt) -> Outcome:
        """Six stages, the error on the outputs, then keeps the step or goes back."""
        state, dt = attempt.state, attempt.dt
        stages = _Stages(attempt)
        for row in _STAGES[:-1]:
            stages.evaluate(row)
        last_weights = attempt.weights.clone()
        evaluation, gradient = stages.evaluate(_STAGES[-1])

        norm = torch.linalg.vector_norm(gradient, dim=1).double()
        moved = torch.sub(attempt.weights, state.origin)
        stiff = _stiffness(dt, stages.slopes, attempt.weights - last_weights)
        error = self._error(attempt, stages, evaluation, moved)
        real = exceeds_rounding(state)
        r = relative_gradient_change(state.gradient, gradient, state.gradient_norm, norm, real, 1.0, last_weights)
        noise = is_noise(state, r, real)

        usable = finite(norm, evaluation.loss) & attempt.running & (error < torch.inf)
        accept = usable & (error <= 1)
        following = dt * self._factor(error, state.memory["error"])
        accept, following = attempt.decide(*relocate(attempt, evaluation, accept, following, self.tol))

        keep(state.displacement, moved, accept)
        if state.velocity is not None:
            keep(state.velocity, stages.final_velocity(gradient), accept)
        keep_evaluation(state, evaluation, gradient, norm, accept)
        keep(state.memory["error"], error.clamp_min(1e-4), accept)
        state.memory["stiff"].add_((stiff > _STIFF) & accept)
        change = torch.where(usable | ~attempt.running, r, torch.nan)
        return Outcome(accept, following, change, evaluation, real, noise, stages.within)

    def _error(self, attempt: Attempt, stages: _Stages, evaluation: Evaluation, moved: Tensor) -> Tensor:
        """(E,) float64 the error of the step over ``tol``. Overwrites the buffer of trial weights."""
        error = stages.error()
        relative = relative_norm(error, moved)
        if evaluation.outputs is None:
            return relative / self.tol
        outputs = attempt.evaluate.outputs(attempt.weights.add_(error))
        assert outputs is not None  # the evaluation has some
        by_weights = relative.nan_to_num(0.0) / (_WEIGHTS * self.tol)
        return torch.maximum(rms(outputs - evaluation.outputs) / self.tol, by_weights)

    def _factor(self, error: Tensor, before: Tensor) -> Tensor:
        """(E,) by which dt changes."""
        safe = error.clamp_min(1e-10)
        grown = (_SAFETY * safe**-_PROPORTIONAL * before**_INTEGRAL).clamp(_SHRINK, _GROW)
        shrunk = (_SAFETY * safe**-0.2).clamp(_SHRINK, 1.0)
        factor = torch.where(error <= 1, grown, shrunk)
        return torch.where(error < torch.inf, factor, 0.1)


class _Stages:
    """The stages of one attempt: slopes of w and, with momentum, of v."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        state = attempt.state
        self._dt = attempt.dt.to(state.gradient.dtype, copy=True)  # the flow writes the next dt into its own
        self.slopes: list[Tensor] = []
        self._v_slopes: list[Tensor] = []
        self._velocity: Tensor | None = None
        if state.velocity is not None:
            tau = self._memory_time(0)
            self._velocity = torch.where(tau == 0, -state.gradient, state.velocity)
        self._append(0, state.gradient, self._velocity)

    def evaluate(self, row: tuple[float, ...]) -> tuple[Evaluation, Tensor]:
        """Evaluates the stage with these weights of the slopes before; the buffer then holds its weights."""
        stage, state = len(row), self._attempt.state
        trial = self._combined(state.displacement, self.slopes, row, self._attempt.weights).add_(state.origin)
        evaluation, gradient = self._attempt.evaluate(trial)
        velocity = None if self._velocity is None else self._combined(self._velocity, self._v_slopes, row)
        self._last_velocity = velocity
        self._append(stage, gradient, velocity)
        return evaluation, gradient

    def error(self) -> Tensor:
        """(E, N) the result of order 5 less that of order 4."""
        return self._combined(torch.zeros_like(self.slopes[0]), self.slopes, _ERROR)

    def final_velocity(self, gradient: Tensor) -> Tensor:
        """(E, N) v at the end of the step, whose gradient this is."""
        assert self._last_velocity is not None  # called with momentum alone
        return torch.where(self._memory_time(-1) == 0, -gradient, self._last_velocity)

    def within(self, members: Sequence[int], share: Tensor) -> Within:
        """Where members were after a share of the step, by the interpolant of order 4; once the step has been kept."""
        state, weights = self._attempt.state, _weights_within(share).to(self._dt)
        displacement = self._moved_back(state.displacement, self.slopes, members, weights)
        if state.velocity is None:
            return Within(displacement, None)
        return Within(displacement, self._moved_back(state.velocity, self._v_slopes, members, weights))

    def _moved_back(self, end: Tensor, slopes: list[Tensor], members: Sequence[int], weights: Tensor) -> Tensor:
        """(R, N) end + dt sum_j (weight_j(s) - weight_j(1)) slope_j, from weights (R, 7); one product a member."""
        parts, start = [], 0
        for i, count in Counter(members).items():  # which are in order
            own = weights[start : start + count] * self._dt[i]
            parts.append(torch.addmm(end[i : i + 1], own, torch.stack([slope[i] for slope in slopes])))
            start += count
        return torch.cat(parts)

    def _append(self, stage: int, gradient: Tensor, velocity: Tensor | None) -> None:
        if velocity is None:
            self.slopes.append(-gradient)
            return
        tau = self._memory_time(stage)
        self.slopes.append(torch.where(tau == 0, -gradient, velocity))
        self._v_slopes.append(torch.where(tau == 0, 0.0, -(velocity + gradient) / tau))

    def _memory_time(self, stage: int) -> Tensor:
        attempt = self._attempt
        tau = attempt.rule.memory_time(attempt.state.t + _NODES[stage] * attempt.dt).to(self._dt)
        return tau.expand(len(self._dt)).unsqueeze(1)

    def _combined(
        self, base: Tensor, slopes: list[Tensor], row: tuple[float, ...], out: Tensor | None = None
    ) -> Tensor:
        """base + dt sum_j row_j slope_j, (E, N)."""
        total = base if out is None else out.copy_(base)
        for weight, slope in zip(row, slopes, strict=True):
            if weight:
                factor = (self._dt * weight).unsqueeze(1)
                total = torch.addcmul(total, slope, factor, out=None if total is base else total)
        return total


def _weights_within(share: Tensor) -> Tensor:
    """(R, 7) float64 the weights of the stages after shares (R,) of a step, less those at its end."""
    powers = share.unsqueeze(1) ** torch.arange(2, 5, dtype=share.dtype, device=share.device) - 1
    weights = powers @ torch.tensor(_INTERPOLATION, dtype=share.dtype, device=share.device).T
    weights[:, 0] += share - 1
    return weights


def _stiffness(dt: Tensor, slopes: list[Tensor], moved: Tensor) -> Tensor:
    """(E,) dt times the largest curvature, from the last two stages, which are at the same time."""
    bend = torch.linalg.vector_norm(slopes[-1] - slopes[-2], dim=1).double()
    found: Tensor = dt * bend / torch.linalg.vector_norm(moved, dim=1).double()
    return found
