"""Validation of the content of a checkpoint against the module that loads it, before anything is loaded.

Every check raises ConfigError with the name of the file and of the entry. A checksum detects accidental changes of a
file (:mod:`lazy_lightning.runs.checkpoints`); these checks detect files that were written incorrectly or edited.
Checkpoints of version 0.1.0 are valid.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor

from lazy_lightning.errors import ConfigError
from lazy_lightning.flow.stop_reason import StopReason

_FLOW_STATE = (
    "origin",
    "displacement",
    "gradient",
    "outputs",
    "loss",
    "loss_start",
    "gradient_norm",
    "gradient_change",
    "t",
    "dt",
    "tried",
    "accepted",
    "reason",
)
"""Entries that a flow needs to resume; ``velocity`` exists only with momentum."""
_LOOP = "loops.fit_loop"
"""Place of Lightning's own entries; which of them there are depends on its version."""
_SINCE_0_1_0 = ("gradient_scale", "milestone")
"""Entries that a flow computes again if a checkpoint of version 0.1.0 lacks them."""
_MATRICES = ("origin", "displacement", "gradient", "velocity")
_COUNTS = ("tried", "accepted", "reason")
_FINITE = ("displacement", "gradient", "velocity", "outputs", "loss", "gradient_norm", "t", "dt")
"""Entries that must be finite for a running member; those of a failed member may have any value."""


@dataclass(frozen=True)
class CheckpointContent:
    """A loaded checkpoint and its path; the methods raise ConfigError for invalid entries."""

    content: Mapping[str, Any]
    path: str

    def refuse(self, what: str) -> NoReturn:
        """Raises ConfigError with the reason why the checkpoint cannot be used."""
        raise ConfigError(
            f"the checkpoint {self.path} cannot be used: {what}; give the checkpoint.ckpt that a run has written, with "
            "its own config.yaml, or train again"
        )

    # ------------------------------------------------------------------ plain values

    def entry(self, inside: Any, name: str, kinds: type | tuple[type, ...], where: str = "") -> Any:
        """Returns one entry of a mapping after a check of its type; a bool does not count as a number."""
        place = f"{where}.{name}" if where else name
        if not isinstance(inside, Mapping) or name not in inside:
            self.refuse(f"{place} is missing")
        value = inside[name]
        expected = kinds if isinstance(kinds, tuple) else (kinds,)
        if not isinstance(value, expected) or (isinstance(value, bool) and bool not in expected):
            self.refuse(
                f"{place} is of type {type(value).__name__}, expected {' or '.join(k.__name__ for k in expected)}"
            )
        return value

    def count(self, inside: Any, name: str, where: str = "") -> int:
        """Returns an entry that is an integer >= 0."""
        value: int = self.entry(inside, name, int, where)
        if value < 0:
            self.refuse(f"{where}.{name} is {value}, expected >= 0" if where else f"{name} is {value}, expected >= 0")
        return value

    def numbers(self, values: Any, place: str, length: int, least: float) -> None:
        """Checks that a value is a list of ``length`` finite numbers >= ``least``."""
        if not isinstance(values, (list, tuple)) or len(values) != length:
            self.refuse(f"{place} is not a list of {length} numbers")
        for value in values:
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not is_number or not math.isfinite(value) or value < least:
                self.refuse(f"{place} holds {value!r}, expected finite numbers >= {least:g}")

    def members(self, saved: Mapping[str, Any]) -> list[tuple[float, int]]:
        """Returns the (alpha, seed) of each member."""
        alphas, seeds = (self.entry(saved, name, (list, tuple)) for name in ("alphas", "seeds"))
        if len(alphas) != len(seeds) or not alphas:
            self.refuse(f"it names {len(alphas)} alphas and {len(seeds)} seeds of its members")
        self.numbers(alphas, "alphas", len(seeds), 0)
        self.numbers(seeds, "seeds", len(seeds), 0)
        return [(float(alpha), int(seed)) for alpha, seed in zip(alphas, seeds, strict=True)]

    def progress(self, saved: Mapping[str, Any]) -> None:
        """Checks the entries that every module of this package adds."""
        self.members(saved)
        self.count(saved, "observations")
        self.count(saved, "samples")
        self.entry(saved, "objective", str)
        for key, columns in self.entry({"failed_observers": {}, **saved}, "failed_observers", dict).items():
            if not isinstance(columns, (list, tuple)) or not all(isinstance(name, str) for name in columns):
                self.refuse(f"failed_observers.{key} is {columns!r:.60}, expected a list of columns")
        wall = self.entry(saved, "wall", (int, float))
        if not math.isfinite(wall) or wall < 0:
            self.refuse(f"wall is {wall}, expected a number of seconds >= 0")

    # ------------------------------------------------------------------ tensors

    def tensor(self, value: Any, place: str, shape: Sequence[int], dtype: torch.dtype | None) -> Tensor:
        """Returns a value after a check that it is a tensor with this shape and, if given, this dtype."""
        if not isinstance(value, Tensor):
            self.refuse(f"{place} is of type {type(value).__name__}, expected a tensor")
        if tuple(value.shape) != tuple(shape):
            self.refuse(
                f"it does not fit this configuration ({place} is of shape {tuple(value.shape)}, not {tuple(shape)})"
            )
        if dtype is not None and value.dtype != dtype:
            self.refuse(f"{place} is in {value.dtype}, expected {dtype}")
        return value

    def finite(self, value: Tensor, place: str) -> None:
        """Checks that a tensor has no infinite or NaN entries."""
        if value.is_floating_point() and not bool(value.isfinite().all()):
            self.refuse(f"{place} has entries that are not finite")

    def weights(self, expected: Mapping[str, Tensor], ignored: str) -> dict[str, Tensor]:
        """Returns the module's tensors after a check that their names, shapes and dtypes are the expected ones.

        Args:
            expected: the tensors of the module by name.
            ignored: prefix of the names of tensors that are left out.
        """
        saved: Mapping[str, Tensor] = self.entry(self.content, "state_dict", dict)
        state = {name: tensor for name, tensor in saved.items() if not str(name).startswith(ignored)}
        for name, tensor in expected.items():
            held = self.entry(state, name, Tensor, "state_dict")
            self.tensor(held, f"state_dict.{name}", tensor.shape, tensor.dtype)
        others = sorted(set(state) - set(expected))
        if others:
            self.refuse(f"its state_dict has {others[0]}, which the module of this configuration does not have")
        return state

    # ------------------------------------------------------------------ entries of Lightning

    def trainer_state(self, trainer: Trainer) -> None:
        """Checks the counts of epochs and batches, and the version that wrote them."""
        self.entry(self.content, "pytorch-lightning_version", str)
        self.count(self.content, "epoch")
        self.count(self.content, "global_step")
        self.entry(self.content, "lr_schedulers", list)
        loops = self.entry(self.content, "loops", dict)
        saved = self.entry(loops, "fit_loop", dict, "loops")
        for name in ("epoch_progress", "epoch_loop.batch_progress", "epoch_loop.state_dict", "state_dict"):
            self.entry(saved, name, dict, "loops.fit_loop")
        self._like(saved, trainer.fit_loop.state_dict(), _LOOP)
        self._places(saved["state_dict"])

    def _like(self, saved: Any, own: Any, place: str) -> None:
        """Checks that saved values have the types of the trainer's own, and that counts are not negative."""
        if isinstance(own, Mapping):
            if not isinstance(saved, Mapping):
                self.refuse(f"{place} is of type {type(saved).__name__}, expected dict")
            for name, value in own.items():
                if name in saved:
                    self._like(saved[name], value, f"{place}.{name}")
                elif isinstance(value, int) or (isinstance(value, Mapping) and place != _LOOP):
                    self.refuse(f"{place}.{name} is missing")
        elif isinstance(own, bool):
            if not isinstance(saved, bool):
                self.refuse(f"{place} is of type {type(saved).__name__}, expected bool")
        elif isinstance(own, int) and (not isinstance(saved, int) or isinstance(saved, bool) or saved < 0):
            self.refuse(f"{place} is {saved!r}, expected a count >= 0")

    def _places(self, saved: Mapping[str, Any]) -> None:
        """Checks the counts of bursts or batches that the loaders have yielded."""
        places = saved.get("combined_loader", [])
        if not isinstance(places, list):
            self.refuse(f"loops.fit_loop.state_dict.combined_loader is of type {type(places).__name__}, expected list")
        for place in places:
            for name in place if isinstance(place, Mapping) else ():
                if name in ("next_burst", "epoch", "batch"):
                    self.count(place, name, "loops.fit_loop.state_dict.combined_loader")

    def callbacks(self, callbacks: Iterable[Callback], own: tuple[type, ...]) -> None:
        """Checks the states of observers and sinks by loading each into a copy of its callback."""
        saved = self.entry(self.content, "callbacks", dict)
        for callback in callbacks:
            state = saved.get(callback.state_key)
            if state is None or not isinstance(callback, own):
                continue
            try:
                copy.copy(callback).load_state_dict(copy.copy(state))
            except ConfigError:
                raise
            except Exception as error:
                reason = f"{type(error).__name__}: {error}".strip()
                self.refuse(f"the state of {type(callback).__name__} cannot be loaded ({reason[:150]})")

    # ------------------------------------------------------------------ optimizers

    def optimizer(self, groups: int) -> tuple[Mapping[Any, Any], Sequence[Mapping[str, Any]]]:
        """Returns the state and the parameter groups of the only optimizer."""
        states = self.entry(self.content, "optimizer_states", list)
        if len(states) != 1:
            self.refuse(f"it holds {len(states)} optimizers, expected 1")
        state = self.entry(states[0], "state", dict, "optimizer_states")
        saved = self.entry(states[0], "param_groups", list, "optimizer_states")
        if len(saved) != groups:
            self.refuse(f"its optimizer has {len(saved)} parameter groups, expected {groups}")
        for group in saved:
            self.entry(group, "params", list, "optimizer_states.param_groups")
        return state, saved

    def flow(self, origin: Tensor, outputs: Sequence[int], has_velocity: bool) -> None:
        """Checks the state of a full-batch flow.

        Args:
            origin: (E, N) initial weights in the checkpoint's ``state_dict``.
            outputs: shape (E, n[, c]) of F on the training set.
            has_velocity: whether the module's flow has momentum.
        """
        state, _ = self.optimizer(groups=1)
        if not state:
            self.refuse("it holds no state of the flow")
        held = self.entry(state, next(iter(state)), dict, "optimizer_states")
        names = [*_FLOW_STATE, *["velocity"] * (has_velocity or "velocity" in held)]
        names += [name for name in _SINCE_0_1_0 if name in held]
        members = len(origin)
        shapes: dict[str, Sequence[int]] = {
            **dict.fromkeys(_MATRICES, tuple(origin.shape)),
            "outputs": outputs,
            "milestone": (len(origin), 4),
        }
        for name in names:
            place = f"the flow's {name}"
            if name not in held:
                remedy = " (this configuration has momentum: set tau=0)" if name == "velocity" else ""
                self.refuse(f"{place} is missing{remedy}")
            value = self.tensor(held[name], place, shapes.get(name, (members,)), None)
            if value.is_complex() or value.is_floating_point() == (name in _COUNTS):
                expected = "integers" if name in _COUNTS else "real floating-point numbers"
                self.refuse(f"{place} is in {value.dtype}, expected {expected}")
            if name in (*_MATRICES, "outputs") and value.dtype != origin.dtype:
                self.refuse(f"{place} is in {value.dtype}, its weights in {origin.dtype}")
        for name in held:
            if isinstance(name, str) and name.startswith("memory."):  # of the integrator
                value = held[name]
                if not isinstance(value, Tensor) or value.ndim == 0 or len(value) != members:
                    self.refuse(f"the flow's {name} is not a tensor with {members} members first")
        self._flow_numbers(held, origin)

    def _flow_numbers(self, held: Mapping[str, Tensor], origin: Tensor) -> None:
        reasons = held["reason"]
        if not set(reasons.tolist()) <= {int(reason) for reason in StopReason}:
            self.refuse(f"the flow's reason holds {reasons.tolist()}, which are not all reasons to stop")
        if not torch.equal(held["origin"], origin):
            self.refuse("the flow's origin is not the w0 of its state_dict")
        for name in ("t", "tried", "accepted"):
            if bool((held[name] < 0).any()):
                self.refuse(f"the flow's {name} holds negative numbers")
        if bool((held["accepted"] > held["tried"]).any()):
            self.refuse("more of the flow's steps were accepted than tried")
        running = reasons == int(StopReason.RUNNING)
        if bool((held["dt"][running] <= 0).any()):
            self.refuse("the flow's dt holds numbers <= 0")
        for name in _FINITE:
            if name in held:
                self.finite(held[name][running], f"the flow's {name}")

    def steps_of_optimizer(self, parameters: Sequence[Tensor]) -> None:
        """Checks the state of a torch optimizer with one parameter group for each of these parameters."""
        state, groups = self.optimizer(len(parameters))
        for number, group in enumerate(groups):
            if list(group["params"]) != [number]:
                self.refuse(f"group {number} of its optimizer holds the parameters {group['params']}")
            rate = group.get("lr")
            rate = rate.item() if isinstance(rate, Tensor) and rate.numel() == 1 else rate
            self.numbers([rate], "the optimizer's learning rate", 1, 0)
        for number, entries in state.items():
            if number not in range(len(parameters)) or not isinstance(entries, Mapping):
                self.refuse(f"its optimizer has a state of parameter {number!r}, of {len(parameters)}")
            for name, value in entries.items():
                if isinstance(value, Tensor) and value.numel() > 1:
                    self.tensor(value, f"the optimizer's {name}", parameters[number].shape, None)
        schedulers = self.entry(self.content, "lr_schedulers", list)
        if not all(isinstance(scheduler, Mapping) for scheduler in schedulers):
            self.refuse("lr_schedulers holds an entry that is not the state of a scheduler")
