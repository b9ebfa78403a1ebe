"""Step-size controllers: pure functions of the step tried and of what it changed, over the member axis.

A controller depends neither on the network nor on the step rule. All its arithmetic stays on the device.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.deprecations import CONTROLLERS
from lazy_lightning.errors import ConfigError
from lazy_lightning.flow.known_masks import holds_for_all, holds_for_none
from lazy_lightning.flow.part import FlowPart


class Change(NamedTuple):
    """How far one tried step moved each member. Non-finite entries mark a step that blew up."""

    gradient: Tensor
    """(E,) r = ‖g_new - g_old‖^2 / (‖g_new‖ ‖g_old‖)."""
    output: Tensor | None
    """(E,) max over samples and outputs of |F_new - F_old| = alpha |f_new - f_old|, or None if unknown."""


class Decision(NamedTuple):
    """What the controller makes of a tried step."""

    accept: Tensor
    """(E,) bool: keep the step; False: go back and try again with the new dt."""
    dt: Tensor
    """(E,) float64: the next step size to try."""


class Controller(FlowPart, ABC):
    """Chooses the step sizes; derive from it to write one of your own. See :class:`FlowPart` for what it may do.

    A configuration takes subclasses alone; a script may also give an object that has the same attributes.
    """

    growth: float
    """The largest factor by which dt grows in one step: bounds how far t can move in a burst."""
    watches_outputs: bool = False
    """Whether ``change.output`` is needed."""

    @abstractmethod
    def __call__(self, dt: Tensor, change: Change) -> Decision:
        """Judges a step of size ``dt`` (E,) float64. A step that blew up (not finite) must get a shorter dt."""


@dataclass(frozen=True)
class ConstantStep(Controller):
    """Accepts every finite step and never changes dt; a step that blows up is retried ten times shorter.

    >>> ConstantStep()(torch.tensor([0.5]), Change(torch.tensor([1e9]), None))
    Decision(accept=tensor([True]), dt=tensor([0.5000]))
    """

    growth: float = 1.0
    watches_outputs: bool = False

    def __call__(self, dt: Tensor, change: Change) -> Decision:
        """Accepts whatever is finite."""
        accept = change.gradient.isfinite()
        return Decision(accept, torch.where(accept, dt, dt / 10))


@dataclass(frozen=True)
class GradientChangeController(Controller):
    """Keeps the gradient change r, and optionally the output change, inside a band (arXiv:1906.08034).

    A step is accepted if ``r < r_max`` and ``max|dF| < out_max``; otherwise dt is divided by ``shrink`` and
    the step is done again. An accepted step below ``r_grow`` and ``out_grow`` lets dt grow by ``growth``.

    At a kink of the loss or of the activation (hinge, relu) the gradient jumps, and r with it, however short the step:
    a member creeps up to the kink, or slides along it, with ever shorter steps, and ends in a step-size underflow.
    ``dt_min`` bounds that: no step is shorter, and one that short is taken whatever it changes. For smooth problems
    leave it 0.
    """

    r_max: float
    r_grow: float
    out_max: float | None = None
    out_grow: float | None = None
    growth: float = 1.1
    shrink: float = 10.0
    dt_min: float = 0.0

    def __post_init__(self) -> None:
        check_arguments(GradientChangeController, vars(self))
        if not 0 < self.r_grow <= self.r_max:
            raise ConfigError(
                f"the band of the gradient change must satisfy 0 < r_grow <= r_max, but r_grow is {self.r_grow} "
                f"and r_max is {self.r_max}: choose for example 1e-4 and 1e-2"
            )
        if (self.out_max is None) != (self.out_grow is None):
            raise ConfigError("give both out_max and out_grow to bound the output change, or neither")
        if self.out_max is not None and self.out_grow is not None and not 0 < self.out_grow <= self.out_max:
            raise ConfigError(
                f"the output change must satisfy 0 < out_grow <= out_max, but out_grow is {self.out_grow} "
                f"and out_max is {self.out_max}"
            )
        if not 0 <= self.dt_min < float("inf"):
            raise ConfigError(f"dt_min is a step size and must be >= 0 and finite, got {self.dt_min}")
        if not (self.growth >= 1 and self.shrink > 1):
            raise ConfigError(
                f"a controller needs growth >= 1 and shrink > 1, got growth {self.growth} and shrink {self.shrink}"
            )

    @property
    def watches_outputs(self) -> bool:  # type: ignore[override]
        """True if the output change is bounded."""
        return self.out_max is not None

    def __call__(self, dt: Tensor, change: Change) -> Decision:
        """Comparisons with NaN are false, so a step that blew up is rejected."""
        accept = change.gradient < self.r_max
        grow = change.gradient < self.r_grow
        if self.out_max is not None and self.out_grow is not None:
            assert change.output is not None  # the integrator evaluates outputs where watches_outputs
            accept = accept & (change.output < self.out_max)
            grow = grow & (change.output < self.out_grow)
        following = dt if holds_for_none(grow) else torch.where(grow, dt * self.growth, dt)
        if not holds_for_all(accept):
            following = torch.where(accept, following, dt / self.shrink)
        if self.dt_min > 0:
            finite = change.gradient < torch.inf
            accept = accept | ((dt <= self.dt_min) & finite)
            following = torch.where(finite, following.clamp_min(self.dt_min), following)
        return Decision(accept, following)


def gradient_change(
    r_max: float = 1e-2, r_grow: float = 1e-4, growth: float = 1.1, shrink: float = 10.0
) -> GradientChangeController:
    """The talk's policy: hold r in (1e-4, 1e-2)."""
    return GradientChangeController(r_max=r_max, r_grow=r_grow, growth=growth, shrink=shrink)


def reference(
    max_dgrad: float = 1e-4, max_dout: float = 0.1, growth: float = 1.1, shrink: float = 10.0
) -> GradientChangeController:
    """The reference code's policy: r < max_dgrad and max alpha |df| < max_dout; grow when under half of both."""
    return GradientChangeController(
        r_max=max_dgrad,
        r_grow=max_dgrad / 2,
        out_max=max_dout,
        out_grow=max_dout / 2,
        growth=growth,
        shrink=shrink,
    )


PRESETS = {"gradient_change": gradient_change, "reference": reference}


def controller(spec: str | Controller) -> Controller:
    """A controller by preset name (``"gradient_change"``, ``"reference"``), or the object itself.

    Raises:
        ConfigError: for an unknown name.
    """
    if not isinstance(spec, str):
        if not callable(spec) or not hasattr(spec, "growth"):
            raise ConfigError(
                f"controller is {spec!r}, expected one of {', '.join(sorted(PRESETS))}, or a Controller: a "
                "GradientChangeController, a ConstantStep, or a class of your own that has the attribute growth"
            )
        return spec
    if spec in CONTROLLERS:
        new = CONTROLLERS[spec]
        warnings.warn(f"controller {spec!r} is deprecated: use {new!r}", DeprecationWarning, stacklevel=2)
        spec = new
    if spec not in PRESETS:
        raise ConfigError(
            f"unknown step controller {spec!r}: choose one of {', '.join(sorted(PRESETS))}, or give a class_path"
        )
    return PRESETS[spec]()
