"""How far the tangent kernel moves from initialisation: the order parameter of lazy training."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from lazy_lightning.data.split import Split
from lazy_lightning.errors import ConfigError
from lazy_lightning.modules.observation import NetworkObserver, Observation
from lazy_lightning.ntk.kernel_plan import make_plan
from lazy_lightning.ntk.reference import TOTAL, KernelReference
from lazy_lightning.ntk.tangent_model import TangentModel
from lazy_lightning.ntk.tangents import Tangents

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule

Set = Literal["kernel", "test", "train"]
Output = Literal["full", "trace"]

DRIFT = "kernel_drift"
_BEFORE_ALL = -1e9  # a power of t_factor that no flow time is under

_log = logging.getLogger(__name__)


def kernel_set(module: ObservableModule, which: Set | None, samples: int | None, least: int) -> Split:
    """The samples a kernel is looked at on, on the device: by default the data's kernel set, or its test set if none.

    Raises:
        ConfigError: if there is no such set, or it has less than ``least`` samples.
    """
    if which is not None and which not in get_args(Set):
        raise ConfigError(f"split is {which!r}, expected {', '.join(get_args(Set))}, or null to choose by the data")
    own = module.data.kernel
    if which == "kernel" and not len(own.y):
        raise ConfigError("samples of the kernel set were asked for, but it is empty: set data.n_kernel")
    chosen = which or ("kernel" if len(own.y) else "test")
    split = {"kernel": own, "test": module.test_split, "train": module.train_split}[chosen]
    if len(split.y) < least:
        raise ConfigError(
            f"a kernel is to be looked at on {least} samples at least, but the {chosen} set has {len(split.y)}: set a "
            f"larger data.n_{chosen}"
        )
    return module.resident(Split(*(part[:samples] for part in split)))


class KernelDrift(NetworkObserver):
    """‖Theta_t - Theta_0‖_F / ‖Theta_0‖_F in all and by layer, and how Theta_t is aligned with Theta_0 and the labels.

    The order parameter of arXiv:1906.08034: falls as 1/(sqrt(h) alpha) on the lazy side. A layer's drift is that of its
    own part of the kernel. Members of one seed share Theta_0.

    A member is looked at when its t has passed the next power of ``t_factor``, and where it stops; in between its
    columns are NaN, and after its end they stay.

    Args:
        samples: how many samples; None for all of the set.
        split: ``kernel``, ``test`` or ``train``; None is the data's kernel set, or its test set if that is empty.
        t_factor: see above; None looks at every observation, ``inf`` at the start and the end alone.
        layers: False keeps the total alone.
        output: ``full`` compares the kernels between all pairs of outputs, ``trace`` their sum over equal outputs.
        hold: keep Theta_0 on the device; null keeps it if it takes up to a quarter of the free memory, else computes
            it again each time, tile by tile.
        tile: samples a side of what is computed at once; null chooses by the device.

    Raises:
        ConfigError: for a value out of range; at the start of a run, for an empty set or a network without a kernel.
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
        if samples is not None and samples < 2:
            raise ConfigError(f"KernelDrift needs samples >= 2, got {samples}")
        if t_factor is not None and not t_factor > 1:
            raise ConfigError(f"KernelDrift needs t_factor > 1, or null for every observation, got {t_factor}")
        if output not in get_args(Output):
            raise ConfigError(f"KernelDrift has no output {output!r}, expected {' or '.join(get_args(Output))}")
        if tile is not None and tile < 1:
            raise ConfigError(f"KernelDrift needs tile >= 1, or null to choose by the device, got {tile}")
        self.samples = samples
        self.split: Set | None = split
        self.t_factor = t_factor
        self.layers = layers
        self.output: Output = output
        self.hold = hold
        self.tile = tile
        self._reference: KernelReference | None = None
        self._first: Tensor | None = None
        self._last: _Looks | None = None

    column_names = (f"{DRIFT}/{TOTAL}", "kernel_alignment", "label_alignment")

    def check(self, module: ObservableModule) -> None:
        """Raises ConfigError if the set of samples is empty or too small."""
        kernel_set(module, self.split, self.samples, least=2)

    @torch.no_grad()
    def observe(self, module: ObservableModule, observation: Observation) -> Mapping[str, Tensor]:
        """``kernel_drift/total``, ``kernel_drift/LAYER``; ``kernel_alignment`` with Theta_0, ``label_alignment``."""
        if observation.index == 0:
            self._last = None
        if self._reference is None or observation.index == 0:
            self._reference, self._first = self._start(module)
        state = observation.state
        last = (self._last or _Looks.none(len(state.t))).to(state.t.device).going_on(state.running)
        power = self._power(observation)
        due = ~last.settled & ((power > last.power) | ~state.running)
        rows = due.nonzero().flatten()
        measured = self._measure(module, rows) if len(rows) else {}
        columns = {name: torch.full_like(state.t, torch.nan) for name in measured or last.columns}
        for name, column in list(columns.items()):
            if name in last.columns:
                column = torch.where(last.settled, last.columns[name], column)
            if name in measured:
                column[rows] = measured[name]
            columns[name] = column
        broken = due & state.running & columns[f"{DRIFT}/{TOTAL}"].isnan()
        if measured:  # else nothing is broken, and the device need not be asked
            self._tell(module, broken, state.t)
        settled = last.settled | (due & ~state.running) | broken
        self._last = _Looks(torch.where(due, power, last.power), settled, columns)
        return columns

    def _power(self, observation: Observation) -> Tensor:
        """(E,) the last power of t_factor that t has passed; larger at each observation if all are to be looked at."""
        t = observation.state.t
        if self.t_factor is None:
            return torch.full_like(t, observation.index)
        if self.t_factor == math.inf:
            return torch.zeros_like(t)
        return torch.floor(t.log() / math.log(self.t_factor) + 1e-12).clamp_min(_BEFORE_ALL + 1)

    def _start(self, module: ObservableModule) -> tuple[KernelReference, Tensor]:
        """Theta_0 of each seed, and which of them each member starts with."""
        split = kernel_set(module, self.split, self.samples, least=2)
        starts = module.shared_starts
        rows, own = starts.first, starts.own
        model = self._model(module, module.w0, rows)
        plan = make_plan(model, split.x)
        tangents = Tangents(model, plan, split.x, self.output)
        return KernelReference(tangents, hold=self.hold, tile=self.tile, labels=split.y), own

    def _model(self, module: ObservableModule, w: Tensor, rows: Tensor) -> TangentModel:
        buffers = {name: b[rows] for name, b in module.member_buffers().items()}
        return TangentModel.of(module.network, w.detach()[rows], buffers=buffers)

    def _measure(self, module: ObservableModule, rows: Tensor) -> dict[str, Tensor]:
        assert self._reference is not None
        assert self._first is not None
        found = self._reference.compare(self._model(module, module.w, rows), self._first[rows])
        names = list(found) if self.layers else [TOTAL]
        columns = {f"{DRIFT}/{name}": found[name].drift for name in (TOTAL, *(n for n in names if n != TOTAL))}
        total = found[TOTAL]
        return {**columns, "kernel_alignment": total.alignment, "label_alignment": total.label_alignment}

    def _tell(self, module: ObservableModule, broken: Tensor, t: Tensor) -> None:
        for row, (is_broken, when) in enumerate(torch.stack([broken.double(), t]).T.tolist()):
            if not is_broken:
                continue
            _log.warning(
                "KernelDrift: the kernel of the member with alpha %g and seed %d is not finite at t = %.3g; it is not "
                "looked at any more, and the run goes on",
                module.own_members.alphas[row],
                module.own_members.seeds[row],
                when,
            )

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint; Theta_0 is computed again from w0."""
        return {} if self._last is None else self._last._asdict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        if state_dict:
            self._last = _Looks(**state_dict)


class _Looks(NamedTuple):
    """When each member was last looked at, and what was seen."""

    power: Tensor
    """(E,) float64"""
    settled: Tensor
    """(E,) bool: stopped and looked at since, or not finite."""
    columns: dict[str, Tensor]

    @classmethod
    def none(cls, members: int) -> _Looks:
        return cls(torch.full((members,), _BEFORE_ALL, dtype=torch.float64), torch.zeros(members, dtype=torch.bool), {})

    def going_on(self, running: Tensor) -> _Looks:
        """Members that had stopped at a limit which has been raised since are to be looked at again."""
        total = self.columns.get(f"{DRIFT}/{TOTAL}")
        return self if total is None else self._replace(settled=self.settled & (~running | total.isnan()))

    def to(self, device: torch.device) -> _Looks:
        columns = {name: column.to(device) for name, column in self.columns.items()}
        return _Looks(self.power.to(device), self.settled.to(device), columns)
