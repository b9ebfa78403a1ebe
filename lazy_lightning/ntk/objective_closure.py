"""ObjectiveClosure: an objective and its tangent kernel as the closure of a MomentumFlow."""

from __future__ import annotations

from typing import Protocol, Self, cast

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from lazy_lightning.errors import ConfigError
from lazy_lightning.flow.evaluation import Evaluation, Filter
from lazy_lightning.nn.member_samples import MemberSamples
from lazy_lightning.nn.shared_starts import SharedStarts
from lazy_lightning.ntk.frozen_kernel import frozen_kernels
from lazy_lightning.objective.full_batch import Objective
from lazy_lightning.objective.losses import Loss


class FullBatchObjective(Protocol):
    """What a flow descends; :class:`~lazy_lightning.objective.full_batch.Objective` is one."""

    @property
    def loss(self) -> Loss:
        """The loss ell of one sample."""
        ...

    def select(self, rows: Tensor | None) -> Self:
        """The objective of some members."""
        ...

    def backward(self, w: Tensor) -> Evaluation:
        """Evaluates, and leaves the gradient in ``w.grad``."""
        ...

    def gradient_scale(self, w: Tensor) -> Tensor:
        """(E,) float64 the norm that the gradient would have if the samples' contributions did not cancel."""
        ...

    def outputs_at(self, w: Tensor) -> Tensor:
        """F, by a forward pass alone."""
        ...


class ObjectiveWithKernel(FullBatchObjective, Protocol):
    """An objective that knows its tangent kernel, with what else an implicit integrator needs."""

    def filtered(self, w: Tensor, cotangent: Filter) -> Evaluation:
        """Evaluates, and leaves J^T u / (alpha n) in ``w.grad``."""
        ...

    def report(self, outputs: Tensor) -> Evaluation:
        """The evaluation that outputs belong to."""
        ...

    def slopes(self, outputs: Tensor) -> Tensor:
        """d ell / dF."""
        ...

    def curvature_root(self, outputs: Tensor) -> Tensor:
        """The root of d^2 ell / dF^2."""
        ...

    def kernel(self, w: Tensor, rows: Tensor) -> Tensor:
        """(R, m, m) the tangent kernel of some members."""
        ...


class Flow(Protocol):
    """The part of a flow that the closure reads: which members run."""

    active: Tensor | None


class ObjectiveClosure:
    """Evaluates the running members of a flow; what that takes is selected once for each set of them.

    Args:
        w: (E, N) the parameter that the flow moves.
        objective: of all members.
        flow: whose ``active`` members are evaluated.
    """

    def __init__(self, w: Tensor, objective: FullBatchObjective, flow: Flow) -> None:
        self._w, self._objective, self._flow = w, objective, flow
        self._selected = WeakTensorKeyDictionary()

    @property
    def objective(self) -> FullBatchObjective:
        """The objective of the running members, which is kept as long as the tensor that names them.

        What a recorded step has read is thus kept with the recording, and so are both parts of the integrator auto.
        """
        active = self._flow.active
        if active is None:
            return self._objective
        if active not in self._selected:
            self._selected[active] = self._objective.select(active)
        return cast(FullBatchObjective, self._selected[active])

    def __call__(self) -> Evaluation:
        """Evaluates, and leaves grad L in ``w.grad``."""
        return self.objective.backward(self._w)

    def initial(self) -> Evaluation:
        """As a call, at w0, with the scale that distinguishes a gradient from rounding errors."""
        return self()._replace(gradient_scale=self.objective.gradient_scale(self._w))

    def outputs(self) -> Tensor:
        """F (E, n, ...), by a forward pass alone."""
        return self.objective.outputs_at(self._w)

    def outputs_of(self, rows: Tensor, weights: Tensor) -> Tensor:
        """F (R, n, ...) of the members ``rows`` among those that run, at ``weights`` (R, N)."""
        return self.objective.select(rows).outputs_at(weights)

    def filtered(self, cotangent: Filter) -> Evaluation:
        """Evaluates, and leaves J^T u / (alpha n) in ``w.grad``, u = ``cotangent(F, d ell / dF)``."""
        return self._with_kernel.filtered(self._w, cotangent)

    def report(self, outputs: Tensor) -> Evaluation:
        """The evaluation that outputs F (E, n, ...) belong to."""
        return self._with_kernel.report(outputs)

    def slopes(self, outputs: Tensor) -> Tensor:
        """d ell / dF at F (E, n, ...)."""
        return self._with_kernel.slopes(outputs)

    def kernel(self, rows: Tensor) -> Tensor:
        """(R, m, m) the tangent kernel of the members ``rows`` among those that run."""
        objective, w = self._with_kernel, self._w.detach()
        return network_kernel(objective, w, rows) if isinstance(objective, Objective) else objective.kernel(w, rows)

    def curvature_root(self, outputs: Tensor) -> Tensor:
        """The root of d^2 ell / dF^2 at F (R, n, ...)."""
        return self._with_kernel.curvature_root(outputs)

    @property
    def _with_kernel(self) -> Objective | ObjectiveWithKernel:
        return cast("Objective | ObjectiveWithKernel", self.objective)  # see check

    def check(self) -> None:
        """Lets pass an objective with a kernel and a loss with curvature.

        Raises:
            ConfigError: the samples are divided among devices, or the loss is piecewise linear.
        """
        loss = self._objective.loss
        if not isinstance(self._objective, Objective) and not hasattr(self._objective, "kernel"):
            raise ConfigError(
                "an implicit integrator needs the tangent kernel of all training samples on one device, but devices "
                "hold slices of them: set integrator to euler, explicit or auto, or shard to members"
            )
        if not loss.has_curvature:
            raise ConfigError(
                f"the loss {loss.name} is piecewise linear, and has no curvature for an implicit integrator: set "
                "integrator to euler, or loss to softhinge(20) or quadratic_hinge"
            )


def network_kernel(objective: Objective, w: Tensor, rows: Tensor) -> Tensor:
    """(R, n c, n c) the tangent kernel of the members ``rows`` at ``w`` (E, N), once for members of equal weights."""
    x = cast("Tensor | MemberSamples", objective.x)
    if isinstance(x, MemberSamples):
        chosen = x.select(rows)
        return chosen.joined([_kernel_on(objective, w, rows[own], inputs) for own, inputs in chosen.rows_by_set()])
    return _kernel_on(objective, w, rows, x)


def _kernel_on(objective: Objective, w: Tensor, rows: Tensor, x: Tensor) -> Tensor:
    """(R, n c, n c) the tangent kernel of the members ``rows`` on inputs (n, ...)."""
    weights, buffers = objective.weights_at(w)[rows], {name: b[rows] for name, b in objective.buffers.items()}
    starts = SharedStarts.of_weights(weights, buffers)
    kernels = frozen_kernels(
        objective.network,
        weights[starts.first],
        starts.rows(buffers),
        x,
        None,
        outputs=objective.f0.shape[-1],
    )
    return kernels[starts.own]
