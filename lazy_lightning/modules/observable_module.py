"""ObservableModule: what observers and sinks may use of the module in training, whichever module it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning import Trainer
from torch import Tensor, nn

from lazy_lightning.data.flow_data import FlowData
from lazy_lightning.data.split import Split
from lazy_lightning.flow.events import Event
from lazy_lightning.flow.momentum_flow import MomentumFlow
from lazy_lightning.flow.stop_reason import StopReason
from lazy_lightning.modules.data_sets import DataSets, SetName
from lazy_lightning.modules.ensemble import Ensemble
from lazy_lightning.modules.observation import Record
from lazy_lightning.modules.ranks import Ranks
from lazy_lightning.modules.sample_ranks import SampleRanks
from lazy_lightning.nn.member_samples import Samples
from lazy_lightning.nn.members import MemberNetwork
from lazy_lightning.nn.shared_starts import SharedStarts
from lazy_lightning.ntk.objective_closure import FullBatchObjective
from lazy_lightning.objective.centering import Centering
from lazy_lightning.objective.losses import Loss, Task


class ObservableModule(Protocol):
    """The module that an :class:`~lazy_lightning.modules.observation.Observer` is given: E members in training.

    All modules of :mod:`lazy_lightning.modules` have these attributes. Type observers of your own with it::

        class OutputSize(Observer):
            def observe(self, module: ObservableModule, observation: Observation) -> dict[str, Tensor]:
                F = module.centered_outputs(module.test_split.x)
                return {"output_size": F.flatten(1).abs().amax(dim=1)}
    """

    trains_network: ClassVar[bool]
    """Whether ``w`` are the weights of the networks; False where a frozen kernel is trained."""
    follows_flow: ClassVar[bool]
    """Whether members follow a full-batch flow, see :class:`FlowingModule`."""
    within_step: bool
    """Whether gradients have been accumulated for a step that is not yet taken, so that no checkpoint can be saved."""
    is_described: bool
    """Whether the run has a configuration on the disk, or needs none."""

    @property
    def trainer(self) -> Trainer:
        """The Trainer that runs the fit."""

    @property
    def data(self) -> FlowData:
        """The datamodule of the run."""

    @property
    def data_sets(self) -> DataSets:
        """The data of members with data seeds."""

    @property
    def task(self) -> Task:
        """What kind of targets the data have: regression, or classes."""

    @property
    def ensemble(self) -> Ensemble:
        """The alpha and the seed of each member, of whatever rank."""

    @property
    def own_members(self) -> Ensemble:
        """Those that this process trains: the member axis E of all tensors here."""

    @property
    def ranks(self) -> Ranks:
        """The processes of the run."""

    @property
    def sample_ranks(self) -> SampleRanks:
        """The processes that train the same members, each on a slice of the training samples."""

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors (E, ...) of the members of all ranks, from tensors of this process's members."""

    @property
    def shared_starts(self) -> SharedStarts:
        """Which members have equal initial weights."""

    @property
    def network(self) -> MemberNetwork:
        """The networks of all members as one function of weights and inputs."""

    @property
    def loss(self) -> Loss:
        """The loss ell of one sample."""

    @property
    def objective(self) -> FullBatchObjective:
        """The loss on all training samples, with its gradient."""

    @property
    def centering(self) -> Centering:
        """What makes F of the networks' outputs."""

    @property
    def chunk_size(self) -> int | None:
        """Samples to evaluate at once; None for all."""

    @property
    def title(self) -> str:
        """What is trained, for the closing summary."""

    # ------------------------------------------------------------------ the present state

    @property
    def w(self) -> Tensor:
        """The present weights, (E, N) of the networks, or (E, n c) of a frozen kernel's model."""

    @property
    def w0(self) -> Tensor:
        """(E, N) the initial weights of the networks."""

    @property
    def observations(self) -> int:
        """How many observations there have been."""

    @property
    def reasons(self) -> list[StopReason]:
        """Why each member has ended, if it has."""

    @property
    def unwritten(self) -> dict[Path, str]:
        """Files of this fit that could not be written so far, each with the reason."""

    def shares_done(self, record: Record) -> NDArray[np.float64]:
        """(E,) in [0, 1]: how near each member is to the nearest of its ends."""

    def loss_shares(self, record: Record) -> NDArray[np.float64]:
        """(E,) the training loss of a record over its value at w0."""

    # ------------------------------------------------------------------ samples on the device, and outputs

    @property
    def train_split(self) -> Split:
        """The observed training samples, on the device; where devices divide them, all inputs on the host."""

    @property
    def test_split(self) -> Split:
        """The test set, on the device."""

    def whole_split(self, name: SetName) -> Split:
        """A set of samples of the members of all ranks on the host, (E, n, ...) with data seeds."""

    def resident(self, split: Split) -> Split:
        """A split on the device, in the precision of the run."""

    @property
    def train_outputs(self) -> Tensor:
        """F on the training samples at the last observation, (E, n) or (E, n, c)."""

    @property
    def test_outputs(self) -> Tensor:
        """F on the test set at the last observation, (E, n) or (E, n, c)."""

    def held_out(self) -> Tensor:
        """F on the test set at the present weights, (E, n) or (E, n, c)."""

    def centered_outputs(self, x: Tensor, f0: Tensor | None = None) -> Tensor:
        """F on inputs (n, ...) at the present weights, (E, n) or (E, n, c)."""

    def outputs_at(self, rows: Tensor, displacement: Tensor, x: Tensor) -> Tensor:
        """F of members ``rows`` (R,) at weights w0 + dw, dw (R, N), on inputs (n, ...): (R, n) or (R, n, c)."""

    def initial_outputs(self, x: Tensor) -> Tensor:
        """What centering subtracts on inputs, (E, n, c): f(w0, x), or zeros."""

    def raw_outputs(self, w: Tensor, x: Tensor) -> Tensor:
        """f(w, x) of the networks without a graph: (E, N) and (n, ...) give (E, n, c)."""

    def members_at_once(self, x: Samples) -> int | None:
        """The members that are evaluated on inputs (n, ...) at once on a CPU; None for all."""

    def member_buffers(self) -> dict[str, Tensor]:
        """The buffers and frozen parameters in which members differ, (E, *shape) each."""


class FlowingModule(ObservableModule, Protocol):
    """An :class:`ObservableModule` whose members follow a full-batch flow."""

    @property
    def events(self) -> tuple[Event, ...]:
        """The user's own events that end members."""

    def loss_at(self, rows: Tensor, displacement: Tensor) -> Tensor:
        """(R,) the loss of members ``rows`` (R,), as in the flow's state, at displacements (R, N)."""

    def companion_flow(self, w: nn.Parameter, steps: int) -> MomentumFlow:
        """The same flow of other weights (E, N'), which ends at no event."""
