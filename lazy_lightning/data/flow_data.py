"""The base of all datamodules: the sets in memory, and the loaders over them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pytorch_lightning import LightningDataModule
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.data.augmentation import Augmentation
from lazy_lightning.data.bursts import BurstLoader
from lazy_lightning.data.coverage import require_every_target
from lazy_lightning.data.mini_batches import MiniBatches
from lazy_lightning.data.split import Split, Task
from lazy_lightning.errors import ConfigError
from lazy_lightning.runs.constructor_arguments import constructor_arguments
from lazy_lightning.seeding import generator

_EVAL_BATCH = 1000
_RARE = (
    "the test set is dealt first, class by class, then the training set, so give more samples of the rare classes, or "
    "a smaller n_test"
)
_KNOWN_AFTER_SETUP = ("train", "test", "kernel", "val", "input_shape", "num_outputs", "task")

Batch = tuple[Tensor, ...]
"""``(x, y)``: inputs ``(b, *input_shape)`` and targets ``(b,)`` or ``(b, c)``."""


class Prepared(NamedTuple):
    """What a concrete datamodule builds once: its splits, number of network outputs, and task.

    Without ``val`` there is no validation set.
    """

    train: Split
    test: Split
    kernel: Split
    num_outputs: int
    task: Task
    val: Split | None = None


class FlowData(LightningDataModule, ABC):
    """Data for flow (full batch) or for mini-batch training.

    After :meth:`setup`: ``train``, ``test``, ``kernel`` and ``val`` (:class:`Split`; the last two may be empty),
    ``input_shape``, ``num_outputs`` (1 for binary labels and scalar regression, else the number of classes
    or targets) and ``task``. Everything depends on the arguments alone: the global random state is neither
    read nor changed.

    Args:
        n_train: number of training samples.
        n_test: number of test samples.
        n_kernel: number of samples set apart to evaluate kernels on; 0 for none.
        batch_size: None for full-batch flow (the train loader counts bursts), or the mini-batch size.
        test_seed: draws the test set.
        kernel_seed: draws the kernel set.
        train_seed: draws the training set, and the order of mini-batches.
        n_val: number of validation samples, which are in no other set; 0 for none.
        val_seed: draws the validation set.

    Raises:
        ConfigError: a size or a seed is out of range.
        DataError: at setup, if the training or test set lacks a label that the data have.
    """

    train: Split
    test: Split
    kernel: Split
    val: Split
    input_shape: tuple[int, ...]
    num_outputs: int
    task: Task
    augmentation: Augmentation | None = None
    """Of the training samples, in mini-batches."""
    member_batches: Callable[[], MiniBatches] | None = None
    """Makes the train loader of mini-batch training, set by a module whose members have orders or sets of their own."""

    def __init__(
        self,
        n_train: int,
        n_test: int,
        n_kernel: int = 0,
        batch_size: int | None = None,
        test_seed: int = 0,
        kernel_seed: int = 0,
        train_seed: int = 0,
        n_val: int = 0,
        val_seed: int = 0,
    ) -> None:
        check_arguments(FlowData, locals())
        super().__init__()
        self.constructor_arguments = constructor_arguments(self)
        self.n_train = _at_least(1, "n_train", n_train)
        self.n_test = _at_least(1, "n_test", n_test)
        self.n_kernel = _at_least(0, "n_kernel", n_kernel)
        self.batch_size = None if batch_size is None else _at_least(1, "batch_size", batch_size)
        self.test_seed = _at_least(0, "test_seed", test_seed)
        self.kernel_seed = _at_least(0, "kernel_seed", kernel_seed)
        self.train_seed = _at_least(0, "train_seed", train_seed)
        self.n_val = _at_least(0, "n_val", n_val)
        self.val_seed = _at_least(0, "val_seed", val_seed)
        self._bursts: BurstLoader | None = None
        self._mini_batches: MiniBatches | None = None
        self._place: dict[str, int] | None = None

    def with_seeds(self, seeds: Mapping[str, int]) -> Self:
        """Returns a datamodule of the same arguments but for some seeds, prepared.

        Args:
            seeds: values of arguments by name, such as ``{"train_seed": 1}``.

        Raises:
            ConfigError: an argument is none of this class.
        """
        for name in seeds:
            if name not in self.constructor_arguments:
                known = sorted(key for key in self.constructor_arguments if key.endswith("_seed"))
                raise ConfigError(f"{type(self).__name__} has no {name}, expected one of {', '.join(known)}")
        copy = type(self)(**{**self.constructor_arguments, **seeds})
        copy.setup()
        return copy

    @abstractmethod
    def build(self) -> Prepared:
        """Read or generate the data, draw the splits, preprocess them. Called once, by :meth:`setup`."""

    def setup(self, stage: str | None = None) -> None:
        """Prepare all splits, whatever the stage; the second call returns at once."""
        if "train" in self.__dict__:
            return
        prepared = self.build()
        _require_labels(prepared)
        self.train, self.test, self.kernel = prepared.train, prepared.test, prepared.kernel
        self.val = _first(prepared.test, 0) if prepared.val is None else prepared.val
        self.num_outputs, self.task = prepared.num_outputs, prepared.task
        self.input_shape = tuple(prepared.train.x.shape[1:])

    def train_dataloader(self) -> Iterable[int] | MiniBatches:
        """Bursts without end, or shuffled mini-batches ``(x, y)`` when ``batch_size`` is given."""
        if self.batch_size is None:
            self._bursts = BurstLoader()
            return self._bursts
        self._mini_batches = self.training_batches()
        if self._place is not None:
            self._mini_batches.load_state_dict(self._place)
            self._place = None
        return self._mini_batches

    def state_dict(self) -> dict[str, Any]:
        """The place of the next mini-batch: a Trainer keeps it in the middle of an epoch alone."""
        return {} if self._mini_batches is None else self._mini_batches.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The next train loader begins there, unless the checkpoint is only evaluated.

        Raises:
            ConfigError: it is no place of a mini-batch.
        """
        trainer = self.trainer
        if trainer is not None and not trainer.training:
            self._place = None
            return
        counts = [state_dict.get(name) for name in ("epoch", "batch")] if isinstance(state_dict, Mapping) else [None]
        if not all(isinstance(count, int) and not isinstance(count, bool) and count >= 0 for count in counts):
            raise ConfigError(
                f"the checkpoint has {state_dict!r:.60} as the place of the next mini-batch, expected an epoch and a "
                "batch >= 0: give the checkpoint.ckpt that a run has written, or train again"
            )
        self._place = dict(state_dict)

    def training_batches(self) -> MiniBatches:
        """The mini-batches of the members of a module, from the first epoch on."""
        return self.mini_batches() if self.member_batches is None else self.member_batches()

    def mini_batches(self, seed: int | None = None) -> MiniBatches:
        """From the first epoch on.

        Args:
            seed: of the orders of the samples; ``train_seed`` by default.

        Raises:
            ConfigError: there is no ``batch_size``.
        """
        if self.batch_size is None:
            raise ConfigError("mini-batches need a size: set data.batch_size, for example to 128")
        return MiniBatches(self.train, self.batch_size, self.train_seed if seed is None else seed, self.augmentation)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        """The validation split, in order; a fit without one validates nothing.

        Raises:
            ConfigError: there is none, and it was requested by itself.
        """
        if len(self.val.y) > 0:
            return self._loader(self.val)
        if self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING:
            return []
        raise ConfigError(
            "there is no validation set: set data.n_val to its number of samples, or evaluate the test set by the "
            "subcommand test"
        )

    def test_dataloader(self) -> DataLoader[Batch]:
        """The test split, in order."""
        return self._loader(self.test)

    def predict_dataloader(self) -> DataLoader[Batch]:
        """The test split, in order."""
        return self._loader(self.test)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Tell the burst loader which burst begins, so that checkpoints count exactly."""
        if self._bursts is not None and isinstance(batch, int):
            self._bursts.began(batch)
        return batch

    def _loader(self, split: Split) -> DataLoader[Batch]:
        # A loader without its own generator draws a seed from the global one at every iteration.
        return DataLoader(  # arguments by name: Lightning makes it anew to predict
            _dataset(split), batch_size=self.batch_size or _EVAL_BATCH, generator=generator("data/loader", 0)
        )

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name in _KNOWN_AFTER_SETUP:
                raise AttributeError(f"{type(self).__name__}.{name} is known after setup(): call it first")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def _require_labels(prepared: Prepared) -> None:
    if prepared.task == "regression":
        return
    labels = 2 if prepared.task == "binary" else prepared.num_outputs
    for split, name in ((prepared.train, "training"), (prepared.test, "test")):
        require_every_target(split.y, labels, name, _RARE)


def _first(split: Split, n: int) -> Split:
    return Split(*(part[:n] for part in split))


def _dataset(split: Split) -> TensorDataset:
    return TensorDataset(split.x, split.y)


def _at_least(lowest: int, name: str, value: int) -> int:
    if value < lowest:
        raise ConfigError(f"{name} must be at least {lowest}, got {value}")
    return value
