"""What the members of a sweep cost: a step as measured here, and as many as finished runs took."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from lazy_lightning.data.flow_data import FlowData
from lazy_lightning.errors import ConfigError
from lazy_lightning.experiments.batching import ConfigGroup, MemberCost
from lazy_lightning.experiments.cost import StepCost, step_cost
from lazy_lightning.experiments.sweep import Rows
from lazy_lightning.flow.schedule import Schedule
from lazy_lightning.modules import ObservedModule
from lazy_lightning.runs import configuration
from lazy_lightning.runs.run_folder import Status

Build = Callable[[Mapping[str, Any]], tuple[ObservedModule, FlowData]]

_TYPICAL_STEPS = 1000.0
USUAL_IMPORTS = 8.0
"""Seconds that a process takes to import everything, where they have not been measured."""
_START = 0.8
"""Share of the imports' time that a batch takes beside its steps: parsing, data, trials, figures and files."""
_KERNEL_LOOKS = {"KernelDrift": 28, "KernelSpectrum": 2, "KernelSnapshots": 2, "PathDistance": 1}
"""Tangent kernels that an observer computes of a member: of the drift, one each time t has grown by half."""
_ONCE = {"LazinessIndex": 600}
"""Evaluations at w0 that an observer takes: some 160 power steps of four passes, by Hessian-vector products."""
_A_STEP = {"PathDistance": 0.5}
"""Evaluations that what an observer trains beside the network takes for each of its steps."""
_KERNEL_SAMPLES = 200
_ALWAYS = 2
"""Evaluations at each observation that every run has: the training set and the test set."""

_log = logging.getLogger(__name__)


class CostModel:
    """Of the members of families, each measured once.

    Args:
        build: makes the module and the data of a configuration.
        device: where they are trained.
        imports: seconds that this process took to import everything, which each worker takes again.
    """

    def __init__(self, build: Build, device: torch.device, imports: float = USUAL_IMPORTS) -> None:
        self._build = build
        self.imports = imports
        self.start = _START * imports
        self._steps: dict[str, StepCost] = {}
        self._data: dict[str, FlowData] = {}
        self.device = device
        self.steps_are = f"{_TYPICAL_STEPS:g} steps a member"

    def of(self, rows: Rows) -> Callable[[ConfigGroup], MemberCost]:
        """The cost of a family, given what is known of steps."""
        taken = [float(row["tried"]) for row in rows if row["status"] == Status.FINISHED and row.get("tried")]
        usual = sum(taken) / len(taken) if taken else _TYPICAL_STEPS
        self.steps_are = f"{usual:.0f} steps a member, as in finished runs" if taken else self.steps_are

        def cost(group: ConfigGroup) -> MemberCost:
            step = self._step(group)
            own = [float(r["tried"]) for r in rows if r["family"] == group.key and r.get("tried")]
            most = configuration.flatten(group.config).get("model.stop.max_steps")
            flow = min(sum(own) / len(own) if own else usual, most or math.inf)
            steps = _mini_batch_steps(group.config) or flow
            named = _callbacks(group.config)
            evaluations = steps * (1 + sum(_A_STEP.get(name, 0.0) for name in named))
            evaluations += observations(steps) * (_ALWAYS + len(named)) + sum(_ONCE.get(name, 0) for name in named)
            kernels = step.kernel * sum(_KERNEL_LOOKS.get(name, 0) for name in named)
            return MemberCost(step.weights, step.bytes, step.seconds * evaluations + kernels, self.start)

        return cost

    def _step(self, group: ConfigGroup) -> StepCost:
        if group.key not in self._steps:
            self._steps[group.key] = self._measured(group)
        return self._steps[group.key]

    def _measured(self, group: ConfigGroup) -> StepCost:
        """Nothing where it cannot be had: the family's run then fails with its reason, and stops no other."""
        module, data = self._build(group.config)
        try:
            key = json.dumps(group.config["data"], sort_keys=True, default=str)
            data = self._data.setdefault(key, data)
            data.setup()
            half = str((group.config.get("trainer") or {}).get("precision")).startswith("32")
            samples = _KERNEL_SAMPLES if set(_callbacks(group.config)) & set(_KERNEL_LOOKS) else 0
            return step_cost(module, data, self.device, torch.float32 if half else torch.float64, samples)
        except ConfigError:  # to be mended before anything is trained
            raise
        except Exception as error:
            _log.info("the cost of %s is not known: %s", dict(group.setting), error)
            return StepCost(0, 0.0, 0.0)


def observations(steps: float) -> int:
    """How often a member is observed in so many tried steps, by the default schedule in steps.

    >>> observations(1), observations(1000)
    (2, 41)
    """
    schedule, count, tried = Schedule(), 1, 0
    burst = schedule.steps_to_next(0)
    while burst < schedule.max_burst and tried < steps:
        tried, count = tried + burst, count + 1
        burst = schedule.steps_to_next(tried)
    return count + math.ceil(max(0.0, steps - tried) / schedule.max_burst)


def _callbacks(config: Mapping[str, Any]) -> list[str]:
    """The classes of the callbacks that the configuration names; most of them are observers."""
    given = (config.get("trainer") or {}).get("callbacks") or []
    callbacks = given if isinstance(given, list) else [given]
    return [str(one.get("class_path")).rpartition(".")[2] for one in callbacks if isinstance(one, Mapping)]


def _mini_batch_steps(config: Mapping[str, Any]) -> float | None:
    """That training by mini-batches takes, by the trainer's limits; None where it is not that, or has none."""
    flat, trainer = configuration.flatten(config), config.get("trainer") or {}
    batch = flat.get("data.batch_size")
    if batch is None:
        return None
    epochs, steps = trainer.get("max_epochs"), trainer.get("max_steps")
    limits = [float(epochs * math.ceil(flat["data.n_train"] / batch))] if epochs not in (None, -1) else []
    return min([*limits, *([float(steps)] if steps not in (None, -1) else [])], default=None)
