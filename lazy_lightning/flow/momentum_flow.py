"""MomentumFlow: continuous gradient or momentum flow as a ``torch.optim.Optimizer``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lazy_lightning.errors import ConfigError
from lazy_lightning.flow.auto import MODE
from lazy_lightning.flow.controllers import Controller
from lazy_lightning.flow.cuda_graph import RecordedStep, Recording, RecordingError
from lazy_lightning.flow.euler import Euler
from lazy_lightning.flow.evaluation import Evaluation
from lazy_lightning.flow.evaluator import Closure, Evaluator
from lazy_lightning.flow.events import Event, Moment, TimesReached, as_event
from lazy_lightning.flow.integrator import Integrator
from lazy_lightning.flow.integrators import build_integrator, fitting
from lazy_lightning.flow.parameters import ParameterRows
from lazy_lightning.flow.part import on_device
from lazy_lightning.flow.passages import Passages
from lazy_lightning.flow.rules import StepRule, step_rule
from lazy_lightning.flow.state import MEMORY, FlowState
from lazy_lightning.flow.step import Dynamics, Tried, confirm_ends, initial_state, settle, try_step
from lazy_lightning.flow.stop_reason import StopReason

Step = Callable[[], Tried]
_INTEGRATOR = "integrator"
"""In the parameter group: whose memory the state has; None for none."""


class Trace(NamedTuple):
    """What each step of the last burst left behind; K steps, E members, on the device."""

    t: Tensor
    """(K, E) float64 time after the step."""
    loss: Tensor
    """(K, E) loss after the step; unchanged where the step was rejected."""


class Clock(NamedTuple):
    """Where each member stands, as numbers of the host; E entries each."""

    t: list[float]
    dt: list[float]
    tried: list[int]
    running: list[bool]

    @classmethod
    def of(cls, rows: list[list[float]]) -> Clock:
        """From the four rows as floats."""
        t, dt, tried, running = rows
        return cls(t, dt, [int(count) for count in tried], [bool(flag) for flag in running])


class MomentumFlow(torch.optim.Optimizer):
    r"""Follows w' = -grad L, or v' = -(v + grad L)/tau with w' = v, with an adaptive time step.

    Every tried step costs one evaluation of the closure. A step is kept if it changes the gradient (and, for
    the reference's policy, the outputs) little enough, else it is undone and tried again shorter. All members
    of a batch step together, each with its own clock, step size, and accept or reject; nothing is read back
    to the host within a call of :meth:`step`. Members that have stopped cost nothing from the next call on,
    if the closure heeds :attr:`active`.

    The kept weights are held as w0 and dw = w - w0 apart. During :meth:`step` the parameters hold trial
    weights; after it, those of the last accepted step.

    Args:
        params: parameters. With ``members=E`` each has shape (E, ...); best is one (E, N) matrix.
        members: size E of the member axis; None if the parameters have none (an ordinary model, E = 1).
        tau: memory of the momentum, in units of t; 0 is gradient flow. A number, or one for each member.
        mu: the Nesterov-like variant tau = t/mu instead.
        rule: any :class:`StepRule` in place of tau and mu.
        controller: ``"gradient_change"``, ``"reference"``, or a :class:`Controller`.
        dt: first step size to try.
        events: what ends a member, any :class:`Event`; :class:`TimeReached` is landed on exactly.
        steps: tried steps in a call of :meth:`step`; an attribute that may be changed between calls.
        compact: leave out members that have stopped. The parameters then shrink during :meth:`step` to the
            rows of :attr:`active`, and the closure must evaluate just these.
        origin: (E, N) w0 if it is held elsewhere already; shared, not copied.
        cuda_graphs: on CUDA, record a step as a graph and replay it: the same numbers to rounding, and several times
            faster where launches take longer than the arithmetic. The closure must then be the same object from call
            to call, evaluate the same function without host synchronisation, and keep what it selects for the members
            :attr:`active` as long as that tensor; one that cannot be recorded is evaluated eagerly, with one warning.
            Recorded are euler's rule, the explicit pair, and that pair within auto.
        integrator: ``"euler"`` with the controller; ``"explicit"``, a Runge-Kutta pair of order 5(4); ``"implicit"``,
            multistep formulas of orders 1 to 5 through the tangent kernel, for which the closure must be a
            :class:`TangentClosure`; ``"auto"``, explicit until a member is stiff, then implicit; or any
            :class:`Integrator`.
        tol: for the integrators other than euler, the error of a step that is allowed, an rms over the outputs F; None
            for 1e-3.

    Raises:
        ConfigError: if an option is out of range.

    Example, a linear model under the square loss:

    >>> from lazy_lightning.flow import TimeReached
    >>> x, y = torch.randn(20, 3), torch.randn(20, 1)
    >>> model = torch.nn.Linear(3, 1)
    >>> flow = MomentumFlow(model.parameters(), events=[TimeReached(5.0)], steps=1000)
    >>> def closure():
    ...     flow.zero_grad(); loss = (model(x) - y).square().mean(); loss.backward(); return loss
    >>> loss = flow.step(closure)
    >>> flow.flow_state.t, flow.reasons
    (tensor([5.], dtype=torch.float64), [<StopReason.T_MAX: 3>])
    """

    recorder: Callable[[Step], Step] = RecordedStep
    """Makes of a step on fixed memory one that is replayed."""

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        members: int | None = None,
        tau: float | Sequence[float] = 0.0,
        mu: float | None = None,
        rule: StepRule | None = None,
        controller: str | Controller = "gradient_change",
        dt: float = 1.0,
        events: Sequence[Event] = (),
        steps: int = 1,
        compact: bool = False,
        origin: Tensor | None = None,
        cuda_graphs: bool = False,
        integrator: str | Integrator = "euler",
        tol: float | None = None,
    ) -> None:
        if not 0 < dt < float("inf"):
            raise ConfigError(f"the first step size dt must be > 0 and finite, got {dt}")
        super().__init__(params, {})
        if len(self.param_groups) != 1:
            raise ConfigError("MomentumFlow follows one flow and takes one parameter group, not several")
        self.rows = ParameterRows(self.param_groups[0]["params"], members)
        _check_tau(tau, members or 1)
        device = self.rows.parameters[0].device
        rule = step_rule(torch.as_tensor(tau, dtype=torch.float64, device=device), mu, rule)
        self.dynamics = _dynamics(rule, build_integrator(integrator, controller, tol), events, device)
        _check_gain(self.dynamics.rule, members or 1, device)
        self.first_dt = dt
        self.steps = steps
        self.compact = compact
        self.closure: Closure | None = None
        self.active: Tensor | None = None
        self.trace: Trace | None = None
        self.passages: Passages | None = None
        self._clock: Clock | None = None
        self.cuda_graphs = cuda_graphs
        self._recording: Recording | None = None
        self._running: tuple[tuple[bool, ...], Tensor] | None = None
        self._followed: dict[int, tuple[list[int], Tensor]] = {}
        self._advancing = False
        self.param_groups[0][_INTEGRATOR] = self.dynamics.integrator.name
        self._fitted: Closure | None = None
        self._modes: list[int] = []
        self.saves_memory_of_ended = False
        if origin is not None and any(origin.data_ptr() == p.data_ptr() for p in self.rows.parameters):
            raise ConfigError("origin must not share its memory with the parameters, which the flow moves: clone it")
        self._origin = self.rows.gather() if origin is None else origin

    # ------------------------------------------------------------------ what can be read

    @property
    def flow_state(self) -> FlowState:
        """The state of all E members.

        Raises:
            RuntimeError: before the first :meth:`step` or :meth:`start`.
        """
        held = self.state.get(self.rows.parameters[0])
        if not held:
            raise RuntimeError("the flow has no state yet: call step(closure) or start(closure) first")
        return FlowState.from_tensors(held)

    @property
    def flow(self) -> FlowState:
        """The old name of :attr:`flow_state`."""
        warnings.warn("MomentumFlow.flow is deprecated: use flow_state", DeprecationWarning, stacklevel=2)
        return self.flow_state

    @property
    def started(self) -> bool:
        """Whether the evaluation at w0 has been made."""
        return bool(self.state.get(self.rows.parameters[0]))

    @property
    def origin(self) -> Tensor:
        """(E, N) the initial weights w0."""
        return self.flow_state.origin if self.started else self._origin

    @property
    def reasons(self) -> list[StopReason]:
        """Each member's :class:`StopReason`; reads from the device."""
        return [StopReason(code) for code in self.flow_state.reason.tolist()]

    def clock(self) -> Clock:
        """The members' clocks and whether they run: one read from the device after each change of the state.

        The next call of :meth:`step` takes from it which members run, and reads nothing.
        """
        if self._clock is None:
            self._read_clock()
        assert self._clock is not None  # just read
        return self._clock

    def approximate_members(self) -> list[int]:
        """The running members whose loss and outputs are approximate, see :class:`Integrator`; from the clock."""
        parts, running = self.dynamics.integrator.parts, self.clock().running
        return [i for i, runs in enumerate(running) if runs and parts[self._modes[i]].approximate]

    def _read_clock(self, *further: Tensor) -> list[list[float]]:
        """Reads the clock, the part that follows each member, and further (E,) float64 numbers, which it returns."""
        state = self.flow_state
        mode = state.memory[MODE].double() if MODE in state.memory else torch.zeros_like(state.t)
        rows = torch.stack([state.t, state.dt, state.tried.double(), state.running.double(), mode, *further]).tolist()
        self._clock, self._modes = Clock.of(rows[:4]), [int(number) for number in rows[4]]
        return rows[5:]

    # ------------------------------------------------------------------ stepping

    def start(self, closure: Closure) -> None:
        """Makes the one evaluation at w0, unless it has been made. :meth:`step` does so by itself."""
        if self._fitted is not closure:
            self._fitted = closure
            chosen = fitting(self.dynamics.integrator, closure)
            if chosen is not self.dynamics.integrator:
                self.dynamics = replace(self.dynamics, integrator=chosen)
                if not self.started:
                    self.param_groups[0][_INTEGRATOR] = chosen.name
        if self.started:
            self._renew_memory(closure)
            return
        buffer = self.rows.buffer(len(self._origin))
        state = initial_state(self._origin, buffer, Evaluator(self.rows, closure), self.dynamics, self.first_dt)
        self._hold(state)
        self.rows.publish(buffer)
        self.rows.clear_gradients()

    def _renew_memory(self, closure: Closure) -> None:
        """Makes the integrator's memory by one evaluation, if the state was saved without it or by another one."""
        group, name = self.param_groups[0], self.dynamics.integrator.name
        if group[_INTEGRATOR] == name:
            return
        state = self.flow_state
        buffer = self.rows.buffer(state.members)
        self.active = None
        evaluation, _ = Evaluator(self.rows, closure)(buffer.copy_(state.weights()))
        state.memory = self.dynamics.integrator.memory(state, evaluation)
        group[_INTEGRATOR] = name
        self._hold(state)
        self._publish(state)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        """Tries :attr:`steps` steps of the flow and returns the loss (E,) of the last accepted ones.

        Args:
            closure: evaluates the model at the present parameters, calls ``backward()`` on the sum of the
                members' losses, and returns the losses, (E,) or () for one member, or an
                :class:`Evaluation` with outputs and margins too. A closure that sums over chunks of samples
                calls ``backward()`` once a chunk. If :attr:`closure` is set, that is evaluated instead, and this
                one is called once: trainers wrap it in hooks that are meant for once a step, not for each of many.

        Raises:
            TypeError: without a closure, or if it returns something else.
        """
        if self.closure is not None:
            if closure is not None:
                closure()
            closure = self.closure
        if closure is None:
            raise TypeError("MomentumFlow.step needs a closure that evaluates the loss and its gradient")
        if self.steps < 1:
            raise ValueError(f"steps, the tried steps in a call, must be >= 1, got {self.steps}")
        self.start(closure)
        if self.passages is not None:
            self.passages.begin()
        whole = self.flow_state
        rows = self._running_rows(whole)
        if rows is not None and len(rows) == 0:
            self.trace = None
            return whole.loss.clone()  # the state's own changes in place
        if len(self.dynamics.integrator.parts) > 1:
            self._step_by_parts(whole, rows, closure)
            return whole.loss.clone()
        self.active = rows
        members = [i for i, runs in enumerate(self.clock().running) if runs or rows is None]
        part = whole if rows is None else whole.select(rows)
        dynamics = self.dynamics if rows is None else self.dynamics.select(rows)
        recording = self._record(part, closure, dynamics)
        self._clock = None
        try:
            part = self._burst(part, closure, dynamics, recording, members)
            if rows is not None:
                whole.write(rows, part)
        finally:
            self._publish(whole)
        return whole.loss.clone()  # the state's own changes in place

    def _publish(self, whole: FlowState) -> None:
        """Leaves the last accepted weights in the parameters, and not a trial, also if a closure has raised."""
        self.rows.publish(whole.weights())
        self.rows.clear_gradients()

    def _step_by_parts(self, whole: FlowState, rows: Tensor | None, closure: Closure) -> None:
        """One burst of each part of the integrator, on the running members that it follows.

        ``rows`` are the running members, or None for all: those whose trace is kept.
        """
        running, modes = self.clock().running, self._modes
        present = [i for i, runs in enumerate(running) if runs]
        traces: list[tuple[list[int], Trace]] = []
        self._clock = None
        try:
            for index, integrator in enumerate(self.dynamics.integrator.parts):
                own = [i for i in present if modes[i] == index]
                if not own:
                    continue
                prefix = f"{integrator.name}."
                self.active = followed = self._followed_rows(index, own, whole.t.device)
                part = whole.select(followed, prefix)
                dynamics = replace(self.dynamics, integrator=integrator).select(followed)
                recording = self._record(part, closure, dynamics)
                part = self._burst(part, closure, dynamics, recording, own)
                whole.write(followed, part, prefix)
                assert self.trace is not None  # just made
                traces.append((own, self.trace))
            self.dynamics.integrator.switch(whole)
            self.trace = _merged(traces, range(whole.members) if rows is None else present, whole)
            self.active = rows
        finally:
            self._publish(whole)

    def _followed_rows(self, index: int, own: list[int], device: torch.device) -> Tensor:
        """The members of a part of the integrator; the same tensor as long as they are the same."""
        held = self._followed.get(index)
        if held is None or held[0] != own:
            self._followed[index] = held = (own, torch.tensor(own, device=device))
        return held[1]

    def advance(self, times: Tensor, closure: Closure) -> Tensor:
        """Follows each member to a time of its own, or through several, and returns the loss (E,) at the last.

        They land on each exactly. Members that are there already, or that another event has ended, stay as they are;
        none goes past the t_max of an event. Those that arrive have :attr:`StopReason.T_MAX`, from which only a
        later time lets them go on. Bursts of up to :attr:`steps`.

        Args:
            times: (E,), or (K, E) that do not decrease.
            closure: as for :meth:`step`.

        Raises:
            ConfigError: for times that are not finite.
        """
        if not bool(times.isfinite().all()):
            raise ConfigError(
                f"advance needs finite times, got {times.tolist()}: call step until an event ends members"
            )
        self.start(closure)
        state, ordinary = self.flow_state, self.dynamics
        times = times.to(state.t).clamp(max=ordinary.t_max).expand(*times.shape[:-1], state.members)
        times = times.reshape(-1, state.members)
        end = times[-1]
        waiting = state.reason == int(StopReason.T_MAX)
        state.reason.masked_fill_(waiting & (state.t < end), int(StopReason.RUNNING))
        state.reason.masked_fill_(state.running & (state.t >= end), int(StopReason.T_MAX))
        self._clock = None
        self.dynamics = replace(ordinary, events=(*ordinary.events, TimesReached(end)), t_max=times)
        most = self.steps
        try:
            self._advancing = True
            while (needed := self._steps_to(times)) > 0:
                self.steps = min(needed, most)
                self.step(closure)
        finally:
            self.dynamics, self.steps, self._advancing = ordinary, most, False
        return state.loss.clone()

    def _steps_to(self, times: Tensor) -> int:
        """The most steps at its present dt that a running member needs for its times (K, E); 0 if none runs.

        Steps after the last arrival would be wasted. The one read from the device in a burst of :meth:`advance`.
        """
        state = self.flow_state
        gaps = torch.diff(torch.maximum(times, state.t), dim=0, prepend=state.t.unsqueeze(0))
        needed = torch.ceil(gaps / state.dt).sum(dim=0)
        (counts,) = self._read_clock(needed)
        steps = [count for count, runs in zip(counts, self.clock().running, strict=True) if runs]
        return max((_whole(count) * self.dynamics.integrator.evaluations for count in steps), default=0)

    def _burst(
        self,
        state: FlowState,
        closure: Closure,
        dynamics: Dynamics,
        recording: Recording | None = None,
        members: Sequence[int] | None = None,
    ) -> FlowState:
        """Tries the steps; returns the state that has changed, which is the recording's if there is one.

        ``members`` are the indices of those in the state, whose passages are collected.
        """
        if recording is not None:
            state, step = recording.state, recording.step
        else:
            step = self._step_of(state, closure, dynamics)
        running = state.running
        times, losses = [], []
        noise = None
        passages = self.passages if dynamics.integrator.interpolates and not self._advancing else None
        before = [] if passages is None else state.t.tolist()
        for _ in range(max(1, self.steps // dynamics.integrator.evaluations)):
            try:
                found = step()
            except RecordingError as error:
                self._recording, self.cuda_graphs = None, False
                warnings.warn(
                    f"the flow's steps are not recorded as a CUDA graph but run eagerly: {error}", stacklevel=3
                )
                step = self._step_of(state, closure, dynamics)
                found = step()
            if state.velocity is not None:
                noise = found.noise.clone() if noise is None else noise | found.noise
            if passages is not None and members is not None and found.interpolant is not None:
                after = state.t.tolist()
                passages.add(members, before, after, found.interpolant)
                before = after
            del found  # and what its interpolant holds
            times.append(state.t.clone())
            losses.append(state.loss.clone())
        settle(state, noise, dynamics.events)
        if dynamics.integrator.approximate:
            self._confirm_ends(state, running & ~state.running, closure, dynamics)
        self.trace = Trace(torch.stack(times), torch.stack(losses))
        return state

    def _confirm_ends(self, state: FlowState, ended: Tensor, closure: Closure, dynamics: Dynamics) -> None:
        """Evaluates at the accepted weights if members have ``ended`` (E,) in this burst."""
        if bool(ended.any()):
            buffer = self.rows.buffer(state.members)
            confirm_ends(state, ended, buffer, Evaluator(self.rows, closure), dynamics)

    def _step_of(self, state: FlowState, closure: Closure, dynamics: Dynamics, *, own: bool = False) -> Step:
        """One tried step of these members as a function; with a buffer of its ``own`` always at the same place."""
        evaluate = Evaluator(self.rows, closure)
        buffer = torch.empty_like(state.displacement) if own else self.rows.buffer(state.members)
        return lambda: try_step(state, buffer, evaluate, dynamics)

    # ------------------------------------------------------------------ CUDA graphs

    def _may_record(self, integrator: Integrator) -> bool:
        eager = self._advancing or integrator.reads_the_host
        return self.cuda_graphs and self.rows.parameters[0].is_cuda and not eager

    def _record(self, part: FlowState, closure: Closure, dynamics: Dynamics) -> Recording | None:
        """The recording for these members, closure and dynamics, at the state ``part``: the present one if it fits.

        None where steps run eagerly.
        """
        if not self._may_record(dynamics.integrator):
            return None
        if self.active is None:
            members: object = tuple(x.data_ptr() for x in part.tensors().values())
        else:
            members = id(self.active)  # which the recording keeps
        key = (id(closure), id(self.dynamics), members)
        held = self._recording
        if held is None or held.key != key:
            self._recording = None  # gives its memory back before another is made
            step = self.recorder(self._step_of(part, closure, dynamics, own=True))
            self._recording = held = Recording(key, part, step, (closure, self.dynamics, dynamics, self.active))
        elif self.active is not None:
            held.state.copy_from(part)
        return held

    def _running_rows(self, state: FlowState) -> Tensor | None:
        """The members still running, or None for all; the one read from the device in a call of step is the clock's."""
        count = sum(self.clock().running)
        if count == state.members or (count > 0 and not self.compact and state.members > 1):
            return None
        running = tuple(self.clock().running)
        held = self._running
        if held is None or held[0] != running:
            # As nonzero, whose size would have to be read: the running members first, in their order.
            self._running = held = running, state.running.byte().argsort(descending=True, stable=True)[:count]
        return held[1]  # the same tensor while the same members run, so that what was made for it can be kept

    def stop_running(self, reason: StopReason) -> None:
        """Stops every member that still runs, for a reason known to the host (wall time, a signal)."""
        state, self._clock = self.flow_state, None
        state.reason.copy_(torch.where(state.running, int(reason), state.reason).to(torch.int8))

    def reopen(self, *, wall: bool) -> None:
        """Lets members go on that an earlier session stopped by a limit which is not reached under the present ones.

        ``wall``: those stopped by the wall-time limit too.
        """
        state, self._clock = self.flow_state, None
        moment = Moment(state.t, state.tried, state.loss_start, Evaluation(state.loss, state.outputs))
        limits = [event for event in self.dynamics.events if event.limit]
        reached = state.t >= self.dynamics.t_max
        for event in limits:
            found = event(moment)
            if found is not None:
                reached = reached | found
        final = {event.reason for event in self.dynamics.events if not event.limit}
        own = {event.reason for event in limits} - final  # a reason that is also that of another end is left alone
        for limit in {StopReason.T_MAX, StopReason.MAX_STEPS, *[StopReason.MAX_WALL] * wall, *own}:
            state.reason.masked_fill_((state.reason == int(limit)) & ~reached, int(StopReason.RUNNING))

    # ------------------------------------------------------------------ saving

    def _hold(self, state: FlowState) -> None:
        self._clock = None
        self.state[self.rows.parameters[0]] = state.tensors()

    def state_dict(self) -> dict[str, Any]:
        """The flow to the bit. Once all members have ended, without the integrator's memory, which may be large.

        It is then made anew where they go on; ``saves_memory_of_ended`` keeps it.
        """
        saved: dict[str, Any] = super().state_dict()
        memory = self.started and self.flow_state.memory
        if memory and not self.saves_memory_of_ended and not any(self.clock().running):
            saved["state"] = {
                key: {name: x for name, x in held.items() if not name.startswith(MEMORY)}
                for key, held in saved["state"].items()
            }
            saved["param_groups"][0][_INTEGRATOR] = None
        return saved

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores a flow to the bit: unlike the base class it never casts clocks or counts to the weights' dtype.

        Raises:
            ValueError: if shapes or dtype are not those of this flow, or it needs a velocity that was not saved.
        """
        super().load_state_dict(state_dict)
        self._clock = None
        group = self.param_groups[0]
        group.setdefault(_INTEGRATOR, Euler.name)  # 0.1.0 had no other
        fallback = self.dynamics.integrator.fallback
        if fallback is not None and group[_INTEGRATOR] == fallback.name:
            self.dynamics = replace(self.dynamics, integrator=fallback)
        saved = state_dict["state"]
        if not saved:
            return
        held = next(iter(saved.values()))
        first = self.rows.parameters[0]
        if held["origin"].shape != self._origin.shape:
            raise ValueError(
                f"the saved flow has {tuple(held['origin'].shape)} (members, weights), "
                f"this one has {tuple(self._origin.shape)}: use the same network, seeds and alphas"
            )
        if held["origin"].dtype != self._origin.dtype:
            raise ValueError(f"the saved flow is in {held['origin'].dtype}, this one in {self._origin.dtype}")
        if self.dynamics.rule.has_velocity and "velocity" not in held:
            raise ValueError("the saved flow has no velocity, so it cannot go on with momentum: set tau=0")
        held = {name: x.detach().clone().to(first.device) for name, x in held.items()}
        held.setdefault("gradient_scale", held["gradient_norm"].clone())  # those of 0.1.0 have neither
        if "milestone" not in held:
            held["milestone"] = torch.stack(
                [held["t"], held["tried"].double(), held["loss"].double(), held["gradient_norm"]], dim=1
            )
        self.state[first] = held
        self.state[first]["origin"] = self._origin.copy_(held["origin"])  # stays shared with who gave it
        self.rows.publish(self.flow_state.weights())


def _check_tau(tau: float | Sequence[float], members: int) -> None:
    given = torch.as_tensor(tau)
    if given.ndim > 0 and given.shape != (members,):
        raise ConfigError(
            f"tau has shape {tuple(given.shape)} for {members} members: give one number, or one for each member"
        )


def _merged(traces: list[tuple[list[int], Trace]], members: Sequence[int], whole: FlowState) -> Trace:
    """One trace of these members: those of fewer attempts stay at their last; those that do not run at their state."""
    longest = max(len(trace.t) for _, trace in traces)
    place = {member: i for i, member in enumerate(members)}
    rows = torch.tensor(list(members), device=whole.t.device)
    t, loss = whole.t[rows].repeat(longest, 1), whole.loss[rows].repeat(longest, 1)
    for own, trace in traces:
        columns = torch.tensor([place[member] for member in own], device=whole.t.device)
        last = torch.arange(longest, device=whole.t.device).clamp(max=len(trace.t) - 1)
        t[:, columns], loss[:, columns] = trace.t[last], trace.loss[last]
    return Trace(t, loss)


def _whole(steps: float) -> int:
    """A count of steps as an integer of at least 1; one that is not finite counts as very many."""
    return max(1, int(min(steps, 1e9))) if steps == steps else 1


def _check_gain(rule: StepRule, members: int, device: torch.device) -> None:
    """Refuses a rule of another number of members now, by the shape alone."""
    if not rule.has_velocity:
        return
    t = torch.ones(members, dtype=torch.float64, device=device)
    gain = rule.gain(t, t)
    if gain.shape != (members,):
        raise ConfigError(f"rule {rule!r} has a gain of shape {tuple(gain.shape)}, expected {(members,)}: one a member")


def _dynamics(
    rule: StepRule,
    integrator: Integrator,
    events: Sequence[Event | Callable[[Moment], Tensor]],
    device: torch.device,
) -> Dynamics:
    there = tuple(as_event(event).to(device) for event in events)
    t_max = min((event.landing for event in there), default=float("inf"))
    return Dynamics(on_device(rule, device), on_device(integrator, device), there, t_max)
