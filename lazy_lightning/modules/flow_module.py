"""FlowModule: full-batch flow of an ensemble of alpha-centred networks, as a LightningModule."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.data.split import Split
from lazy_lightning.errors import ConfigError
from lazy_lightning.flow.controllers import Controller
from lazy_lightning.flow.evaluation import Evaluation
from lazy_lightning.flow.events import Event, as_event
from lazy_lightning.flow.integrator import Integrator
from lazy_lightning.flow.integrators import build_integrator
from lazy_lightning.flow.momentum_flow import Clock, MomentumFlow, Trace
from lazy_lightning.flow.passages import Passage, Passages
from lazy_lightning.flow.positive_number import positive_number
from lazy_lightning.flow.rules import StepRule, step_rule
from lazy_lightning.flow.schedule import Schedule
from lazy_lightning.flow.state import FlowState
from lazy_lightning.flow.stop_reason import StopReason
from lazy_lightning.modules.ensemble import DataSeeds
from lazy_lightning.modules.logged_columns import act_on_observation, check_monitors_of_one_epoch
from lazy_lightning.modules.memory_time import (
    MemoryTime,
    check_memory_time,
    expected_t1,
    memory_times,
    warning_of_long_memory,
)
from lazy_lightning.modules.observation import Observation, Observer, Record
from lazy_lightning.modules.observed_module import ObservedModule
from lazy_lightning.modules.rank_mesh import Shard, check_shard, divided_processes, sample_slices
from lazy_lightning.modules.ranks import Ranks
from lazy_lightning.modules.sample_ranks import SampleRanks
from lazy_lightning.modules.shared_trajectory import DecisionOfFirst, take_state_of_first
from lazy_lightning.modules.stopping_criteria import StoppingCriteria
from lazy_lightning.nn.paired_network import PairedNetwork
from lazy_lightning.ntk.decayed_objective import DecayedObjective
from lazy_lightning.ntk.objective_closure import FullBatchObjective, ObjectiveClosure
from lazy_lightning.objective.full_batch import Objective, drop_single_output
from lazy_lightning.objective.losses import Loss
from lazy_lightning.objective.paired_batch import PairedObjective, changes
from lazy_lightning.objective.sharded_batch import ShardedObjective
from lazy_lightning.objective.weight_decay import DecayTo, WeightDecay
from lazy_lightning.runs.checkpoint_validation import CheckpointContent
from lazy_lightning.runs.checkpoints import KEY


class FlowModule(ObservedModule):
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
        tau: memory time of the momentum, in units of t; 0 is gradient flow. A number, a list by alpha or by member, or
            ``published`` for the rule of the published runs, min(1e-3 sqrt(h) alpha, 1), with the network's ``width``
            h.
        mu: the Nesterov-like variant, tau = t/mu.
        controller: step-size policy, ``gradient_change``, ``reference``, or any
            :class:`~lazy_lightning.flow.Controller`.
        dt: first step size to try.
        stop: when a member ends.
        schedule: when to observe.
        chunk_size: samples evaluated at once, to bound memory; null for all.
        cuda_graphs: on CUDA, replay a recorded step, see :class:`~lazy_lightning.flow.MomentumFlow`; a network that
            cannot be recorded is evaluated eagerly, with one warning.
        rule: any :class:`~lazy_lightning.flow.StepRule`, in place of tau and mu.
        events: any :class:`~lazy_lightning.flow.Event` that ends members besides ``stop``.
        shard: what several devices divide among them: the ``members``, which exchange nothing while they train; the
            training ``samples``, for a set that is too large for one device, with one exchange of gradients a step; or
            ``both``.
        integrator: ``euler`` with the controller; ``explicit``, ``implicit`` or ``auto``, which choose their steps by
            ``tol``; or any :class:`~lazy_lightning.flow.Integrator`.
        tol: for the integrators other than euler, the error of F that a step may make, an rms over the training
            outputs; null for 1e-3.
        data_seeds: data of the members' own: how many data seeds, or a list of them, each of which all seeds of the
            weights are combined with; or ``weights``, where the data seed of a member is that of its weights. A data
            seed takes the place of ``data.train_seed``, and a member equals that of a run with this train_seed. Null
            trains all members on the one training set of the data.
        data_seed_keys: the seeds of the data that a data seed sets, such as ``[train_seed, teacher_seed]``; null for
            ``train_seed`` alone.
        decay_rate: weight decay, adds (decay_rate/2) norm(w - c)^2 to L; 0 for none. Reported losses do not contain it.
        decay_to: the point c that weight decay draws to, ``zero`` or the ``start`` w0.
        paired: compute F from the change of the outputs, passed from layer to layer without cancellation, so that
            float32 is accurate at any alpha; for the bundled networks, with centering, on one device.
        init: where w0 is read from, instead of being drawn by the seeds: the folder of a run or a checkpoint, whose
            final weights are taken member by member, or a file of one network's weights by name (``.safetensors``, or
            a state_dict saved by torch).
        init_alpha: the alpha of the stored members; null for the only one stored, or each member's own.
        init_fresh: layers that keep the weights drawn by the seeds, such as a new output layer.

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
        tau: MemoryTime = 0.0,
        mu: float | None = None,
        controller: str | Controller = "gradient_change",
        dt: float = 1.0,
        stop: StoppingCriteria | None = None,
        schedule: Schedule | None = None,
        chunk_size: int | None = None,
        cuda_graphs: bool = True,
        rule: StepRule | None = None,
        events: list[Event] | None = None,
        shard: Shard = "members",
        integrator: str | Integrator = "euler",
        tol: float | None = None,
        data_seeds: DataSeeds = None,
        data_seed_keys: list[str] | None = None,
        decay_rate: float = 0.0,
        decay_to: DecayTo = "zero",
        paired: bool = False,
        init: str | None = None,
        init_alpha: float | None = None,
        init_fresh: list[str] | None = None,
    ) -> None:
        check_arguments(FlowModule, {"mu": mu, "decay_rate": decay_rate})
        if not isinstance(stop, StoppingCriteria | None):
            raise ConfigError(f"stop is {stop!r:.60}, expected a StoppingCriteria, or null")
        stop = stop or StoppingCriteria()
        margin = 1.0 if stop.margin is None else stop.margin
        super().__init__(
            network, loss, alpha, seeds, centering, margin, chunk_size, data_seeds, data_seed_keys, init, init_alpha,
            init_fresh,
        )  # fmt: skip
        self.automatic_optimization = False
        if self.data_sets.set_batches:
            raise ConfigError(
                "data_seed_keys has batch_seed, but a flow has no mini-batches: name seeds of the training data, or "
                "train a MiniBatchModule"
            )
        self.decay = WeightDecay(decay_rate, decay_to)
        self.paired = paired
        if paired:
            _check_pairs(centering, data_seeds, decay_rate)
        self.stop = stop
        self.schedule = schedule or Schedule()
        self.events = check_events(events)
        self._flow_options: dict[str, Any] = {
            "mu": mu,
            "rule": rule,
            "integrator": build_integrator(integrator, controller, tol),
            "dt": positive_number("dt", dt, "the first step size to try, a finite number > 0"),
            "events": (*self.stop.events(self.loss, self.events), *self.events),
        }
        self._check_decay()
        self.cuda_graphs = cuda_graphs
        self.shard: Shard = check_shard(shard)
        if self.shard != "members" and data_seeds is not None:
            raise ConfigError(
                f"model.shard is {shard}, but model.data_seeds gives members training sets of their own: set shard to "
                "members"
            )
        check_memory_time(tau, self.ensemble)
        # out-of-range values are refused before any data is read
        step_rule(1.0 if isinstance(tau, str) else tau, mu, rule)
        self.tau = tau
        self._seconds_per_step: float | None = None
        self._whole_reasons: list[StopReason] | None = None
        self._whole_clock: Clock | None = None
        self._starts_of_all: Tensor | None = None
        self._observes_passages = False

    def _check_decay(self) -> None:
        integrator = self._flow_options["integrator"]
        if self.decay.rate > 0 and integrator.needs_tangent and integrator.fallback is None:
            raise ConfigError(
                f"decay_rate is {self.decay.rate}, but the integrator {integrator.name} knows the loss by its outputs "
                "alone: set integrator to euler, explicit or auto, or decay_rate to 0"
            )

    @property
    def title(self) -> str:
        """What is trained, for the closing summary."""
        return "flow of the network"

    @property
    def reasons(self) -> list[StopReason]:
        """Why each member has ended, if it has."""
        if not self.flow.started:
            return []
        return self.flow.reasons if self._whole_reasons is None else self._whole_reasons

    @property
    def train_outputs(self) -> Tensor:
        """F on the training set."""
        outputs = self.flow.flow_state.outputs
        assert outputs is not None  # our objectives report them
        return outputs

    @property
    def loss_start(self) -> Tensor:
        """(E,) the loss at w0, with its factor 1/alpha^2."""
        return self.flow.flow_state.loss_start

    @property
    def whole_loss_start(self) -> Tensor:
        """(E,) of the members of all ranks."""
        return self.loss_start if self._starts_of_all is None else self._starts_of_all

    def shares_done(self, record: Record) -> NDArray[np.float64]:
        """(E,) in [0, 1]: by margins, flow time, steps or wall time, whichever is nearest."""
        columns, stop = record.columns, self.stop
        done = (columns["reason"] != 0).astype(np.float64)
        shares = [done]
        if "train/margin_met" in columns and self.loss.has_margin_stop:
            shares.append(np.clip(columns["train/margin_met"] / stop.margin_share, 0, 1))
        if stop.t_max is not None:
            shares.append(columns["t"] / stop.t_max)
        if stop.max_steps is not None:
            shares.append(columns["tried"] / stop.max_steps)
        if stop.max_wall is not None:
            shares.append(np.full_like(done, record.wall / stop.max_wall))
        return np.asarray(np.clip(np.nanmax(shares, axis=0), 0, 1))

    # ------------------------------------------------------------------ the flow

    @property
    def flow(self) -> MomentumFlow:
        """The optimizer that holds the flow's state."""
        return cast(MomentumFlow, self.optimizers(use_pl_optimizer=False))

    @property
    def flow_origin(self) -> Tensor:
        """(E, N) where the flow of :attr:`flow_weights` starts: the networks' w0; zeros in pairs."""
        return cast(Tensor, self.zero) if self.paired else self.w0

    @property
    def flow_weights(self) -> nn.Parameter:
        """What the flow moves: w, (E, N) in a network; in pairs dw = w - w0, which would lose digits in w."""
        return self.dw if self.paired else self.w

    def _hold_weights(self) -> None:
        super()._hold_weights()
        if self.paired:
            self.w.requires_grad_(False)
            self.dw = nn.Parameter(torch.zeros_like(self.w0))
            self.register_buffer("zero", torch.zeros_like(self.w0), persistent=False)

    def configure_optimizers(self) -> MomentumFlow:
        """One flow over (E, N)."""
        flow = MomentumFlow(
            [self.flow_weights],
            members=len(self.w0),
            compact=True,
            origin=self.flow_origin,
            cuda_graphs=self.cuda_graphs and self.sample_ranks.count == 1,  # an exchange is not recorded
            **self._options(),
        )
        flow.saves_memory_of_ended = self.ranks.count > 1  # a checkpoint joins the same tensors of all ranks
        if self.sample_ranks.count > 1:
            flow.dynamics = replace(flow.dynamics, decide=DecisionOfFirst(self.sample_ranks))
        return flow

    def _options(self) -> dict[str, Any]:
        return {**self._flow_options, "tau": self._own_memory_times()}

    def _own_memory_times(self) -> float | list[float]:
        times = memory_times(self.tau, self.ensemble, self.network.template)
        return [times[i] for i in self.own_rows] if isinstance(times, list) else times

    def companion_flow(self, w: nn.Parameter, steps: int) -> MomentumFlow:
        """The same flow of other weights (E, N'), which ends at no event: for what is trained side by side.

        Raises:
            ConfigError: there is weight decay, which would not be the same for other weights.
        """
        if self.decay.rate > 0:
            raise ConfigError(
                f"decay_rate is {self.decay.rate}, but the linearised flow beside the network has no weight decay: "
                "leave the observer PathDistance out, or set decay_rate to 0"
            )
        return MomentumFlow([w], members=len(self.w0), steps=steps, **{**self._options(), "events": ()})

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As of any module.

        Raises:
            ConfigError: the checkpoint is of mini-batch training, or as of any module.
        """
        if isinstance(checkpoint.get(KEY), dict) and "rates" in checkpoint[KEY]:
            raise ConfigError(
                "the checkpoint is of mini-batch training, not of a flow: use the config.yaml in its folder"
            )
        super().on_load_checkpoint(checkpoint)

    def _check_state(self, content: CheckpointContent, saved: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        if not self.trainer.training:
            return
        outputs, samples = self.data.num_outputs, len(self.data.train.y)
        shape = (len(self.w0), samples) if outputs == 1 else (len(self.w0), samples, outputs)
        options = self._options()
        rule = step_rule(options["tau"], options["mu"], options["rule"])
        content.flow(self._saved_origin(weights), shape, rule.has_velocity)

    def _settings(self) -> dict[str, Any]:
        rate = float(self.decay.rate)
        return {"decay_rate": rate, "decay_to": self.decay.to if rate > 0 else None, "paired": self.paired}

    def _saved_origin(self, weights: Mapping[str, Tensor]) -> Tensor:
        """What :attr:`flow_origin` was, from the tensors of a checkpoint."""
        return torch.zeros_like(weights["w0"]) if self.paired else weights["w0"]

    # ------------------------------------------------------------------ fitting

    def on_fit_start(self) -> None:
        """Brings the data to the device, and computes f0 there."""
        super().on_fit_start()
        self.objective = self._build_objective()
        self._descended = self._followed()
        self.flow.closure = self._closure()

    def _closure(self) -> ObjectiveClosure:
        """Evaluates the running members."""
        return ObjectiveClosure(self.flow_weights, self._descended, self.flow)

    def _followed(self) -> FullBatchObjective:
        """What the flow descends, of :attr:`flow_weights`; ``objective`` is of the networks' weights, for observers."""
        if self.paired:
            assert isinstance(self.objective, Objective)  # one device, see check_devices
            return PairedObjective.of(self.objective, self.w0)
        if self.decay.rate > 0:
            return DecayedObjective(self.objective, self.decay, self.w0)
        return self.objective

    def _build_objective(self) -> FullBatchObjective:
        reports_margins = any(event.needs_margins for event in self.flow.dynamics.events)
        if self.sample_ranks.count == 1:
            return self._objective_on(self.train_split, reports_margins)
        y = self.train_split.y
        rows = self.sample_ranks.rows(len(y))
        part = self.resident(Split(*(part[rows] for part in self.data.train)))
        own = self._objective_on(part, reports_margins=False, samples=len(y))
        return ShardedObjective(own, y, rows, self.sample_ranks.sum, reports_margins)

    def _objective_on(self, split: Split, reports_margins: bool, samples: int | None = None) -> Objective:
        return Objective(
            network=self.network,
            loss=self.loss,
            centering=self.centering,
            x=split.x,
            y=split.y,
            f0=self.initial_outputs(split.x),
            buffers=self.member_buffers(),
            chunk_size=self.chunk_size,
            reports_margins=reports_margins,
            samples=samples,
            block_size=self.members_at_once(split.x),
        )

    def centered_outputs(self, x: Tensor, f0: Tensor | None = None) -> Tensor:
        """F at the present weights, (E, n) for one output and (E, n, c) for more."""
        if not self.paired:
            return super().centered_outputs(x, f0)
        change = changes(
            PairedNetwork(self.network), self.w0, self.dw.detach(), x, self.member_buffers(), self.chunk_size
        )
        return drop_single_output(self.centering.from_change(change, self.w0))

    def outputs_at(self, rows: Tensor, displacement: Tensor, x: Tensor) -> Tensor:
        """F of some members at other weights, see :meth:`MemberModule.outputs_at`."""
        if not self.paired:
            return super().outputs_at(rows, displacement, x)
        buffers = {name: b[rows] for name, b in self.member_buffers().items()}
        w0 = self.w0[rows]
        change = changes(PairedNetwork(self.network), w0, displacement, x, buffers, self.chunk_size)
        return drop_single_output(self.centering.select(rows).from_change(change, w0))

    def _resident_training_set(self) -> Split:
        """All of it; where each process evaluates a slice, the inputs stay on the host, in float64."""
        if self.sample_ranks.count == 1:
            return super()._resident_training_set()
        train = self.data.train
        return self.resident(train._replace(x=train.x[:0]))._replace(x=train.x)

    def check_devices(self, devices: int) -> None:
        """Checks that the run can be divided among this number of devices.

        Raises:
            ConfigError: there are fewer members than devices that members are divided among, or several in pairs.
        """
        if self.paired and devices > 1:
            raise ConfigError(f"model.paired runs on one device, got {devices}: set trainer.devices to 1")
        Ranks(0, devices // sample_slices(self.shard, devices, len(self.ensemble))).rows(len(self.ensemble))

    def check_samples(self, samples: int, devices: int) -> None:
        """Checks that the training set can be divided among a number of devices.

        Raises:
            ConfigError: there are fewer samples than slices, or the integrator needs the kernel of all samples.
        """
        slices = sample_slices(self.shard, devices, len(self.ensemble))
        SampleRanks(0, slices).rows(samples)
        integrator = self._flow_options["integrator"]
        if slices > 1 and integrator.needs_tangent and integrator.fallback is None:
            raise ConfigError(
                f"model.integrator is {integrator.name}, which needs the tangent kernel of all training samples on one "
                f"device, but model.shard is {self.shard}: set model.integrator to euler, explicit or auto, or "
                "model.shard to members"
            )

    def _divided_processes(self) -> tuple[Ranks, SampleRanks]:
        devices = self.trainer.world_size
        self.check_devices(devices)
        self.check_samples(len(self.data.train.y), devices)
        return divided_processes(self.trainer, self.shard, len(self.ensemble))

    def on_train_start(self) -> None:
        """Evaluates at w0 and observes it; a resumed run goes on, also past a limit that has been raised since."""
        self.begin_session(anew=not self.flow.started)
        check_monitors_of_one_epoch(self.trainer)
        self._show_step_size()
        self._collect_passages()
        if self.flow.started:
            self.flow.reopen(wall=self.stop.max_wall is None or self._wall_before < self.stop.max_wall)
            self._share_starts()
            self._exchange_clocks()
            self.trainer.should_stop = self._all_stopped()
            return
        assert self.flow.closure is not None  # set in on_fit_start
        self.flow.start(self.flow.closure)
        self._share_starts()
        if self.tau != 0.0:
            self._warn_of_long_memory()
        self._observe()

    def _warn_of_long_memory(self) -> None:
        template = self.network.template
        t1 = expected_t1(self.flow.flow_state, self.own_members, template)
        sentence = warning_of_long_memory(self._own_memory_times(), t1, self.own_members)
        if sentence is not None:
            warnings.warn(sentence, stacklevel=2)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One burst, then one observation."""
        flow = self.flow
        flow.steps = self._burst_length()
        begin = time.perf_counter()
        start = self._last_observed() if self._observes_passages else None
        cast(Any, self.optimizers()).step()  # through Lightning, which counts the burst as its global step
        if start is not None:
            self._observe_passages(start)
        self._observe()
        self._seconds_per_step = (time.perf_counter() - begin) / flow.steps

    def _collect_passages(self) -> None:
        """Lets the flow collect where members are within long steps, if an observer uses it."""
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        observers = [c for c in callbacks if isinstance(c, Observer) and c.applies_to(self)]
        interpolates = self.flow.dynamics.integrator.interpolates
        self._observes_passages = interpolates and any(c.observes_within_steps for c in observers)
        wanted = self._observes_passages or (interpolates and any(c.reads_passages for c in observers))
        self.flow.passages = Passages(self.schedule.t_factor, self.device) if wanted else None

    def _last_observed(self) -> FlowState:
        """A copy of the state as it was observed last, without the integrator's memory."""
        state, approximate = self.flow.flow_state.snapshot(), self.flow.approximate_members()
        if approximate:
            state, _ = self._evaluated(state, None, torch.tensor(approximate, device=state.t.device))
        return state

    def _observe_passages(self, state: FlowState) -> None:
        """Observes members at points of the schedule's grid in t that the burst has jumped over, interpolated there.

        Args:
            state: of all members before the burst, without memory; changed here.
        """
        flow = self.flow
        assert flow.passages is not None  # else there is nothing to observe
        passages = flow.passages.taken(flow.clock().t)
        if self.paired:
            state = replace(state, origin=self.w0)
        count = 0
        while self.ranks.any(count < len(passages)):
            rows = None
            if count < len(passages):
                rows = passages[count].rows
                self._move_to(state, passages[count])
            members = slice(None) if rows is None else rows
            trace = Trace(state.t[members].unsqueeze(0), state.loss[members].unsqueeze(0))
            columns: dict[str, Tensor] = {}
            self.observe(Observation(self.observations, state, trace, rows, False, columns), columns)
            count += 1
        if count:
            self._show(flow.flow_state)

    def _move_to(self, state: FlowState, passage: Passage) -> None:
        """Moves members to a passage, where they are evaluated: their clocks, weights, outputs, loss and gradient."""
        rows = passage.rows
        state.t.index_copy_(0, rows, passage.t)
        state.displacement.index_copy_(0, rows, passage.displacement)
        self._show(state)
        evaluation, gradient = self._evaluated_at(rows, passage.displacement)
        found = {"loss": evaluation.loss, "outputs": evaluation.outputs, "gradient": gradient}
        found["gradient_norm"] = torch.linalg.vector_norm(gradient, dim=1).double()
        if passage.velocity is not None:
            tau = self.flow.dynamics.rule.memory_time(state.t).expand_as(state.t)[rows].unsqueeze(1)
            found["velocity"] = torch.where(tau == 0, -gradient, passage.velocity)
        for name, x in found.items():
            getattr(state, name).index_copy_(0, rows, x)

    def _evaluated_at(self, rows: Tensor, displacement: Tensor) -> tuple[Evaluation, Tensor]:
        """What the flow descends at some members' displacements (R, N), and its gradient (R, N)."""
        weights = (self.flow_origin[rows] + displacement).detach().requires_grad_()
        with torch.enable_grad():
            evaluation = self._descended.select(rows).backward(weights).detached()
        return evaluation, cast(Tensor, weights.grad)

    def loss_at(self, rows: Tensor, displacement: Tensor) -> Tensor:
        """(R,) the loss of some members, as in the flow's state, at displacements (R, N) of what the flow moves."""
        return self._evaluated_at(rows, displacement)[0].loss

    def _evaluated(self, state: FlowState, trace: Trace | None, rows: Tensor) -> tuple[FlowState, Trace | None]:
        """State and trace with the loss and outputs of members ``rows`` at their weights; of their trace the end alone.

        An integrator that reads F off a kept kernel can miss it by much for a step or two where the kernel changes.
        """
        objective = self._descended.select(rows)
        outputs = objective.outputs_at(self.flow_weights.detach()[rows])
        found = cast(Objective, objective).report(outputs)  # an objective that knows its kernel has it
        assert state.outputs is not None  # as any of ours
        state = replace(
            state,
            loss=state.loss.index_copy(0, rows, found.loss),
            outputs=state.outputs.index_copy(0, rows, outputs),
        )
        if trace is None:
            return state, None
        is_evaluated = torch.zeros_like(state.t, dtype=torch.bool).index_fill(0, rows, True)
        seen = slice(None) if self.flow.active is None else self.flow.active
        columns = ((state.t, trace.t), (state.loss, trace.loss))
        return state, Trace(*(torch.where(is_evaluated[seen], end[seen], each) for end, each in columns))

    def _show(self, state: FlowState) -> None:
        """Lets the parameters hold the weights of a state."""
        self.flow_weights.data.copy_(state.displacement if self.paired else state.weights())
        if self.paired:
            self.w.data.copy_(self.w0 + state.displacement)

    def _burst_length(self) -> int:
        clock = self._clock()
        t, dt = (list(compress(values, clock.running)) for values in (clock.t, clock.dt))
        integrator = self.flow.dynamics.integrator
        tried = max(compress(clock.tried, clock.running), default=0)
        steps = self.schedule.burst(tried, t, dt, integrator.growth, integrator.evaluations)
        if self.stop.max_wall is not None and self._seconds_per_step:
            left = self.stop.max_wall - self.seconds_so_far()
            steps = min(steps, max(1, int(left / self._seconds_per_step)))
        return int(self.ranks.first(steps))

    def _clock(self) -> Clock:
        """The clocks of the members of all ranks: all ranks observe after the same bursts, as one process does."""
        return self.flow.clock() if self._whole_clock is None else self._whole_clock

    def _share_starts(self) -> None:
        self._starts_of_all = self.whole({"loss": self.loss_start})["loss"]

    def _exchange_clocks(self) -> None:
        """Exchanges the clocks and stops of all ranks; members that have stopped wait for those that run."""
        if self.ranks.count == 1:
            return
        own, state = self.flow.clock(), self.flow.flow_state
        rows = torch.tensor([own.t, own.dt, own.tried, own.running, state.reason.tolist()], dtype=torch.float64)
        whole = self.whole({"clocks": rows.T})["clocks"].T.tolist()
        self._whole_clock = Clock.of(whole[:4])
        self._whole_reasons = [StopReason(int(code)) for code in whole[4]]

    def _share_trajectory(self) -> None:
        """Holds the state of processes that train the same members equal to the bit."""
        if self.sample_ranks.count > 1 and take_state_of_first(self.flow.flow_state, self.sample_ranks):
            self.flow.load_state_dict(self.flow.state_dict())  # also the weights, and the clock that it keeps

    def _observe(self) -> None:
        self._share_trajectory()
        approximate = self.flow.approximate_members()
        if self.stop.max_wall is not None and self.ranks.first(self.seconds_so_far()) >= self.stop.max_wall:
            self.flow.stop_running(StopReason.MAX_WALL)
        self._exchange_clocks()
        flow, final = self.flow, self._all_stopped()
        state = flow.flow_state
        trace = flow.trace
        if approximate:
            state, trace = self._evaluated(state, trace, torch.tensor(approximate, device=state.t.device))
        if self.paired:
            state = replace(state, origin=self.w0)
            self.w.data.copy_(state.weights())
        columns: dict[str, Tensor] = {}
        observation = Observation(self.observations, state, trace, flow.active, final, columns, flow.passages)
        self.observe(observation, columns)
        self._show_step_size()
        self.trainer.should_stop = self.ranks.any(self.stop_requested or self.trainer.should_stop) or final

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Lets early stopping and checkpoints that monitor a column act after each observation."""
        act_on_observation(self.trainer, self)

    def _show_step_size(self) -> None:
        """Mean dt over the members where ``LearningRateMonitor`` looks for a learning rate."""
        known = self.trainer.callback_metrics.get("dt")
        first = self._flow_options["dt"]
        self.flow.param_groups[0]["lr"] = first if known is None else float(known)

    def _all_stopped(self) -> bool:
        return not any(self._clock().running)


def _check_pairs(centering: bool, data_seeds: DataSeeds, decay_rate: float) -> None:
    """Refuses what a flow in pairs does not compute."""
    for name, given, expected in (
        ("centering", not centering, "true, since pairs compute alpha (f - f0)"),
        ("data_seeds", data_seeds is not None, "null"),
        ("decay_rate", decay_rate != 0, "0"),
    ):
        if given:
            raise ConfigError(f"model.paired is true, so model.{name} must be {expected}: change one of the two")


def check_events(events: Sequence[Event] | None) -> tuple[Event, ...]:
    """Refuses now what is no event.

    Raises:
        ConfigError: it is none, or no list of them.
    """
    if events is not None and not isinstance(events, (list, tuple)):
        raise ConfigError(f"events is {events!r}, expected a list of Events, or null")
    return tuple(as_event(event) for event in events or ())
