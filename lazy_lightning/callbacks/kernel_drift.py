"""Relative distance of the tangent kernel from its initial value, the order parameter of lazy training."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.callbacks.measured_at_times import MeasuredAtTimes
from lazy_lightning.data.split import Split
from lazy_lightning.errors import ConfigError
from lazy_lightning.modules.observation import Observation
from lazy_lightning.ntk.kernel_plan import make_plan
from lazy_lightning.ntk.reference import TOTAL, KernelReference
from lazy_lightning.ntk.tangent_model import TangentModel
from lazy_lightning.ntk.tangents import Tangents

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule

Set = Literal["kernel", "test", "train"]
Output = Literal["full", "trace"]

DRIFT = "kernel_drift"

_log = logging.getLogger(__name__)


def kernel_set(module: ObservableModule, which: Set | None, samples: int | None, least: int) -> Split:
    """Returns the samples on which a kernel is measured, on the device.

    The default is the data's kernel set, or the test set if the kernel set is empty.

    Raises:
        ConfigError: there is no such set, or it has fewer than ``least`` samples.
    """
    if which is not None and which not in get_args(Set):
        raise ConfigError(f"split is {which!r}, expected {', '.join(get_args(Set))}, or null to choose by the data")
    own = module.data.kernel
    if which == "kernel" and not len(own.y):
        raise ConfigError("split is kernel, but the kernel set is empty: set data.n_kernel")
    chosen = which or ("kernel" if len(own.y) else "test")
    split = {"kernel": own, "test": module.test_split, "train": module.train_split}[chosen]
    if len(split.y) < least:
        raise ConfigError(
            f"a kernel needs {least} samples at least, but the {chosen} set has {len(split.y)}: set a larger "
            f"data.n_{chosen}"
        )
    return module.resident(Split(*(part[:samples] for part in split)))


class KernelDrift(MeasuredAtTimes):
    """Observer of ‖Theta_t - Theta_0‖_F / ‖Theta_0‖_F, total and by layer, and of the alignment of Theta_t.

    The alignment is that with Theta_0 and with the labels. The drift is the order parameter of arXiv:1906.08034, which
    decreases as 1/(sqrt(h) alpha) in the lazy regime. The drift of a layer is that of its contribution to the kernel.
    Members with the same initial weights share Theta_0.

    A member is measured when its t has passed the next power of ``t_factor``, and when it stops. In other records its
    columns are NaN, and after it has stopped they keep their values.

    Args:
        samples: number of samples; None for all samples of the set.
        split: ``kernel``, ``test`` or ``train``; None for the data's kernel set, or its test set if that is empty.
        t_factor: ratio of t between measurements; None measures at every observation, ``inf`` only at the start and
            the end.
        layers: whether to also measure each layer.
        output: ``full`` compares the kernels between all pairs of outputs, ``trace`` their sum over equal outputs.
        hold: whether to keep Theta_0 on the device; null keeps it if it takes at most a quarter of the free memory,
            else it is computed again each time, tile by tile.
        tile: samples along a side of the tiles that are computed at once; null chooses by the device.

    Raises:
        ConfigError: a value is out of range; at the start of a run, the set is empty or the network has no kernel.
    """

    def __init__(
        self,
        samples: int | None = 200,
        split: Set | None = None,
        t_factor: float | None = 1.5,
        layers: bool = True,
        output: Output = "full",
        hold: bool | None = None,
        tile: int | None = None,
    ) -> None:
        check_arguments(KernelDrift, locals())
        super().__init__(t_factor)
        if samples is not None and samples < 2:
            raise ConfigError(f"KernelDrift needs samples >= 2, got {samples}")
        if output not in get_args(Output):
            raise ConfigError(f"KernelDrift has no output {output!r}, expected {' or '.join(get_args(Output))}")
        if tile is not None and tile < 1:
            raise ConfigError(f"KernelDrift needs tile >= 1, or null to choose by the device, got {tile}")
        self.samples = samples
        self.split: Set | None = split
        self.layers = layers
        self.output: Output = output
        self.hold = hold
        self.tile = tile
        self._reference: KernelReference | None = None
        self._first: Tensor | None = None

    column_names = (f"{DRIFT}/{TOTAL}", "kernel_alignment", "label_alignment")

    def check(self, module: ObservableModule) -> None:
        """Raises ConfigError if the set of samples is empty or too small."""
        kernel_set(module, self.split, self.samples, least=2)

    @torch.no_grad()
    def observe(self, module: ObservableModule, observation: Observation) -> Mapping[str, Tensor]:
        """Returns ``kernel_drift/total``, ``kernel_drift/LAYER``, ``kernel_alignment`` and ``label_alignment``."""
        if self._reference is None or observation.index == 0:
            self._reference, self._first = self._start(module)
        return super().observe(module, observation)

    def broken(self, columns: Mapping[str, Tensor]) -> Tensor:
        """(E,) bool: the kernel is not finite."""
        return columns[f"{DRIFT}/{TOTAL}"].isnan()

    def _start(self, module: ObservableModule) -> tuple[KernelReference, Tensor]:
        """Returns Theta_0 of each distinct set of initial weights, and the index (E,) of that of each member."""
        split = kernel_set(module, self.split, self.samples, least=2)
        starts = module.shared_starts
        rows, own = starts.first, starts.own
        model = _model(module, module.w0[rows], rows)
        plan = make_plan(model, split.x)
        tangents = Tangents(model, plan, split.x, self.output)
        return KernelReference(tangents, hold=self.hold, tile=self.tile, labels=split.y), own

    def measure(self, module: ObservableModule, observation: Observation, rows: Tensor) -> Mapping[str, Tensor]:
        """Drift and alignment of the kernels at the present weights, in total and by layer."""
        assert self._reference is not None
        assert self._first is not None
        found = self._reference.compare(_model(module, module.w.detach()[rows], rows), self._first[rows])
        names = list(found) if self.layers else [TOTAL]
        columns = {f"{DRIFT}/{name}": found[name].drift for name in (TOTAL, *(n for n in names if n != TOTAL))}
        total = found[TOTAL]
        return {**columns, "kernel_alignment": total.alignment, "label_alignment": total.label_alignment}

    @torch.no_grad()
    def drift_at(self, module: ObservableModule, rows: Tensor, displacement: Tensor) -> Tensor:
        """(R,) the total drift of the members ``rows`` (R,) at other weights, w0 + dw with dw (R, N)."""
        assert self._reference is not None
        assert self._first is not None
        model = _model(module, module.w0[rows] + displacement, rows)
        return self._reference.compare(model, self._first[rows])[TOTAL].drift

    def warn_of_broken(self, module: ObservableModule, broken: Tensor, t: Tensor) -> None:
        """Names the members whose kernels are not finite."""
        for row, (is_broken, when) in enumerate(torch.stack([broken.double(), t]).T.tolist()):
            if not is_broken:
                continue
            _log.warning(
                "KernelDrift: the kernel of the member with alpha %g and seed %d is not finite at t = %.3g; it is not "
                "measured any more, and the run continues",
                module.own_members.alphas[row],
                module.own_members.seeds[row],
                when,
            )


def _model(module: ObservableModule, weights: Tensor, rows: Tensor) -> TangentModel:
    """The networks of the members ``rows`` (R,) with these weights (R, N)."""
    buffers = {name: b[rows] for name, b in module.member_buffers().items()}
    return TangentModel.of(module.network, weights, buffers=buffers)
