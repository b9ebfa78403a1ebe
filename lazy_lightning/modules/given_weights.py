"""GivenWeights: the weights from which members start in place of those that their seeds draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from lazy_lightning.errors import ConfigError
from lazy_lightning.modules.ensemble import Ensemble
from lazy_lightning.nn.member_state import equal_tensors, held_tensors
from lazy_lightning.nn.members import MemberNetwork, Named
from lazy_lightning.nn.shared_starts import SharedStarts
from lazy_lightning.objective.companions import NETWORK
from lazy_lightning.runs.checkpoints import KEY
from lazy_lightning.runs.state_file import read_weights

LAYOUT = "layout"
"""Names and shapes of the weights in a checkpoint, in the order of its flat rows."""


@dataclass
class Start:
    """What E members start from."""

    w0: Tensor
    """(E, N) float64."""
    buffers: Named
    """(E, *shape) each, float64."""
    shared: SharedStarts
    """Which members have equal w0 and buffers."""


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

    def check(self, members: Ensemble) -> None:
        """Checks what can be checked before the networks are built.

        Raises:
            ConfigError: the file does not exist, is no file of weights, or holds other members.
        """
        if self.path is None:
            return
        content = read_weights(self.path)
        if isinstance(content.get(KEY), dict):
            self._rows(content[KEY], members)
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
        content = read_weights(self.path)
        if isinstance(content.get(KEY), dict):
            rows = self._rows(content[KEY], members)
            given, buffers = self._of_members(content, network, drawn.buffers, rows, attributes)
            kinds: Sequence[int] = rows if not self.fresh else self._kinds(rows, members.seeds)
            shared = SharedStarts.of_seeds(kinds)
        else:
            given, buffers = self._of_network(content, network, drawn.buffers, members)
            shared = drawn.shared
        return Start(self._joined(network, given, drawn.w0), buffers, shared)

    @staticmethod
    def _kinds(rows: Sequence[int], seeds: Sequence[int]) -> list[int]:
        """A number for each pair of a stored member and a seed."""
        pairs = list(zip(rows, seeds, strict=True))
        return [pairs.index(pair) for pair in pairs]

    # ------------------------------------------------------------------ a run of this package

    def _rows(self, saved: Mapping[str, Any], members: Ensemble) -> list[int]:
        """The stored member of each member: that of its seed, data seed and alpha."""
        alphas, seeds = saved["alphas"], saved["seeds"]
        data_seeds = saved.get("data_seeds")
        wanted = [self._alpha(alphas, alpha) for alpha in members.alphas]
        own = members.data_seeds or (None,) * len(members)
        rows = []
        for alpha, seed, data_seed in zip(wanted, members.seeds, own, strict=True):
            found = [
                i
                for i in range(len(seeds))
                if (alphas[i], seeds[i]) == (alpha, seed)
                and (data_seed is None or data_seeds is None or data_seeds[i] == data_seed)
            ]
            if len(found) != 1:
                of_data = "" if data_seeds is None else f" and data seeds {sorted(set(data_seeds))}"
                of_own_data = "" if data_seed is None else f" and data seed {data_seed}"
                raise ConfigError(
                    f"init {self.path} holds {'several members' if found else 'no member'} of alpha {alpha:g} and seed "
                    f"{seed}{of_own_data}, but alphas {sorted(set(alphas))}, seeds {sorted(set(seeds))}{of_data}: "
                    "choose among its seeds, and its alpha by init_alpha"
                )
            rows.append(found[0])
        return rows

    def _alpha(self, stored: Sequence[float], own: float) -> float:
        if self.alpha is not None:
            return self.alpha
        return stored[0] if len(set(stored)) == 1 else own

    def _of_members(
        self,
        content: Mapping[str, Any],
        network: MemberNetwork,
        buffers: Named,
        rows: Sequence[int],
        attributes: Mapping[str, str],
    ) -> tuple[Named, Named]:
        """Weights and buffers (E, *shape) by name."""
        flat, state = final_weights(content, self.path), content["state_dict"]
        layout = content[KEY].get(LAYOUT)
        if layout is None:  # a checkpoint of an older version, which has no names
            layout = list(zip(network.names, map(list, network.shapes), strict=True))
        sizes = [torch.Size(shape).numel() for _, shape in layout]
        if sum(sizes) != flat.shape[1]:
            raise ConfigError(
                f"init {self.path} holds {flat.shape[1]} weights a member, the network of this configuration has "
                f"{network.weights}: give the network that was trained"
            )
        blocks = torch.split(flat[list(rows)].double(), sizes, dim=1)
        named = {name: block.reshape(len(rows), *shape) for (name, shape), block in zip(layout, blocks, strict=True)}
        own = {}
        for name, drawn in buffers.items():
            held = state.get(attributes[name])
            if self._is_fresh(name):
                own[name] = drawn
                continue
            if held is None or held.shape[1:] != drawn.shape[1:]:
                shape = None if held is None else tuple(held.shape[1:])
                raise self._differs(name, shape, tuple(drawn.shape[1:]))
            own[name] = held[list(rows)].to(drawn)
        return named, own

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
        return torch.cat(parts, dim=1)

    def _is_fresh(self, name: str) -> bool:
        return any(_begins(name, layer) for layer in self.fresh)

    def _differs(self, name: str, found: tuple[int, ...] | None, expected: tuple[int, ...]) -> ConfigError:
        held = "no" if found is None else f"shape {found} for"
        return ConfigError(
            f"init {self.path} has {held} {name}, which has shape {expected} in the network of this configuration: "
            "give the network that was trained, or name the layer as init_fresh"
        )


def stored_alphas(path: Path) -> list[float]:
    """The distinct alphas of the members in a run or checkpoint, in increasing order; none in other files of weights.

    Raises:
        ConfigError: the file does not exist, or is no file of weights.
    """
    saved = read_weights(path).get(KEY)
    return sorted(set(saved["alphas"])) if isinstance(saved, dict) else []


def final_weights(content: Mapping[str, Any], path: Path | None) -> Tensor:
    """(E, N) the present weights of the networks in a checkpoint.

    Raises:
        ConfigError: it is of a flow on a frozen kernel, or has no weights.
    """
    state = content["state_dict"]
    w0, w = state.get("w0"), state.get("w")
    if "frozen" in state or not isinstance(w0, Tensor):
        raise ConfigError(f"init {path} is of a flow on a kernel, and has no trained network: give the run of a fit")
    rows = [state.get(f"displacements.{NETWORK}.{i}") for i in range(len(w0))]
    if all(isinstance(row, Tensor) for row in rows):
        return w0 + torch.stack([cast(Tensor, row) for row in rows])
    if isinstance(state.get("dw"), Tensor):
        return w0.double() + cast(Tensor, state["dw"]).double()
    if not isinstance(w, Tensor):
        raise ConfigError(f"init {path} has no weights of its members: give the checkpoint.ckpt of a run")
    return w


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
