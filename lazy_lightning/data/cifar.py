"""CIFAR-10 and CIFAR-100: colour images of 32 x 32 pixels."""

from __future__ import annotations

from pathlib import Path

from lazy_lightning.data.labels import numbered
from lazy_lightning.data.torchvision_data import TorchvisionData

_CIFAR10_NAMES = "airplane automobile bird cat deer dog frog horse ship truck"
_CIFAR100_NAMES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""


class CIFAR10(TorchvisionData):
    """CIFAR-10: 60000 images, inputs ``(3, 32, 32)``, ten named classes.

    Its arguments are those of :class:`TorchvisionData`, :class:`ImageData` and :class:`FlowData`.
    """

    channels = 3
    class_names = numbered(*_CIFAR10_NAMES.split())

    def expected_files(self) -> tuple[Path, tuple[str, ...]]:
        """Six batches and their names under ``{root}/cifar-10-batches-py``."""
        batches = tuple(f"data_batch_{number}" for number in range(1, 6))
        return self.root / "cifar-10-batches-py", (*batches, "test_batch", "batches.meta")


class CIFAR100(TorchvisionData):
    """CIFAR-100: 60000 images, inputs ``(3, 32, 32)``, a hundred named classes.

    Its arguments are those of :class:`TorchvisionData`, :class:`ImageData` and :class:`FlowData`.
    """

    channels = 3
    class_names = numbered(*_CIFAR100_NAMES.split())

    def expected_files(self) -> tuple[Path, tuple[str, ...]]:
        """Three files under ``{root}/cifar-100-python``."""
        return self.root / "cifar-100-python", ("train", "test", "meta")
