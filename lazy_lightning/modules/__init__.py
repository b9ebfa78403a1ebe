"""LightningModules."""

from lazy_lightning.modules.flow_module import FlowModule
from lazy_lightning.modules.kernel_module import KernelModule
from lazy_lightning.modules.learning_rates import LearningRateSearch
from lazy_lightning.modules.observed_module import ObservedModule
from lazy_lightning.modules.roster import Roster
from lazy_lightning.modules.scaled_module import ScaledModule
from lazy_lightning.modules.stop import Stop

__all__ = ["FlowModule", "KernelModule", "LearningRateSearch", "ObservedModule", "Roster", "ScaledModule", "Stop"]
