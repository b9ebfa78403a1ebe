"""Cost model of a sweep's members: the measured cost of one step times the number of steps in finished runs.

The memory of one additional member is the size of the tensors that autograd saves; its time is the wall-clock time.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lazy_lightning.data.flow_data import FlowData
from lazy_lightning.errors import ConfigError
from lazy_lightning.experiments.batching import MemberCost
from lazy_lightning.experiments.config_group import ConfigGroup
from lazy_lightning.experiments.evaluation_count import expected_evaluations
from lazy_lightning.experiments.sweep import Rows
from lazy_lightning.flow.schedule import Schedule
from lazy_lightning.memory import bytes_saved_for_backward, working_bytes
from lazy_lightning.modules import KernelModule, MiniBatchModule, ObservedModule
from lazy_lightning.modules.member_module import require_memory_of_members
from lazy_lightning.nn.initial_members import InitialMembers
from lazy_lightning.nn.member_state import in_precision
from lazy_lightning.ntk import empirical_ntk
from lazy_lightning.objective.centering import Centering
from lazy_lightning.objective.full_batch import Objective
from lazy_lightning.runs import configuration
from lazy_lightning.runs.run_folder import Status

Build = Callable[[Mapping[str, Any]], tuple[ObservedModule, FlowData]]

USUAL_IMPORTS = 8.0
"""Seconds that a process takes to import the package and its dependencies, if they have not been measured."""
_START = 0.8
"""Time of a batch besides its steps (parsing, data, verification, figures, files), as a share of the imports' time."""
_KERNELS_A_MEMBER = {
    "KernelDrift": 28,
    "KernelEvolution": 112,
    "KernelSpectrum": 2,
    "KernelSnapshots": 2,
    "PathDistance": 1,
}
"""Number of tangent kernels that an observer computes of a member; KernelDrift computes one per growth of t by half,
KernelEvolution four."""
_ONCE = {"LazinessIndex": 600, "Sharpness": 3100}
"""Number of evaluations that an observer needs in a run: about 160 power iterations of four passes each at w0, and 28
Hessian-vector products of four passes each at 28 times t."""
_A_STEP = {"PathDistance": 0.5}
"""Number of evaluations per step that an observer needs for the model that it trains besides the network."""
_KERNEL_SAMPLES = 200
_USUAL_SAMPLES = 1000
"""Number of training samples of a data module that has no ``n_train``."""
_ALWAYS = 2
"""Number of evaluations at each observation in every run: the training set and the test set."""
_STATE = 12
"""Stored numbers per weight: w, w0, dw, gradient, velocity, the proposed step, and the gathered running rows."""
_GRAPH = 2
"""Memory of forward and backward pass, relative to the tensors that the forward pass saves."""
_BESIDE = 1.5
"""Cost of a companion in networks: the linearisation needs five passes, frozen activations four, the network three."""
_TOGETHER = 4
"""Number of members that are timed together, because in a batch each costs less than alone."""

_log = logging.getLogger(__name__)


class StepCost(NamedTuple):
    """The cost of one step of one member."""

    weights: int
    """Number of weights of the network."""
    bytes: float
    """Memory of the member."""
    seconds: float
    """Time of one evaluation of loss and gradient, which is the cost of a tried step."""
    kernel: float = 0.0
    """Seconds of one tangent kernel on the samples of the kernel observers; 0 without such observers."""
    samples: float = 0.0
    """Memory of the training and test inputs, which a member with a data seed has for itself."""


def step_cost(
    module: ObservedModule, data: FlowData, device: torch.device, dtype: torch.dtype, kernel_samples: int = 0
) -> StepCost:
    """Measures the cost of a step: loss and gradient of four members at initialisation, on all samples or a mini-batch.

    Each companion of mini-batch training is counted as 1.5 networks. The step of a frozen kernel consists of two
    products with an (n c)^2 matrix; its cost is computed, not measured.

    Args:
        module: the module of the configuration, before its setup.
        data: the datamodule after its setup.
        device: the device of the computation.
        dtype: the precision of the run.
        kernel_samples: number of test samples on which observers compute tangent kernels; one kernel is timed. 0 if
            there are no such observers.
    """
    samples = (len(data.train.y) + len(data.test.y)) * data.num_outputs
    if isinstance(module, KernelModule):
        return _kernel_cost(len(data.train.y) * data.num_outputs, samples, dtype)
    require_memory_of_members(module.factory, 1, data)
    initial = InitialMembers(module.factory, [0], data.input_shape, data.num_outputs, data.train.x)
    initial.network.in_precision(dtype).template.to(device)
    x = data.train.x[: data.batch_size].to(device, dtype)
    y = data.train.y[: data.batch_size].to(device)
    y = y.to(dtype) if y.is_floating_point() else y

    def evaluate(members: int) -> None:
        w = initial.w0.to(device, dtype).repeat(members, 1).requires_grad_()
        buffers = {
            name: in_precision(b, dtype).to(device).repeat(members, *(1,) * (b.ndim - 1))
            for name, b in initial.buffers.items()
        }
        centering = Centering(torch.ones(members, dtype=torch.float64, device=device), enabled=False)
        f0 = torch.zeros(members, len(x), data.num_outputs, device=device, dtype=dtype)
        objective = Objective(
            initial.network, module.loss, centering, x, y, f0, buffers, module.chunk_size, reports_margins=False
        )
        objective.backward(w)

    kept = bytes_saved_for_backward(lambda: evaluate(1), shared=(x, y))
    together = _TOGETHER if _TOGETHER * kept < working_bytes(device) else 1
    seconds = min(_seconds(lambda: evaluate(together), device) for _ in range(2)) / together
    size = torch.empty((), dtype=dtype).element_size()
    weights = initial.network.weights
    models = 1 + _BESIDE * len(module.companions) if isinstance(module, MiniBatchModule) else 1
    held = _GRAPH * kept + size * _STATE * weights
    x_kernel = data.test.x[:kernel_samples].to(device, dtype)
    kernel = _seconds_of_a_kernel(initial, x_kernel, device, dtype) if kernel_samples else 0.0
    inputs = float(size * (data.train.x.numel() + data.test.x.numel()))
    return StepCost(weights, models * held + 4 * size * samples, models * seconds, kernel, inputs)


def _seconds_of_a_kernel(initial: InitialMembers, x: Tensor, device: torch.device, dtype: torch.dtype) -> float:
    """Times the tangent kernel of one member at initialisation; returns 0 if the network does not support it."""
    buffers = {name: in_precision(b, dtype).to(device) for name, b in initial.buffers.items()}
    w0 = initial.w0.to(device, dtype)

    def compute() -> None:
        empirical_ntk(initial.network, w0, x, buffers=buffers or None, progress=False)

    try:
        return min(_seconds(compute, device) for _ in range(2))
    except ConfigError as error:
        _log.info("the cost of a tangent kernel is not known: %s", error)
        return 0.0


def _kernel_cost(rows: int, samples: int, dtype: torch.dtype) -> StepCost:
    size = torch.empty((), dtype=dtype).element_size()
    rate = 1e10  # multiply-adds per second of a memory-bound matrix-vector product on two cores
    return StepCost(rows, size * rows * (samples + 2 * rows), 2 * rows**2 / rate)


def _seconds(evaluate: Callable[[], None], device: torch.device) -> float:
    start = time.perf_counter()
    evaluate()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


class CostModel:
    """Estimates the cost of members; the step of each configuration group is measured once.

    Args:
        build: function that builds the module and the data of a configuration.
        device: the device on which the members are trained.
        imports: seconds that this process took for its imports, which each worker takes again.
    """

    def __init__(self, build: Build, device: torch.device, imports: float = USUAL_IMPORTS) -> None:
        self._build = build
        self.imports = imports
        self.start = _START * imports
        self._steps: dict[str, StepCost] = {}
        self._data: dict[str, FlowData] = {}
        self.device = device
        self.steps_are = "as many as networks of this alpha and n usually take"

    def of(self, rows: Rows) -> Callable[[ConfigGroup], MemberCost]:
        """Returns a function that estimates the cost of a group's member from the numbers of steps in finished runs."""
        taken = [float(row["tried"]) for row in rows if row["status"] == Status.FINISHED and row.get("tried")]
        usual = sum(taken) / len(taken) if taken else None
        self.steps_are = f"{usual:.0f} steps a member, as in finished runs" if usual else self.steps_are

        def cost(group: ConfigGroup) -> MemberCost:
            step = self._step(group)
            own = [float(r["tried"]) for r in rows if r["family"] == group.key and r.get("tried")]
            most = configuration.flatten(group.config).get("model.stop.max_steps")
            flow = min(sum(own) / len(own) if own else usual or _expected_steps(group), most or math.inf)
            steps = _mini_batch_steps(group.config) or flow
            named = _callbacks(group.config)
            evaluations = steps * (1 + sum(_A_STEP.get(name, 0.0) for name in named))
            evaluations += observations(steps) * (_ALWAYS + len(named)) + sum(_ONCE.get(name, 0) for name in named)
            kernels = step.kernel * sum(_KERNELS_A_MEMBER.get(name, 0) for name in named)
            return MemberCost(step.weights, step.bytes, step.seconds * evaluations + kernels, self.start, step.samples)

        return cost

    def _step(self, group: ConfigGroup) -> StepCost:
        if group.key not in self._steps:
            self._steps[group.key] = self._measured(group)
        return self._steps[group.key]

    def _measured(self, group: ConfigGroup) -> StepCost:
        """Measures the step of a group; returns zeros if that fails, so that only the group's own runs fail later."""
        module, data = self._build(group.config)
        try:
            key = json.dumps(group.config["data"], sort_keys=True, default=str)
            data = self._data.setdefault(key, data)
            data.setup()
            half = str((group.config.get("trainer") or {}).get("precision")).startswith("32")
            samples = _KERNEL_SAMPLES if set(_callbacks(group.config)) & set(_KERNELS_A_MEMBER) else 0
            return step_cost(module, data, self.device, torch.float32 if half else torch.float64, samples)
        except ConfigError:  # the user can correct it before anything is trained
            raise
        except Exception as error:
            _log.info("the cost of %s is not known: %s", dict(group.setting), error)
            return StepCost(0, 0.0, 0.0)


def _expected_steps(group: ConfigGroup) -> float:
    """Returns the expected number of steps of a member of the group, averaged over its alphas."""
    flat = configuration.flatten(group.config)
    width, samples = flat.get("model.network.width"), flat.get("data.n_train")
    root = math.sqrt(width) if isinstance(width, (int, float)) else 1.0
    integrator = str(flat.get("model.integrator") or "euler")
    counts = [
        expected_evaluations(root * alpha, samples if isinstance(samples, int) else _USUAL_SAMPLES, integrator)
        for alpha, _ in group.members
    ]
    return sum(counts) / len(counts)


def observations(steps: float) -> int:
    """Returns the number of observations of a member in a number of tried steps with the default schedule.

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
    """Returns the class names of the callbacks in a configuration; most of them are observers."""
    given = (config.get("trainer") or {}).get("callbacks") or []
    callbacks = given if isinstance(given, list) else [given]
    return [str(one.get("class_path")).rpartition(".")[2] for one in callbacks if isinstance(one, Mapping)]


def _mini_batch_steps(config: Mapping[str, Any]) -> float | None:
    """Returns the number of mini-batch steps within the trainer's limits; None for a flow or without a limit."""
    flat, trainer = configuration.flatten(config), config.get("trainer") or {}
    batch = flat.get("data.batch_size")
    if batch is None:
        return None
    epochs, steps = trainer.get("max_epochs"), trainer.get("max_steps")
    limits = [float(epochs * math.ceil(flat["data.n_train"] / batch))] if epochs not in (None, -1) else []
    return min([*limits, *([float(steps)] if steps not in (None, -1) else [])], default=None)
