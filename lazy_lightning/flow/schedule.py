"""When to observe: one schedule over tried steps and over the physical time t, shared by all observers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.errors import ConfigError


@dataclass(frozen=True)
class Schedule:
    """Observations log-spaced in tried steps, at most ``max_burst`` apart, and on each factor of ``t_factor`` in t.

    The times in t lie on the grid t_factor^k, the same for all members, so that their curves can be compared.
    No member passes a grid point unobserved, as long as that takes it at least ``min_burst`` steps: dt grows
    by at most ``growth`` a step, which bounds how soon it can arrive.
    """

    max_burst: int = 50
    min_burst: int = 8
    step_factor: float = 1.25
    t_factor: float = 1.5

    def __post_init__(self) -> None:
        check_arguments(Schedule, vars(self))
        if not 1 <= self.min_burst <= self.max_burst:
            raise ConfigError(
                f"a schedule needs 1 <= min_burst <= max_burst, got {self.min_burst} and {self.max_burst}"
            )
        if not (self.step_factor > 1 and self.t_factor > 1):  # nor not a number
            raise ConfigError(f"step_factor and t_factor must be > 1, got {self.step_factor} and {self.t_factor}")

    def steps_to_next(self, tried: int) -> int:
        """Steps from ``tried`` to the next observation by the count of steps alone.

        >>> Schedule(max_burst=50).steps_to_next(0), Schedule(max_burst=50).steps_to_next(100)
        (1, 25)
        """
        return max(1, min(self.max_burst, math.floor(tried * (self.step_factor - 1))))

    def burst(self, tried: int, t: Sequence[float], dt: Sequence[float], growth: float, evaluations: int = 1) -> int:
        """How many steps may be tried before the host must look: none of the running members can be late.

        Args:
            tried: tried steps so far.
            t: flow time of each running member.
            dt: its next step size.
            growth: the integrator's largest growth of dt in an attempt at a step.
            evaluations: how many evaluations, which ``tried`` counts, an attempt takes.
        """
        by_steps = self.steps_to_next(tried)
        by_time = min(
            (evaluations * self._steps_to_grid(*pair, growth) for pair in zip(t, dt, strict=True)), default=by_steps
        )
        return min(by_steps, max(by_time, self.min_burst))

    def grid_index(self, t: float) -> int | None:
        """k such that t_factor^k <= t < t_factor^(k + 1); None at t = 0."""
        return math.floor(math.log(t) / math.log(self.t_factor) + 1e-12) if t > 0 else None

    def _steps_to_grid(self, t: float, dt: float, growth: float) -> int:
        index = self.grid_index(t)
        if index is None or dt <= 0:
            return 1
        needed = (self.t_factor ** (index + 1) - t) / dt
        if growth > 1:
            needed = math.log1p(needed * (growth - 1)) / math.log(growth)
        return max(1, math.ceil(min(needed, 1e9)))
