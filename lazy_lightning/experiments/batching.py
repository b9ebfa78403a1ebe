"""Division of a sweep's members into batches, each of which is trained as one run."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from lazy_lightning.experiments.config_group import ConfigGroup, Member
from lazy_lightning.experiments.data_seed_axis import data_seed_sets, joined
from lazy_lightning.experiments.sweep_spec import KernelOf
from lazy_lightning.plain_text import printable
from lazy_lightning.runs import configuration

T = TypeVar("T")

KERNEL_MODULE = "lazy_lightning.modules.kernel_module.KernelModule"
_BATCHES_A_WORKER = 3
"""Number of batches into which the work of a worker is divided, so that all end at about the same time."""
_STARTS = 10
"""The time of a batch that is not divided further for that, in units of what a batch costs besides its members."""


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
    own_samples: float = 0.0
    """Memory of one additional member in a batch of several data sets, besides ``bytes``."""


@dataclass(frozen=True)
class Batch:
    """All pairs of some alphas and seeds of a configuration group, trained as one run.

    With ``parts`` the run trains these members of several groups that differ in one seed of their data alone, as
    members with data seeds, see :mod:`~lazy_lightning.experiments.data_seed_axis`.
    """

    group: ConfigGroup
    alphas: tuple[float, ...]
    seeds: tuple[int, ...]
    cost: MemberCost
    parts: tuple[ConfigGroup, ...] = ()
    """The groups, in the order of the run's data seeds; empty if it is the group alone."""

    @classmethod
    def of(
        cls, parts: Sequence[ConfigGroup], alphas: tuple[float, ...], seeds: tuple[int, ...], cost: MemberCost
    ) -> Batch:
        """Returns the batch of one group, or of several that differ in one seed of their data."""
        if len(parts) == 1:
            return cls(parts[0], alphas, seeds, cost)
        return cls(joined(parts), alphas, seeds, cost, tuple(parts))

    @property
    def key(self) -> str:
        """The name of the run, a hash of its members."""
        return configuration.run(self.group.key, self.alphas, self.seeds)

    @property
    def members(self) -> list[Member]:
        """The members in the order of the run's batch axis, each once for every part."""
        parts = max(1, len(self.parts))
        return [(alpha, seed) for alpha in self.alphas for seed in self.seeds for _ in range(parts)]

    @property
    def places(self) -> set[tuple[str, Member]]:
        """The key of the group and the (alpha, seed) of each member."""
        return {(group.key, member) for group in self.parts or (self.group,) for member in self.members}

    @property
    def seconds(self) -> float:
        """The estimated time of the batch."""
        return self.cost.start + self.cost.seconds * len(self.members)

    @property
    def bytes(self) -> float:
        """The estimated memory of the batch."""
        return (self.cost.bytes + bool(self.parts) * self.cost.own_samples) * len(self.members)

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of the run, with its alphas and seeds."""
        config = copy.deepcopy(dict(self.group.config))
        config["model"]["init_args"] |= {"alpha": list(self.alphas), "seeds": list(self.seeds)}
        return config

    def halves(self) -> list[Batch]:
        """Returns two batches of about half the size, or an empty list if there is only one member."""
        groups = self.parts or (self.group,)
        if len(groups) > 1:
            return [Batch.of(part, self.alphas, self.seeds, self.cost) for part in _halves(groups)]
        if len(self.seeds) > 1:
            return [Batch(self.group, self.alphas, part, self.cost) for part in _halves(self.seeds)]
        if len(self.alphas) > 1:
            return [Batch(self.group, part, self.seeds, self.cost) for part in _halves(self.alphas)]
        return []


def plan_batches(
    groups: Sequence[ConfigGroup],
    cost: Callable[[ConfigGroup], MemberCost],
    budget: float,
    workers: int,
    most: int | None,
    joins: Callable[[Sequence[ConfigGroup]], bool] | None = None,
    even: bool = False,
) -> list[Batch]:
    """Divides the members of configuration groups into batches, sorted by decreasing time.

    Members that differ only in alpha and seed share a batch, as far as memory allows. Seeds are divided before alphas,
    because observers share the quantities of members with the same initial weights. With several workers, no batch
    takes longer than the total time divided by the number of workers, and with ``even`` than a third of that, unless it
    is so short that its start counts. Groups that differ in one seed of their data alone share a batch, too, if
    ``joins`` allows it and the members of one of them do not fill a batch.

    Args:
        groups: the groups with the members that are still to be trained.
        cost: function that returns the cost of one member of a group.
        budget: the memory of a batch in bytes.
        workers: the number of batches that are trained in parallel.
        most: the largest number of members in a batch; None for no limit.
        joins: function that returns whether these groups can be trained as one run; None keeps groups apart.
        even: whether batches are divided further, so that workers end at about the same time: on a CPU, where small
            batches cost no more a member.
    """
    costs = {group.key: cost(group) for group in groups}
    share = _longest(groups, costs, workers, even)
    batches = []
    for parts in [[group] for group in groups] if joins is None else data_seed_sets(groups, joins):
        price = costs[parts[0].key]
        needed = price.bytes + (len(parts) > 1) * price.own_samples
        fits = [most or math.inf, budget / max(needed, 1.0), share / max(price.seconds, 1e-12)]
        capacity = max(1, int(min(*fits, len(parts) * len(parts[0].members) or 1)))
        for alphas, seeds in rectangles(parts[0].members):
            for chosen in _parts(parts, max(1, capacity // (len(alphas) * len(seeds)))):
                batches += [Batch.of(chosen, a, s, price) for a, s in split_rectangle(alphas, seeds, capacity)]
    return sorted(batches, key=lambda batch: -batch.seconds)


def _longest(groups: Sequence[ConfigGroup], costs: Mapping[str, MemberCost], workers: int, even: bool) -> float:
    """Returns the longest time that the members of a batch may take."""
    if workers == 1:
        return math.inf
    share = sum(costs[group.key].seconds * len(group.members) for group in groups) / workers
    if not even:
        return share
    start = max((price.start for price in costs.values()), default=0.0)
    return min(share, max(share / _BATCHES_A_WORKER, _STARTS * start))


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
    size += f" x {len(batch.parts)} data seeds" if batch.parts else ""
    return printable(f"{setting} ({size})" if setting else size)


def _halves(items: Sequence[T]) -> tuple[tuple[T, ...], tuple[T, ...]]:
    middle = len(items) // 2
    return tuple(items[:middle]), tuple(items[middle:])


def _parts(items: Sequence[T], size: int) -> list[tuple[T, ...]]:
    count = math.ceil(len(items) / size)
    ends = [round(i * len(items) / count) for i in range(count + 1)]
    return [tuple(items[a:b]) for a, b in itertools.pairwise(ends)]
