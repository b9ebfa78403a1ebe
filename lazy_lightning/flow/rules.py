"""Step rules: the velocity after a step, exactly if the gradient is held frozen; the weights move by it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.errors import ConfigError
from lazy_lightning.flow.part import FlowPart


class StepRule(FlowPart, ABC):
    """v <- v - gain (v + g), then dw <- dw + dt v with the new v; a rule is its gain, per member.

    Exact for v at a frozen gradient. The weights move as if v had its last value throughout the step, an error of
    second order in dt a step, as that of the frozen gradient.

    gain = 1 - x, where x is the share of the old velocity that survives the step. It is computed as such
    because 1 - x has no digits left in floating point when dt is much shorter than the memory.

    Derive from it to write a rule of your own; see :class:`FlowPart` for what it may do.
    """

    has_velocity: bool = True
    """False if the gain is always 1: then v = -g, no velocity is stored, and ``gain`` is not called."""

    @abstractmethod
    def gain(self, t: Tensor, dt: Tensor) -> Tensor:
        """(E,) float64 in (0, 1], for a step from t to t + dt, both (E,) float64."""

    def memory_time(self, t: Tensor) -> Tensor:
        """(E,) or () float64 tau(t) >= 0 in v' = -(v + g)/tau, w' = v, for the integrators other than ``euler``.

        Raises:
            ConfigError: a rule that does not override this is followed by ``euler`` alone.
        """
        raise ConfigError(
            f"the rule {self!r} has no memory_time, which the integrators other than euler need: add the method, or "
            "set integrator to euler"
        )


class Momentum(StepRule):
    """Momentum flow, v' = -(v + g)/tau and w' = v; v by its exact update for a frozen gradient.

    gain = 1 - exp(-dt/tau). ``tau = 0`` is gradient flow. ``tau`` may differ by member, shape (E,).

    >>> Momentum(2.0).gain(torch.zeros(1), torch.tensor([2.0], dtype=torch.float64))
    tensor([0.6321], dtype=torch.float64)
    """

    def __init__(self, tau: float | Sequence[float] | Tensor = 0.0) -> None:
        self.tau = _times(tau)
        if not bool((self.tau >= 0).all()) or not bool(self.tau.isfinite().all()):
            raise ConfigError(
                f"tau is a time and must be finite and >= 0 (0 is gradient flow), got {tau}; "
                "for the mu/t variant give mu instead"
            )
        self.has_velocity = bool((self.tau > 0).any())

    def gain(self, t: Tensor, dt: Tensor) -> Tensor:
        """1 - exp(-dt/tau), 1 where tau is 0."""
        return torch.where(self.tau == 0, 1.0, -torch.expm1(-dt / self.tau))  # 0/0 where a member stands at t_max

    def memory_time(self, t: Tensor) -> Tensor:
        """tau, whatever t is."""
        return self.tau

    def select(self, rows: Tensor) -> Momentum:
        """The same rule for some of the members."""
        if self.tau.ndim == 0:
            return self
        return self._with_tau(self.tau[rows])

    def to(self, device: torch.device) -> Momentum:
        """The same rule with its memory times on a device."""
        return self if self.tau.device == device else self._with_tau(self.tau.to(device))

    def _with_tau(self, tau: Tensor) -> Momentum:
        chosen = object.__new__(Momentum)  # the values have been checked: no second look, no synchronisation
        chosen.tau = tau
        chosen.has_velocity = self.has_velocity  # the state keeps its velocity even if all that remain have tau = 0
        return chosen


def _times(tau: object) -> Tensor:
    try:
        return torch.as_tensor(tau, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ConfigError(f"tau is {tau!r:.60}, expected a time >= 0, or one for each member") from error


class NesterovFlow(StepRule):
    """The Nesterov-like variant of the reference, v' = -(mu/t)(v + g) and w' = v; v exact for a frozen gradient.

    gain = 1 - (t/(t + dt))^mu, which is 1 at t = 0. In the time s of t = s^2/(4 mu) it is d^2w/ds^2 + ((2 mu - 1)/s)
    dw/ds + g = 0, so mu = 2 is the continuous limit of Nesterov's method, whose friction is 3/s.
    """

    def __init__(self, mu: float) -> None:
        check_arguments(NesterovFlow, locals())
        if not mu > 0:
            raise ConfigError(f"mu must be > 0, got {mu}: 2 gives the continuous limit of Nesterov's method")
        self.mu = mu

    def gain(self, t: Tensor, dt: Tensor) -> Tensor:
        """1 - (t/(t + dt))^mu."""
        return -torch.expm1(-self.mu * torch.log1p(dt / t))

    def memory_time(self, t: Tensor) -> Tensor:
        """tau(t) = t/mu, (E,) float64."""
        return t / self.mu


def step_rule(
    tau: float | Sequence[float] | Tensor = 0.0, mu: float | None = None, rule: StepRule | None = None
) -> StepRule:
    """The rule for ``tau`` (0: gradient flow), for ``mu`` if it is given, or ``rule`` itself.

    Raises:
        ConfigError: if several are given, one is out of range, or ``rule`` is none.
    """
    if rule is not None:
        if not callable(getattr(rule, "gain", None)):
            raise ConfigError(f"rule is {rule!r}, expected a StepRule: Momentum, NesterovFlow, or a class of your own")
        if mu is not None or bool((torch.as_tensor(tau) != 0).any()):
            raise ConfigError(
                f"give either rule or tau and mu, not both: tau is {tau}, mu is {mu} and rule is {rule!r}"
            )
        return rule
    if mu is None:
        return Momentum(tau)
    if bool((torch.as_tensor(tau) != 0).any()):
        raise ConfigError(f"give either tau or mu, not both: tau is {tau} and mu is {mu}")
    return NesterovFlow(mu)
