"""Lazy training or feature learning, by how far a trained network has left its linearisation."""

from __future__ import annotations

from enum import StrEnum

LAZY_BELOW = 0.1
FEATURE_ABOVE = 0.5
TRAINED_BELOW = 0.5
"""The share of its initial value under which the training loss must have fallen before lazy or crossover is told."""
ENDED_BY_ITSELF = ("margins_met", "loss_reached", "stationary", "stalled")
"""Reasons of members whose training has come to an end of its own: the rest was stopped by a limit."""


class Regime(StrEnum):
    """What the tangent departure at the end of training says."""

    LAZY = "lazy"
    CROSSOVER = "crossover"
    FEATURE = "feature"
    UNDECIDED = "undecided"
    """Close to its linearisation, but the loss has not fallen enough to tell whether it stays there."""
    UNKNOWN = "unknown"
    KERNEL = "kernel"
    """Not measured: the model was a frozen kernel."""


def regime(departure: float, loss_share: float, ended: bool = False) -> Regime:
    """Lazy: the linearisation at w0 accounts for all but a tenth of F. Feature: for less than half.

    Every network is close to its linearisation before it has learnt anything, so lazy and crossover are told only of
    training that has ended by itself, or whose loss has fallen to :data:`TRAINED_BELOW` of its start. A departure that
    is large already is feature learning at any loss.

    Args:
        departure: ‖F - F_lin‖/‖F‖.
        loss_share: the training loss over its value at w0.
        ended: whether training has ended by itself: margins met, loss reached, or stationary.

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
