"""Lightning callbacks: observers, which measure quantities, and sinks, which write or show them."""

from typing import Any

from lazy_lightning.callbacks.activation_drift import ActivationDrift
from lazy_lightning.callbacks.activation_stability import ActivationStability
from lazy_lightning.callbacks.closing_summary import ClosingSummary
from lazy_lightning.callbacks.curves import Curves
from lazy_lightning.callbacks.disable_callbacks import DisableCallbacks
from lazy_lightning.callbacks.graceful_stop import GracefulStop
from lazy_lightning.callbacks.hparams import HParams
from lazy_lightning.callbacks.kernel_drift import KernelDrift
from lazy_lightning.callbacks.kernel_evolution import KernelEvolution
from lazy_lightning.callbacks.kernel_snapshots import KernelSnapshots
from lazy_lightning.callbacks.kernel_spectrum import KernelSpectrum
from lazy_lightning.callbacks.laziness_index import LazinessIndex
from lazy_lightning.callbacks.learning_curves import LearningCurves
from lazy_lightning.callbacks.neuron_paths import NeuronPaths
from lazy_lightning.callbacks.outputs import OutputsWriter
from lazy_lightning.callbacks.path_distance import PathDistance
from lazy_lightning.callbacks.population_loss import PopulationLoss
from lazy_lightning.callbacks.progress import FlowProgressBar
from lazy_lightning.callbacks.regime import TangentDeparture
from lazy_lightning.callbacks.run_checkpoint import RunCheckpoint
from lazy_lightning.callbacks.scalars import TensorBoardScalars
from lazy_lightning.callbacks.sharpness import Sharpness
from lazy_lightning.callbacks.t1 import T1
from lazy_lightning.callbacks.t_lazy import TLazy
from lazy_lightning.callbacks.weight_displacement import WeightDisplacement
from lazy_lightning.deprecations import renamed

__all__ = [
    "T1",
    "ActivationDrift",
    "ActivationStability",
    "ClosingSummary",
    "Curves",
    "DisableCallbacks",
    "FlowProgressBar",
    "GracefulStop",
    "HParams",
    "KernelDrift",
    "KernelEvolution",
    "KernelSnapshots",
    "KernelSpectrum",
    "LazinessIndex",
    "LearningCurves",
    "NeuronPaths",
    "OutputsWriter",
    "PathDistance",
    "PopulationLoss",
    "RunCheckpoint",
    "Sharpness",
    "TLazy",
    "TangentDeparture",
    "TensorBoardScalars",
    "WeightDisplacement",
]


def __getattr__(name: str) -> Any:
    return renamed(__name__, name)
