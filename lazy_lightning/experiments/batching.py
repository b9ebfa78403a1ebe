"""Division of a sweep's members into batches, each of which is trained as one run."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lazy_lightning.experiments.sweep_spec import KernelOf
from lazy_lightning.plain_text import printable
from lazy_lightning.runs import configuration

T = TypeVar("T")

Member = tuple[float, int]
"""(alpha, seed)"""

KERNEL_MODULE = "lazy_lightning.modules.kernel_module.KernelModule"


@dataclass(frozen=True)
class MemberCost:
    """The measured or estimated cost of one member."""

    weights: int
    """Number of weights of the network."""
    bytes: float
    """Memory of one additional member in a batch."""
    seconds: float
    """Time of all steps and observations of a member in a batch."""
    start: float = 0.0
    """Seconds that a batch takes in addition, independent of its number of members."""


@dataclass(frozen=True)
class ConfigGroup:
    """A configuration without its alpha and seeds, whose members can share a batch."""

    config: Mapping[str, Any] = field(repr=False)
    """The content of ``config.yaml``."""
    setting: Mapping[str, Any]
    """The keys and values that distinguish the group within the sweep, for display."""
    key: str
    """The hash of the configuration, see :func:`configuration.family`."""
    members: tuple[Member, ...]
    """The members of the sweep in this group."""

    @classmethod
    def of(
        cls,
        config: Mapping[str, Any],
        setting: Mapping[str, Any],
        members: Iterable[Member],
        source: str | None = None,
    ) -> ConfigGroup:
        """Returns the group of a configuration; for ``source`` see :func:`configuration.family`."""
        return cls(config, setting, configuration.family(config, source), tuple(members))

    def member_id(self, member: Member) -> str:
        """Returns the identity of a member, see :func:`configuration.member`."""
        return configuration.member(configuration.point(self.key, member[0]), member[1])

    def with_members(self, members: Iterable[Member]) -> ConfigGroup:
        """Returns a copy of the group with other members."""
        return ConfigGroup(self.config, self.setting, self.key, tuple(members))


@dataclass(frozen=True)
class Batch:
    """All pairs of some alphas and seeds of a configuration group, trained as one run."""

    group: ConfigGroup
    alphas: tuple[float, ...]
    seeds: tuple[int, ...]
    cost: MemberCost

    @property
    def key(self) -> str:
        """The name of the run, a hash of its members."""
        return configuration.run(self.group.key, self.alphas, self.seeds)

    @property
    def members(self) -> list[Member]:
        """The members in the order of the run's batch axis."""
        return [(alpha, seed) for alpha in self.alphas for seed in self.seeds]

    @property
    def seconds(self) -> float:
        """The estimated time of the batch."""
        return self.cost.start + self.cost.seconds * len(self.members)

    @property
    def bytes(self) -> float:
        """The estimated memory of the batch."""
        return self.cost.bytes * len(self.members)

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of the run, with its alphas and seeds."""
        config = copy.deepcopy(dict(self.group.config))
        config["model"]["init_args"] |= {"alpha": list(self.alphas), "seeds": list(self.seeds)}
        return config

    def halves(self) -> list[Batch]:
        """Returns two batches of about half the size, or an empty list if there is only one member."""
        if len(self.seeds) > 1:
            middle = len(self.seeds) // 2
            return [
                Batch(self.group, self.alphas, part, self.cost) for part in (self.seeds[:middle], self.seeds[middle:])
            ]
        if len(self.alphas) > 1:
            middle = len(self.alphas) // 2
            return [
                Batch(self.group, part, self.seeds, self.cost) for part in (self.alphas[:middle], self.alphas[middle:])
            ]
        return []


def plan_batches(
    groups: Sequence[ConfigGroup],
    cost: Callable[[ConfigGroup], MemberCost],
    budget: float,
    workers: int,
    most: int | None,
) -> list[Batch]:
    """Divides the members of configuration groups into batches, sorted by decreasing time.

    Members that differ only in alpha and seed share a batch, as far as memory allows. Seeds are divided before alphas,
    because observers share the quantities of members with the same initial weights. With several workers, no batch
    takes longer than the total time divided by the number of workers.

    Args:
        groups: the groups with the members that are still to be trained.
        cost: function that returns the cost of one member of a group.
        budget: the memory of a batch in bytes.
        workers: the number of batches that are trained in parallel.
        most: the largest number of members in a batch; None for no limit.
    """
    costs = {group.key: cost(group) for group in groups}
    total = sum(costs[group.key].seconds * len(group.members) for group in groups)
    share = total / workers if workers > 1 else math.inf
    batches = []
    for group in groups:
        price = costs[group.key]
        fits = [most or math.inf, budget / max(price.bytes, 1.0), share / max(price.seconds, 1e-12)]
        capacity = max(1, int(min(*fits, len(group.members) or 1)))
        for alphas, seeds in rectangles(group.members):
            batches += [Batch(group, a, s, price) for a, s in split_rectangle(alphas, seeds, capacity)]
    return sorted(batches, key=lambda batch: -batch.seconds)


def rectangles(members: Sequence[Member]) -> list[tuple[tuple[float, ...], tuple[int, ...]]]:
    """Groups members into products of alphas and seeds: alphas with the same seeds are in one product.

    >>> rectangles([(0.1, 0), (0.1, 1), (1.0, 0), (1.0, 1), (10.0, 1)])
    [((0.1, 1.0), (0, 1)), ((10.0,), (1,))]
    """
    seeds_of: dict[float, list[int]] = {}
    for alpha, seed in dict.fromkeys(members):
        seeds_of.setdefault(alpha, []).append(seed)
    alphas_of: dict[tuple[int, ...], list[float]] = {}
    for alpha, seeds in seeds_of.items():
        alphas_of.setdefault(tuple(sorted(seeds)), []).append(alpha)
    return [(tuple(sorted(alphas)), seeds) for seeds, alphas in alphas_of.items()]


def split_rectangle(
    alphas: Sequence[float], seeds: Sequence[int], capacity: int
) -> list[tuple[tuple[float, ...], tuple[int, ...]]]:
    """Splits a product of alphas and seeds into parts of at most ``capacity`` members and nearly equal size.

    >>> split_rectangle((0.1, 1.0), (0, 1, 2, 3), 4)
    [((0.1, 1.0), (0, 1)), ((0.1, 1.0), (2, 3))]
    """
    parts_of_seeds = _parts(seeds, max(1, capacity // len(alphas)))
    return [(a, s) for s in parts_of_seeds for a in _parts(alphas, max(1, capacity // len(s)))]


def kernel_group(network: ConfigGroup, at: KernelOf, checkpoint: str | None, members: Iterable[Member]) -> ConfigGroup:
    """Returns the configuration group of flows on the frozen kernels of a group's networks.

    Args:
        network: the group of the networks.
        at: the weights at which the kernel is computed.
        checkpoint: the path of the checkpoint with the trained weights; None for the kernel at initialisation.
        members: the members of the new group. Neither the kernel at initialisation nor centred outputs depend on alpha.
    """
    config = copy.deepcopy(dict(network.config))
    config["model"]["class_path"] = KERNEL_MODULE
    config["model"]["init_args"] |= {"at": at, "checkpoint": checkpoint, "layers": None, "kernel_outputs": "full"}
    return ConfigGroup.of(config, {**network.setting, "kernel": f"at {at}"}, members, network.key)


def setting_label(setting: Mapping[str, Any]) -> str:
    """Describes the keys and values that distinguish a configuration group.

    >>> setting_label({"model.network.width": 30, "kernel": "at init"})
    'width 30, kernel at init'
    """
    return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in setting.items())


def batch_label(batch: Batch) -> str:
    """Describes a batch by its setting within the sweep, its alphas and its number of seeds."""
    setting, alphas = setting_label(batch.group.setting), batch.alphas
    span = f"{len(alphas)} alphas {min(alphas):.2g} to {max(alphas):.2g} x " if len(alphas) > 1 else ""
    size = f"{span}{len(batch.seeds)} seed{'s' * (len(batch.seeds) > 1)}"
    return printable(f"{setting} ({size})" if setting else size)


def _parts(items: Sequence[T], size: int) -> list[tuple[T, ...]]:
    count = math.ceil(len(items) / size)
    ends = [round(i * len(items) / count) for i in range(count + 1)]
    return [tuple(items[a:b]) for a, b in itertools.pairwise(ends)]
