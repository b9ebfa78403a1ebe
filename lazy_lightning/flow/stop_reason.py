"""Why a member of a flow stopped."""

from __future__ import annotations

from enum import IntEnum


class StopReason(IntEnum):
    """Named reasons, kept per member as an ``int8`` tensor on the device; 0 means still running."""

    RUNNING = 0
    MARGINS_MET = 1
    LOSS_REACHED = 2
    T_MAX = 3
    MAX_STEPS = 4
    MAX_WALL = 5
    STATIONARY = 6
    DT_UNDERFLOW = 7
    NON_FINITE = 8
    STALLED = 9
    NO_GRADIENT = 10
    CUSTOM = 11

    @property
    def failed(self) -> bool:
        """Whether the member has no usable end: it blew up, its steps shrank to nothing, or it never moved."""
        return self in (StopReason.NON_FINITE, StopReason.DT_UNDERFLOW, StopReason.NO_GRADIENT)

    @property
    def sentence(self) -> str:
        """The reason in words, for tables and messages."""
        return _SENTENCES[self]


_SENTENCES = {
    StopReason.RUNNING: "still running",
    StopReason.MARGINS_MET: "margins met",
    StopReason.LOSS_REACHED: "loss reached",
    StopReason.T_MAX: "t_max reached",
    StopReason.MAX_STEPS: "step limit",
    StopReason.MAX_WALL: "wall-time limit",
    StopReason.STATIONARY: "gradient zero to rounding",
    StopReason.DT_UNDERFLOW: "step size underflow: the gradient jumps, set a controller with dt_min",
    StopReason.NON_FINITE: "non-finite",
    StopReason.STALLED: "stalled: the loss no longer falls, so the end asked for cannot be reached",
    StopReason.NO_GRADIENT: "no gradient at w0: it vanishes or underflows for every sample (huge alpha or data?)",
    StopReason.CUSTOM: "ended by an event",
}
