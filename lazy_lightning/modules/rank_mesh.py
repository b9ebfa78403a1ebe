"""The mesh of a run's processes: one axis divides the members of the ensemble, the other the training samples."""

from __future__ import annotations

from typing import Any, Literal, get_args

from torch.distributed.device_mesh import init_device_mesh

from lazy_lightning.errors import ConfigError
from lazy_lightning.modules.ranks import Ranks, ranks_of
from lazy_lightning.modules.sample_ranks import SampleRanks

Shard = Literal["members", "samples", "both"]
_AXES = ("members", "samples")


def check_shard(shard: object) -> Shard:
    """Returns the value of ``shard``, after a check.

    Raises:
        ConfigError: it is none of members, samples and both.
    """
    if shard not in get_args(Shard):
        raise ConfigError(f"shard is {shard!r}, expected what several devices divide: {', '.join(get_args(Shard))}")
    return shard  # type: ignore[return-value]  # just checked


def sample_slices(shard: Shard, processes: int, members: int) -> int:
    """Returns the number of slices into which the training set is divided.

    With ``both`` the members are spread over as many processes as leaves two slices at least, since members need no
    exchange: two slices, or the next divisor of the number of processes that leaves no process without a member.

    >>> [sample_slices("both", 4, members=6), sample_slices("both", 8, members=3), sample_slices("both", 3, members=9)]
    [2, 4, 3]
    """
    if shard == "members" or processes == 1:
        return 1
    if shard == "samples":
        return processes
    return next(k for k in range(2, processes + 1) if processes % k == 0 and processes // k <= members)


def divided_processes(trainer: Any, shard: Shard, members: int) -> tuple[Ranks, SampleRanks]:
    """Returns the processes of a trainer along both axes; all of them must call it together.

    Raises:
        ConfigError: there are several, and the strategy of the trainer is another than ours.
    """
    world = ranks_of(trainer)
    slices = sample_slices(shard, world.count, members)
    if slices == 1:
        return world, SampleRanks()
    mesh = init_device_mesh(
        trainer.strategy.root_device.type,
        (world.count // slices, slices),
        mesh_dim_names=_AXES,
        backend_override={"members": "gloo"},  # members exchange numbers of the host
    )
    row, column = divmod(world.rank, slices)
    ranks = Ranks(row, world.count // slices, mesh.get_group("members"), world)
    return ranks, SampleRanks(column, slices, mesh.get_group("samples"), row * slices, world.together)
