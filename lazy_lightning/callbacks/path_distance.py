"""Distance between the outputs of the network and those of its linearisation, which is trained at the same times."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from lazy_lightning.callbacks.laziness_index import LazinessIndex
from lazy_lightning.flow.integrator import Integrator
from lazy_lightning.flow.stop_reason import StopReason
from lazy_lightning.modules.kernel_objective import KernelObjective
from lazy_lightning.modules.observation import NetworkObserver, Observation
from lazy_lightning.ntk.features import KernelFeatures, require_decomposable
from lazy_lightning.ntk.frozen_kernel import frozen_kernels
from lazy_lightning.ntk.laziness import path_bound
from lazy_lightning.ntk.objective_closure import ObjectiveClosure
from lazy_lightning.ntk.sharing import Sharing
from lazy_lightning.objective.losses import MSE

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import FlowingModule, ObservableModule

_log = logging.getLogger(__name__)

_RESOLVED = 0.3
"""alpha times the largest tolerance at which the errors of the steps are small beside the distance."""
_STEPS = 50
_ANY = 1e100
_BOUNDED_BY = ("laziness_index", "laziness/jacobian_norm", "laziness/target_distance")


def rms_distance(outputs: Tensor, others: Tensor) -> Tensor:
    """Returns the rms over samples and outputs of F - F', both (E, n, ...), as (E,) float64.

    >>> rms_distance(torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 0.0]])) ** 2
    tensor([4.5000], dtype=torch.float64)
    """
    return (outputs.double() - others.double()).flatten(1).square().mean(dim=1).sqrt()


class PathDistance(NetworkObserver):
    """Observer of ‖F_t - F_lin,t‖ on the training samples, and of its largest value so far.

    F_lin is the linearisation at w0, trained from the same initial weights by the same flow and loss, as an exactly
    equivalent flow on the tangent kernel at w0. In lazy training the distance is at most ~ 1/alpha (arXiv:1812.07956).
    :class:`TangentDeparture` evaluates the linearisation at the network's present weights; this observer compares two
    trained models.

    The linearisation of each member takes the steps of that member, subdivided where its controller rejects them: the
    discretisation errors then cancel, whereas independent steps would give a distance of about 1e-3 between equal
    paths. If the linearisation cannot be integrated that far (at a kink for which every step is too long), the distance
    is NaN from then on.

    That holds for ``euler``. With the other integrators the linearisation takes its own steps, and the errors of both,
    up to a few ``tol``, remain in the distance: it is reported in the log where ``tol`` exceeds 0.3/alpha.

    It needs n c numbers and their square for each member in memory, one decomposition of the kernel of each distinct
    initialisation at the start, and two products with that matrix in each step.

    Together with :class:`LazinessIndex` (not ``always``), for ``mse`` without momentum, the paper's bound on the
    distance, :func:`~lazy_lightning.ntk.laziness.path_bound`, is reported as ``path_distance/bound`` if that observer
    uses all training samples for its norms, else as ``path_distance/bound_estimate``.
    """

    looks_at_others = True
    needs_all_inputs = True
    column_names = ("path_distance/rms", "path_distance/sup")

    def __init__(self) -> None:
        self._companion: _Companion | None = None
        self._largest: Tensor | None = None
        self._saved: dict[str, Any] | None = None

    def check(self, module: ObservableModule) -> None:
        """Raises MemoryShortageError if the kernels of all seeds do not fit into memory."""
        x = module.train_split.x
        require_decomposable(
            len(module.shared_starts), len(x) * module.data.num_outputs, x.device,
            "leave PathDistance out, or use fewer samples or seeds",
        )  # fmt: skip

    @torch.no_grad()
    def observe(self, module: ObservableModule, observation: Observation) -> Mapping[str, Tensor]:
        """Returns ``path_distance/rms``, ``path_distance/sup``, and the bound or its estimate if it is known."""
        state = observation.state
        if self._companion is None or observation.index == 0:
            self._companion = _Companion(cast("FlowingModule", module), self._saved if observation.index else None)
            if observation.index == 0:
                self._companion.flow.first_dt = _ANY  # limited by the steps of the network
                _warn_of_tolerance(self._companion.flow.dynamics.integrator, max(module.own_members.alphas))
            self._saved = None
        assert state.outputs is not None  # the closure of the module always reports them
        distance = rms_distance(state.outputs, self._companion.outputs_along(_steps_of(observation)))
        largest = distance if self._largest is None or observation.index == 0 else self._largest.to(distance.device)
        self._largest = torch.maximum(distance, largest)
        columns = {"path_distance/rms": distance, "path_distance/sup": self._largest}
        if set(_BOUNDED_BY) <= set(observation.columns) and isinstance(module.loss, MSE) and state.velocity is None:
            kappa, jacobian, target = (observation.columns[name] for name in _BOUNDED_BY)
            columns[self._bound_name(module)] = path_bound(kappa, jacobian, target, state.t)
        return columns

    def _bound_name(self, module: ObservableModule) -> str:
        """Returns the name of the bound's column: an estimate unless the norms use all samples of the distance."""
        callbacks = module.trainer.callbacks  # type: ignore[attr-defined]
        used = max((c.samples for c in callbacks if isinstance(c, LazinessIndex)), default=0)
        return f"path_distance/bound{'' if used >= len(module.train_split.y) else '_estimate'}"

    def applies_to(self, module: ObservableModule) -> bool:
        """Returns whether a network is trained by a flow, because mini-batch training has its own companions."""
        return super().applies_to(module) and module.follows_flow

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of the linearisation's flow for the checkpoint, so that it resumes bit for bit."""
        flow = self._saved if self._companion is None else self._companion.flow.state_dict()
        return {} if flow is None else {"flow": flow, "largest": self._largest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state of the linearisation's flow from a checkpoint."""
        if state_dict:
            self._saved, self._largest = state_dict["flow"], state_dict["largest"]


def _warn_of_tolerance(integrator: Integrator, alpha: float) -> None:
    """Logs a sentence if the errors of the steps hide a distance of 1/alpha."""
    tol = getattr(integrator, "tol", None)
    if tol is not None and tol > _RESOLVED / alpha:
        _log.warning(
            "PathDistance: the integrator %s has tol %g, which hides the distance from the linearisation at alpha = "
            "%g, about 1/alpha: set model.tol to %.0e or less, or model.integrator to euler",
            integrator.name,
            tol,
            alpha,
            _RESOLVED / alpha,
        )


def _steps_of(observation: Observation) -> Tensor:
    """Returns the times (K, E) after the steps of the burst."""
    t, trace = observation.state.t, observation.trace
    if trace is None:
        return t.unsqueeze(0)
    times = t.expand(len(trace.t), -1).clone()
    times[:, slice(None) if observation.rows is None else observation.rows] = trace.t
    return times


class _Companion:
    """The flow of the linearised members on the training samples."""

    def __init__(self, module: FlowingModule, saved: dict[str, Any] | None) -> None:
        x, outputs = module.train_split.x, module.data.num_outputs
        starts = module.shared_starts
        buffers = starts.rows(module.member_buffers())
        kernel = frozen_kernels(module.network, module.w0[starts.first], buffers, x, None, outputs=outputs)
        features = KernelFeatures.of(kernel).train
        centering = module.centering.to(kernel.device)
        start = centering.offset(lambda: module.raw_outputs(module.w0, x))
        self.objective = KernelObjective(
            features, start, centering, module.loss, module.train_split.y, outputs, False, Sharing.of(starts.own)
        )
        self.v = nn.Parameter(features.new_zeros(len(starts.own), features.shape[1]))
        self.flow = module.companion_flow(self.v, steps=_STEPS)
        self.flow.compact = True
        self._closure = ObjectiveClosure(self.v, self.objective, self.flow)
        if saved is not None:
            self.flow.load_state_dict(saved)

    def outputs_along(self, times: Tensor) -> Tensor:
        """Returns F_lin at the last of each member's times (K, E), as (E, n) or (E, n, c); NaN if not reached."""
        self.flow.advance(self._landed(times), self._closure)
        state = self.flow.flow_state
        assert state.outputs is not None  # the objective reports them
        lost = (state.t < times[-1]) & (state.reason != int(StopReason.STATIONARY))
        return state.outputs.masked_fill(lost.view(-1, *(1,) * (state.outputs.ndim - 1)), torch.nan)

    def _landed(self, times: Tensor) -> Tensor:
        """All times for euler, whose steps are then those of the network; the last alone for the others."""
        return times if self.flow.dynamics.integrator.name == "euler" else times[-1:]
