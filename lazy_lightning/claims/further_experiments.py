"""Further experiments: initialisation, spectra, kernels on the way, muP, grokking, noise, learning curves."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from lazy_lightning.claims.experiment import FIT, Experiment

_COORDINATES = "sweep --config coordinate_check.yaml --sweep sweeps/coordinate_check.yaml"
_EVOLUTION = (
    "--config callbacks/evolution.yaml --trainer.callbacks.loss_fractions=[0.98,0.95,0.9,0.8,0.5,0.2,0.1,0.01] "
    "--model.alpha=[0.01,0.1,100.0] --data.n_train=300"
)

FURTHER_EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType(
    {
        "initial_scale": Experiment(
            "two-layer students of 50 neurons of a teacher of three, d = 100, n = 1000, alpha from 0.003 to 100; ten "
            "trials, each with weights, training sample and teacher of its own; full-batch gradient flow to 1e-4 of "
            "the first training loss or 1600 evaluations",
            {"": f"fit --config initial_scale.yaml {FIT}"},
        ),
        "population_sgd": Experiment(
            "the same students and trials, alpha from 0.01 to 100; SGD with 200 new samples at each of 2000 steps",
            {"": f"fit --config population_sgd.yaml {FIT}"},
        ),
        "kernel_spectra": Experiment(
            "CIFAR-10, 495 images, and as many of independent uniform pixels; kernels at initialisation of VGG-11 with "
            "an eighth of the channels, three seeds",
            {"": "sweep --config kernel_spectra.yaml --sweep sweeps/kernel_spectra.yaml --out FOLDER"},
            images="CIFAR10",
        ),
        "kernel_evolution": Experiment(
            "digits, parity, 300 images, 797 test images; FC of three layers, h = 100, three alphas, four seeds; the "
            "kernel of all training samples where the train loss has fallen to some fractions, and regression with it",
            {"": f"fit --config digits_fc.yaml {_EVOLUTION} {FIT}"},
        ),
        "coordinate_check": Experiment(
            "digits, parity, 200 images; eight steps of Adam with the learning rates by layer of muP; FC of three "
            "layers, h = 64 to 1024, sqrt(h) alpha = 1, four seeds",
            {"": f"{_COORDINATES} --out FOLDER"},
        ),
        "coordinate_check_equal_rates": Experiment(
            "the same networks with one learning rate for all layers",
            {"": f"{_COORDINATES} --model.layer_rates=null --out FOLDER"},
        ),
        "grokking": Experiment(
            "regression of (beta . x)^2/2 on Gaussian inputs, d = 20, n = 100; a committee of 50 quadratic neurons, "
            "three alphas; ten training sets with the same two seeds of the weights; gradient flow to 1e-4 of the "
            "first training loss, integrator auto",
            {"": "sweep --config grokking.yaml --sweep sweeps/grokking.yaml --out FOLDER"},
        ),
        "noise_plane": Experiment(
            "digits, parity, 200 images; FC of three relu layers, h = 30, hinge loss; SGD without momentum in batches "
            "of 10, four rates, five alphas, three seeds of weights and batches; until all margins are met, at most "
            "300 epochs",
            {"": "sweep --config noise_plane_fc.yaml --sweep sweeps/noise_plane.yaml --out FOLDER"},
        ),
        "learning_curves": Experiment(
            "digits, parity, 50 to 400 images, four training sets of each size with the same three seeds of the "
            "weights; FC of three layers, h = 30 and 100; a lazy and a feature-learning scale; integrator auto; "
            "reduced: without the frozen kernels",
            {
                "": "sweep --config digits_fc.yaml --config overlays/auto.yaml --sweep "
                "sweeps/learning_curve_networks.yaml --out FOLDER"
            },
        ),
    }
)
"""Experiments by name, which is also the name of the folder of their runs."""
