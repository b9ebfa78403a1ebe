"""Tensors of two devices are refused by name. The device ``meta`` stands in for a second one."""

import pytest
import torch

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.activations import activation
from lazy_lightning.ntk.alignment import KernelComparison, kernel_alignment, relative_drift
from lazy_lightning.ntk.dual_activation import dual_activation
from lazy_lightning.ntk.features import KernelFeatures
from lazy_lightning.ntk.infinite_width import infinite_width_kernels
from lazy_lightning.ntk.intrinsic_dimension import neighbour_ratios
from lazy_lightning.ntk.regression import KernelRegression

K, Y = torch.eye(3), torch.ones(3)
TAKING_SEVERAL = {
    "regression, targets": lambda: KernelRegression(K, Y.to("meta")),
    "regression, test kernel": lambda: KernelRegression(K, Y, K.to("meta")),
    "regression, start": lambda: KernelRegression(K, Y, start=Y.to("meta")),
    "regression, test start": lambda: KernelRegression(K, Y, K, test_start=Y.to("meta")),
    "drift": lambda: relative_drift(K, K.to("meta")),
    "alignment": lambda: kernel_alignment(K, K.to("meta")),
    "comparison": lambda: KernelComparison(3).add(slice(0, 3), slice(0, 3), K, K.to("meta")),
    "features": lambda: KernelFeatures.of(K).of_others(K.to("meta")),
    "infinite width": lambda: infinite_width_kernels(torch.ones(2, 3, device="meta"), K, depth=1, activation="relu"),
    "dual": lambda: dual_activation(activation("relu"), K, Y.to("meta")),
    "neighbours": lambda: neighbour_ratios(K, (K == 0).to("meta")),
}


@pytest.mark.parametrize("name", TAKING_SEVERAL)
def test_tensors_of_two_devices_are_refused(name):
    with pytest.raises(
        ConfigError, match=r"tensors of several devices came together \(.* on (cpu|meta), .*: move them"
    ):
        TAKING_SEVERAL[name]()
