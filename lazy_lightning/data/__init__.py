"""Datamodules: real images, synthetic tasks and the user's arrays, ready for flow."""

from lazy_lightning.data.array_file import ArrayFile
from lazy_lightning.data.cifar import CIFAR10, CIFAR100
from lazy_lightning.data.digits import Digits
from lazy_lightning.data.flow_data import FlowData
from lazy_lightning.data.from_dataset import FromDataModule, FromDataset
from lazy_lightning.data.gaussian import Cylinder, Sphere, Stripe
from lazy_lightning.data.hermite import HermiteRegression
from lazy_lightning.data.mnist import EMNIST, KMNIST, MNIST, FashionMNIST
from lazy_lightning.data.split import Split
from lazy_lightning.data.table_file import TableFile
from lazy_lightning.data.teacher_student import TeacherStudent

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "EMNIST",
    "KMNIST",
    "MNIST",
    "ArrayFile",
    "Cylinder",
    "Digits",
    "FashionMNIST",
    "FlowData",
    "FromDataModule",
    "FromDataset",
    "HermiteRegression",
    "Sphere",
    "Split",
    "Stripe",
    "TableFile",
    "TeacherStudent",
]
