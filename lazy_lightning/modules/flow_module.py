"""FlowModule: full-batch flow of an ensemble of alpha-centred networks, as a LightningModule."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, cast

import torch
from torch import Tensor, nn

from lazy_lightning.checkpoints import KEY
from lazy_lightning.data.split import Split
from lazy_lightning.errors import ConfigError
from lazy_lightning.flow.controllers import Band, ConstantStep, controller
from lazy_lightning.flow.evaluation import Evaluation
from lazy_lightning.flow.events import MarginsMet
from lazy_lightning.flow.momentum_flow import MomentumFlow
from lazy_lightning.flow.rules import step_rule
from lazy_lightning.flow.schedule import Schedule
from lazy_lightning.flow.stop_reason import StopReason
from lazy_lightning.losses import Loss
from lazy_lightning.modules.member_module import MemberModule, on_host
from lazy_lightning.modules.stop import Stop
from lazy_lightning.objective import Objective
from lazy_lightning.observation import Observation, Observer, Record, Sink


class FullBatchObjective(Protocol):
    """What a flow descends."""

    def select(self, rows: Tensor | None) -> FullBatchObjective:
        """Of some members."""
        ...

    def backward(self, w: Tensor) -> Evaluation:
        """Evaluates, and leaves the gradient in ``w.grad``."""
        ...


class FlowModule(MemberModule):
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

    trains_network: ClassVar[bool] = True
    """Whether ``w`` are the weights of the networks; observers of these are passed over where it is not."""

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
        stop = stop or Stop()
        margin = 1.0 if stop.margin is None else stop.margin
        super().__init__(network, loss, alpha, seeds, centering, margin, chunk_size)
        self.automatic_optimization = False
        self.stop = stop
        self.schedule = schedule or Schedule()
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

    @property
    def title(self) -> str:
        """What is trained, for the closing summary."""
        return "flow of the network"

    # ------------------------------------------------------------------ the flow

    @property
    def flow(self) -> MomentumFlow:
        """The optimizer that holds the flow's state."""
        return cast(MomentumFlow, self.optimizers(use_pl_optimizer=False))

    def setup(self, stage: str) -> None:
        """Builds the members, and notes what a checkpoint must agree with: once, not at every save."""
        super().setup(stage)
        self._digest = self._objective_digest()

    def configure_optimizers(self) -> MomentumFlow:
        """One flow over (E, N)."""
        options = self._flow_options
        return MomentumFlow([self.w], members=len(self.w0), compact=True, origin=self.w0, **options)

    def companion_flow(self, w: nn.Parameter, steps: int) -> MomentumFlow:
        """The same flow of other weights (E, N'), which ends at no event: for what is trained side by side."""
        return MomentumFlow([w], members=len(self.w0), steps=steps, **{**self._flow_options, "events": ()})

    # ------------------------------------------------------------------ fitting

    def on_fit_start(self) -> None:
        """Brings the data to the device, once, and computes f0 there."""
        self.train_split = self.resident(self.data.train)
        self.test_split = self.resident(self.data.test)
        self._prepare_held_out()
        self.objective = self._build_objective()

    def _prepare_held_out(self) -> None:
        """What evaluating the test set takes, once."""
        self._test_f0 = self.initial_outputs(self.test_split.x)

    def held_out(self) -> Tensor:
        """F on the test set."""
        return self.centered_outputs(self.test_split.x, self._test_f0)

    def _build_objective(self) -> FullBatchObjective:
        return Objective(
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

    def resident(self, split: Split) -> Split:
        """The split on the device, in the precision of the run."""
        y = split.y.to(self.device)
        return Split(
            split.x.to(self.device, self.w.dtype), y.to(self.w.dtype) if y.is_floating_point() else y, split.index
        )

    def on_train_start(self) -> None:
        """Evaluates at w0 and observes it; a resumed run goes on, also past a limit that has been raised since."""
        self._session_start = time.perf_counter()
        if self.flow.started:
            self.flow.reopen(wall=self.stop.max_wall is None or self._wall_before < self.stop.max_wall)
            self.trainer.should_stop = self._all_stopped()
            return
        self.observations, self._wall_before = 0, 0.0  # a module may be fitted again
        self.flow.start(lambda: self.objective.backward(self.w))
        self._observe()

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One burst, then one observation."""
        flow = self.flow
        flow.steps = self._burst_length()
        begin = time.perf_counter()
        active_objective: list[FullBatchObjective] = []

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
        columns: dict[str, Tensor] = {}
        observation = Observation(self.observations, flow.flow, flow.trace, flow.active, final, columns)
        columns.update(self._own_columns(observation))
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        observers = [c for c in callbacks if isinstance(c, Observer) and c.applies_to(self)]
        for observer in sorted(observers, key=lambda one: one.looks_at_others):
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
        held_out = self.held_out()
        columns |= self._measured("fitted", without_failed(state.outputs, state.reason), self.train_split.y, "train")
        columns |= self._measured("held_out", without_failed(held_out, state.reason), self.test_split.y, "test")
        return columns

    def _measured(self, use: str, outputs: Tensor, y: Tensor, prefix: str) -> dict[str, Tensor]:
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
            "wall": self._seconds_so_far(),
            "alphas": list(self.roster.alphas),
            "seeds": list(self.roster.seeds),
            "samples": len(self.data.train.y),
            "objective": self._digest,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continues the count and the clock.

        Raises:
            ConfigError: if the checkpoint holds other members, data or loss than the configuration asks for.
        """
        saved = checkpoint[KEY]
        if (tuple(saved["alphas"]), tuple(saved["seeds"])) != (self.roster.alphas, self.roster.seeds):
            raise ConfigError(
                f"the checkpoint holds members of alpha {sorted(set(saved['alphas']))} and seeds "
                f"{sorted(set(saved['seeds']))}, the configuration asks for alpha {sorted(set(self.roster.alphas))} "
                f"and seeds {sorted(set(self.roster.seeds))}: resume with the run's own config.yaml"
            )
        if self.trainer.training and saved["objective"] != self._digest:
            raise ConfigError(
                f"the checkpoint comes from {saved['samples']} training samples, here are {len(self.data.train.y)}, or "
                "their content, the loss or the centering is another: resume with the run's own config.yaml and files"
            )
        self.observations = saved["observations"]
        self._wall_before = saved["wall"]

    def _identity(self) -> str:
        return f"{self.loss!r} {self.centering.enabled}"

    def _objective_digest(self) -> str:
        """What must not change on the way: training samples, labels, loss, centering."""
        digest = hashlib.sha256(self._identity().encode())
        for part in (self.data.train.x, self.data.train.y):
            digest.update(part.contiguous().numpy().data)
        return digest.hexdigest()


def without_failed(outputs: Tensor, reason: Tensor) -> Tensor:
    """Outputs (E, n, ...) with NaN for members that failed: these count neither as right nor in an ensemble."""
    failed = sum(reason == int(code) for code in StopReason if code.failed)
    return outputs.masked_fill(cast(Tensor, failed).bool().view(-1, *(1,) * (outputs.ndim - 1)), torch.nan)


def check_controller(spec: str | Band | ConstantStep) -> Band | ConstantStep:
    """Resolves a preset's name now, so that a wrong one is told before any data is read."""
    return cast("Band | ConstantStep", controller(spec))
