"""The 1797 hand-written digits that come with scikit-learn: always at hand, no files needed."""

from __future__ import annotations

import torch

from lazy_lightning.data.image_data import ImageData
from lazy_lightning.data.pool import Pool


class Digits(ImageData):
    """scikit-learn's digits: 1797 images of 8 x 8 pixels, inputs ``(1, 8, 8)`` in 0..1, ten classes.

    Its arguments are those of :class:`ImageData` and :class:`FlowData`.

    >>> data = Digits(n_train=100, n_test=50)
    >>> data.setup()
    >>> data.train.x.shape, data.num_outputs, data.task
    (torch.Size([100, 1, 8, 8]), 1, 'binary')
    """

    def load_pool(self) -> Pool:
        """All 1797 images, pixel values 0..16 divided by 16."""
        from sklearn.datasets import load_digits

        images, classes = load_digits(return_X_y=True)
        x = torch.from_numpy(images).reshape(-1, 1, 8, 8) / 16
        return Pool(x.double(), torch.from_numpy(classes).long())
