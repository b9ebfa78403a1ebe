"""DataSets: the training and test samples of members that differ in the seed of their data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor

from lazy_lightning.data.flow_data import FlowData
from lazy_lightning.data.split import Split
from lazy_lightning.data.streams import StreamedTask
from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.member_samples import MemberSamples
from lazy_lightning.runs.configuration import BATCH_SEED

SetName = Literal["train", "test", "val"]
TRAIN_SEED = "train_seed"
_FIXED = ("test_seed", "kernel_seed", "val_seed")


class DataSets:
    """One datamodule for each data seed, and the samples of all members made of them.

    A set in which the data sets agree, such as a test set whose preprocessing does not depend on the training samples,
    stays one tensor that all members share.

    Args:
        seeds: the data seed of each member of the run; None where members share the data of the datamodule.
        keys: the seeds of the datamodule that a data seed sets; None for ``train_seed`` alone.

    Raises:
        ConfigError: a key is not the name of a seed that may differ between members.
    """

    def __init__(self, seeds: Sequence[int] | None, keys: Sequence[str] | None) -> None:
        if keys is not None and seeds is None:
            raise ConfigError(f"data_seed_keys is {keys}, but there are no data_seeds: set them too, or leave both out")
        self.keys = tuple(keys or (TRAIN_SEED,))
        wrong = [key for key in self.keys if not key.endswith("_seed") or key in _FIXED]
        if wrong:
            raise ConfigError(
                f"data_seed_keys has {wrong[0]}, expected seeds of the training data such as train_seed or "
                "teacher_seed: all members are tested on the same samples"
            )
        self.seeds = None if seeds is None else tuple(dict.fromkeys(seeds))
        self._data: list[FlowData] = []
        self._own = torch.zeros(0, dtype=torch.int64)

    @property
    def differ(self) -> bool:
        """Whether members have data of their own."""
        return self.seeds is not None and self.keys != (BATCH_SEED,)

    @property
    def set_batches(self) -> bool:
        """Whether the data seeds are seeds of the order of mini-batches."""
        return BATCH_SEED in self.keys

    def build(self, base: FlowData, own: Sequence[int] | None) -> None:
        """Draws the data of all seeds, once.

        Args:
            base: the datamodule of the run.
            own: the data seed of each member of this process.

        Raises:
            ConfigError: the datamodule has no such seed, or its data sets differ in more than their content.
        """
        if self.seeds is None or own is None:
            return
        self._draw(base)
        positions = {seed: i for i, seed in enumerate(self.seeds)}
        self._own = torch.tensor([positions[seed] for seed in own], dtype=torch.int64)

    def _draw(self, base: FlowData) -> None:
        if self.seeds is None or self._data:
            return
        of_data = [key for key in self.keys if key != BATCH_SEED]
        self._data = [base.with_seeds(dict.fromkeys(of_data, seed)) if of_data else base for seed in self.seeds]
        for seed, data in zip(self.seeds, self._data, strict=True):
            for name in ("train", "test", "val"):
                split, first = getattr(data, name), getattr(base, name)
                if (split.x.shape, split.y.shape, data.task) != (first.x.shape, first.y.shape, base.task):
                    raise ConfigError(
                        f"the {name} set of data seed {seed} has inputs of shape {tuple(split.x.shape)}, that of the "
                        f"datamodule {tuple(first.x.shape)}: members of one run need sets of equal size"
                    )

    def data_of(self, base: FlowData, seed: int | None) -> FlowData:
        """The datamodule of a data seed; the run's own without one."""
        return base if self.seeds is None or seed is None else self._data[self.seeds.index(seed)]

    def positions(self, seeds: Sequence[int | None]) -> Tensor:
        """(K,) int64 the position of the set of each data seed among all sets; 0 without data seeds."""
        return torch.tensor([0 if seed is None or self.seeds is None else self.seeds.index(seed) for seed in seeds])

    def training_sets(self, base: FlowData) -> list[Split]:
        """All distinct training sets of the run."""
        return [data.train for data in self._data] or [base.train]

    def split(self, base: FlowData, name: SetName) -> Split:
        """One set of all members of this process: tensors, or where members differ their own samples."""
        if not self._data:
            return cast(Split, getattr(base, name))
        return self._joined([cast(Split, getattr(data, name)) for data in self._data])

    def fresh(self, base: StreamedTask, n: int, draw: int) -> Split:
        """``n`` new samples of the task of each member of this process, as a run of its own would draw them.

        Args:
            base: the datamodule of the run.
            n: number of samples.
            draw: number of the draw; the inputs of a draw are the same for all members.
        """
        if not self._data:
            return base.fresh(n, draw)
        return self._joined([cast(StreamedTask, data).fresh(n, draw) for data in self._data])

    def _joined(self, sets: Sequence[Split]) -> Split:
        return Split(*(_of_members([split[i] for split in sets], self._own) for i in range(len(Split._fields))))

    def whole_split(self, base: FlowData, name: SetName, seeds: Sequence[int] | None) -> Split:
        """One set of members with these data seeds, (E, n, ...)."""
        if self.seeds is None or seeds is None:
            return cast(Split, getattr(base, name))
        own = torch.tensor([self.seeds.index(seed) for seed in seeds], dtype=torch.int64)
        sets = [cast(Split, getattr(data, name)) for data in self._data]
        return Split(*(torch.stack([split[i] for split in sets])[own] for i in range(len(Split._fields))))

    def require_shared(self, base: FlowData, name: SetName) -> None:
        """Checks that a set can be evaluated in batches of the datamodule's loader.

        Raises:
            ConfigError: it differs between the members.
        """
        self._draw(base)
        given = cast(Split, getattr(base, name))
        own = [cast(Split, getattr(data, name)) for data in self._data]
        if not all(torch.equal(split.x, given.x) and torch.equal(split.y, given.y) for split in own):
            raise ConfigError(
                f"all members would be evaluated on the {name} set of the datamodule, but with model.data_seeds "
                "members have sets of their own, preprocessed by their training samples: use the outputs.safetensors "
                "of the fit, or set data.statistics to pool before it"
            )


def _of_members(sets: Sequence[Tensor], own: Tensor) -> Tensor:
    """(n, ...) if all sets are equal, else the samples of each member, which stand for a tensor."""
    return cast(Tensor, MemberSamples.of(sets, own))
