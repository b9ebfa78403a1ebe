"""Gradient and momentum flow with an adaptive step, over the member axis. Knows tensors and a closure only."""

from typing import Any

from lazy_lightning.deprecations import renamed
from lazy_lightning.flow.auto import Auto
from lazy_lightning.flow.controllers import (
    Change,
    ConstantStep,
    Controller,
    Decision,
    GradientChangeController,
    gradient_change,
    reference,
)
from lazy_lightning.flow.euler import Euler
from lazy_lightning.flow.evaluation import Evaluation
from lazy_lightning.flow.evaluator import TangentClosure
from lazy_lightning.flow.events import Event, LossReached, MarginsMet, Moment, Stalled, StepsTried, TimeReached
from lazy_lightning.flow.explicit import ExplicitPair
from lazy_lightning.flow.implicit import Implicit
from lazy_lightning.flow.integrator import Attempt, Integrator, Outcome
from lazy_lightning.flow.interpolant import Interpolant, Within
from lazy_lightning.flow.momentum_flow import MomentumFlow, Trace
from lazy_lightning.flow.rules import Momentum, NesterovFlow, StepRule
from lazy_lightning.flow.schedule import Schedule
from lazy_lightning.flow.state import FlowState
from lazy_lightning.flow.stop_reason import StopReason

__all__ = [
    "Attempt",
    "Auto",
    "Change",
    "ConstantStep",
    "Controller",
    "Decision",
    "Euler",
    "Evaluation",
    "Event",
    "ExplicitPair",
    "FlowState",
    "GradientChangeController",
    "Implicit",
    "Integrator",
    "Interpolant",
    "LossReached",
    "MarginsMet",
    "Moment",
    "Momentum",
    "MomentumFlow",
    "NesterovFlow",
    "Outcome",
    "Schedule",
    "Stalled",
    "StepRule",
    "StepsTried",
    "StopReason",
    "TangentClosure",
    "TimeReached",
    "Trace",
    "Within",
    "gradient_change",
    "reference",
]


def __getattr__(name: str) -> Any:
    return renamed(__name__, name)
