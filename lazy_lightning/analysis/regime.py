"""Classification of lazy training and feature learning by the distance of a network from its linearisation."""

from __future__ import annotations

from enum import StrEnum

LAZY_BELOW = 0.1
FEATURE_ABOVE = 0.5
TRAINED_BELOW = 0.5
"""Share of its initial value below which the training loss must have fallen for the regimes lazy and crossover."""
ENDED_BY_ITSELF = ("margins_met", "loss_reached", "stationary", "stalled")
"""Reasons of members whose training is complete; all others were stopped by a limit."""


class Regime(StrEnum):
    """The regime of training according to the tangent departure at its end."""

    LAZY = "lazy"
    """The network is close to its linearisation."""
    CROSSOVER = "crossover"
    """The departure is between those of lazy training and feature learning."""
    FEATURE = "feature"
    """The linearisation does not describe the network."""
    UNDECIDED = "undecided"
    """The network is close to its linearisation, but the loss has not fallen enough for a classification."""
    UNKNOWN = "unknown"
    """The tangent departure was not measured."""
    KERNEL = "kernel"
    """The model is a frozen kernel, for which there is no departure."""


def regime(departure: float, loss_share: float, ended: bool = False) -> Regime:
    """Returns the regime: lazy if the linearisation differs from F by less than a tenth, feature if by more than half.

    Every network is close to its linearisation at the start of training. Therefore lazy and crossover require that
    training is complete, or that the loss has fallen to :data:`TRAINED_BELOW` of its initial value. A large departure
    is feature learning at any loss.

    Args:
        departure: relative difference ‖F - F_lin‖/‖F‖.
        loss_share: the training loss divided by its value at w0.
        ended: whether training is complete, with a reason in :data:`ENDED_BY_ITSELF`.

    >>> regime(0.003, 0.01), regime(0.003, 0.9), regime(0.9, 0.9)
    (<Regime.LAZY: 'lazy'>, <Regime.UNDECIDED: 'undecided'>, <Regime.FEATURE: 'feature'>)
    """
    if departure != departure:
        return Regime.UNKNOWN
    if departure > FEATURE_ABOVE:
        return Regime.FEATURE
    if not (ended or loss_share <= TRAINED_BELOW):
        return Regime.UNDECIDED
    return Regime.LAZY if departure < LAZY_BELOW else Regime.CROSSOVER
