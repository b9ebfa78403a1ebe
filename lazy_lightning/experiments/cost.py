"""What one more member of a batch costs: memory by counting what autograd keeps, time by a clock."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from lazy_lightning.data.flow_data import FlowData
from lazy_lightning.errors import ConfigError
from lazy_lightning.memory import working_bytes
from lazy_lightning.modules import KernelModule, MiniBatchModule, ObservedModule
from lazy_lightning.modules.member_module import require_room
from lazy_lightning.nn.initial_members import InitialMembers
from lazy_lightning.nn.member_state import in_precision
from lazy_lightning.ntk import empirical_ntk
from lazy_lightning.objective.centering import Centering
from lazy_lightning.objective.full_batch import Objective

_log = logging.getLogger(__name__)

_STATE = 12
"""Numbers a weight: w, w0, dw, gradient, velocity, what a step proposes, and what is gathered of running rows."""
_GRAPH = 2
"""What backward adds to what forward has kept."""
_BESIDE = 1.5
"""Networks that a companion costs: the linearisation takes five passes for the network's three, the other one four."""
_TOGETHER = 4
"""Members that are timed together: in a batch each costs less than alone."""


class StepCost(NamedTuple):
    """Of one member."""

    weights: int
    bytes: float
    seconds: float
    """One evaluation of loss and gradient, which is what a tried step takes."""
    kernel: float = 0.0
    """Seconds of one tangent kernel on the samples of the kernel observers; 0 where there are none."""


def step_cost(
    module: ObservedModule, data: FlowData, device: torch.device, dtype: torch.dtype, kernel_samples: int = 0
) -> StepCost:
    """Evaluates loss and gradient of four members at initialisation, on all training samples or on a mini-batch.

    What is trained beside the network by mini-batches is counted as one and a half networks each. A frozen kernel has a
    step of two products with an (n c)^2 matrix, which is not tried out but counted.

    Args:
        module: of the configuration, not set up.
        data: set up.
        device: to compute on.
        dtype: of the run.
        kernel_samples: on how many test samples observers compute tangent kernels; one is timed. 0 for none.
    """
    samples = (len(data.train.y) + len(data.test.y)) * data.num_outputs
    if isinstance(module, KernelModule):
        return _kernel_cost(len(data.train.y) * data.num_outputs, samples, dtype)
    require_room(module.factory, 1, data)
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

    kept = _bytes_kept(lambda: evaluate(1), besides=(x, y))
    together = _TOGETHER if _TOGETHER * kept < working_bytes(device) else 1
    seconds = min(_seconds(lambda: evaluate(together), device) for _ in range(2)) / together
    size = torch.empty((), dtype=dtype).element_size()
    weights = initial.network.weights
    models = 1 + _BESIDE * len(module.companions) if isinstance(module, MiniBatchModule) else 1
    held = _GRAPH * kept + size * _STATE * weights
    looked_at = data.test.x[:kernel_samples].to(device, dtype)
    kernel = _seconds_of_a_kernel(initial, looked_at, device, dtype) if kernel_samples else 0.0
    return StepCost(weights, models * held + 4 * size * samples, models * seconds, kernel)


def _seconds_of_a_kernel(initial: InitialMembers, x: Tensor, device: torch.device, dtype: torch.dtype) -> float:
    """The tangent kernel of one member at initialisation; 0 for a network without one, whose observers will say so."""
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
    rate = 1e10  # multiply-adds a second that a matrix-vector product reaches on two cores, where memory is the limit
    return StepCost(rows, size * rows * (samples + 2 * rows), 2 * rows**2 / rate)


def _bytes_kept(evaluate: Callable[[], None], besides: Iterable[Tensor]) -> int:
    """Of distinct tensors that a forward pass keeps for its backward pass, without those that members share."""
    seen: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        evaluate()
    for shared in besides:
        seen.pop(shared.untyped_storage().data_ptr(), None)
    return sum(seen.values())


def _seconds(evaluate: Callable[[], None], device: torch.device) -> float:
    start = time.perf_counter()
    evaluate()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
