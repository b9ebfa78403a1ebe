"""The figures of a report in their order on the page."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from lazy_lightning.figures.activation_velocity import activation_velocity
from lazy_lightning.figures.best_in_training import best_in_training
from lazy_lightning.figures.bias_by_samples import bias_by_samples
from lazy_lightning.figures.coordinate_check import coordinate_check
from lazy_lightning.figures.displacement_by_layer import displacement_by_layer
from lazy_lightning.figures.error_by_samples import error_by_samples
from lazy_lightning.figures.error_by_width import error_by_width
from lazy_lightning.figures.flow_curves import flow_curves
from lazy_lightning.figures.generalization_error import generalization_error
from lazy_lightning.figures.image_spectra import image_spectra
from lazy_lightning.figures.kernel_drift import kernel_drift
from lazy_lightning.figures.kernel_evolution import kernel_evolution
from lazy_lightning.figures.kernel_images import kernel_images
from lazy_lightning.figures.lazy_comparison import lazy_comparison
from lazy_lightning.figures.leaving_time import leaving_time
from lazy_lightning.figures.loss_by_width import loss_by_width
from lazy_lightning.figures.noise_plane import noise_plane
from lazy_lightning.figures.output_growth import output_growth
from lazy_lightning.figures.phase_diagram import phase_diagram
from lazy_lightning.figures.report_figure import ReportFigure
from lazy_lightning.figures.sharpness import sharpness
from lazy_lightning.figures.spectra import spectra
from lazy_lightning.figures.variance import variance

FIGURES: dict[str, Callable[[pd.DataFrame], ReportFigure]] = {
    "test_error": generalization_error,
    "lazy_comparison": lazy_comparison,
    "loss_by_width": loss_by_width,
    "best_in_training": best_in_training,
    "kernel_drift": kernel_drift,
    "phase_diagram": phase_diagram,
    "leaving_time": leaving_time,
    "flow_curves": flow_curves,
    "output_growth": output_growth,
    "displacement_by_layer": displacement_by_layer,
    "activation_velocity": activation_velocity,
    "coordinate_check": coordinate_check,
    "variance": variance,
    "kernel_images": kernel_images,
    "spectra": spectra,
    "sharpness": sharpness,
    "kernel_evolution": kernel_evolution,
}
"""Functions by figure name; they take the rows of one setting and raise AnalysisError if these are insufficient."""

ACROSS_SAMPLES: dict[str, Callable[[pd.DataFrame], ReportFigure]] = {
    "error_by_samples": error_by_samples,
    "bias_by_samples": bias_by_samples,
    "error_by_width": error_by_width,
}
"""The same of rows of one setting that differ in the number of training samples."""

ACROSS_TEMPERATURES: dict[str, Callable[[pd.DataFrame], ReportFigure]] = {"noise_plane": noise_plane}
"""The same of rows of one setting that differ in the learning rate or the batch size of SGD."""

ACROSS_PIXELS: dict[str, Callable[[pd.DataFrame], ReportFigure]] = {"image_spectra": image_spectra}
"""The same of rows of one setting that differ in whether images are replaced by noise."""

EVERY_FIGURE = {**FIGURES, **ACROSS_SAMPLES, **ACROSS_TEMPERATURES, **ACROSS_PIXELS}
"""All of these."""
