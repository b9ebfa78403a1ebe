"""The LightningModules of the package and their observation."""

from typing import Any

from lazy_lightning.deprecations import renamed
from lazy_lightning.modules.ensemble import Ensemble
from lazy_lightning.modules.flow_module import FlowModule
from lazy_lightning.modules.kernel_module import KernelModule
from lazy_lightning.modules.learning_rates import LearningRateSearch
from lazy_lightning.modules.member_strategy import MemberStrategy
from lazy_lightning.modules.mini_batch_module import MiniBatchModule
from lazy_lightning.modules.observable_module import ObservableModule
from lazy_lightning.modules.observed_module import ObservedModule
from lazy_lightning.modules.stopping_criteria import StoppingCriteria

__all__ = [
    "Ensemble",
    "FlowModule",
    "KernelModule",
    "LearningRateSearch",
    "MemberStrategy",
    "MiniBatchModule",
    "ObservableModule",
    "ObservedModule",
    "StoppingCriteria",
]


def __getattr__(name: str) -> Any:
    return renamed(__name__, name)
