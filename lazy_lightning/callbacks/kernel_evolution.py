"""The tangent kernel on the way: its size, alignments and velocity, and what it generalises to when it is frozen."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import torch
from torch import Tensor

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.callbacks.measured_at_times import MeasuredAtTimes
from lazy_lightning.errors import ConfigError
from lazy_lightning.flow.state import FlowState
from lazy_lightning.modules.observation import Observation
from lazy_lightning.nn.member_samples import MemberSamples
from lazy_lightning.ntk.alignment import kernel_alignment, label_alignment
from lazy_lightning.ntk.features import require_decomposable
from lazy_lightning.ntk.frozen_kernel import OutputMode, frozen_kernels
from lazy_lightning.ntk.regression import KernelRegression
from lazy_lightning.objective.full_batch import drop_single_output
from lazy_lightning.objective.losses import MSE, is_class_index

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule

KERNEL_EVOLUTION = "kernel_evolution"
_LEAST_SAMPLES = 2
_STEP = 1e-5
"""Step of the central difference for the velocity, relative to the norm of the weights."""


@dataclass(frozen=True)
class _Samples:
    """The samples of one member."""

    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor


class KernelEvolution(MeasuredAtTimes):
    """Observer of the tangent kernel Theta_t on training samples at chosen times, and of regression with it.

    * ``kernel_evolution/norm``: ‖Theta_t‖_F.
    * ``kernel_evolution/alignment``: its centred alignment with Theta_0.
    * ``kernel_evolution/label_alignment``: its centred alignment with the labels. One that rises before the norm does
      is silent alignment (arXiv:2111.00034).
    * ``kernel_evolution/velocity``: ‖dTheta/dt‖_F/‖Theta_t‖_F along the flow, by a central difference; NaN in
      mini-batch training, whose weights have no velocity.
    * ``kernel_evolution/test_loss``, and for labels ``kernel_evolution/test_error``: of regression with Theta_t from
      F = 0 on the test samples, F(x) = Theta_t(x, X) (Theta_t + n ridge)^-1 y (arXiv:2010.15110). The loss is
      (F - y)^2/2, summed over outputs; classes are one-hot targets. At t = 0 it is that of lazy training.

    The kernels are computed in float64, one member after the other, and decomposed: O(n^3) each, with n c rows for c
    outputs. Each member has samples of its own where there are data seeds. A member is measured when its t has passed
    the next power of ``t_factor``, or its training loss the next of ``loss_fractions``, and when it stops. In other
    records its columns are NaN, and after it has stopped they keep their values.

    Args:
        samples: number of training samples; None for all that are observed.
        test_samples: number of test samples; None for all.
        t_factor: ratio of t between measurements; None measures at every observation, ``inf`` only at the start and
            the end.
        loss_fractions: in place of ``t_factor``, fractions of the initial training loss, each measured at the first
            observation at which the loss has fallen to it.
        kernel_outputs: ``full`` couples the outputs as the network does, ``mean`` gives each the mean kernel, whose
            decomposition is c^3 times cheaper.
        ridge: rate of ridge regression; 0 for the minimum-norm solution, where gradient flow ends.

    Raises:
        ConfigError: a value is out of range; at the start of a run, a set is too small, or devices divide the training
            samples.
        RunError: at the start of a run, the kernels do not fit in memory.
    """

    needs_all_inputs = True
    needs_shared_inputs = False

    def __init__(
        self,
        samples: int | None = None,
        test_samples: int | None = None,
        t_factor: float | None = 1.5,
        loss_fractions: Sequence[float] | None = None,
        kernel_outputs: OutputMode = "full",
        ridge: float = 0.0,
    ) -> None:
        check_arguments(KernelEvolution, locals())
        super().__init__(t_factor)
        for name, value, least in (("samples", samples, _LEAST_SAMPLES), ("test_samples", test_samples, 1)):
            if value is not None and value < least:
                raise ConfigError(f"KernelEvolution needs {name} >= {least}, or null for all, got {value}")
        if loss_fractions is not None and not (loss_fractions and all(0 < f < 1 for f in loss_fractions)):
            raise ConfigError(
                f"loss_fractions is {loss_fractions!r}, expected numbers between 0 and 1, such as [0.5, 0.1, 0.01], or "
                "null to measure at powers of t_factor"
            )
        if kernel_outputs not in get_args(OutputMode):
            raise ConfigError(f"kernel_outputs is {kernel_outputs!r}, expected {' or '.join(get_args(OutputMode))}")
        if not 0 <= ridge < float("inf"):
            raise ConfigError(f"ridge is {ridge}, expected a number >= 0")
        self.samples, self.test_samples = samples, test_samples
        self.loss_fractions = None if loss_fractions is None else tuple(loss_fractions)
        self.kernel_outputs: OutputMode = kernel_outputs
        self.ridge = ridge
        self._keys: list[Hashable] = []
        self._initial: dict[Hashable, Tensor] = {}
        self._initial_loss: Tensor | None = None

    column_names = tuple(
        f"{KERNEL_EVOLUTION}/{name}" for name in ("norm", "alignment", "label_alignment", "velocity", "test_loss")
    )

    @property
    def observes_within_steps(self) -> bool:
        """Whether it measures on the way, at times or fractions that a long step jumps over, too."""
        return self.loss_fractions is not None or self.t_factor != float("inf")

    def check(self, module: ObservableModule) -> None:
        """Raises an error if a set is too small, or the kernels do not fit in memory; forgets those of another run."""
        sets = ((module.train_split, "train", _LEAST_SAMPLES), (module.test_split, "test", 1))
        for split, name, least in sets:
            if len(split.y) < least:
                raise ConfigError(
                    f"KernelEvolution needs {least} {name} samples at least, but there are {len(split.y)}: set a "
                    f"larger data.n_{name}"
                )
        own = module.shared_starts.own.tolist()
        data_seeds = module.own_members.data_seeds or (None,) * len(own)
        self._keys = list(zip(own, data_seeds, strict=True))
        self._initial, self._initial_loss = {}, None
        n = len(module.train_split.y[: self.samples])
        rows = n * (module.data.num_outputs if self.kernel_outputs == "full" else 1)
        require_decomposable(
            len(set(self._keys)),
            rows,
            module.w0.device,
            "set fewer samples, or kernel_outputs mean for several outputs",
        )

    def last_passed(self, module: ObservableModule, observation: Observation) -> Tensor:
        """(E,) the number of ``loss_fractions`` to which the loss has fallen, else the last power of ``t_factor``."""
        if self.loss_fractions is None:
            return super().last_passed(module, observation)
        if self._initial_loss is None:
            self._initial_loss = _initial_loss(module)
        share = observation.columns["train/loss"].double() / self._initial_loss
        passed = [share <= fraction for fraction in self.loss_fractions]
        return torch.stack(passed).sum(dim=0).double()

    def broken(self, columns: Mapping[str, Tensor]) -> Tensor:
        """(E,) bool: the kernel is not finite."""
        return columns[f"{KERNEL_EVOLUTION}/norm"].isnan()

    @torch.no_grad()
    def measure(self, module: ObservableModule, observation: Observation, rows: Tensor) -> Mapping[str, Tensor]:
        """Returns the columns of the class."""
        at_start = observation.index == 0
        found: dict[Hashable, dict[str, Tensor]] = {}
        measured = []
        for row in rows.tolist():
            key = self._keys[row]
            if key not in found or not at_start:  # at w0 members that differ by alpha alone have one kernel
                found[key] = self._of_kernel(module, row)
            measured.append({**found[key], "velocity": self._velocity(module, observation, row, found[key]["norm"])})
        return {
            f"{KERNEL_EVOLUTION}/{name}": torch.stack([columns[name] for columns in measured]) for name in measured[0]
        }

    def _of_kernel(self, module: ObservableModule, row: int) -> dict[str, Tensor]:
        """The measurements of one member that follow from its kernel, () each."""
        samples = self._samples(module, row)
        kernel = self._kernel(module, row, module.w.detach()[row], samples.x)
        start = self._initial_kernel(module, row, samples.x)
        targets = _targets(samples.y, module.data.num_outputs)
        coupled = len(kernel) == targets.numel()
        columns = {
            "norm": kernel.square().sum().sqrt(),
            "alignment": kernel_alignment(kernel, start),
            "label_alignment": label_alignment(kernel, targets.flatten() if coupled else targets),
        }
        cross = self._kernel(module, row, module.w.detach()[row], samples.test_x, samples.x)
        predicted = KernelRegression(kernel, targets, cross).ridge(self.ridge).test
        assert predicted is not None  # there is a test kernel
        outputs = predicted.unsqueeze(0)
        columns["test_loss"] = MSE().per_sample(outputs, samples.test_y).mean()
        if module.task != "regression":
            errors = module.loss.errors(outputs, samples.test_y)[0].double()
            columns["test_error"] = torch.where(predicted.isfinite().all(), errors.mean(), torch.nan)
        return columns

    def _velocity(self, module: ObservableModule, observation: Observation, row: int, norm: Tensor) -> Tensor:
        """‖dTheta/dt‖_F/‖Theta‖_F of one member by a central difference along the velocity of its weights."""
        state = observation.state
        if not isinstance(state, FlowState):
            return torch.full_like(norm, torch.nan)
        moving = -state.gradient[row] if state.velocity is None else state.velocity[row]
        velocity, w = moving.double(), module.w.detach()[row].double()
        step = _STEP * w.norm() / velocity.norm()
        x = self._samples(module, row).x
        ahead, behind = (self._kernel(module, row, w + sign * step * velocity, x) for sign in (1, -1))
        change = (ahead - behind).square().sum().sqrt() / (2 * step)
        return torch.where(velocity.any(), change / norm, torch.zeros_like(norm))

    def _initial_kernel(self, module: ObservableModule, row: int, x: Tensor) -> Tensor:
        """Theta_0 of one member, which those with the same initial weights and data share."""
        key = self._keys[row]
        if key not in self._initial:
            self._initial[key] = self._kernel(module, row, module.w0[row], x)
        return self._initial[key]

    def _kernel(self, module: ObservableModule, row: int, w: Tensor, x: Tensor, train: Tensor | None = None) -> Tensor:
        """Theta of one member in float64, (n c, m c) between pairs of samples and outputs, or (n, m)."""
        return frozen_kernels(
            module.network,
            w.unsqueeze(0),
            {name: b[row : row + 1] for name, b in module.member_buffers().items()},
            x,
            train,
            outputs=module.data.num_outputs,
            kernel_outputs=self.kernel_outputs,
            dtype=torch.float64,
        )[0]

    def _samples(self, module: ObservableModule, row: int) -> _Samples:
        train, test = module.train_split, module.test_split
        n, m = self.samples, self.test_samples
        parts = ((train.x, n), (train.y, n), (test.x, m), (test.y, m))
        return _Samples(*(_own(samples, row)[:count] for samples, count in parts))


def _own(samples: Tensor | MemberSamples, row: int) -> Tensor:
    """The samples (n, ...) of one member."""
    return samples.by_member[row] if isinstance(samples, MemberSamples) else samples


def _targets(y: Tensor, outputs: int) -> Tensor:
    """Labels or real targets as they are, (n,) or (n, c) float64; classes (n,) as one-hot targets (n, c)."""
    return torch.nn.functional.one_hot(y.long(), outputs).double() if is_class_index(y) else y.double()


@torch.no_grad()
def _initial_loss(module: ObservableModule) -> Tensor:
    """(E,) float64: the mean of ell(F, y) over the observed training samples at w0."""
    x, y = module.train_split.x, module.train_split.y
    F = drop_single_output(module.centering(module.raw_outputs(module.w0, x), module.initial_outputs(x)))
    return module.loss.per_sample(F, y).double().mean(dim=-1)
