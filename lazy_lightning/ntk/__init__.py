"""The tangent kernel of finite and of infinitely wide networks, and what is read off it. Knows nothing of Lightning."""

from lazy_lightning.ntk.alignment import (
    KernelComparison,
    centered_kernel,
    kernel_alignment,
    label_alignment,
    relative_drift,
)
from lazy_lightning.ntk.empirical import empirical_ntk, empirical_ntk_by_layer, empirical_ntk_diagonal
from lazy_lightning.ntk.estimates import hutchinson_trace, top_eigenpairs
from lazy_lightning.ntk.infinite_width import InfiniteWidthKernels, infinite_width_kernels, infinite_width_of
from lazy_lightning.ntk.intrinsic_dimension import Dimension, intrinsic_dimension, intrinsic_dimension_of_points
from lazy_lightning.ntk.kernel_file import kernel_file
from lazy_lightning.ntk.layer_rules import register_rule
from lazy_lightning.ntk.objective_closure import ObjectiveClosure
from lazy_lightning.ntk.operator import NTKOperator
from lazy_lightning.ntk.regression import KernelRegression, Predictions
from lazy_lightning.ntk.spectrum import (
    Eigensystem,
    LabelOverlap,
    effective_rank,
    eigensystem,
    eigenvalues,
    entropy_rank,
    label_overlap,
    label_rank,
)

__all__ = [
    "Dimension",
    "Eigensystem",
    "InfiniteWidthKernels",
    "KernelComparison",
    "KernelRegression",
    "LabelOverlap",
    "NTKOperator",
    "ObjectiveClosure",
    "Predictions",
    "centered_kernel",
    "effective_rank",
    "eigensystem",
    "eigenvalues",
    "empirical_ntk",
    "empirical_ntk_by_layer",
    "empirical_ntk_diagonal",
    "entropy_rank",
    "hutchinson_trace",
    "infinite_width_kernels",
    "infinite_width_of",
    "intrinsic_dimension",
    "intrinsic_dimension_of_points",
    "kernel_alignment",
    "kernel_file",
    "label_alignment",
    "label_overlap",
    "label_rank",
    "register_rule",
    "relative_drift",
    "top_eigenpairs",
]
