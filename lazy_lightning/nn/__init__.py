"""Networks in NTK parametrisation; nothing about training."""

from lazy_lightning.nn.activations import Activation, activation
from lazy_lightning.nn.fc import FC
from lazy_lightning.nn.layers import NTKLinear
from lazy_lightning.nn.members import InitialMembers, MemberNetwork
from lazy_lightning.nn.parametrisation import from_mean_field, to_mean_field

__all__ = [
    "FC",
    "Activation",
    "InitialMembers",
    "MemberNetwork",
    "NTKLinear",
    "activation",
    "from_mean_field",
    "to_mean_field",
]
