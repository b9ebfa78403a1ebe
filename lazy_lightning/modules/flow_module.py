"""FlowModule: full-batch flow of an ensemble of alpha-centred networks, as a LightningModule."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torchmetrics import Metric

from lazy_lightning.centering import Centering
from lazy_lightning.data.flow_data import FlowData
from lazy_lightning.data.split import Split, Task
from lazy_lightning.errors import ConfigError
from lazy_lightning.flow.controllers import Band, ConstantStep, controller
from lazy_lightning.flow.events import MarginsMet
from lazy_lightning.flow.momentum_flow import MomentumFlow
from lazy_lightning.flow.rules import step_rule
from lazy_lightning.flow.schedule import Schedule
from lazy_lightning.flow.stop_reason import StopReason
from lazy_lightning.losses import Loss, build_loss
from lazy_lightning.metrics import EnsembleError, MarginStatistics, MemberError, MemberLoss
from lazy_lightning.modules.roster import Roster
from lazy_lightning.modules.stop import Stop
from lazy_lightning.nn.members import InitialMembers, MemberNetwork
from lazy_lightning.objective import Objective, drop_single_output, raw_outputs
from lazy_lightning.observation import Observation, Observer, Record, Sink, finite_mean

_DTYPES = {"64-true": torch.float64, "32-true": torch.float32}


class FlowModule(LightningModule):
    """Trains F = alpha (f(w, x) - f(w0, x)) by gradient or momentum flow on the whole training set.

    Every pair of an alpha and a seed is a member of one batch. One ``training_step`` is a burst of flow steps
    up to the next observation; the data lies on the device throughout. The precision is the trainer's:
    ``64-true`` or ``32-true``.

    Args:
        network: builds one network; called once a seed, with ``input_shape`` and ``num_outputs`` taken from the
            data if its constructor has arguments of these names.
        loss: ``softhinge(20)``, ``hinge``, ``quadratic_hinge``, ``mse``, ``cross_entropy``, or a Loss.
        alpha: the scale, or several. sqrt(h) alpha selects the regime: small learns features, large is lazy.
        seeds: initial seeds of the members of each alpha; an integer k stands for 0, ..., k - 1.
        centering: subtract f(w0, x); False trains alpha f.
        tau: memory time of the momentum, in units of t; 0 is gradient flow.
        mu: the Nesterov-like variant, tau = t/mu.
        controller: step-size policy, ``slides``, ``reference``, or one with its own numbers.
        dt: first step size to try.
        stop: when a member ends.
        schedule: when to observe.
        chunk_size: samples evaluated at once, to bound memory; null for all.

    Raises:
        ConfigError: for a value out of range, or a loss that does not fit the labels.
    """

    def __init__(
        self,
        network: Callable[[], nn.Module],
        loss: str | Loss = "softhinge(20)",
        alpha: float | list[float] = 1.0,
        seeds: int | list[int] = 1,
        centering: bool = True,
        tau: float = 0.0,
        mu: float | None = None,
        controller: str | Band | ConstantStep = "slides",
        dt: float = 1.0,
        stop: Stop | None = None,
        schedule: Schedule | None = None,
        chunk_size: int | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.factory = network
        self.loss = build_loss(loss)
        self.roster = Roster.of(alpha, seeds)
        self.centering = Centering(self.roster.alpha_tensor(), enabled=centering)
        self.stop = stop or Stop()
        self.schedule = schedule or Schedule()
        self.chunk_size = chunk_size
        self._flow_options: dict[str, Any] = {
            "tau": tau,
            "mu": mu,
            "controller": check_controller(controller),
            "dt": dt,
            "events": self.stop.events(self.loss),
        }
        step_rule(tau, mu)  # out-of-range values are told before any data is read
        self.observations = 0
        self.wall = 0.0
        self._session_start = time.perf_counter()
        self._wall_before = 0.0
        self._seconds_per_step: float | None = None

    # ------------------------------------------------------------------ building

    @property
    def data(self) -> FlowData:
        """The datamodule of this run."""
        return cast(FlowData, self.trainer.datamodule)  # type: ignore[attr-defined]

    @property
    def flow(self) -> MomentumFlow:
        """The optimizer that holds the flow's state."""
        return cast(MomentumFlow, self.optimizers(use_pl_optimizer=False))

    def setup(self, stage: str) -> None:
        """Builds the members; the data's shapes are known now."""
        if hasattr(self, "w"):
            return
        data = self.data
        self.task: Task = data.task
        self.loss.check(self.task)
        dtype = self._run_dtype()
        members = InitialMembers(self.factory, self.roster.seeds, data.input_shape, data.num_outputs)
        self.network: MemberNetwork = members.network
        self.w = nn.Parameter(members.w0.to(dtype, copy=True))  # the flow moves w in place, w0 must stay
        self.register_buffer("w0", members.w0.to(dtype))
        self._buffer_names = {name: f"member_{name.replace('.', '_')}" for name in members.buffers}
        for name, held in self._buffer_names.items():
            self.register_buffer(held, members.buffers[name].to(dtype))
        self.metrics = nn.ModuleDict({name: self._build_metrics() for name in ("fitted", "held_out", "evaluated")})

    def _run_dtype(self) -> torch.dtype:
        precision = str(self.trainer.precision)
        if precision not in _DTYPES:
            raise ConfigError(
                f"trainer.precision {precision!r} cannot follow a flow: use '64-true' (the papers') or '32-true'"
            )
        return _DTYPES[precision]

    def _build_metrics(self) -> nn.ModuleDict:
        members = len(self.roster)
        metrics = nn.ModuleDict({"loss": MemberLoss(self.loss, members)})
        if self.task != "regression":
            metrics["error"] = MemberError(self.loss, members)
            metrics["ensemble_error"] = EnsembleError(self.loss, self.roster.groups())
            metrics["margins"] = MarginStatistics(
                self.loss, members, 1.0 if self.stop.margin is None else self.stop.margin
            )
        return metrics

    def configure_optimizers(self) -> MomentumFlow:
        """One flow over (E, N)."""
        w0 = cast(Tensor, self.w0)
        return MomentumFlow([self.w], members=len(w0), compact=True, origin=w0, **self._flow_options)

    # ------------------------------------------------------------------ outputs

    def member_buffers(self) -> dict[str, Tensor]:
        """The networks' own buffers, (E, *shape) each."""
        return {name: cast(Tensor, getattr(self, held)) for name, held in self._buffer_names.items()}

    def raw_outputs(self, w: Tensor, x: Tensor) -> Tensor:
        """f(w, x) without a graph: (E, N) and (n, ...) give (E, n, c)."""
        return raw_outputs(self.network, w, x, self.member_buffers(), self.chunk_size)

    def initial_outputs(self, x: Tensor) -> Tensor:
        """f0 = f(w0, x), (E, n, c); zeros without centering. The scales follow the weights to their device."""
        self.centering.alpha = self.centering.alpha.to(self.w.device)
        return self.centering.base(lambda w: self.raw_outputs(w, x), cast(Tensor, self.w0))

    def centered_outputs(self, x: Tensor, f0: Tensor | None = None) -> Tensor:
        """F at the present weights, (E, n) for one output and (E, n, c) for more."""
        f = self.raw_outputs(self.w.detach(), x)
        return drop_single_output(self.centering(f, self.initial_outputs(x) if f0 is None else f0))

    def forward(self, x: Tensor) -> Tensor:
        """F of every member, see :meth:`centered_outputs`."""
        return self.centered_outputs(x.to(self.w.dtype))

    # ------------------------------------------------------------------ fitting

    def on_fit_start(self) -> None:
        """Brings the data to the device, once, and computes f0 there."""
        self.train_split = self._resident(self.data.train)
        self.test_split = self._resident(self.data.test)
        self._test_f0 = self.initial_outputs(self.test_split.x)
        self.objective = Objective(
            network=self.network,
            loss=self.loss,
            centering=self.centering,
            x=self.train_split.x,
            y=self.train_split.y,
            f0=self.initial_outputs(self.train_split.x),
            buffers=self.member_buffers(),
            chunk_size=self.chunk_size,
            reports_margins=any(isinstance(event, MarginsMet) for event in self.flow.dynamics.events),
        )

    def _resident(self, split: Split) -> Split:
        y = split.y.to(self.device)
        return Split(
            split.x.to(self.device, self.w.dtype), y.to(self.w.dtype) if y.is_floating_point() else y, split.index
        )

    def on_train_start(self) -> None:
        """Evaluates at w0 and observes it, unless the run is resumed."""
        self._session_start = time.perf_counter()
        if not self.flow.started:
            with torch.enable_grad():
                self.flow.start(lambda: self.objective.backward(self.w))
            self._observe()
        elif self._all_stopped():
            self.trainer.should_stop = True

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One burst, then one observation."""
        flow = self.flow
        flow.steps = self._burst_length()
        begin = time.perf_counter()
        active_objective: list[Objective] = []

        def closure() -> Any:
            if not active_objective:  # the rows are known from the first call in the burst on
                active_objective.append(self.objective.select(flow.active))
            return active_objective[0].backward(self.w)

        flow.closure = closure
        cast(Any, self.optimizers()).step()  # through Lightning, which counts the burst as its global step
        self._observe()
        self._seconds_per_step = (time.perf_counter() - begin) / flow.steps

    def _burst_length(self) -> int:
        state = self.flow.flow
        running = state.running
        clock = torch.stack([state.t, state.dt, state.tried.double()])[:, running].tolist()
        growth = self.flow.dynamics.controller.growth
        steps = self.schedule.burst(int(max(clock[2], default=0)), clock[0], clock[1], growth)
        if self.stop.max_wall is not None and self._seconds_per_step:
            left = self.stop.max_wall - self._seconds_so_far()
            steps = min(steps, max(1, int(left / self._seconds_per_step)))
        return steps

    def _seconds_so_far(self) -> float:
        return self._wall_before + time.perf_counter() - self._session_start

    def _observe(self) -> None:
        self.wall = self._seconds_so_far()
        if self.stop.max_wall is not None and self.wall >= self.stop.max_wall:
            self.flow.stop_running(StopReason.MAX_WALL)
        final = self._all_stopped()
        flow = self.flow
        observation = Observation(self.observations, flow.flow, flow.trace, flow.active, final)
        columns = self._own_columns(observation)
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        for observer in callbacks:
            if isinstance(observer, Observer):
                columns.update(observer.observe(self, observation))
        record = Record(self.observations, self.wall, final, on_host(columns))
        for sink in callbacks:
            if isinstance(sink, Sink):
                sink.record(self.trainer, self, record)
        self.observations += 1
        self.trainer.should_stop = self.trainer.should_stop or final

    def _all_stopped(self) -> bool:
        return not bool(self.flow.flow.running.any())

    def _own_columns(self, observation: Observation) -> dict[str, Tensor]:
        state = observation.state
        clock = {name: getattr(state, name) for name in ("t", "dt", "tried", "accepted", "reason", "gradient_change")}
        columns: dict[str, Tensor] = {**clock, "gradient_norm": state.gradient_norm}
        assert state.outputs is not None  # our closure always reports them
        columns |= self._measured("fitted", state.outputs, self.train_split.y, "train")
        if len(self.test_split.y):
            columns |= self._measured(
                "held_out", self.centered_outputs(self.test_split.x, self._test_f0), self.test_split.y, "test"
            )
        return columns

    def _measured(self, use: str, outputs: Tensor, y: Tensor, prefix: str) -> dict[str, Tensor]:
        for metric in self._metrics_of(use).values():
            metric.update(outputs, y)
        return {f"{prefix}/{name}": value for name, value in self._computed(use).items()}

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
        """As :meth:`validation_step`."""
        self.validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Logs means over the members of each alpha."""
        self._log_evaluated("val")

    def on_test_epoch_end(self) -> None:
        """Logs means over the members of each alpha."""
        self._log_evaluated("test")

    def _log_evaluated(self, prefix: str) -> None:
        alphas = np.asarray(self.roster.alphas)
        for name, host in on_host(self._computed("evaluated")).items():
            for alpha in dict.fromkeys(self.roster.alphas):
                mean = torch.tensor(finite_mean(host[alphas == alpha]), dtype=torch.float64)
                self.log(f"{prefix}/{name}/alpha={alpha:g}", mean, logger=prefix == "test")

    def predict_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """F of every member on a batch, (n, E) or (n, E, c)."""
        return cast(Tensor, self(batch[0])).transpose(0, 1)

    # ------------------------------------------------------------------ resuming

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the count of observations and the wall time to the checkpoint."""
        checkpoint["lazy_lightning"] = {
            "observations": self.observations,
            "wall": self._seconds_so_far(),
            "alphas": list(self.roster.alphas),
            "seeds": list(self.roster.seeds),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continues the count and the clock.

        Raises:
            ConfigError: if the checkpoint holds other members than the configuration asks for.
        """
        saved = checkpoint["lazy_lightning"]
        if (tuple(saved["alphas"]), tuple(saved["seeds"])) != (self.roster.alphas, self.roster.seeds):
            raise ConfigError(
                f"the checkpoint holds members of alpha {sorted(set(saved['alphas']))} and seeds "
                f"{sorted(set(saved['seeds']))}, the configuration asks for alpha {sorted(set(self.roster.alphas))} "
                f"and seeds {sorted(set(self.roster.seeds))}: resume with the run's own config.yaml"
            )
        self.observations = saved["observations"]
        self._wall_before = saved["wall"]


def check_controller(spec: str | Band | ConstantStep) -> Band | ConstantStep:
    """Resolves a preset's name now, so that a wrong one is told before any data is read."""
    return cast("Band | ConstantStep", controller(spec))


def on_host(columns: dict[str, Tensor]) -> dict[str, NDArray[np.float64]]:
    """Brings columns (E,) to the host in one transfer, as float64."""
    stacked = torch.stack([column.detach().double() for column in columns.values()]).cpu().numpy()
    return dict(zip(columns, stacked, strict=True))
