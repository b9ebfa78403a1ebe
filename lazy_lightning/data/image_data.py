"""The base of every datamodule with a finite pool of labelled samples."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.data.augmentation import Augmentation
from lazy_lightning.data.coverage import warn_of_unseen_classes
from lazy_lightning.data.flow_data import FlowData, Prepared
from lazy_lightning.data.labels import Labelled, LabelRule, label
from lazy_lightning.data.pool import Pool, as_float, uniform_pixels
from lazy_lightning.data.preprocessing import Preprocessing, Preprocessor, standardised_targets
from lazy_lightning.data.split import Split
from lazy_lightning.data.splits import Seeds, Sizes, draw_splits
from lazy_lightning.errors import ConfigError


class ImageData(FlowData):
    """Labels, balanced splits and preprocessing over the pool of a source.

    Args:
        labels: ``parity`` (of the class index: even +1, odd -1), ``multiclass``, a pair of classes such as
            ``[3, 5]`` (first +1, second -1, others dropped; names where the source has them), a map
            ``{0: 1, 1: -1, 2: 0}`` from every class to +1, -1, or 0 to drop it, or ``regression`` for targets that
            are real numbers.
        centre: subtract the mean per pixel.
        sphere: scale each sample to the norm sqrt(number of inputs).
        pca: number of principal components to keep as inputs; null keeps the pixels.
        whiten: divide each component by its own standard deviation, instead of all by a common one.
        standardise: shift and scale each channel to mean 0 and variance 1 over the set of ``statistics``, before all
            else; with ``centre`` and ``sphere`` off, this is what arXiv:1812.07956 does to CIFAR-10.
        augment: random changes of the images in mini-batches of training, by modules such as
            ``torchvision.transforms.v2.RandomCrop``; they come after preprocessing, so zeros are the mean.
        statistics: the set that gives the mean and the principal axes: ``train``, or ``pool`` (all samples of
            the classes kept, test samples too, as in the published runs of arXiv:1906.08034).
        random_pixels: replace all images by noise of the same size before preprocessing: independent pixels, uniform
            on 0, 1/255, ..., 1. Labels and splits stay. For the spectrum of the kernel on noise beside that on images.
        standardise_targets: of a regression, shift and scale each target to mean 0 and variance 1 over the training
            set.
        options: n_train, n_test, n_kernel, n_val, batch_size and the seeds of :class:`FlowData`.

    Raises:
        ConfigError: an option has no such value.
        DataError: at setup, when the data do not fit the options, or a set lacks a label.
    """

    class_names: Mapping[str, int] = {}

    def __init__(
        self,
        *args: Any,
        labels: LabelRule = "parity",
        centre: bool = True,
        sphere: bool = True,
        pca: int | None = None,
        whiten: bool = False,
        standardise: bool = False,
        augment: list[nn.Module] | None = None,
        statistics: Literal["train", "pool"] = "train",
        standardise_targets: bool = False,
        random_pixels: bool = False,
        **options: Any,
    ) -> None:
        check_arguments(ImageData, locals())
        super().__init__(*args, **options)
        if statistics not in ("train", "pool"):
            raise ConfigError(f"statistics must be 'train' or 'pool', got {statistics!r}")
        if whiten and pca is None:
            raise ConfigError("whiten: true needs principal components: set pca to their number")
        if augment and self.batch_size is None:
            raise ConfigError("augment changes mini-batches, but data.batch_size is null: set it, or leave augment out")
        if augment and pca is not None:
            raise ConfigError(f"augment changes images, but pca = {pca} makes coordinates of them: leave one out")
        if standardise_targets and labels != "regression":
            raise ConfigError(f"standardise_targets scales the targets of a regression, but labels is {labels!r}")
        self.labels = labels
        self.standardise_targets = standardise_targets
        self.statistics = statistics
        self.random_pixels = random_pixels
        self.preprocessing = Preprocessing(centre, sphere, pca, whiten, standardise)
        self.augmentation = Augmentation(augment) if augment else None

    @abstractmethod
    def load_pool(self) -> Pool:
        """Read all samples of the source, in its own order and dtype.

        Raises:
            DataError: files are missing or cannot be used.
        """

    def setup(self, stage: str | None = None) -> None:
        """Prepares all splits, and warns of classes that only the test set has."""
        known = "train" in self.__dict__
        super().setup(stage)
        if not known:
            warn_of_unseen_classes(*self._drawn_classes)

    def build(self) -> Prepared:
        """Pool -> labels -> splits -> preprocessing."""
        pool = self.load_pool()
        if self.random_pixels:
            pool = pool._replace(x=uniform_pixels(pool.x.shape))
        labelled = label(pool.y, self.labels, self.class_names)
        official_test = None if pool.official_test is None else pool.official_test[labelled.keep]
        classes = _classes_to_balance(pool.y[labelled.keep])
        drawn = draw_splits(
            classes,
            Sizes(self.n_train, self.n_test, self.n_kernel, self.n_val),
            Seeds(self.train_seed, self.test_seed, self.kernel_seed, self.val_seed),
            official_test,
        )
        self._drawn_classes = (classes[drawn.train], classes[drawn.test])
        if self.standardise_targets:
            labelled = labelled._replace(y=standardised_targets(labelled.y, drawn.train))
        base = drawn.train if self.statistics == "train" else slice(None)
        prepare = Preprocessor(as_float(pool.x[labelled.keep[base]]), self.preprocessing)

        if self.augmentation is not None:
            self.augmentation.check(as_float(pool.x[0]))

        def split(name: str, positions: Tensor) -> Split:
            return _take(pool, labelled, positions, prepare, name)

        return Prepared(
            split("train", drawn.train),
            split("test", drawn.test),
            split("kernel", drawn.kernel),
            labelled.num_outputs,
            labelled.task,
            split("validation", drawn.val),
        )


def _classes_to_balance(y: Tensor) -> Tensor:
    """Real-valued targets have no classes: all samples are drawn alike."""
    return torch.zeros(len(y), dtype=torch.int64) if y.is_floating_point() or y.ndim > 1 else y


def _take(pool: Pool, labelled: Labelled, positions: Tensor, prepare: Preprocessor, name: str) -> Split:
    index = labelled.keep[positions]
    x = prepare(as_float(pool.x[index]), name).contiguous()
    return Split(x, labelled.y[positions], index)
