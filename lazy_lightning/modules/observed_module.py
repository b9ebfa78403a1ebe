"""ObservedModule: members in training that are observed at intervals, by whatever algorithm they are trained."""

from __future__ import annotations

import hashlib
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from lazy_lightning.data.split import Split
from lazy_lightning.errors import ConfigError, UnwrittenError
from lazy_lightning.flow.stop_reason import StopReason
from lazy_lightning.modules.guarded_callback import report_failure, short_reason
from lazy_lightning.modules.logged_columns import (
    forget_early_stops,
    log_metrics,
    metrics_of,
    require_known_monitors,
    update_callback_metrics,
)
from lazy_lightning.modules.member_module import MemberModule, on_host
from lazy_lightning.modules.observation import Observation, Observer, Record, Sink
from lazy_lightning.modules.observers import ObserverRunner
from lazy_lightning.modules.stored_members import LAYOUT, PROBE, REASONS
from lazy_lightning.runs.checkpoint_validation import CheckpointContent
from lazy_lightning.runs.checkpoints import KEY, RunCheckpointIO, require_digest

if TYPE_CHECKING:
    from lazy_lightning.ntk.objective_closure import FullBatchObjective

SETTINGS = "settings"
"""The settings in a checkpoint that a resumed run must agree with."""
_METRICS = "metrics."
"""What the names of the metrics' tensors begin with."""


class ObservedModule(MemberModule):
    """The data on the device, the observations with their observers and sinks, and what a resumed run must agree with.

    Arguments as of :class:`~lazy_lightning.modules.member_module.MemberModule`. Subclasses take the steps, and call
    :meth:`observe` in between.
    """

    trains_network: ClassVar[bool] = True
    """Whether ``w`` are the weights of the networks; observers of these are passed over where it is not."""
    follows_flow: ClassVar[bool] = True
    """Whether members follow a full-batch flow, which another one can be sent along with."""

    objective: FullBatchObjective
    """The loss on the training samples; built when a fit starts."""
    test_outputs: Tensor
    """F on the test set at the last observation, (E, n) or (E, n, c)."""
    observations: int = 0
    """Counted from 0, which is w0."""
    is_described: bool = False
    """Whether this fit has seen to it that its folder holds a configuration."""
    unwritten: dict[Path, str]
    """Files that this fit could not write so far, each with the reason."""
    unfinished: dict[tuple[str, str], str]
    """Callbacks, each with the hook, that failed where they write their results, and the reason."""
    wall: float = 0.0
    """Seconds since the fit began, over all sessions of a resumed run."""
    stop_requested: bool = False
    """Set by a signal, which may have reached one of several processes only."""
    within_step: bool = False
    """Whether gradients have been accumulated for a step that is not yet taken."""
    _session_start: float = 0.0
    _wall_before: float = 0.0
    _observers: ObserverRunner

    @property
    @abstractmethod
    def title(self) -> str:
        """What is trained, for the closing summary."""

    @property
    @abstractmethod
    def reasons(self) -> list[StopReason]:
        """Why each member has ended, if it has."""

    @property
    @abstractmethod
    def train_outputs(self) -> Tensor:
        """F on the training samples at the last observation, (E, n) or (E, n, c)."""

    @property
    @abstractmethod
    def loss_start(self) -> Tensor:
        """(E,) the loss at w0, with its factor 1/alpha^2."""

    @abstractmethod
    def shares_done(self, record: Record) -> NDArray[np.float64]:
        """(E,) in [0, 1]: how near each member is to the nearest of its ends."""

    def loss_shares(self, record: Record) -> NDArray[np.float64]:
        """(E,) the training loss of a record over its value at w0."""
        start = self.whole_loss_start.detach().double().cpu().numpy() * np.square(self.ensemble.alphas)
        return np.asarray(record.columns["train/loss"] / start)

    @property
    def whole_loss_start(self) -> Tensor:
        """:attr:`loss_start` of the members of all ranks."""
        return self.loss_start

    def _of_all_members(self, columns: dict[str, Tensor]) -> dict[str, NDArray[np.float64]]:
        """Columns on the host; NaN for the members of a rank that does not have one."""
        own = on_host(columns)
        if self.ranks.world.count == 1:
            return own
        names = self.ranks.union(list(own))
        absent = np.full(len(self.own_rows), np.nan)
        stacked = torch.from_numpy(np.stack([own.get(name, absent) for name in names], axis=1))
        gathered = self._of_first_rank(self.whole({"columns": stacked})["columns"]).numpy()
        return {name: np.ascontiguousarray(gathered[:, i]) for i, name in enumerate(names)}

    def _of_first_rank(self, columns: Tensor) -> Tensor:
        """What the first of the processes that train the same members has measured, on the host."""
        ranks = self.sample_ranks
        return columns if ranks.count == 1 else ranks.of_first(columns.to(self.device)).cpu()

    def setup(self, stage: str) -> None:
        """Builds the members, and notes what a checkpoint must agree with: once, not at every save."""
        self.unwritten, self.unfinished = {}, {}
        self.is_described = False
        super().setup(stage)
        self._digest = self._objective_digest()
        if stage == "fit":  # test and validation sets are observed here, at the times of the other observations
            self._val_limit, self.trainer.limit_val_batches = self.trainer.limit_val_batches, 0

    def teardown(self, stage: str) -> None:
        """Lets the trainer validate again, by itself."""
        if stage == "fit":
            self.trainer.limit_val_batches = self._val_limit

    def configure_model(self) -> None:
        """Checkpoints are read and written by our own rules; Lightning calls this before it loads one."""
        super().configure_model()
        strategy = self.trainer.strategy
        if type(strategy.checkpoint_io) is TorchCheckpointIO:  # not one that the user has chosen
            strategy.checkpoint_io = RunCheckpointIO()

    def on_fit_end(self) -> None:
        """Ends with an error if results of the run could not be written; all others have been by now.

        Raises:
            UnwrittenError: names them.
        """
        lost = sorted(str(path) for path in self.unwritten)
        reasons = {callback: reason for (callback, _), reason in self.unfinished.items()}
        lost += [f"what {callback} writes ({reason})" for callback, reason in reasons.items()]
        if lost:
            raise UnwrittenError(
                f"{', '.join(lost)} could not be written, while the rest of the run is complete: remove the cause "
                "(free space, if the disk is full), then go on or fit again"
            )

    # ------------------------------------------------------------------ the data

    def on_fit_start(self) -> None:
        """Brings the data to the device, once, and computes f0 of the test set there.

        Raises:
            ConfigError: the weights to start from could not be read, or do not fit.
        """
        self.require_given_weights()
        self.train_split = self._resident_training_set()
        self.test_split = self.resident(self.split("test"))
        self.val_split = self.resident(self.split("val"))
        self._prepare_held_out()
        self._validation = self._evaluator(self.val_split.x) if len(self.val_split.y) else None

    def _resident_training_set(self) -> Split:
        return self.resident(self._observed_training_set())

    def _observed_training_set(self) -> Split:
        """What of the training set lies on the device, and is observed."""
        return self.split("train")

    def _prepare_held_out(self) -> None:
        """What evaluating the test set takes, once."""
        self._test_f0 = self.initial_outputs(self.test_split.x)

    def _evaluator(self, x: Tensor) -> Callable[[], Tensor]:
        """Does once what evaluating inputs takes; the function returned gives F on them at the present weights."""
        f0 = self.initial_outputs(x)
        return lambda: self.centered_outputs(x, f0)

    def held_out(self) -> Tensor:
        """F on the test set."""
        return self.centered_outputs(self.test_split.x, self._test_f0)

    def resident(self, split: Split) -> Split:
        """The split on the device, in the precision of the run."""
        y = split.y.to(self.device)
        return Split(
            split.x.to(self.device, self.w0.dtype), y.to(self.w0.dtype) if y.is_floating_point() else y, split.index
        )

    # ------------------------------------------------------------------ observing

    def begin_session(self, *, anew: bool) -> None:
        """Starts the clock of this session, and lets the observers compare their settings with the run.

        Args:
            anew: whether it is the first session of a run; a module may be fitted again.

        Raises:
            LazyLightningError: the settings of an observer do not fit the run.
        """
        self._session_start = time.perf_counter()
        self.stop_requested = self.within_step = False
        if anew:
            self.observations, self._wall_before = 0, 0.0
            self._observers = ObserverRunner()
        forget_early_stops(self.trainer)
        self._observers.check(self)

    def seconds_so_far(self) -> float:
        """Since the fit began, over all sessions."""
        return self._wall_before + time.perf_counter() - self._session_start

    def observe(self, observation: Observation, columns: dict[str, Tensor]) -> None:
        """Completes the columns by those of the module and of all observers, and hands the record to the sinks.

        Args:
            observation: whose ``columns`` are these.
            columns: filled here.
        """
        self.wall = self.seconds_so_far()
        columns.update(self._own_columns(observation))
        self._observers.measure(self, observation, columns)
        record = Record(self.observations, self.wall, observation.final, self._of_all_members(columns))
        self._publish(record)
        self.observations += 1

    def _publish(self, record: Record) -> None:
        """Hands a record to the trainer's metrics, its loggers, and all sinks; one that fails is reported once."""
        metrics = metrics_of(self.ensemble, record)
        update_callback_metrics(self.trainer, metrics)
        if record.index == 0:
            require_known_monitors(self.trainer)
        log_metrics(self.trainer, metrics, record.index)
        if not self.trainer.is_global_zero:
            return
        for sink in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(sink, Sink):
                noted = (type(sink).__name__, "record")
                try:
                    sink.record(self.trainer, self, record)
                except Exception as error:
                    report_failure(sink, "record", error)
                    self.unfinished[noted] = short_reason(error)
                else:
                    self.unfinished.pop(noted, None)

    def _own_columns(self, observation: Observation) -> dict[str, Tensor]:
        state = observation.state
        clock = {name: getattr(state, name) for name in ("t", "dt", "tried", "accepted", "reason", "gradient_change")}
        columns: dict[str, Tensor] = {**clock, "gradient_norm": state.gradient_norm}
        assert state.outputs is not None  # our objectives always report them
        held_out = self.test_outputs = self.held_out()
        columns |= self.measured("fitted", without_failed(state.outputs, state.reason), self.train_split.y, "train")
        columns |= self.measured("held_out", without_failed(held_out, state.reason), self.test_split.y, "test")
        if self._validation is not None:
            outputs = without_failed(self._validation(), state.reason)
            columns |= self.measured("validation", outputs, self.val_split.y, "val")
        return columns

    def measured(self, use: str, outputs: Tensor, y: Tensor, prefix: str) -> Mapping[str, Tensor]:
        """Losses, errors, margins and sizes of outputs F, (E,) each."""
        for metric in self._metrics_of(use).values():
            metric.update(outputs, y)
        size = outputs.double().flatten(1).square().mean(dim=1).sqrt()
        return {f"{prefix}/{name}": value for name, value in self._computed(use).items()} | {
            f"{prefix}/output_rms": size
        }

    # ------------------------------------------------------------------ resuming

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the count of observations and the wall time to the checkpoint."""
        checkpoint[KEY] = {
            "observations": self.observations,
            "wall": self.seconds_so_far(),
            "alphas": list(self.ensemble.alphas),
            "seeds": list(self.ensemble.seeds),
            **({} if self.ensemble.data_seeds is None else {"data_seeds": list(self.ensemble.data_seeds)}),
            LAYOUT: [[name, list(shape)] for name, shape in zip(self.network.names, self.network.shapes, strict=True)],
            "samples": len(self.data.train.y),
            "objective": self._digest,
            "failed_observers": {name: list(columns) for name, columns in self._observers.failed.items()},
            **({} if self.probe is None else {PROBE: self.probe}),
            REASONS: self._reason_codes(),
            SETTINGS: self._settings(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continues the count and the clock, after the whole content of the checkpoint has been checked.

        Raises:
            ConfigError: if the checkpoint holds other members, data or loss than the configuration asks for, or
                something that no run has written.
        """
        content = CheckpointContent(checkpoint, str(self.trainer.ckpt_path or "in memory"))
        saved = content.entry(checkpoint, KEY, dict)
        content.progress(saved)
        if (tuple(saved["alphas"]), tuple(saved["seeds"])) != (self.ensemble.alphas, self.ensemble.seeds):
            raise ConfigError(
                f"the checkpoint holds members of alpha {sorted(set(saved['alphas']))} and seeds "
                f"{sorted(set(saved['seeds']))}, the configuration asks for alpha {sorted(set(self.ensemble.alphas))} "
                f"and seeds {sorted(set(self.ensemble.seeds))}: resume with the run's own config.yaml"
            )
        data_seeds = saved.get("data_seeds")
        if (None if data_seeds is None else tuple(data_seeds)) != self.ensemble.data_seeds:
            raise ConfigError(
                f"the checkpoint holds members of data seeds {data_seeds}, the configuration asks for "
                f"{self.ensemble.data_seeds}: resume with the run's own config.yaml"
            )
        if self.trainer.training:
            self._require_same_settings(saved.get(SETTINGS, {}))
        if self.trainer.training and saved["objective"] != self._digest:
            raise ConfigError(
                f"the checkpoint comes from {saved['samples']} training samples, here are {len(self.data.train.y)}, or "
                "their content, the loss or the centering is another: resume with the run's own config.yaml and files"
            )
        tensors = self.state_dict()
        of_metrics = {name: x for name, x in tensors.items() if name.startswith(_METRICS)}
        weights = content.weights({name: x for name, x in tensors.items() if name not in of_metrics}, _METRICS)
        if self.trainer.training:
            content.trainer_state(self.trainer)
            content.callbacks(self.trainer.callbacks, (Observer, Sink))  # type: ignore[attr-defined]
        self._check_state(content, saved, weights)
        require_digest(checkpoint, content.path)
        # Those of the metrics follow from the configuration, and a checkpoint may be older than some metrics.
        checkpoint["state_dict"] = {**weights, **of_metrics}
        self.replace_given_weights(weights)
        self.probe = saved.get(PROBE)
        self.observations = saved["observations"]
        self._wall_before = float(saved["wall"])
        self._observers = ObserverRunner(saved.get("failed_observers", {}))

    @abstractmethod
    def _check_state(self, content: CheckpointContent, saved: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        """Checks what the subclass goes on with; the state of the optimizer only where training goes on."""

    def _reason_codes(self) -> list[int]:
        """Why each member has ended, for checkpoints; a resumed run saves what the undisturbed one does."""
        return [int(reason) for reason in self.reasons]

    def _settings(self) -> dict[str, Any]:
        """What else must not change on the way, as plain values by the names of the constructor's arguments."""
        return {}

    def _require_same_settings(self, saved: Any) -> None:
        """Compares the settings with those of a checkpoint; one of an older version has none."""
        for name, own in self._settings().items():
            if isinstance(saved, Mapping) and name in saved and saved[name] != own:
                raise ConfigError(
                    f"{name} is {own} here, but {saved[name]} in the checkpoint: a resumed run trains what it trained "
                    "before, so resume with the run's own config.yaml, or start another run"
                )

    def _identity(self) -> str:
        return f"{self.loss!r} {self.centering.enabled}"

    def _objective_digest(self) -> str:
        """What must not change on the way: training samples, labels, loss, centering."""
        digest = hashlib.sha256(self._identity().encode())
        for train in self.data_sets.training_sets(self.data):
            for part in (train.x, train.y):
                digest.update(part.contiguous().numpy().data)
        return digest.hexdigest()


def without_failed(outputs: Tensor, reason: Tensor) -> Tensor:
    """Outputs (E, n, ...) with NaN for members that failed: these count neither as right nor in an ensemble."""
    failed = sum(reason == int(code) for code in StopReason if code.failed)
    return outputs.masked_fill(cast(Tensor, failed).bool().view(-1, *(1,) * (outputs.ndim - 1)), torch.nan)
