"""MemberStrategy: Lightning's DDP for ensembles, whose members are dealt out to the ranks and never exchanged."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning import Trainer
from pytorch_lightning.strategies import DDPStrategy, StrategyRegistry
from pytorch_lightning.strategies.launchers import _SubprocessScriptLauncher
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from lazy_lightning.modules.joining import JoinWatch, announce_launcher, joined_store
from lazy_lightning.modules.observation import Observer
from lazy_lightning.modules.ranks import Ranks

NAME = "ddp_members"
_METRICS = "metrics."
_CALLBACKS = "callbacks"


class MemberStrategy(DDPStrategy):
    """Processes and devices as of ``ddp``, but no parameter is broadcast and no gradient reduced.

    The stock strategy gives every rank the parameters of rank 0, which makes the members of all ranks copies of its
    own. A checkpoint holds the members of all ranks in the order of the ensemble, as that of a single process does, so
    that any number of ranks can go on from it.
    """

    ranks: Ranks
    """All processes of the run."""

    def _configure_launcher(self) -> None:
        super()._configure_launcher()
        environment = self.cluster_environment
        if environment is not None and not environment.creates_processes_externally:
            announce_launcher()

    def setup_environment(self) -> None:
        """Starts the processes, with a group for the host's numbers beside that of the device.

        Raises:
            RunError: a rank has not joined.
        """
        self.set_world_ranks()
        launched = isinstance(self.cluster_environment, LightningEnvironment) and self.local_rank > 0
        started = self.launcher.procs if isinstance(self.launcher, _SubprocessScriptLauncher) else []
        with JoinWatch(self.global_rank, self.world_size, started, launched):
            super().setup_environment()
            group = torch.distributed.new_group(backend="gloo") if self.world_size > 1 else None
        self.ranks = Ranks(self.global_rank, self.world_size, group)

    def setup_distributed(self) -> None:
        """Joins the other ranks, before the stock strategy does, which would wait for half an hour.

        Raises:
            RunError: a rank has not joined.
        """
        environment = self.cluster_environment
        assert environment is not None  # set by the trainer
        os.environ["MASTER_ADDR"] = environment.main_address
        os.environ["MASTER_PORT"] = str(environment.main_port)
        store = joined_store(self.global_rank, self.world_size)
        super().setup_distributed()
        del store  # not before the process group holds the place where the ranks meet

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        """Every rank evaluates its members on all samples."""
        return {"num_replicas": 1, "rank": 0}

    def setup(self, trainer: Trainer) -> None:
        """As the stock strategy, which in an evaluation would broadcast the members of rank 0."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().setup(trainer)
            return
        assert self.accelerator is not None  # connected by the trainer
        assert self.model is not None
        self.accelerator.setup(trainer)
        self.precision_plugin.convert_module(self.model)
        self.model_to_device()
        self.setup_precision_plugin()

    def configure_ddp(self) -> None:
        """Leaves the module as it is: it is not wrapped, so its parameters are its own."""

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        """Writes one file with the members of all ranks."""
        members, ranks = len(self._module.ensemble), self._module.ranks
        own = len(ranks.rows(members))
        checkpoint = self._module.stack_members(checkpoint, own)
        parts = dict(_member_tensors(checkpoint, self._observer_keys(), own))
        if ranks.any(set(ranks.union(list(parts))) != set(parts)):  # an observer has failed on some ranks
            parts = {key: where for key, where in parts.items() if not key.startswith(_CALLBACKS)}
        tensors = {key: holder[name] for key, (holder, name) in parts.items()}
        whole = ranks.gather_members(tensors, members)
        for key, (holder, name) in parts.items():
            holder[name] = whole[key]
        try:
            super().save_checkpoint(self._module.split_members(checkpoint, members), filepath, storage_options)
        finally:  # the optimizer's and the observers' own mappings
            for key, (holder, name) in parts.items():
                holder[name] = tensors[key]

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The checkpoint with this rank's members alone."""
        members = len(self._module.ensemble)
        checkpoint: dict[str, Any] = self._module.stack_members(super().load_checkpoint(*args, **kwargs), members)
        rows = self._module.ranks.rows(members)
        for _, (holder, name) in list(_member_tensors(checkpoint, self._observer_keys(), members)):
            # what does not fit is left to the check of the content, which names it
            if holder[name].ndim > 0 and len(holder[name]) == members:
                holder[name] = holder[name][rows]
        return cast("dict[str, Any]", self._module.split_members(checkpoint, len(rows)))

    @property
    def _module(self) -> Any:
        return self.lightning_module

    def _observer_keys(self) -> set[str]:
        observers = [each for each in self._module.trainer.callbacks if isinstance(each, Observer)]
        return {observer.state_key for observer in observers if observer.state_by_member}


def _member_tensors(
    checkpoint: Mapping[str, Any], observers: set[str], members: int
) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Where a checkpoint holds a tensor with a member axis: a name of its own, and the mapping with its key.

    Args:
        checkpoint: as Lightning makes it.
        observers: keys of the callbacks whose state may be one of members.
        members: length of the member axis.
    """

    def of_members(x: Tensor) -> bool:
        return x.ndim > 0 and len(x) == members

    weights = {name: x for name, x in checkpoint["state_dict"].items() if not name.startswith(_METRICS)}
    for name in weights:
        yield f"state_dict/{name}", (checkpoint["state_dict"], name)
    yield from _walk(checkpoint.get("optimizer_states", []), "optimizer", of_members)
    yield from _walk(checkpoint.get("lr_schedulers", []), "scheduler", of_members)
    callbacks = checkpoint.get("callbacks", {})
    yield from _walk({key: callbacks[key] for key in sorted(observers & set(callbacks))}, _CALLBACKS, of_members)


def _walk(node: Any, path: str, wanted: Callable[[Tensor], bool]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        if isinstance(value, Tensor):
            if wanted(value):
                yield f"{path}/{key}", (node, key)
        else:
            yield from _walk(value, f"{path}/{key}", wanted)


if NAME not in StrategyRegistry:
    StrategyRegistry.register(NAME, MemberStrategy, description="DDP that deals the members of an ensemble out")
