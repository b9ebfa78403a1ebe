"""MemberModule: an ensemble of alpha-centred networks as a LightningModule, however it is trained."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import Metric

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.data.flow_data import FlowData
from lazy_lightning.data.split import Split
from lazy_lightning.errors import ConfigError
from lazy_lightning.memory import require_bytes
from lazy_lightning.modules.data_sets import DataSets, SetName
from lazy_lightning.modules.ensemble import DataSeeds, Ensemble
from lazy_lightning.modules.given_weights import GivenWeights, Start
from lazy_lightning.modules.observation import finite_mean
from lazy_lightning.modules.ranks import Ranks, ranks_of
from lazy_lightning.modules.sample_ranks import SampleRanks
from lazy_lightning.nn.construction import count_weights
from lazy_lightning.nn.initial_members import InitialMembers
from lazy_lightning.nn.member_samples import Samples, select_members
from lazy_lightning.nn.member_state import in_precision
from lazy_lightning.nn.members import MemberNetwork
from lazy_lightning.nn.network_probe import NetworkProbe
from lazy_lightning.nn.shared_starts import SharedStarts
from lazy_lightning.objective.centering import Centering
from lazy_lightning.objective.full_batch import drop_single_output, raw_outputs
from lazy_lightning.objective.loss_over_sets import LossOverSets
from lazy_lightning.objective.losses import Loss, Task, build_loss
from lazy_lightning.objective.member_blocks import block_size
from lazy_lightning.objective.metrics import EnsembleError, MarginStatistics, MemberError, MemberLoss
from lazy_lightning.runs.constructor_arguments import constructor_arguments

_SINGLE_PRECISION = (
    "this Trainer computes in float32, Lightning's default, in which a large alpha leaves f - f0 few digits: build it "
    'with Trainer(precision="64-true"), which is the default of the command line and the precision of the papers'
)
_DTYPES = {"64-true": torch.float64, "32-true": torch.float32}


class MemberModule(LightningModule):
    """The members' networks, F = alpha (f(w, x) - f(w0, x)), their metrics, and evaluation of a checkpoint.

    Args:
        network: builds one network; called once a seed, with ``input_shape`` and ``num_outputs`` taken from the
            data if its constructor has arguments of these names.
        loss: by name, or a Loss.
        alpha: the scale, or several.
        seeds: initial seeds of the members of each alpha; an integer k stands for 0, ..., k - 1.
        centering: subtract f(w0, x); False trains alpha f.
        margin_target: margins at or over this are counted as met.
        chunk_size: samples evaluated at once; null for all.
        data_seeds: data seeds of the members of each alpha and seed; null for the data of the datamodule.
        data_seed_keys: the seeds of the datamodule that a data seed sets; null for ``train_seed`` alone.
        init: where w0 is read from, instead of being drawn by the seeds: the folder of a run or a checkpoint, whose
            final weights are taken member by member, or a file of one network's weights by name (``.safetensors``, or
            a state_dict saved by torch).
        init_alpha: the alpha of the stored members; null for the only one stored, or each member's own.
        init_fresh: layers that keep the weights drawn by the seeds, such as a new output layer.

    Raises:
        ConfigError: for a value out of range, or (in ``setup``) a loss that does not fit the labels.
    """

    w: nn.Parameter
    w0: Tensor
    paired: bool = False
    """Whether F is computed from changes of the outputs, without cancellation."""

    def __init__(
        self,
        network: Callable[[], nn.Module],
        loss: str | Loss,
        alpha: float | list[float],
        seeds: int | list[int],
        centering: bool,
        margin_target: float,
        chunk_size: int | None,
        data_seeds: DataSeeds = None,
        data_seed_keys: list[str] | None = None,
        init: str | None = None,
        init_alpha: float | None = None,
        init_fresh: list[str] | None = None,
    ) -> None:
        start = {"init": init, "init_alpha": init_alpha, "init_fresh": init_fresh}
        check_arguments(MemberModule, {"chunk_size": chunk_size, "data_seed_keys": data_seed_keys, **start})
        super().__init__()
        self.constructor_arguments = constructor_arguments(self)
        self.factory = network
        self.loss = build_loss(loss)
        self.ensemble = Ensemble.of(alpha, seeds, data_seeds)
        """All members, of whatever rank."""
        self.ranks = Ranks()
        """The processes among which the members are divided."""
        self.sample_ranks = SampleRanks()
        """Those that train the members of this process, each on a slice of the training samples."""
        self.own_rows = list(range(len(self.ensemble)))
        self.own_members = self.ensemble
        """Those that this process trains; tensors (E, ...) of the module have these rows."""
        self.centering = Centering(self.ensemble.alpha_tensor(), enabled=centering)
        self.margin_target = margin_target
        self.chunk_size = chunk_size
        self.shared_starts = SharedStarts.of_seeds(self.ensemble.seeds)
        self.data_sets = DataSets(self.ensemble.data_seeds, data_seed_keys)
        """The data of members with data seeds."""
        self.given_weights = GivenWeights(init, init_alpha, init_fresh)
        """The weights that members start from, if any."""
        self._given_error: ConfigError | None = None
        self._given_warning: str | None = None
        self.probe: Mapping[str, Any] | None = None
        """What the network of the first member computes, for checkpoints."""

    # ------------------------------------------------------------------ building

    @property
    def data(self) -> FlowData:
        """The datamodule of this run.

        Raises:
            ConfigError: the trainer was given loaders, or a datamodule that is no FlowData.
        """
        given = self.trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(given, FlowData):
            return given
        name = "loaders instead of a datamodule" if given is None else f"a {type(given).__name__}"
        raise ConfigError(
            f"the trainer was given {name}, but {type(self).__name__} needs the whole sets in memory: pass "
            "datamodule=FromDataModule(...) with your LightningDataModule, or FromDataset(...) with your Dataset, both "
            "of lazy_lightning.data"
        )

    def split(self, name: SetName) -> Split:
        """A set of samples on the host, float64; where members differ in it, each member's own."""
        return self.data_sets.split(self.data, name)

    def whole_split(self, name: SetName) -> Split:
        """A set of samples of the members of all ranks, (E, n, ...) with data seeds."""
        return self.data_sets.whole_split(self.data, name, self.ensemble.data_seeds)

    def setup(self, stage: str) -> None:
        """Builds the members; the data's shapes are known now. A fit starts at w0, whatever was done before."""
        if stage != "fit":
            self.data_sets.require_shared(self.data, "val" if stage == "validate" else "test")
        if hasattr(self, "w0"):
            self._reset_metrics()
            if stage == "fit":
                self._return_to_start()
            return
        self._take_own_members()
        data = self.data
        self.task: Task = data.task
        self.loss.check(self.task)
        self.data_sets.build(data, self.own_members.data_seeds)
        if self.data_sets.differ:
            self.loss = LossOverSets(self.loss)
        dtype = self._run_dtype()
        require_memory_of_members(self.factory, len(self.shared_starts), data)
        members = InitialMembers(self.factory, self.own_members.seeds, data.input_shape, data.num_outputs, data.train.x)
        if members.outputs != data.num_outputs:
            raise ConfigError(
                f"the network {type(members.network.template).__name__} puts out {members.outputs} numbers a sample, "
                f"but the data have {data.num_outputs}: give its constructor an argument named num_outputs"
            )
        self._buffer_names = attribute_names(members.buffers)
        self._members_at_once: dict[tuple[int, type, str, torch.dtype], int | None] = {}
        start = self._start(members)
        self.shared_starts, self._given_warning = start.shared, start.warning
        first = {name: tensor[:1] for name, tensor in start.buffers.items()}
        self.probe = NetworkProbe.of(members.network, start.w0[:1], first, members.trial_inputs).as_content()
        self.network: MemberNetwork = members.network.in_precision(dtype)
        self.register_buffer("w0", start.w0.to(dtype))
        self._hold_weights()
        for name, held in self._buffer_names.items():
            self.register_buffer(held, in_precision(start.buffers[name], dtype))
        uses = ("fitted", "held_out", "validation", "evaluated")
        self.metrics = nn.ModuleDict({use: self._build_metrics() for use in uses})

    def _start(self, members: InitialMembers) -> Start:
        """What the members start from; weights that cannot be read are an error unless a checkpoint is loaded."""
        drawn = Start(members.w0, members.buffers, self.shared_starts)
        try:
            return self.given_weights.start(members.network, self.own_members, drawn, self._buffer_names)
        except ConfigError as error:
            self._given_error = error
            return drawn

    def require_given_weights(self) -> None:
        """Called before training and evaluation, when a checkpoint has been loaded, if there is one.

        Warns where the members that they come from have not ended.

        Raises:
            ConfigError: the weights to start from could not be read, or do not fit.
        """
        if self._given_error is not None:
            raise self._given_error
        if self._given_warning is not None:
            rank_zero_warn(self._given_warning)
            self._given_warning = None

    def replace_given_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Called with the tensors of a checkpoint, which holds w0: the file it came from is needed no more.

        That file may be gone, or hold other weights by now, of which other members share their start.
        """
        if self.given_weights.path is None:
            return
        self._given_warning = None
        buffers = {name: weights[held] for name, held in self._buffer_names.items()}
        pairs = [(self.w0, weights["w0"]), *((x, buffers[name]) for name, x in self.member_buffers().items())]
        if self._given_error is not None or not all(torch.equal(one.cpu(), other.cpu()) for one, other in pairs):
            self._given_error = None
            self.shared_starts = SharedStarts.of_weights(weights["w0"], buffers).to(self.w0.device)

    def on_validation_start(self) -> None:
        """Refuses to evaluate drawn weights in the place of given ones."""
        self.require_given_weights()

    def on_test_start(self) -> None:
        """Refuses to test drawn weights in the place of given ones."""
        self.require_given_weights()

    def on_predict_start(self) -> None:
        """Refuses to predict by drawn weights in the place of given ones."""
        self.require_given_weights()

    def _take_own_members(self) -> None:
        """Deals the members out to the processes of the trainer, if there are several."""
        self.ranks, self.sample_ranks = self._divided_processes()
        self.own_rows = self.ranks.rows(len(self.ensemble))
        self.own_members = self.ensemble.select(self.own_rows)
        self.centering = Centering(self.own_members.alpha_tensor(), enabled=self.centering.enabled)
        self.shared_starts = SharedStarts.of_seeds(self.own_members.seeds)

    def _divided_processes(self) -> tuple[Ranks, SampleRanks]:
        """The processes that divide the members, and those that divide the training samples."""
        self.check_devices(self.trainer.world_size)
        return ranks_of(self.trainer), SampleRanks()

    def check_devices(self, devices: int) -> None:
        """Checks that the run can be divided among this number of devices.

        Raises:
            ConfigError: there are fewer members than devices that members are divided among.
        """
        Ranks(0, devices).rows(len(self.ensemble))

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors (E, ...) of all members of tensors of this rank's members, on the host if there are several ranks."""
        return self.ranks.gather_members(tensors, len(self.ensemble))

    def stack_members(self, checkpoint: dict[str, Any], members: int) -> dict[str, Any]:
        """Returns a checkpoint in which each tensor of members has a leading member axis.

        Args:
            checkpoint: with the state of this module, as Lightning makes it.
            members: how many the checkpoint holds.
        """
        return checkpoint

    def split_members(self, checkpoint: dict[str, Any], members: int) -> dict[str, Any]:
        """Returns a checkpoint as Lightning makes it; the inverse of :meth:`stack_members`."""
        return checkpoint

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves the module, as ``to``, ``cpu`` and ``cuda`` do, with the tensors that no checkpoint holds.

        These are the parts of the network's template that all members share, the scales alpha, and the row numbers of
        members by seed. No evaluation moves anything: samples must be where the module is.
        """
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if hasattr(self, "w0"):
            self._place(self.w0.device)
        return self

    def _place(self, device: torch.device) -> None:
        self.network.template.to(device)
        self.centering = self.centering.to(device)
        self.shared_starts = self.shared_starts.to(device)

    def _hold_weights(self) -> None:
        """Makes the parameters, which start at w0."""
        self.w = nn.Parameter(self.w0.clone())  # the flow moves w in place, w0 must stay

    def _return_to_start(self) -> None:
        """Undoes what an earlier fit or a checkpoint has left; one to go on from is loaded after this."""

    def _reset_metrics(self) -> None:
        """Outside of inference mode, which leaves tensors behind that no training may change."""
        for metric in self.metrics.modules():
            if isinstance(metric, Metric):
                metric.reset()

    @classmethod
    def load_from_checkpoint(cls, *args: Any, **kwargs: Any) -> Self:
        """Not for these modules, whose networks take their shapes from the data.

        Raises:
            ConfigError: always, with what to do instead.
        """
        raise ConfigError(
            f"{cls.__name__}.load_from_checkpoint cannot build the networks, whose shapes the data decide: build the "
            "module as it was and give ckpt_path=... with weights_only=True to the Trainer's fit, validate, test or "
            "predict, with the run's datamodule"
        )

    def _run_dtype(self) -> torch.dtype:
        precision = str(self.trainer.precision)
        if precision not in _DTYPES:
            raise ConfigError(
                f"trainer.precision {precision!r} has too few digits for f - f0: use '64-true' (as papers) or '32-true'"
            )
        if precision == "32-true" and not self.paired and not getattr(self.trainer, "chooses_precision", False):
            warnings.warn(_SINGLE_PRECISION, stacklevel=2)
        return _DTYPES[precision]

    def _build_metrics(self) -> nn.ModuleDict:
        members = len(self.own_members)
        metrics = nn.ModuleDict({"loss": MemberLoss(self.loss, members)})
        if self.task != "regression":
            groups = int(self.ensemble.groups().max()) + 1
            metrics["error"] = MemberError(self.loss, members)
            metrics["ensemble_error"] = EnsembleError(
                self.loss, self.ensemble.groups()[self.own_rows], self.ranks.sum, groups
            )
            metrics["margins"] = MarginStatistics(self.loss, members, self.margin_target)
        return metrics

    # ------------------------------------------------------------------ outputs

    def member_buffers(self) -> dict[str, Tensor]:
        """The buffers and frozen parameters in which members differ, (E, *shape) each."""
        return {name: cast(Tensor, getattr(self, held)) for name, held in self._buffer_names.items()}

    def raw_outputs(self, w: Tensor, x: Tensor) -> Tensor:
        """f(w, x) without a graph: (E, N) and (n, ...) give (E, n, c)."""
        return raw_outputs(self.network, w, x, self.member_buffers(), self.chunk_size, self.members_at_once(x))

    def members_at_once(self, x: Samples) -> int | None:
        """The members that are evaluated on inputs (n, ...) at once, so that a CPU's cache holds what they compute.

        See :func:`~lazy_lightning.objective.member_blocks.block_size`. It is counted once for each n; None is all.
        """
        key = (len(x), type(x), self.w0.device.type, self.w0.dtype)
        if key not in self._members_at_once:
            size = block_size(self.network, self.w0, x, self.member_buffers(), self.chunk_size)
            self._members_at_once[key] = size
        return self._members_at_once[key]

    def initial_outputs(self, x: Tensor) -> Tensor:
        """f0 = f(w0, x), (E, n, c); zeros without centering."""
        return self.centering.base(lambda w: self.raw_outputs(w, x), self.w0)

    def centered_outputs(self, x: Tensor, f0: Tensor | None = None) -> Tensor:
        """F at the present weights, (E, n) for one output and (E, n, c) for more."""
        f = self.raw_outputs(self.w.detach(), x)
        return drop_single_output(self.centering(f, self.initial_outputs(x) if f0 is None else f0))

    def outputs_at(self, rows: Tensor, displacement: Tensor, x: Tensor) -> Tensor:
        """F of some members at other weights, without a graph.

        Args:
            rows: (R,) their indices.
            displacement: (R, N) dw of the weights w0 + dw.
            x: inputs (n, ...), or those of each member.

        Returns:
            (R, n) for one output and (R, n, c) for more.
        """
        buffers = {name: b[rows] for name, b in self.member_buffers().items()}
        w0, inputs = self.w0[rows], select_members(x, rows)
        how = (inputs, buffers, self.chunk_size, self.members_at_once(x))
        f, start = (raw_outputs(self.network, w, *how) for w in (w0 + displacement, w0))
        return drop_single_output(self.centering.select(rows).from_change(f - start, start))

    def forward(self, x: Any) -> Tensor:
        """F of every member, see :meth:`centered_outputs`.

        Args:
            x: inputs (n, ...) as the networks take them: a tensor of any real type on the module's device, an array or
                a list.
        """
        samples = x if isinstance(x, Tensor) else torch.as_tensor(x, device=self.w.device)
        return self.centered_outputs(samples.to(self.w.dtype))

    # ------------------------------------------------------------------ metrics

    def _metrics_of(self, use: str) -> dict[str, Metric]:
        return dict(cast("nn.ModuleDict", self.metrics[use]).items())  # type: ignore[arg-type]

    def _computed(self, use: str) -> dict[str, Tensor]:
        """The values (E,) of all metrics, which are then reset."""
        values: dict[str, Tensor] = {}
        for name, metric in self._metrics_of(use).items():
            value = metric.compute()
            metric.reset()
            values |= value if isinstance(value, dict) else {name: value}
        return {name: value.reshape(-1) for name, value in values.items()}  # torchmetrics squeezes E = 1 away

    # ------------------------------------------------------------------ evaluating a checkpoint

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Adds a batch of held-out samples to the metrics."""
        x, y = batch
        outputs = self(x)
        for metric in self._metrics_of("evaluated").values():
            metric.update(outputs, y)

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Evaluates a batch of the test set, see :meth:`validation_step`."""
        self.validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Logs means over the members of each alpha."""
        self._log_evaluated("val")

    def on_test_epoch_end(self) -> None:
        """Logs means over the members of each alpha."""
        self._log_evaluated("test")

    def _log_evaluated(self, prefix: str) -> None:
        alphas = np.asarray(self.ensemble.alphas)
        for name, host in on_host(self.whole(self._computed("evaluated"))).items():
            for alpha in dict.fromkeys(self.ensemble.alphas):
                mean = torch.tensor(finite_mean(host[alphas == alpha]), dtype=torch.float64)
                # every rank has the mean of all members, so there is nothing to reduce
                self.log(f"{prefix}/{name}/alpha={alpha:g}", mean, sync_dist=True, rank_zero_only=True)

    def predict_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """F of every member, of whatever rank, on a batch, (n, E) or (n, E, c)."""
        return self.whole({"outputs": self(batch[0])})["outputs"].transpose(0, 1)


def on_host(columns: dict[str, Tensor]) -> dict[str, NDArray[np.float64]]:
    """Brings columns (E,) to the host in one transfer, as float64."""
    stacked = torch.stack([column.detach().double() for column in columns.values()]).cpu().numpy()
    return dict(zip(columns, stacked, strict=True))


def attribute_names(names: Iterable[str]) -> dict[str, str]:
    """A name without dots for each buffer of the networks, under which the module holds it.

    >>> attribute_names(["a.b", "a_b"])
    {'a.b': 'member_a_b', 'a_b': 'member_a_b_'}
    """
    held: dict[str, str] = {}
    for name in names:
        attribute = f"member_{name.replace('.', '_')}"
        while attribute in held.values():
            attribute += "_"
        held[name] = attribute
    return held


def require_memory_of_members(factory: Callable[..., nn.Module], seeds: int, data: FlowData) -> None:
    """Counts the weights before any network is built.

    Raises:
        MemoryShortageError: those of all seeds, in float64, do not fit into memory beside the network that is built.
    """
    weights = count_weights(factory, data.input_shape, data.num_outputs)
    if weights is None:
        return
    what = f"a network of {weights:,} weights, for {seeds} seed{'s' * (seeds > 1)},"
    require_bytes(8 * weights * (seeds + 2), torch.device("cpu"), what, "choose a smaller network or fewer seeds")
