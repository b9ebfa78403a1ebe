"""The tangent kernel of finite and of infinitely wide networks, and what is read off it. Knows nothing of Lightning."""

from lazy_lightning.ntk.empirical import empirical_ntk, empirical_ntk_by_layer, empirical_ntk_diagonal
from lazy_lightning.ntk.estimates import hutchinson_trace, top_eigenpairs
from lazy_lightning.ntk.kernel_file import kernel_file
from lazy_lightning.ntk.layer_rules import register_rule
from lazy_lightning.ntk.operator import NTKOperator

__all__ = [
    "NTKOperator",
    "empirical_ntk",
    "empirical_ntk_by_layer",
    "empirical_ntk_diagonal",
    "hutchinson_trace",
    "kernel_file",
    "register_rule",
    "top_eigenpairs",
]
