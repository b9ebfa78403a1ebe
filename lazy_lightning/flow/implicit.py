"""Implicit multistep formulas of orders 1 to 5, whose equations are solved through the tangent kernel.

With J = df/dw (m = n c rows), g = J^T l'(F) / (alpha n), Theta = J J^T and D = l''(F), the formula of order k
determines the increment d over the prediction by d + psi = -c g(w_predicted + d), c = dt / a_k.

Each iteration evaluates at w_predicted + d, chooses a cotangent u = l' + q, and sets d = -psi - c J^T u / (alpha n):
one forward and one backward pass. It is Newton's method with the Gauss-Newton curvature J^T D J / n, by Woodbury's
identity: (D^-1 + (c/n) Theta) q = r, where r = alpha J b is the residual b = -c g - psi - d seen in F. In the first
iteration r = -(c/n) Theta l' - alpha J psi, with alpha J psi from differences of alpha J w kept beside those of w. In
later ones d + psi is the image of the last cotangent, so r = (c/n) Theta (u - l'), which vanishes at the solution
alone, whatever kernel and curvature are used: an old kernel costs iterations, not accuracy. What the first iteration
misses is measured whenever there is a second one, and corrected for (``defect``).

Momentum, w' = v and v' = -(v + g)/tau, gives the same equations with c replaced by c^2/(tau + c) and psi by psi + (tau
c/(tau + c)) (psi_v - v_predicted).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor

from lazy_lightning.flow import tangent_system
from lazy_lightning.flow.differences import ROWS, Formulas, advanced, interpolated, predicted, rescaled
from lazy_lightning.flow.evaluation import Evaluation
from lazy_lightning.flow.evaluator import Evaluator
from lazy_lightning.flow.first_step import time_of_first_fall
from lazy_lightning.flow.gradient_change import exceeds_rounding
from lazy_lightning.flow.integrator import (
    MARGINS,
    Attempt,
    Integrator,
    Outcome,
    check_tolerance,
    finite,
    keep,
    keep_report,
    margin_memory,
    relative_norm,
    rms,
)
from lazy_lightning.flow.interpolant import Within
from lazy_lightning.flow.location import relocate
from lazy_lightning.flow.rules import StepRule
from lazy_lightning.flow.state import FlowState
from lazy_lightning.memory import require_bytes

_MATRICES = 4
"""As large as the kernel, that a member needs at once: kernel, factor, and two while they are computed."""
_ITERATIONS = 5
"""Newton iterations in which a step must converge."""
_NEWTON = 0.1
"""The error of F that Newton's method may leave, in units of ``tol``."""
_FRESH, _OLD, _RENEW = 0, 1, 2
"""Kernel and system: computed in this step, in an earlier one, or to be computed before the next iteration."""
_DRIFT = 0.1
"""The change of log c above which the system is computed anew."""
_MISSED = 10.0
"""First iterations that miss F by more than this many times ``tol`` make the kernel be computed anew."""
_FIRST_RATE = 0.3
"""The rate of convergence that is assumed before one has been seen."""
_SLOW = 0.2
"""A rate of convergence above which system or kernel are computed anew at the next step."""
_GROW, _SHRINK, _SAFETY = 10.0, 0.2, 0.9
_WORTH_A_CHANGE = 1.2
"""Longer steps by less than this are not taken: each change of dt costs an order's worth of equal steps."""
_WEIGHTS = 1.0
"""The error of dw relative to dw may be this many times ``tol``."""


class _Prediction(NamedTuple):
    """What a step starts from; E members, N weights, m outputs."""

    c: Tensor
    """(E,) float64 d + psi = -c g."""
    weights: Tensor
    """(E, N) the predicted displacement."""
    psi: Tensor
    """(E, N)"""
    outputs: Tensor
    """(E, m) the predicted F, by the kept images of the differences of w."""
    psi_outputs: Tensor
    """(E, m) alpha J psi"""


@dataclass(frozen=True)
class Implicit(Integrator):
    """Numerical differentiation formulas of orders 1 to 5 with Newton's method through the tangent kernel.

    The cost of a run hardly grows with its stiffness. An attempt is one iteration of Newton's method, so one evaluation
    of all members, each of which has its own order, step size, iteration and kernel. The kernel is kept until Newton's
    method converges slowly, and the Cholesky factor of the system until step size or curvature have changed. It reads
    some flags of the members from the device in each attempt, which decide what is factorized.

    Args:
        tol: the error of F that a step may make, an rms over the outputs.
    """

    tol: float = 1e-3
    formulas: Formulas = field(default_factory=lambda: Formulas.on(torch.device("cpu")), repr=False, compare=False)
    name: ClassVar[str] = "implicit"
    growth: ClassVar[float] = _GROW  # type: ignore[misc]
    needs_tangent: ClassVar[bool] = True
    reads_the_host: ClassVar[bool] = True
    approximate: ClassVar[bool] = True
    interpolates: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_tolerance(self.tol)

    def to(self, device: torch.device) -> Implicit:
        """The same with its coefficients on a device."""
        return Implicit(self.tol, self.formulas.to(device))

    # ------------------------------------------------------------------ memory

    def memory(self, state: FlowState, evaluation: Evaluation) -> dict[str, Tensor]:
        """Differences of w, F (and v), the increment, the kernel and its system, and Newton's progress."""
        if evaluation.outputs is None:
            raise TypeError("the integrator implicit needs a closure that returns an Evaluation with outputs")
        outputs = evaluation.outputs.flatten(1)
        members, size = outputs.shape
        weights = state.displacement
        require_bytes(
            _MATRICES * members * size**2 * outputs.element_size(),
            outputs.device,
            f"the integrator {self.name} with {members} tangent kernels of {size} x {size} entries",
            "use fewer samples, seeds or alphas, or set integrator to explicit",
        )
        count = torch.zeros_like(state.tried)
        clock = torch.zeros_like(state.t)
        memory = {
            "order": count,  # 0: the member has not begun
            "equal": count.clone(),
            "iteration": count.clone(),
            "kernel_age": torch.full_like(count, _RENEW),
            "system_age": torch.full_like(count, _RENEW),
            "h": clock,
            "rate": torch.full_like(clock, _FIRST_RATE),
            "last": clock.clone(),
            "factor_c": clock.clone(),
            "differences": weights.new_zeros(members, ROWS, weights.shape[1]),
            "increment": torch.zeros_like(weights),
            "output_differences": outputs.new_zeros(members, ROWS, size),
            "cotangent": torch.zeros_like(outputs),  # l' + q of the last iteration
            "expected_outputs": torch.zeros_like(outputs),  # F where the next iteration is evaluated, by the kernel
            "defect": torch.zeros_like(outputs),
            "defect_c": clock.clone(),
            "surprise": torch.full_like(clock, torch.inf),  # rms by which a first iteration misses F
            "kernel": outputs.new_zeros(members, size, size),
            "factor": outputs.new_zeros(members, size, size),
            "system_outputs": torch.zeros_like(evaluation.outputs),  # F at which the curvature in the system was taken
        }
        if state.velocity is not None:
            memory["velocity_differences"] = torch.zeros_like(memory["differences"])
            memory["output_velocity_differences"] = torch.zeros_like(memory["output_differences"])
        return memory | margin_memory(evaluation)

    def first_dt(self, state: FlowState, rule: StepRule) -> Tensor:
        """As of the explicit pair; with momentum at most a share ``tol`` of tau.

        At rest the first step, of order 1, errs by dw itself, which is of order t^2: at t the error is (dt/t)^2 of dw.
        """
        first = time_of_first_fall(state, rule)
        if state.velocity is None:
            return first
        tau = rule.memory_time(first).expand_as(first)
        return torch.where(tau > 0, torch.minimum(first, tau * _WEIGHTS * self.tol), first)

    # ------------------------------------------------------------------ one attempt

    def attempt(self, attempt: Attempt) -> Outcome:
        """One Newton iteration; where it has converged, the error test, and the step is kept or tried again."""
        state, memory, dt = attempt.state, attempt.state.memory, attempt.dt
        evaluate, real = attempt.evaluate, exceeds_rounding(state)
        self._begin(attempt, evaluate)
        step = self._prediction(attempt)
        samples = cast(Tensor, state.outputs).shape[1]
        trial = torch.add(step.weights, memory["increment"], out=attempt.weights).add_(state.origin)
        if self._renew(attempt, evaluate, step, trial):
            step = self._prediction(attempt)
        correction = _Correction(memory, step, samples, evaluate, attempt.running)
        evaluation, gradient = evaluate.filtered(trial, correction)
        self._correct_kept_outputs(attempt, correction.missed)

        order_of_step = memory["order"].clone()
        column = step.c.to(gradient.dtype).unsqueeze(1)
        delta = gradient.mul_(-column).sub_(step.psi).sub_(memory["increment"])
        norm = rms(correction.change)
        usable = finite(norm + torch.linalg.vector_norm(delta, dim=1).double(), evaluation.loss)
        moving = attempt.running & usable
        memory["increment"].add_(torch.where(moving.unsqueeze(1), delta, 0.0))
        outputs = correction.outputs + correction.change
        keep(memory["expected_outputs"], outputs, moving)
        converged, failed = self._converges(memory, norm, usable, attempt.running)
        reported = evaluate.report(outputs.view_as(cast(Tensor, state.outputs)))
        usable = usable & finite(norm, reported.loss)

        error = self._error(attempt, step, correction.increment)
        accept = converged & (error <= 1) & usable
        order = memory["order"]
        shrunk = dt * (_SAFETY * error ** (-1 / (order + 1).double())).clamp(_SHRINK, 1.0)
        accept, following = relocate(attempt, reported, accept, dt, self.tol)
        rejected = converged & ~accept
        following = torch.where(rejected & (error > 1), shrunk, following)
        following = self._after_failure(memory, failed, following, dt, usable)
        noise = accept & ~real & (rms(outputs - cast(Tensor, state.outputs).flatten(1)) <= 1e-12 * rms(outputs))
        following = self._keep(attempt, step, reported, correction.increment, accept, following)
        restarted = rejected | failed | accept
        missed = (memory["surprise"] > _MISSED * self.tol) & (memory["surprise"] < torch.inf)
        memory["kernel_age"].masked_fill_(restarted & missed & (memory["kernel_age"] == _OLD), _RENEW)
        self._restart(memory, restarted)
        change = torch.where(usable | ~attempt.running, error.clamp(max=1e300), torch.nan)
        return Outcome(accept, following, change, reported, real, noise, partial(_within, memory, order_of_step))

    # ------------------------------------------------------------------ before the evaluation

    def _begin(self, attempt: Attempt, evaluate: Evaluator) -> None:
        """Starts members that have not begun, and rescales the differences of those whose dt has changed."""
        memory, dt = attempt.state.memory, attempt.dt
        new = attempt.running & (memory["order"] == 0)
        other = attempt.running & ~new & (dt != memory["h"])
        rows_new, rows_other = _rows(new, other)
        if len(rows_new):
            self._start(attempt, evaluate, rows_new)
        if len(rows_other):
            order, factor = memory["order"][rows_other], (dt / memory["h"])[rows_other]
            for name in _differences(memory):
                memory[name].index_copy_(0, rows_other, rescaled(memory[name][rows_other], order, factor))
            memory["equal"].index_fill_(0, rows_other, 0)
            self._restart(memory, other)
        keep(memory["h"], dt, new | other)

    def _start(self, attempt: Attempt, evaluate: Evaluator, rows: Tensor) -> None:
        """Order 1 from the present weights. The slopes of F are products with the kernel, those by v a difference."""
        state, memory = attempt.state, attempt.state.memory
        assert state.outputs is not None  # checked when the memory was made
        weights = torch.add(state.origin, state.displacement, out=attempt.weights)
        self._renew_kernels(memory, evaluate, weights, rows)
        h = attempt.dt.to(state.gradient.dtype).unsqueeze(1)
        start = state.outputs.flatten(1)
        slope = evaluate.slopes(state.outputs).flatten(1)
        pull = -tangent_system.product(memory["kernel"], slope) / state.outputs.shape[1]
        new: dict[str, tuple[Tensor, Tensor]]
        if state.velocity is None:
            new = {"": (state.displacement, -h * state.gradient), "output_": (start, h * pull)}
        else:
            tau = _memory_time(attempt, state.t).to(h).unsqueeze(1)
            velocity = torch.where(tau == 0, -state.gradient, state.velocity)
            moved = evaluate.outputs(weights.addcmul_(velocity, h))
            assert moved is not None  # a tangent closure gives outputs
            moving = torch.where(tau == 0, pull, (moved.flatten(1) - start) / h)
            friction = torch.where(tau == 0, 0.0, -(velocity + state.gradient) / tau)
            slowing = torch.where(tau == 0, 0.0, (pull - moving) / tau)
            new = {
                "": (state.displacement, h * velocity),
                "output_": (start, h * moving),
                "velocity_": (velocity, h * friction),
                "output_velocity_": (moving, h * slowing),
            }
        for prefix, pair in new.items():
            differences = memory[f"{prefix}differences"]
            differences[rows] = 0.0
            for j, value in enumerate(pair):
                differences[rows, j] = value[rows]
        margins = evaluate.report(state.outputs).margins
        if margins is not None:
            memory[MARGINS].index_copy_(0, rows, margins[rows])
        memory["order"].index_fill_(0, rows, 1)
        memory["equal"].index_fill_(0, rows, 0)
        memory["system_age"].index_fill_(0, rows, _RENEW)

    def _prediction(self, attempt: Attempt) -> _Prediction:
        memory, order = attempt.state.memory, attempt.state.memory["order"]
        c = attempt.dt / self.formulas.leading[order]
        weights, psi = predicted(memory["differences"], order, self.formulas)
        outputs, psi_outputs = predicted(memory["output_differences"], order, self.formulas)
        if attempt.state.velocity is None:
            return _Prediction(c, weights, psi, outputs, psi_outputs)
        tau = _memory_time(attempt, attempt.state.t + attempt.dt)
        share = (tau * c / (tau + c)).to(weights.dtype).unsqueeze(1)
        velocity, psi_velocity = predicted(memory["velocity_differences"], order, self.formulas)
        moving, psi_moving = predicted(memory["output_velocity_differences"], order, self.formulas)
        psi = torch.addcmul(psi, share, psi_velocity - velocity)
        psi_outputs = torch.addcmul(psi_outputs, share, psi_moving - moving)
        return _Prediction(c * c / (tau + c), weights, psi, outputs, psi_outputs)

    def _renew(self, attempt: Attempt, evaluate: Evaluator, step: _Prediction, trial: Tensor) -> bool:
        """Computes kernels anew where they are to be, and marks systems to be factorized; True if a kernel is new."""
        memory, running = attempt.state.memory, attempt.running
        drift = (step.c / memory["factor_c"]).log().abs() > _DRIFT
        old = running & (memory["kernel_age"] == _RENEW)
        memory["system_age"].masked_fill_((running & drift & (memory["iteration"] == 0)) | old, _RENEW)
        (rows,) = _rows(old)
        if len(rows):
            self._renew_kernels(memory, evaluate, trial, rows)
            self._renew_images(memory, evaluate, trial, rows)
        return len(rows) > 0

    def _renew_images(self, memory: dict[str, Tensor], evaluate: Evaluator, weights: Tensor, rows: Tensor) -> None:
        """The images alpha J of the differences of w and v under the new J, by one forward pass each."""
        start, last = weights[rows], (memory["order"][rows] + 1).tolist()
        base = evaluate.outputs_of(weights, rows, start)
        share = torch.finfo(weights.dtype).eps ** 0.25
        for prefix in ("", "velocity_"):
            if f"{prefix}differences" not in memory:
                continue
            differences, images = memory[f"{prefix}differences"], memory[f"output_{prefix}differences"]
            for j in range(1 if not prefix else 0, max(last) + 1):
                # Those beyond order + 1 are not read before the next step has made them.
                part = [i for i, most in enumerate(last) if most >= j]
                own = rows[part]
                moved = evaluate.outputs_of(weights, own, torch.add(start[part], differences[own, j], alpha=share))
                images[own, j] = (moved - base[part]).flatten(1) / share
        memory["defect"].index_fill_(0, rows, 0.0)

    def _renew_kernels(self, memory: dict[str, Tensor], evaluate: Evaluator, weights: Tensor, rows: Tensor) -> None:
        if len(rows):
            memory["kernel"].index_copy_(0, rows, evaluate.kernel(weights, rows).to(memory["kernel"].dtype))
            memory["kernel_age"].index_fill_(0, rows, _FRESH)
            memory["surprise"].index_fill_(0, rows, torch.inf)

    # ------------------------------------------------------------------ after the evaluation

    def _correct_kept_outputs(self, attempt: Attempt, missed: Tensor) -> None:
        """Adds to F, loss and margins of the last step by how much they were ``missed`` (E, m), where it matters.

        They were found with a kept kernel in one iteration. If an event holds of the true ones alone, it would be
        located in a step of any length.
        """
        state = attempt.state
        first = attempt.running & (state.memory["iteration"] == 0)
        off = first & (rms(missed) > _NEWTON * self.tol)
        state.memory["output_differences"][:, 0].add_(torch.where(first.unsqueeze(1), missed, 0.0))
        if len(_rows(off)[0]):
            outputs = cast(Tensor, state.outputs)
            keep_report(state, attempt.evaluate.report(outputs + missed.view_as(outputs)), off)

    def _converges(
        self, memory: dict[str, Tensor], norm: Tensor, usable: Tensor, running: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(E,) whether Newton's method has converged, and whether it will not; updates its progress."""
        iteration, rate = memory["iteration"], memory["rate"]
        later = iteration > 0
        seen = norm / memory["last"]
        seen = torch.where(seen < torch.inf, seen, 0.0)  # after a correction of zero
        present = torch.where(later, torch.maximum(0.5 * rate, seen), rate)
        keep(rate, present.clamp(1e-4, 0.95), running & usable)
        keep(memory["last"], norm, running & usable)
        iteration.add_(running)
        allowed = _NEWTON * self.tol
        bounded = present.clamp(max=0.95)
        unsure = torch.where(later, 0.0, memory["surprise"])
        remaining = norm * bounded / (1 - bounded) + unsure
        converged = running & usable & (remaining <= allowed)
        left = (_ITERATIONS - iteration).double()
        slow = later & ((seen >= 0.9) | (norm * bounded**left / (1 - bounded) > allowed))
        failed = running & ~converged & (~usable | slow | (iteration >= _ITERATIONS))
        return converged, failed

    def _error(self, attempt: Attempt, step: _Prediction, increment: Tensor) -> Tensor:
        """(E,) float64 the error of the step over what is allowed.

        That of dw does not count in the first step with momentum: at rest, it is all of dw.
        """
        state, memory = attempt.state, attempt.state.memory
        constant = self.formulas.error[memory["order"]]
        by_outputs = rms(increment) / self.tol
        relative = relative_norm(memory["increment"], step.weights + memory["increment"])
        by_weights = relative.nan_to_num(0.0) / (_WEIGHTS * self.tol)
        if state.velocity is not None:
            at_rest = (state.accepted == 0) & (_memory_time(attempt, state.t) > 0)
            by_weights = by_weights.masked_fill(at_rest, 0.0)
        return constant * torch.maximum(by_outputs, by_weights).clamp_min(1e-12)

    def _after_failure(
        self, memory: dict[str, Tensor], failed: Tensor, following: Tensor, dt: Tensor, usable: Tensor
    ) -> Tensor:
        """A failure with an old system or kernel computes them anew, another one shortens the step; the next dt."""
        kernel, system = memory["kernel_age"], memory["system_age"]
        hopeless = failed & (((kernel == _FRESH) & (system == _FRESH)) | ~usable)
        old_kernel = failed & ~hopeless & (system == _FRESH)
        kernel.masked_fill_(old_kernel | (hopeless & ~usable), _RENEW)
        system.masked_fill_(failed & ~hopeless, _RENEW)
        return torch.where(hopeless, dt * torch.where(usable, 0.3, 0.1), following)

    def _keep(
        self,
        attempt: Attempt,
        step: _Prediction,
        reported: Evaluation,
        output_increment: Tensor,
        accept: Tensor,
        following: Tensor,
    ) -> Tensor:
        """Moves the members whose step is accepted; chooses their order and next dt, which is returned."""
        state, memory = attempt.state, attempt.state.memory
        (rows,) = _rows(accept)
        if not len(rows):
            return following
        order, c = memory["order"][rows], step.c[rows]
        increment = memory["increment"][rows]
        dtype = increment.dtype
        if state.velocity is not None:
            self._keep_velocity(attempt, rows, order, output_increment)
        path = advanced(memory["differences"][rows], increment, order, self.formulas)
        memory["differences"].index_copy_(0, rows, path)
        moved = advanced(memory["output_differences"][rows], output_increment[rows], order, self.formulas)
        memory["output_differences"].index_copy_(0, rows, moved)
        gradient = (increment + step.psi[rows]).div_(-c.to(dtype).unsqueeze(1))
        norm = torch.linalg.vector_norm(gradient, dim=1).double()
        state.displacement.index_copy_(0, rows, memory["differences"][rows, 0])
        state.gradient.index_copy_(0, rows, gradient)
        state.gradient_norm.index_copy_(0, rows, norm)
        torch.maximum(state.gradient_scale, state.gradient_norm, out=state.gradient_scale)
        keep_report(state, reported, accept)
        return following.index_copy(
            0, rows, self._next(memory, rows, order, self._sizes(path, moved), attempt.dt[rows])
        )

    def _keep_velocity(self, attempt: Attempt, rows: Tensor, order: Tensor, output_increment: Tensor) -> None:
        state, memory = attempt.state, attempt.state.memory
        plain = attempt.dt[rows] / self.formulas.leading[order]
        increments = {
            "": memory["increment"][rows],
            "output_": output_increment[rows],
        }
        for prefix, increment in increments.items():
            c = plain.to(increment.dtype).unsqueeze(1)
            psi = predicted(memory[f"{prefix}differences"][rows], order, self.formulas)[1]
            old = memory[f"{prefix}velocity_differences"][rows]
            velocity = (increment + psi) / c
            before = predicted(old, order, self.formulas)[0]
            memory[f"{prefix}velocity_differences"].index_copy_(
                0, rows, advanced(old, velocity - before, order, self.formulas)
            )
            if not prefix:
                cast(Tensor, state.velocity).index_copy_(0, rows, velocity)

    def _sizes(self, path: Tensor, moved: Tensor) -> Tensor:
        """(R, 8) float64 of differences of w and F, in the units of the error test."""
        by_outputs = moved.double().square().mean(dim=2).sqrt() / self.tol
        norms = torch.linalg.vector_norm(path, dim=2).double()
        return torch.maximum(by_outputs, norms / norms[:, :1] / (_WEIGHTS * self.tol))

    def _next(self, memory: dict[str, Tensor], rows: Tensor, order: Tensor, size: Tensor, dt: Tensor) -> Tensor:
        """(R,) the next dt of members that have taken a step; their order, and what of the system is kept."""
        equal = memory["equal"][rows] + 1
        candidates = torch.stack([order - 1, order, order + 1])
        errors = self.formulas.error[candidates.clamp_min(0)] * size.gather(1, (candidates + 1).T).T
        errors[0].masked_fill_(order == 1, torch.inf)
        factors = errors.clamp_min(1e-12) ** (-1 / (candidates + 1).double())
        best, choice = factors.max(dim=0)
        slow = memory["rate"][rows] > _SLOW
        best = (_SAFETY * best).clamp(max=_GROW)
        changes = (equal > order) & ((best > _WORTH_A_CHANGE) | (best < 0.9))
        chosen = torch.where(changes, candidates.gather(0, choice.unsqueeze(0)).squeeze(0), order)
        following = torch.where(changes, dt * best, dt)
        memory["order"].index_copy_(0, rows, chosen)
        memory["equal"].index_copy_(0, rows, torch.where(changes, 0, equal))
        system, kernel = memory["system_age"][rows], memory["kernel_age"][rows]
        old = slow & (system == _FRESH)
        memory["kernel_age"].index_copy_(0, rows, torch.where(old, _RENEW, _OLD).to(kernel.dtype))
        memory["system_age"].index_copy_(0, rows, torch.where(slow, _RENEW, _OLD).to(system.dtype))
        return following

    def _restart(self, memory: dict[str, Tensor], rows: Tensor) -> None:
        """Newton's method begins anew at the prediction."""
        memory["iteration"].masked_fill_(rows, 0)
        memory["increment"].masked_fill_(rows.unsqueeze(1), 0.0)


class _Correction:
    """The cotangent l' + q of one Newton iteration, as a function of F and its slopes."""

    def __init__(
        self,
        memory: dict[str, Tensor],
        step: _Prediction,
        samples: int,
        evaluate: Evaluator,
        running: Tensor,
    ) -> None:
        self._memory, self._step, self._samples = memory, step, samples
        self._evaluate, self._running = evaluate, running
        self.increment: Tensor
        """(E, m) alpha J d of the increment that this iteration leads to."""
        self.change: Tensor
        """(E, m) alpha J delta."""
        self.outputs: Tensor
        """(E, m) F where the iteration was evaluated."""
        self.missed: Tensor
        """(E, m) F at the prediction less the predicted F; in later iterations without meaning."""

    def __call__(self, outputs: Tensor, slopes: Tensor) -> Tensor:
        """l' + q, of the shape of the outputs (E, n, ...)."""
        memory, step = self._memory, self._step
        self.outputs, shape = outputs.flatten(1), outputs.shape
        self.missed = self.outputs - step.outputs
        slope = slopes.flatten(1)
        scale = step.c / self._samples
        self._renew_systems(outputs, scale)
        self._measure_defect()
        first = (memory["iteration"] == 0).unsqueeze(1)
        old, column = memory["cotangent"], scale.to(slope.dtype).unsqueeze(1)
        pull = column * tangent_system.product(memory["kernel"], torch.where(first, -slope, old - slope))
        right = torch.where(first, pull - step.psi_outputs + memory["defect"], pull)
        root = self._evaluate.curvature_root(memory["system_outputs"])
        q = tangent_system.solved(memory["factor"], root, right)
        self.change = right - column * tangent_system.product(memory["kernel"], q)
        cotangent = slope + q
        self.increment = -column * tangent_system.product(memory["kernel"], cotangent) - step.psi_outputs
        keep(old, cotangent, self._running)
        return cotangent.view(shape)

    def _measure_defect(self) -> None:
        """What the change of F by the first iteration lacks, (c/n) (Theta_kept - Theta) l' + psi_F - alpha J psi.

        It is measured where a step takes a second iteration, and carried to the next step in proportion to c.
        """
        memory, c = self._memory, self._step.c
        first, second = memory["iteration"] == 0, self._running & (memory["iteration"] == 1)
        ratio = torch.where(memory["defect_c"] > 0, c / memory["defect_c"], 0.0)
        missed = self.outputs - memory["expected_outputs"]
        scaled = memory["defect"] * ratio.to(missed.dtype).unsqueeze(1)
        defect = torch.where(second.unsqueeze(1), memory["defect"] + missed, scaled)
        changes = (self._running & first) | second
        keep(memory["defect"], defect, changes)
        keep(memory["defect_c"], c, changes)
        # A first iteration is trusted alone while those before it have missed F by less than tol.
        surprise = torch.where(second, rms(missed), torch.maximum(memory["surprise"], _NEWTON * rms(self.missed)))
        keep(memory["surprise"], surprise, self._running & (second | first))

    def _renew_systems(self, outputs: Tensor, scale: Tensor) -> None:
        memory = self._memory
        (rows,) = _rows(self._running & (memory["system_age"] == _RENEW))
        if not len(rows):
            return
        root = self._evaluate.curvature_root(outputs[rows])
        memory["system_outputs"].index_copy_(0, rows, outputs[rows])
        memory["factor"].index_copy_(0, rows, tangent_system.factorized(memory["kernel"][rows], root, scale[rows]))
        memory["factor_c"].index_copy_(0, rows, self._step.c[rows])
        memory["system_age"].index_fill_(0, rows, _FRESH)


def _within(memory: dict[str, Tensor], order: Tensor, members: Sequence[int], share: Tensor) -> Within:
    """Where members were after a share of a step of this order, by the polynomial through its points."""
    rows = torch.tensor(members, device=order.device)
    displacement = interpolated(memory["differences"][rows], order[rows], share)
    if "velocity_differences" not in memory:
        return Within(displacement, None)
    return Within(displacement, interpolated(memory["velocity_differences"][rows], order[rows], share))


def _memory_time(attempt: Attempt, t: Tensor) -> Tensor:
    """(E,) float64 tau at the times t."""
    return attempt.rule.memory_time(t).expand_as(t)


def _differences(memory: dict[str, Tensor]) -> list[str]:
    return [name for name in memory if name.endswith("differences")]


def _rows(*masks: Tensor) -> list[Tensor]:
    """The indices where each mask (E,) holds, by one read from the device."""
    flags: list[list[Any]] = torch.stack(masks).tolist()
    device = masks[0].device
    return [torch.tensor([i for i, flag in enumerate(row) if flag], dtype=torch.int64).to(device) for row in flags]
