"""Data of the user's own classes: any ``torch.utils.data.Dataset``, or the loaders of any LightningDataModule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Sized
from typing import Any, cast

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import Dataset

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.data.flow_data import FlowData, Prepared
from lazy_lightning.data.image_data import ImageData
from lazy_lightning.data.labels import LabelRule, label
from lazy_lightning.data.pool import Pool, as_float
from lazy_lightning.data.split import Split
from lazy_lightning.errors import ConfigError, DataError


class FromDataset(ImageData):
    """Samples of any map-style ``torch.utils.data.Dataset`` of pairs (input, target), read into memory once.

    Inputs and targets may be tensors, numpy arrays or numbers; uint8 inputs are divided by 255. Integer targets are
    classes; floating-point targets need ``labels: regression``.

    Args:
        dataset: the dataset, or in a configuration its ``class_path`` and ``init_args``.
        options: labels, preprocessing, sizes and seeds of :class:`ImageData` and :class:`FlowData`.

    Raises:
        ConfigError: the dataset has no length.
        DataError: at setup, when its samples are not pairs of numbers of one shape.
    """

    def __init__(self, dataset: Dataset[Any], **options: Any) -> None:
        super().__init__(**options)
        if not isinstance(dataset, Sized):
            raise ConfigError(
                f"dataset is a {type(dataset).__name__} without a length, expected a map-style Dataset with __len__ "
                "and __getitem__: read the samples into a TensorDataset"
            )
        self.dataset = dataset

    def load_pool(self) -> Pool:
        """Reads all samples in order."""
        dataset = cast(Any, self.dataset)
        return pool_of((dataset[i] for i in range(len(dataset))), type(self.dataset).__name__)


class FromDataModule(FlowData):
    """The sets of any LightningDataModule, as its own train, test and validation loaders give them.

    The training set is one pass over ``train_dataloader()``, the test set over ``test_dataloader()``, the validation
    set over ``val_dataloader()`` if there is one. Nothing is split or preprocessed here, so a loader that shuffles or
    augments gives what its first pass gives. Binary labels become +1 and -1 by ``labels``.

    Args:
        datamodule: the datamodule, or in a configuration its ``class_path`` and ``init_args``.
        labels: as of :class:`ImageData`.
        batch_size: None for full-batch flow, or the mini-batch size.
        train_seed: draws the order of mini-batches.

    Raises:
        ConfigError: it has no training or test loader.
        DataError: at setup, when batches are not pairs of numbers of one shape.
    """

    def __init__(
        self,
        datamodule: LightningDataModule,
        labels: LabelRule = "multiclass",
        batch_size: int | None = None,
        train_seed: int = 0,
    ) -> None:
        check_arguments(FromDataModule, locals())
        super().__init__(1, 1, batch_size=batch_size, train_seed=train_seed)
        if isinstance(datamodule, FlowData):
            raise ConfigError(f"{type(datamodule).__name__} needs no FromDataModule: use it as it is")
        self.datamodule = datamodule
        self.labels = labels

    def build(self) -> Prepared:
        """Reads the loaders once, and labels their sets together, so that all have the same classes."""
        self.datamodule.prepare_data()  # where it downloads; the command line uses the sets before a trainer does
        for stage in ("fit", "test"):
            self.datamodule.setup(stage)
        pools = {"train": self._read("train", True), "test": self._read("test", True), "val": self._read("val", False)}
        present = {name: pool for name, pool in pools.items() if pool is not None}
        labelled = label(torch.cat([pool.y for pool in present.values()]), self.labels)
        sets: dict[str, Split] = {}
        start = 0
        for name, pool in present.items():
            inside = (labelled.keep >= start) & (labelled.keep < start + len(pool.y))
            index = labelled.keep[inside] - start
            sets[name] = Split(as_float(pool.x[index]), labelled.y[inside], index)
            start += len(pool.y)
        self.n_train, self.n_test = len(sets["train"].y), len(sets["test"].y)
        self.n_val = len(sets["val"].y) if "val" in sets else 0
        empty = Split(*(part[:0] for part in sets["test"]))
        return Prepared(sets["train"], sets["test"], empty, labelled.num_outputs, labelled.task, sets.get("val"))

    def _read(self, name: str, needed: bool) -> Pool | None:
        """All samples of one loader; None where the datamodule has not overridden it."""
        hook = f"{name}_dataloader"
        if getattr(type(self.datamodule), hook) is getattr(LightningDataModule, hook):
            if needed:
                raise ConfigError(f"{type(self.datamodule).__name__} has no {hook}(), which is needed: add it")
            return None
        loader: Iterable[Any] = getattr(self.datamodule, hook)()
        what = f"{type(self.datamodule).__name__}.{hook}()"
        batches = [_pair(batch, what) for batch in loader]
        if not batches:
            raise DataError(f"{what} gives no batches: give it at least one sample")
        return _checked(torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches]), what)


def pool_of(samples: Iterable[Any], what: str) -> Pool:
    """Stacks pairs (input, target) to one pool.

    Args:
        samples: pairs of numbers of one shape each.
        what: the name of the source, for messages.

    Raises:
        DataError: a sample is no such pair, or there is none.
    """
    pairs = [_pair(sample, what) for sample in samples]
    if not pairs:
        raise DataError(f"{what} holds no samples: give at least one")
    try:
        x, y = torch.stack([x for x, _ in pairs]), torch.stack([y for _, y in pairs])
    except RuntimeError as error:
        raise DataError(
            f"the samples of {what} differ in shape ({' '.join(str(error).split())[:200]}): bring them to one shape"
        ) from error
    return _checked(x, y, what)


def _pair(sample: Any, what: str) -> tuple[Tensor, Tensor]:
    if not isinstance(sample, Sequence) or len(sample) != 2:
        raise DataError(f"{what} gives {type(sample).__name__}, expected pairs (input, target): return (x, y)")
    try:
        x, y = (torch.as_tensor(part) for part in sample)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{what} gives ({type(sample[0]).__name__}, {type(sample[1]).__name__}), expected numbers: convert images "
            "to tensors, for example by torchvision.transforms.v2.PILToTensor()"
        ) from error
    return x, y


def _checked(x: Tensor, y: Tensor, what: str) -> Pool:
    if x.is_complex() or y.is_complex():
        raise DataError(f"{what} gives complex numbers, but real ones are needed: give real and imaginary parts apart")
    real = y.is_floating_point()
    if y.ndim not in ((1, 2) if real else (1,)):
        raise DataError(
            f"{what} gives targets of shape {tuple(y.shape)} and type {y.dtype}, expected classes (n,) or "
            "floating-point targets (n,) or (n, c)"
        )
    if x.ndim < 2:
        raise DataError(f"{what} gives inputs of shape {tuple(x.shape)}, expected (n, ...): give each sample an axis")
    if not bool(x.double().isfinite().all()) or (real and not bool(y.isfinite().all())):
        raise DataError(f"{what} gives values that are not finite: remove these samples")
    return Pool(x, y.double() if real else y.long())
