"""Ranks: which members of an ensemble this process trains, and what the processes of one run exchange.

Everything that is exchanged is a tensor on the host, sent over gloo, whatever the device is: a process that waits for
the others sleeps. Nothing is pickled.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.distributed import ProcessGroup, ReduceOp, distributed_c10d

from lazy_lightning.errors import ConfigError, RunError

_T = TypeVar("_T")
_SECONDS_TO_REPORT = 2.0
"""Seconds that the remaining ranks have to report the loss of one."""


class Ranks:
    """The processes among which the members are divided; member i belongs to rank i modulo their count.

    Args:
        rank: of this process.
        count: of these processes.
        group: gloo group of them; None for a single process.
        world: all processes of the run, where the samples are divided too; None if these are all.
    """

    def __init__(
        self, rank: int = 0, count: int = 1, group: ProcessGroup | Any = None, world: Ranks | None = None
    ) -> None:
        self.rank, self.count, self.group = rank, count, group
        self.world = self if world is None else world

    def rows(self, members: int, rank: int | None = None) -> list[int]:
        """The members of this rank, or of another one, in the order of the ensemble.

        Raises:
            ConfigError: there are fewer members than ranks.

        >>> Ranks(1, 3).rows(7)
        [1, 4]
        """
        if members < self.count:
            raise ConfigError(
                f"the ensemble has {members} member{'s' * (members > 1)} for {self.count} devices, each of which "
                f"trains at least one: set --trainer.devices {members} or less, or ask for more seeds or alphas"
            )
        return list(range(self.rank if rank is None else rank, members, self.count))

    def gather_members(self, tensors: Mapping[str, Tensor], members: int) -> dict[str, Tensor]:
        """Tensors (E, ...) of all members, on the host of every rank.

        Args:
            tensors: (E_r, ...) of this rank's members; the same names, dtypes and shapes on all ranks.
            members: E.
        """
        if self.count == 1:
            return dict(tensors)
        return {name: self._gather_rows(x.detach().cpu().contiguous(), members) for name, x in tensors.items()}

    def gather_some(self, tensors: Mapping[str, Tensor], members: Sequence[int]) -> dict[str, Tensor]:
        """Tensors (M, ...) of some members, on the host of every rank.

        Args:
            tensors: (M_r, ...) of those that this rank has, in their order; M_r may be 0.
            members: the M rows of the ensemble, see :meth:`own_of`.
        """
        if self.count == 1:
            return dict(tensors)
        held = [[i for i, row in enumerate(members) if row % self.count == rank] for rank in range(self.count)]
        whole = {}
        for name, x in tensors.items():
            parts = self._gather_padded(x.detach().cpu().contiguous(), max(map(len, held)))
            whole[name] = x.new_zeros(len(members), *x.shape[1:], device="cpu")
            for places, part in zip(held, parts, strict=True):
                whole[name][places] = part[: len(places)]
        return whole

    def own_of(self, members: Sequence[int]) -> tuple[list[int], list[int]]:
        """Those of some rows of the ensemble that are of this rank: their places in the list, and their rows here.

        >>> Ranks(1, 2).own_of([0, 3, 5])
        ([1, 2], [1, 2])
        """
        places = [i for i, row in enumerate(members) if row % self.count == self.rank]
        return places, [members[i] // self.count for i in places]

    def _gather_rows(self, own: Tensor, members: int) -> Tensor:
        parts = self._gather_padded(own, -(-members // self.count))
        return torch.stack(parts, dim=1).flatten(0, 1)[:members]  # row j of rank r is member j * count + r

    def _gather_padded(self, own: Tensor, rows: int) -> list[Tensor]:
        padded = own.new_zeros(rows, *own.shape[1:])
        padded[: len(own)] = own
        return self._gather_vectors(padded)

    def union(self, names: Sequence[str]) -> list[str]:
        """The names of all ranks of the run, each once: usually the same, unless an observer failed on one of them."""
        if self.world is not self:
            return self.world.union(names)
        if self.count == 1:
            return list(names)
        payload = json.dumps(list(names)).encode()
        sizes = self._gather_vectors(torch.tensor([len(payload), zlib.crc32(payload)]))
        if all(torch.equal(size, sizes[0]) for size in sizes):
            return list(names)
        padded = torch.zeros(max(int(size[0]) for size in sizes), dtype=torch.uint8)
        padded[: len(payload)] = torch.frombuffer(bytearray(payload), dtype=torch.uint8)
        texts = self._gather_vectors(padded)
        lists = [json.loads(bytes(x[: int(n[0])].tolist())) for x, n in zip(texts, sizes, strict=True)]
        return list(dict.fromkeys(name for each in lists for name in each))

    def _gather_vectors(self, own: Tensor) -> list[Tensor]:
        parts = [torch.empty_like(own) for _ in range(self.count)]
        self.together(lambda: torch.distributed.all_gather(parts, own, group=self.group))
        return parts

    def sum(self, own: Tensor) -> Tensor:
        """The sum over the ranks, on the device of what was given."""
        if self.count == 1:
            return own
        total = own.detach().cpu().clone()
        self.together(lambda: torch.distributed.all_reduce(total, ReduceOp.SUM, group=self.group))
        return total.to(own.device)

    def any(self, own: bool) -> bool:
        """Whether it holds on one of the ranks of the run."""
        if self.world is not self:
            return self.world.any(own)
        return bool(self.sum(torch.tensor([float(own)]))[0] > 0) if self.count > 1 else own

    def on_all(self, compute: Callable[[], _T]) -> _T:
        """What this rank computes, if all ranks of the run can: a rank that fails alone would leave others waiting.

        Raises:
            RunError: it has failed on another rank; on the rank itself, its own error.
        """
        failure: Exception | None = None
        try:
            computed = compute()
        except Exception as error:
            failure = error
        failed = self.any(failure is not None)
        if failure is not None:
            raise failure
        if failed:
            raise RunError("it has failed on another device, whose own message is above")
        return computed

    def first(self, own: float) -> float:
        """The value of rank 0 of the run; clocks differ between ranks."""
        if self.world is not self:
            return self.world.first(own)
        if self.count == 1:
            return own
        value = torch.tensor([float(own)], dtype=torch.float64)
        self.together(lambda: torch.distributed.broadcast(value, 0, group=self.group))
        return float(value[0])

    def together(self, exchange: Callable[[], _T]) -> _T:
        """Calls what all ranks must call.

        Raises:
            RunError: one of them has ended meanwhile.
        """
        try:
            return exchange()
        except RuntimeError as error:
            lost = self.world._lost()
            who = f"rank {', '.join(map(str, lost))}" if lost else "one of the ranks"
            raise RunError(
                f"{who} of {self.world.count} has ended before the others, so the run stops (its own message is above, "
                "if it left one): go on from the last checkpoint with fit --resume and the folder of the run"
            ) from error

    def _lost(self) -> list[int]:
        """The ranks that do not answer; rank 0 holds the place where they do."""
        try:
            store = distributed_c10d._get_default_store()
            store.set(f"lazy_lightning/left/{self.rank}", "1")  # may not notice that rank 0 has ended
            store.wait([f"lazy_lightning/left/{self.rank}"], timedelta(seconds=_SECONDS_TO_REPORT))
        except RuntimeError:
            return [0]
        lost = []
        for rank in range(self.count):
            try:
                store.wait([f"lazy_lightning/left/{rank}"], timedelta(seconds=_SECONDS_TO_REPORT))
            except RuntimeError:
                lost.append(rank)
        return lost


def ranks_of(trainer: Any) -> Ranks:
    """The processes of a trainer.

    Raises:
        ConfigError: there are several, and its strategy would make members silent copies, or its folder one a rank.
    """
    if trainer.world_size == 1:
        return Ranks()
    ranks = getattr(trainer.strategy, "ranks", None)
    if not isinstance(ranks, Ranks) or not getattr(trainer, "shares_its_folder", False):
        raise ConfigError(
            f"the strategy {type(trainer.strategy).__name__} on {trainer.world_size} devices would train copies of the "
            "same members: use the command line with --trainer.strategy ddp, or lazy_lightning.cli.trainer.FlowTrainer "
            'with strategy="ddp_members"'
        )
    return ranks
