"""GivenWeights: the weights from which members start in place of those that their seeds draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lazy_lightning.errors import ConfigError
from lazy_lightning.modules.ensemble import Ensemble
from lazy_lightning.modules.stored_members import StoredMembers
from lazy_lightning.nn.member_state import equal_tensors, held_tensors
from lazy_lightning.nn.members import MemberNetwork, Named, layers_of
from lazy_lightning.nn.network_probe import NetworkProbe
from lazy_lightning.nn.shared_starts import SharedStarts
from lazy_lightning.runs.checkpoints import KEY
from lazy_lightning.runs.state_file import read_weights


@dataclass
class Start:
    """What E members start from."""

    w0: Tensor
    """(E, N) float64."""
    buffers: Named
    """(E, *shape) each, float64."""
    shared: SharedStarts
    """Which members have equal w0 and buffers."""
    warning: str | None = None
    """What is doubtful about the weights, in one sentence."""


class GivenWeights:
    """Weights stored in a file, for the networks of members.

    Args:
        path: the folder of a run, a checkpoint of this package, or a file of one network's weights by name.
        alpha: of the members of a run whose final weights are taken; None for the only one of the run, or each
            member's own.
        fresh: layers, by their names or what these begin with, that keep the weights drawn by the member's seed.

    Raises:
        ConfigError: ``alpha`` or ``fresh`` came without a path.
    """

    def __init__(self, path: str | None, alpha: float | None, fresh: Sequence[str] | None) -> None:
        for name, value in (("init_alpha", alpha), ("init_fresh", fresh)):
            if path is None and value is not None:
                raise ConfigError(f"{name} is {value}, but init is null: give the weights to start from as init")
        self.path = None if path is None else Path(path)
        self.alpha = alpha
        self.fresh = tuple(fresh or ())
        self._content: dict[str, Any] | None = None

    def _read(self, path: Path) -> dict[str, Any]:
        """The content of the file, which is read once."""
        if self._content is None:
            self._content = read_weights(path)
        return self._content

    def check(self, members: Ensemble) -> None:
        """Checks what can be checked before the networks are built.

        Raises:
            ConfigError: the file does not exist, is no file of weights, or holds other members or failed ones.
        """
        if self.path is None:
            return
        content = self._read(self.path)
        if KEY in content:
            self._stored(content, self.path, members)
        else:
            self._require_no_copies(members)
            self._require_no_alpha()

    def start(self, network: MemberNetwork, members: Ensemble, drawn: Start, attributes: Mapping[str, str]) -> Start:
        """What members start from.

        Args:
            network: of the members.
            members: whose rows ``drawn`` has.
            drawn: what their seeds draw.
            attributes: the name of each buffer in checkpoints.

        Raises:
            ConfigError: the file does not exist, is no file of weights, holds other members, or names or shapes differ;
                or several seeds would be copies of one network.
        """
        if self.path is None:
            return drawn
        content, self._content = self._read(self.path), None  # of which nothing is kept
        if KEY not in content:
            given, buffers = self._of_network(content, network, drawn.buffers, members)
            return Start(self._joined(network, given, drawn.w0), buffers, drawn.shared)
        stored, rows = self._stored(content, self.path, members)
        given = stored.weights_by_name(network, rows)
        buffers = self._buffers(stored, drawn.buffers, rows, attributes)
        w0 = self._joined(network, given, drawn.w0)
        self._require_same_function(stored, network, drawn, attributes)
        kinds: Sequence[int] = rows if not self.fresh else self._kinds(rows, members.seeds)
        return Start(w0, buffers, SharedStarts.of_seeds(kinds), stored.unfinished(rows))

    @staticmethod
    def _kinds(rows: Sequence[int], seeds: Sequence[int]) -> list[int]:
        """A number for each pair of a stored member and a seed."""
        pairs = list(zip(rows, seeds, strict=True))
        return [pairs.index(pair) for pair in pairs]

    # ------------------------------------------------------------------ a run of this package

    def _stored(self, content: Mapping[str, Any], path: Path, members: Ensemble) -> tuple[StoredMembers, list[int]]:
        """The stored members, and which of them each member starts from."""
        stored = StoredMembers(content, path)
        rows = stored.rows(members, self.alpha)
        stored.require_trained(rows)
        return stored, rows

    def _buffers(
        self, stored: StoredMembers, drawn: Named, rows: Sequence[int], attributes: Mapping[str, str]
    ) -> Named:
        """(E, *shape) by name."""
        own = {}
        for name, tensor in drawn.items():
            held = stored.state.get(attributes[name])
            if self._is_fresh(name):
                own[name] = tensor
                continue
            if not isinstance(held, Tensor) or held.shape[1:] != tensor.shape[1:]:
                shape = tuple(held.shape[1:]) if isinstance(held, Tensor) else None
                raise self._differs(name, shape, tuple(tensor.shape[1:]))
            own[name] = held[list(rows)].to(tensor)
        return own

    def _require_same_function(
        self, stored: StoredMembers, network: MemberNetwork, drawn: Start, attributes: Mapping[str, str]
    ) -> None:
        """Refuses a network that computes another function of the same weights, so far as layers are not fresh.

        A checkpoint of an older version has no outputs to compare.
        """
        probe = stored.probe()
        if probe is None or any(self._is_fresh(name) for name in drawn.buffers):
            return
        first = {name: tensor[:1] for name, tensor in drawn.buffers.items()}
        buffers = self._buffers(stored, first, [0], attributes)
        w0 = self._joined(network, stored.weights_by_name(network, [0], initial=True), drawn.w0[:1])
        fresh = set(layers_of([name for name in network.names if self._is_fresh(name)]))
        try:
            own = NetworkProbe.of(network, w0, buffers, probe.x)
        except Exception as error:  # whatever a network's own code raises
            if fresh:
                return
            raise self._computes_other(network, "it does not take the inputs of that run") from error
        found = probe.disagreement(own, fresh)
        if found is not None:
            raise self._computes_other(network, found)

    def _computes_other(self, network: MemberNetwork, how: str) -> ConfigError:
        return ConfigError(
            f"init {self.path} comes from another network than {type(network.template).__name__} of this "
            f"configuration, although names and shapes of the weights agree: at the same weights and inputs {how}; "
            "give the network that was trained, with its activation and its constants"
        )

    # ------------------------------------------------------------------ a network's weights by name

    def _of_network(
        self, tensors: Mapping[str, Tensor], network: MemberNetwork, buffers: Named, members: Ensemble
    ) -> tuple[Named, Named]:
        self._require_no_copies(members)
        self._require_no_alpha()
        held = held_tensors(network.template)
        named = _with_prefix(tensors, [*network.names, *held])
        count = len(members)
        for name, tensor in held.items():
            if name in buffers or name not in named or self._is_fresh(name):
                continue
            if not equal_tensors(named.pop(name).to(tensor), tensor.detach()):
                raise ConfigError(
                    f"init {self.path} has another {name} than the network of this configuration, which does not train "
                    "it: set requires_grad, or give the network's constructor the same value"
                )
        own = {}
        for name, drawn in buffers.items():
            given = named.pop(name, None)
            if self._is_fresh(name):
                own[name] = drawn
            elif given is None or given.shape != drawn.shape[1:]:
                raise self._differs(name, None if given is None else tuple(given.shape), tuple(drawn.shape[1:]))
            else:
                own[name] = given.to(drawn).expand(count, *given.shape).clone()
        return {name: tensor.expand(count, *tensor.shape) for name, tensor in named.items()}, own

    def _require_no_copies(self, members: Ensemble) -> None:
        if len(set(members.seeds)) > 1 and not self.fresh:
            raise ConfigError(
                f"init {self.path} holds one network, of which the seeds {sorted(set(members.seeds))} would be copies: "
                "set seeds to 1, or name layers that the seeds draw as init_fresh"
            )

    def _require_no_alpha(self) -> None:
        if self.alpha is not None:
            raise ConfigError(
                f"init_alpha is {self.alpha:g}, but init {self.path} holds one network and no members: leave out "
                "init_alpha, which chooses among those of a run"
            )

    # ------------------------------------------------------------------ both

    def _joined(self, network: MemberNetwork, given: Mapping[str, Tensor], drawn: Tensor) -> Tensor:
        """(E, N) of the weights by name, and of what the seeds draw where a layer is fresh."""
        parts = []
        unused = {name: tensor for name, tensor in given.items() if not self._is_fresh(name)}
        for name, own in network.unpack(drawn).items():
            if self._is_fresh(name):
                parts.append(own.flatten(1))
                continue
            tensor = unused.pop(name, None)
            if tensor is None or tensor.shape != own.shape:
                raise self._differs(name, None if tensor is None else tuple(tensor.shape[1:]), tuple(own.shape[1:]))
            if tensor.is_complex():
                raise ConfigError(f"init {self.path} has complex numbers for {name}, expected real weights")
            parts.append(tensor.flatten(1).to(own))
        if unused:
            name = next(iter(unused))
            remedy = (
                "set batch_norm of TorchvisionNetwork to statistics, which the file has"
                if any(other.endswith(".running_var") for other in unused)
                else "give the network that was trained, or name the layer as init_fresh"
            )
            raise ConfigError(
                f"init {self.path} has {name}, which the network {type(network.template).__name__} of this "
                f"configuration does not have: {remedy}"
            )
        names = [name for name in self.fresh if not any(_begins(own, name) for own in network.names)]
        if names:
            raise ConfigError(
                f"init_fresh names {names[0]}, but the layers of the network are {', '.join(network.layers)}"
            )
        joined = torch.cat(parts, dim=1)
        if not bool(joined.isfinite().all()):
            raise ConfigError(
                f"init {self.path} has weights that are not finite, so its training failed: give another run or file"
            )
        return joined

    def _is_fresh(self, name: str) -> bool:
        return any(_begins(name, layer) for layer in self.fresh)

    def _differs(self, name: str, found: tuple[int, ...] | None, expected: tuple[int, ...]) -> ConfigError:
        held = "no" if found is None else f"shape {found} for"
        return ConfigError(
            f"init {self.path} has {held} {name}, which has shape {expected} in the network of this configuration: "
            "give the network that was trained, or name the layer as init_fresh"
        )


def _begins(name: str, layer: str) -> bool:
    return name == layer or name.startswith(f"{layer}.")


def _with_prefix(tensors: Mapping[str, Tensor], own: Sequence[str]) -> Named:
    """The tensors by the names of the network, which may all begin with the name of one more module."""
    if any(name in own for name in tensors):
        return dict(tensors)
    first = next(iter(tensors))
    prefixes = [name.removesuffix(first) for name in own if name.endswith(f".{first}")]
    prefix = prefixes[0] if prefixes else ""
    return {prefix + name: tensor for name, tensor in tensors.items()}
