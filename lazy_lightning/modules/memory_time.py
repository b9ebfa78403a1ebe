"""The memory time tau of the momentum, as given in a configuration: a number, a list, or a rule by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from lazy_lightning.argument_types import is_number
from lazy_lightning.errors import ConfigError
from lazy_lightning.flow.state import FlowState
from lazy_lightning.modules.ensemble import Ensemble

Rule = Literal["published"]
MemoryTime = float | list[float] | Rule
"""Of all members; by alpha or by member; or by rule."""

PUBLISHED = "published"
_SHARE, _LONGEST = 1e-3, 1.0


def published(width: int, alpha: float) -> float:
    """tau = min(1e-3 sqrt(h) alpha, 1): that of the published runs (c_tau = 1e-3), in our time.

    The reference code has c_tau min(sqrt(h) alpha, 1e3). In the feature regime it is a thousandth of t1.

    >>> published(100, 0.01), published(100, 1e3)
    (0.0001, 1.0)
    """
    return min(_SHARE * math.sqrt(width) * alpha, _LONGEST)


def check_memory_time(tau: object, ensemble: Ensemble) -> None:
    """Let pass what :func:`memory_times` can read.

    Raises:
        ConfigError: another name, not a number, or a list of another length.
    """
    if tau == PUBLISHED:
        return
    values = list(tau) if isinstance(tau, (list, tuple)) else [tau]
    if not values or not all(is_number(value) for value in values):
        raise ConfigError(
            f"tau is {tau!r:.60}, expected a number (0 is gradient flow), a list of numbers, or {PUBLISHED} for "
            "min(1e-3 sqrt(h) alpha, 1)"
        )
    alphas = len(dict.fromkeys(ensemble.alphas))
    if isinstance(tau, (list, tuple)) and len(values) not in (alphas, len(ensemble)):
        raise ConfigError(
            f"tau has {len(values)} values, expected one for each of the {alphas} alphas or the {len(ensemble)} members"
        )


def memory_times(tau: MemoryTime, ensemble: Ensemble, network: nn.Module) -> float | list[float]:
    """One number for all members, or one for each.

    Raises:
        ConfigError: the rule needs the network's width, and it has none.
    """
    if isinstance(tau, str):
        width = _width(network)
        if width is None:
            raise ConfigError(
                f"tau: {tau} needs the width h, but the network {type(network).__name__} has no attribute width: give "
                "it one, or give tau as a number or a list"
            )
        return [published(int(width), alpha) for alpha in ensemble.alphas]
    if not isinstance(tau, (list, tuple)):
        return tau
    if len(tau) == len(ensemble):
        return list(tau)
    by_alpha: dict[float, float] = dict(zip(dict.fromkeys(ensemble.alphas), tau, strict=True))
    return [by_alpha[alpha] for alpha in ensemble.alphas]


def expected_t1(state: FlowState, ensemble: Ensemble, network: nn.Module) -> Tensor:
    """(E,) the time to be expected for the loss to halve, at t = 0.

    The lesser of L/(2 ‖grad L‖^2), its time at the first speed, which is that of lazy training; and of sqrt(h) alpha,
    that of feature learning, if the network has a width.
    """
    lazy = state.loss.double() / (2 * state.gradient_norm.square())
    width = _width(network)
    if width is None:
        return lazy
    return torch.minimum(lazy, math.sqrt(width) * ensemble.alpha_tensor().to(lazy.device))


def _width(network: nn.Module) -> int | float | None:
    """The network's h, None if it has no width."""
    width = getattr(network, "width", None)
    return width if isinstance(width, (int, float)) else None


def warning_of_long_memory(tau: float | Sequence[float], t1: Tensor, ensemble: Ensemble) -> str | None:
    """The warning where the memory of the momentum is longer than the loss takes to halve; None where it is not."""
    times = torch.as_tensor(tau, dtype=torch.float64).expand(len(ensemble)).tolist()
    long = {alpha: (own, t) for alpha, own, t in zip(ensemble.alphas, times, t1.tolist(), strict=True) if own > t}
    if not long:
        return None
    told = ", ".join(f"{own:.3g} > {t:.3g} at alpha = {alpha:g}" for alpha, (own, t) in long.items())
    return (
        f"the memory time tau of the momentum exceeds the time in which the loss is expected to halve ({told}): the "
        f"weights will overshoot and oscillate; give a shorter tau, a list by alpha, or tau: {PUBLISHED}"
    )
