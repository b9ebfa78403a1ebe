"""From the members that a sweep wants to the batches that train them."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lazy_lightning.experiments.sweep_spec import KernelOf
from lazy_lightning.runs import configuration

T = TypeVar("T")

Member = tuple[float, int]
"""(alpha, seed)"""

KERNEL_MODULE = "lazy_lightning.modules.kernel_module.KernelModule"


@dataclass(frozen=True)
class MemberCost:
    """Of one member, measured or guessed."""

    weights: int
    bytes: float
    """Memory that one more member takes."""
    seconds: float
    """Of all its steps and observations, in a batch."""
    start: float = 0.0
    """Seconds that a batch takes beside, however many members it has."""


@dataclass(frozen=True)
class ConfigGroup:
    """A configuration without its alpha and seeds: its members can share a batch."""

    config: Mapping[str, Any] = field(repr=False)
    """As in ``config.yaml``."""
    setting: Mapping[str, Any]
    """What sets it apart within the sweep, for people."""
    key: str
    members: tuple[Member, ...]
    """That are wanted."""

    @classmethod
    def of(
        cls,
        config: Mapping[str, Any],
        setting: Mapping[str, Any],
        members: Iterable[Member],
        source: str | None = None,
    ) -> ConfigGroup:
        """``source``: see :func:`configuration.family`."""
        return cls(config, setting, configuration.family(config, source), tuple(members))

    def member_id(self, member: Member) -> str:
        """See :func:`configuration.member`."""
        return configuration.member(configuration.point(self.key, member[0]), member[1])

    def with_members(self, members: Iterable[Member]) -> ConfigGroup:
        """The same, of other members."""
        return ConfigGroup(self.config, self.setting, self.key, tuple(members))


@dataclass(frozen=True)
class Batch:
    """All pairs of some alphas and seeds of a family: one run."""

    group: ConfigGroup
    alphas: tuple[float, ...]
    seeds: tuple[int, ...]
    cost: MemberCost

    @property
    def key(self) -> str:
        """The run's name."""
        return configuration.run(self.group.key, self.alphas, self.seeds)

    @property
    def members(self) -> list[Member]:
        """In the order of the run."""
        return [(alpha, seed) for alpha in self.alphas for seed in self.seeds]

    @property
    def seconds(self) -> float:
        """Estimated."""
        return self.cost.start + self.cost.seconds * len(self.members)

    @property
    def bytes(self) -> float:
        """Estimated."""
        return self.cost.bytes * len(self.members)

    @property
    def config(self) -> dict[str, Any]:
        """Of the run."""
        config = copy.deepcopy(dict(self.group.config))
        config["model"]["init_args"] |= {"alpha": list(self.alphas), "seeds": list(self.seeds)}
        return config

    def halves(self) -> list[Batch]:
        """Two batches of half the size each; nothing if there is one member."""
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
    """Batches of the families' members, the longest first.

    Members that differ in alpha and seed alone share a batch, as far as memory allows; seeds are divided before alphas,
    because observers share what belongs to a seed's start. With several workers no batch is longer than its share of
    the whole.

    Args:
        groups: with the members that are still to be trained.
        cost: of a family's member.
        budget: bytes that a batch may take.
        workers: batches that are trained at a time.
        most: members of a batch, at most.
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
    """Members as products of alphas and seeds: alphas that want the same seeds go together.

    >>> rectangles([(0.1, 0), (0.1, 1), (1.0, 0), (1.0, 1), (10.0, 1)])
    [((0.1, 1.0), (0, 1)), ((10.0,), (1,))]
    """
    wanted: dict[float, list[int]] = {}
    for alpha, seed in dict.fromkeys(members):
        wanted.setdefault(alpha, []).append(seed)
    together: dict[tuple[int, ...], list[float]] = {}
    for alpha, seeds in wanted.items():
        together.setdefault(tuple(sorted(seeds)), []).append(alpha)
    return [(tuple(sorted(alphas)), seeds) for seeds, alphas in together.items()]


def split_rectangle(
    alphas: Sequence[float], seeds: Sequence[int], capacity: int
) -> list[tuple[tuple[float, ...], tuple[int, ...]]]:
    """A product in parts of at most ``capacity`` members and of nearly equal size.

    >>> split_rectangle((0.1, 1.0), (0, 1, 2, 3), 4)
    [((0.1, 1.0), (0, 1)), ((0.1, 1.0), (2, 3))]
    """
    parts_of_seeds = _parts(seeds, max(1, capacity // len(alphas)))
    return [(a, s) for s in parts_of_seeds for a in _parts(alphas, max(1, capacity // len(s)))]


def kernel_group(network: ConfigGroup, at: KernelOf, checkpoint: str | None, members: Iterable[Member]) -> ConfigGroup:
    """The flow on the frozen kernel of a family's networks.

    Args:
        network: whose kernel it is.
        at: the weights whose kernel it is.
        checkpoint: where trained weights are; None at initialisation.
        members: with their alphas; the kernel at initialisation does not depend on alpha, centred outputs neither.
    """
    config = copy.deepcopy(dict(network.config))
    config["model"]["class_path"] = KERNEL_MODULE
    config["model"]["init_args"] |= {"at": at, "checkpoint": checkpoint, "layers": None, "kernel_outputs": "full"}
    return ConfigGroup.of(config, {**network.setting, "kernel": f"at {at}"}, members, network.key)


def _parts(items: Sequence[T], size: int) -> list[tuple[T, ...]]:
    count = math.ceil(len(items) / size)
    ends = [round(i * len(items) / count) for i in range(count + 1)]
    return [tuple(items[a:b]) for a, b in itertools.pairwise(ends)]
