"""StoredMembers: the trained members in a checkpoint, from whose weights other members can start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from lazy_lightning.errors import ConfigError
from lazy_lightning.flow.stop_reason import StopReason
from lazy_lightning.modules.ensemble import Ensemble
from lazy_lightning.nn.members import MemberNetwork, Named
from lazy_lightning.nn.network_probe import NetworkProbe
from lazy_lightning.objective.companions import NETWORK
from lazy_lightning.runs.checkpoint_validation import CheckpointContent
from lazy_lightning.runs.checkpoints import KEY
from lazy_lightning.runs.state_file import read_weights

LAYOUT = "layout"
"""Names and shapes of the weights in a checkpoint, in the order of its flat rows."""
PROBE = "probe"
"""What the networks of a checkpoint compute, see :class:`~lazy_lightning.nn.network_probe.NetworkProbe`."""
REASONS = "reasons"
"""Why each member of a checkpoint has ended, as numbers of :class:`~lazy_lightning.flow.stop_reason.StopReason`."""


class StoredMembers:
    """The members in a checkpoint of this package.

    Args:
        content: as :func:`~lazy_lightning.runs.state_file.read_weights` gives it.
        path: of the file or the run, for messages.

    Raises:
        ConfigError: an entry is missing or of another type than a run writes.
    """

    def __init__(self, content: Mapping[str, Any], path: Path) -> None:
        self.path = path
        self._checked = CheckpointContent(content, str(path))
        self._saved: Mapping[str, Any] = self._checked.entry(content, KEY, dict)
        self.state: Mapping[str, Any] = self._checked.entry(content, "state_dict", dict)
        """Tensors by name."""
        members = self._checked.members(self._saved)
        self.alphas, self.seeds = [alpha for alpha, _ in members], [seed for _, seed in members]
        self.data_seeds: Sequence[int] | None = self._saved.get("data_seeds")
        if self.data_seeds is not None:
            self._checked.numbers(self.data_seeds, "data_seeds", len(members), 0)

    # ------------------------------------------------------------------ which members

    def rows(self, members: Ensemble, alpha: float | None) -> list[int]:
        """Returns the stored member of each member: that of its seed, data seed and alpha.

        Args:
            members: those that start.
            alpha: of the stored members; None for the only one, or each member's own.

        Raises:
            ConfigError: there is none, or there are several.
        """
        wanted = [self._alpha(alpha, own) for own in members.alphas]
        data = members.data_seeds or (None,) * len(members)
        return [self._row(*member) for member in zip(wanted, members.seeds, data, strict=True)]

    def _row(self, alpha: float, seed: int, data_seed: int | None) -> int:
        found = [
            i
            for i in range(len(self.seeds))
            if (self.alphas[i], self.seeds[i]) == (alpha, seed)
            and (data_seed is None or self.data_seeds is None or self.data_seeds[i] == data_seed)
        ]
        if len(found) != 1:
            of_data = "" if self.data_seeds is None else f" and data seeds {sorted(set(self.data_seeds))}"
            of_own_data = "" if data_seed is None else f" and data seed {data_seed}"
            alphas, seeds = sorted(set(self.alphas)), sorted(set(self.seeds))
            raise ConfigError(
                f"init {self.path} holds {'several members' if found else 'no member'} of alpha {alpha:g} and seed "
                f"{seed}{of_own_data}, but alphas {alphas}, seeds {seeds}{of_data}: choose among its seeds, and its "
                "alpha by init_alpha"
            )
        return found[0]

    def _alpha(self, chosen: float | None, own: float) -> float:
        if chosen is not None:
            return chosen
        return self.alphas[0] if len(set(self.alphas)) == 1 else own

    # ------------------------------------------------------------------ whether they have been trained

    def _reasons(self) -> list[StopReason] | None:
        """Why each member has ended; None where the checkpoint does not state it."""
        codes = self._saved.get(REASONS)
        if codes is None:
            codes = self._reasons_of_flow()
        if not codes:
            return None
        known = [int(reason) for reason in StopReason]
        if not isinstance(codes, list) or len(codes) != len(self.seeds) or any(code not in known for code in codes):
            self._checked.refuse(f"the reasons for which its members ended are {codes!r}")
        return [StopReason(code) for code in codes]

    def _reasons_of_flow(self) -> list[Any] | None:
        """As the state of a flow holds them, also in checkpoints of older versions."""
        states = self._checked.content.get("optimizer_states")
        for state in states if isinstance(states, list) else ():
            entries = state.get("state") if isinstance(state, Mapping) else None
            held = next(iter(entries.values()), None) if isinstance(entries, Mapping) else None
            reason = held.get("reason") if isinstance(held, Mapping) else None
            if isinstance(reason, Tensor):
                return list(reason.reshape(-1).tolist())
        return None

    def require_trained(self, rows: Sequence[int]) -> None:
        """Refuses members that failed, which have no final weights.

        Raises:
            ConfigError: one of these members failed.
        """
        reasons = self._reasons()
        if reasons is None:
            return
        for row in rows:
            if reasons[row].failed:
                raise ConfigError(
                    f"init {self.path} holds a member of alpha {self.alphas[row]:g} and seed {self.seeds[row]} that "
                    f"failed ({reasons[row].sentence}), so it has no final weights: choose other seeds, or another run"
                )

    def unfinished(self, rows: Sequence[int]) -> str | None:
        """Returns a warning if one of these members has not ended."""
        reasons = self._reasons()
        row = next((row for row in rows if reasons is not None and reasons[row] is StopReason.RUNNING), None)
        if reasons is None or row is None:
            return None
        return (
            f"init {self.path} holds a member of alpha {self.alphas[row]:g} and seed {self.seeds[row]} that has not "
            f"ended ({reasons[row].sentence}): training starts from the weights that it has reached; to start from its "
            "final ones, resume that run first"
        )

    # ------------------------------------------------------------------ weights

    def weights_by_name(self, network: MemberNetwork, rows: Sequence[int], *, initial: bool = False) -> Named:
        """Returns (len(rows), *shape) float64 by name.

        Args:
            network: whose names a checkpoint of an older version, which has none, is taken to have.
            rows: of the members.
            initial: their w0 instead of their final weights.

        Raises:
            ConfigError: the checkpoint has no weights of a network, or another number of them.
        """
        flat = self._tensor(self.state.get("w0")) if initial else self._final_weights()
        layout = self._layout() or list(zip(network.names, map(list, network.shapes), strict=True))
        sizes = [torch.Size(shape).numel() for _, shape in layout]
        if flat.ndim != 2 or len(flat) != len(self.seeds) or sum(sizes) != flat.shape[1]:
            raise ConfigError(
                f"init {self.path} holds {flat.shape[-1] if flat.ndim else 0} weights a member, the network of this "
                f"configuration has {network.weights}: give the network that was trained"
            )
        blocks = torch.split(flat[list(rows)].double(), sizes, dim=1)
        return {name: block.reshape(len(rows), *shape) for (name, shape), block in zip(layout, blocks, strict=True)}

    def _layout(self) -> list[tuple[str, list[int]]] | None:
        given = self._saved.get(LAYOUT)
        if given is None:  # a checkpoint of an older version, which has no names
            return None
        try:
            return [(str(name), [_size(length) for length in shape]) for name, shape in given]
        except (TypeError, ValueError):
            self._checked.refuse(f"{LAYOUT} is not a list of names and shapes")

    def _final_weights(self) -> Tensor:
        w0 = self.state.get("w0")
        if "frozen" in self.state or not isinstance(w0, Tensor):
            raise ConfigError(
                f"init {self.path} is of a flow on a kernel, and has no trained network: give the run of a fit"
            )
        dw = [self.state.get(f"displacements.{NETWORK}.{i}") for i in range(len(self.seeds))]
        if all(isinstance(row, Tensor) and row.shape == w0.shape[1:] for row in dw):
            return w0 + torch.stack([cast(Tensor, row) for row in dw])
        if (moved := self.state.get("dw")) is not None:
            return w0.double() + self._checked.tensor(moved, "state_dict.dw", w0.shape, None).double()
        return self._tensor(self.state.get("w"))

    def _tensor(self, value: Any) -> Tensor:
        if not isinstance(value, Tensor) or value.is_complex():
            raise ConfigError(f"init {self.path} has no weights of its members: give the checkpoint.ckpt of a run")
        return value

    def probe(self) -> NetworkProbe | None:
        """What the network of the first member computes; None where the checkpoint does not hold it."""
        given = self._saved.get(PROBE)
        if given is None:
            return None
        x, outputs = (self._checked.entry(given, name, Tensor, PROBE) for name in ("x", "outputs"))
        layers = self._checked.entry(given, "layers", dict, PROBE)
        for name, moments in layers.items():
            if not isinstance(moments, list) or len(moments) != 2 or not all(isinstance(m, float) for m in moments):
                self._checked.refuse(f"{PROBE}.layers.{name} is {moments!r}, expected two numbers")
        return NetworkProbe(
            x.double(), outputs.double(), {str(name): (moments[0], moments[1]) for name, moments in layers.items()}
        )


def stored_alphas(path: Path) -> list[float]:
    """The distinct alphas of the members in a run or checkpoint, in increasing order; none in other files of weights.

    Raises:
        ConfigError: the file does not exist, or is no file of weights.
    """
    content = read_weights(path)
    return sorted(set(StoredMembers(content, path).alphas)) if KEY in content else []


def _size(length: Any) -> int:
    if isinstance(length, bool) or not isinstance(length, int) or length < 0:
        raise ValueError(f"{length!r} is no size")
    return length
