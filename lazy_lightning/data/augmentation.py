"""Random changes of training images by torchvision's transforms, with random numbers of their own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lazy_lightning.data.batched_transforms import batched
from lazy_lightning.errors import ConfigError
from lazy_lightning.seeding import derived_seed


class Augmentation:
    """Applies transforms of ``torchvision.transforms.v2`` to the images of a batch, each by draws of its own.

    The random numbers depend on the seed, the epoch and the batch; torch's own are neither read nor changed. The images
    have been preprocessed already, so the zeros that a crop pads with are the mean image, or grey.

    Args:
        transforms: modules that map an image (channels, height, width) to one of the same shape.
    """

    def __init__(self, transforms: Sequence[nn.Module]) -> None:
        self.transforms = [batched(transform) for transform in transforms]

    def __call__(self, x: Tensor, seed: int, epoch: int, batch: int) -> Tensor:
        """Augments a batch (b, channels, height, width)."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derived_seed(f"data/augmentation/{epoch}/{batch}", seed))
            for transform in self.transforms:
                x = transform(x)
            return x

    def check(self, image: Tensor) -> None:
        """Tries it on one image.

        Raises:
            ConfigError: a transform does not take images, or changes their shape.
        """
        try:
            changed = self(image.unsqueeze(0), 0, 0, 0)[0]
        except (ValueError, RuntimeError, TypeError) as error:
            raise ConfigError(
                f"augment cannot be applied to samples of shape {tuple(image.shape)} ({' '.join(str(error).split())}): "
                "choose transforms of images, or leave it out"
            ) from error
        if changed.shape != image.shape:
            raise ConfigError(
                f"augment turns samples of shape {tuple(image.shape)} into {tuple(changed.shape)}, expected the same "
                "shape: choose other sizes, such as RandomCrop with the size of the image and padding"
            )
