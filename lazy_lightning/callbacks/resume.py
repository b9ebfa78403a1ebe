"""Going on with a run that a limit has ended, after the limit has been raised."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor

from lazy_lightning.checkpoints import KEY
from lazy_lightning.errors import ConfigError
from lazy_lightning.flow.stop_reason import StopReason

if TYPE_CHECKING:
    from lazy_lightning.modules.flow_module import FlowModule
    from lazy_lightning.modules.stop import Stop


class Resume(Callback):
    """Lets members run on that had stopped at a limit of steps, time or wall time which is higher now."""

    def on_load_checkpoint(self, trainer: Trainer, pl_module: FlowModule, checkpoint: dict[str, Any]) -> None:  # type: ignore[override]
        """Changes the loaded reasons, before they reach the flow.

        Raises:
            ConfigError: the checkpoint comes from a training set of another size.
        """
        states = [held for state in checkpoint.get("optimizer_states", ()) for held in state["state"].values()]
        for held in states:
            _check_samples(held, pl_module)
            held["reason"] = lifted(held, pl_module.stop, checkpoint[KEY]["wall"])


def lifted(held: dict[str, Tensor], stop: Stop, wall: float) -> Tensor:
    """The reasons (E,), RUNNING where the limit that stopped a member lies further off now.

    Args:
        held: the state of a flow: ``reason``, ``tried`` and ``t``, (E,) each.
        stop: the limits of the run to come.
        wall: seconds spent so far.
    """
    reason = held["reason"]
    raised = {
        StopReason.MAX_STEPS: held["tried"] < _limit(stop.max_steps),
        StopReason.T_MAX: held["t"] < _limit(stop.t_max),
        StopReason.MAX_WALL: torch.full_like(reason, wall < _limit(stop.max_wall), dtype=torch.bool),
    }
    for code, further in raised.items():
        reason = torch.where((reason == int(code)) & further, int(StopReason.RUNNING), reason).to(reason.dtype)
    return reason


def _limit(value: float | None) -> float:
    return math.inf if value is None else value


def _check_samples(held: dict[str, Tensor], module: FlowModule) -> None:
    outputs = held.get("outputs")
    if outputs is not None and outputs.shape[1] != module.data.n_train:
        raise ConfigError(
            f"the checkpoint comes from {outputs.shape[1]} training samples, data.n_train is {module.data.n_train}: "
            "go on with the run's own config.yaml"
        )
