"""Explicit until a member is stiff, then implicit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lazy_lightning.flow.evaluation import Evaluation
from lazy_lightning.flow.explicit import ExplicitPair
from lazy_lightning.flow.first_step import time_of_first_fall
from lazy_lightning.flow.implicit import Implicit
from lazy_lightning.flow.integrator import Attempt, Integrator, Outcome
from lazy_lightning.flow.rules import StepRule
from lazy_lightning.flow.state import FlowState

MODE = "mode"
"""In the memory: (E,) int64 the index of the part that follows each member."""


@dataclass(eq=False)
class Auto(Integrator):
    """The explicit pair, and from when a member is stiff the implicit formulas; each member by itself.

    A member is stiff once the explicit pair has taken a step near its limit of stability, dt lambda = 2 of 3.25. Both
    parts are called by the flow, on the members that they follow.

    Args:
        tol: the error of F that a step may make, an rms over the outputs.
    """

    tol: float = 1e-3
    name: ClassVar[str] = "auto"
    needs_tangent: ClassVar[bool] = True
    reads_the_host: ClassVar[bool] = True
    interpolates: ClassVar[bool] = True
    evaluations: ClassVar[int] = ExplicitPair.evaluations
    growth: ClassVar[float] = Implicit.growth  # type: ignore[misc]

    def __post_init__(self) -> None:
        self._parts: tuple[Integrator, ...] = (ExplicitPair(self.tol), Implicit(self.tol))

    @property
    def parts(self) -> tuple[Integrator, ...]:
        """The explicit pair and the implicit formulas."""
        return self._parts

    @property
    def fallback(self) -> Integrator:
        """The explicit pair alone, where there is no kernel to be implicit with."""
        return self.parts[0]

    def to(self, device: torch.device) -> Auto:
        """The same with its parts on a device."""
        moved = Auto(self.tol)
        moved._parts = tuple(part.to(device) for part in self.parts)
        return moved

    def memory(self, state: FlowState, evaluation: Evaluation) -> dict[str, Tensor]:
        """Which part follows each member, and the memory of both."""
        memory = {MODE: torch.zeros_like(state.tried)}
        for part in self.parts:
            memory |= {f"{part.name}.{name}": x for name, x in part.memory(state, evaluation).items()}
        return memory

    def first_dt(self, state: FlowState, rule: StepRule) -> Tensor:
        """As of the explicit pair."""
        return time_of_first_fall(state, rule)

    def attempt(self, attempt: Attempt) -> Outcome:
        """Not called: the flow calls the parts.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("the flow follows each member by one of the parts of the integrator auto")

    def switch(self, state: FlowState) -> None:
        """Hands stiff members to the implicit formulas, in place."""
        state.memory[MODE].masked_fill_(state.memory["explicit.stiff"] > 0, 1)
