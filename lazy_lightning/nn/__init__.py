"""Networks in NTK parametrisation; nothing about training."""

from lazy_lightning.nn.activations import Activation, activation
from lazy_lightning.nn.cnn import CNN
from lazy_lightning.nn.committee import QuadraticCommittee
from lazy_lightning.nn.convolution import NTKConv2d
from lazy_lightning.nn.fc import FC
from lazy_lightning.nn.initial_members import InitialMembers
from lazy_lightning.nn.layers import NTKLinear
from lazy_lightning.nn.members import MemberNetwork
from lazy_lightning.nn.parametrisation import from_mean_field, to_mean_field
from lazy_lightning.nn.resnet import ResNet18
from lazy_lightning.nn.symmetrized import Symmetrized
from lazy_lightning.nn.torchvision_network import TorchvisionNetwork
from lazy_lightning.nn.two_layer import TwoLayer
from lazy_lightning.nn.vgg import VGG
from lazy_lightning.nn.wide_resnet import WideResNet

__all__ = [
    "CNN",
    "FC",
    "VGG",
    "Activation",
    "InitialMembers",
    "MemberNetwork",
    "NTKConv2d",
    "NTKLinear",
    "QuadraticCommittee",
    "ResNet18",
    "Symmetrized",
    "TorchvisionNetwork",
    "TwoLayer",
    "WideResNet",
    "activation",
    "from_mean_field",
    "to_mean_field",
]
