"""The claims on the further experiments, in the order of their page, with the intervals in which each holds."""

from __future__ import annotations

import math

from lazy_lightning.claims.activation_changes import exponents_of_changes
from lazy_lightning.claims.along_training import (
    alignment_ahead_of_norm,
    delay,
    delay_over_rich_one,
    last_kernel_minus_first,
    share_of_alignment,
)
from lazy_lightning.claims.claim import Claim, Expected
from lazy_lightning.claims.cost_of_laziness import Student, ratio_of_losses
from lazy_lightning.claims.initial_scale import best_lazy_over_last_feature
from lazy_lightning.claims.noise_of_sgd import growth_with_temperature
from lazy_lightning.claims.number_of_samples import (
    exponent_of_narrow_minus_wide,
    gain_over_training_sets,
    variance_of_feature_over_lazy,
)
from lazy_lightning.claims.spectra import exponent_on_images_minus_noise, largest_eigenvalue

_CHIZAT = "arXiv:1812.07956"
_TRIALS = "paired over ten trials that redraw weights, samples and teacher"
_WEIGHTS = "mean over seeds of the initial weights"
_SETS = "paired over training sets, each averaged over three seeds of the initial weights"
_BATCHES = "paired over seeds of weights and batches; at the ends of T where all seeds have met their margins"
_POWERS = "error over seeds of the initial weights and scatter of the points"

FURTHER_CLAIMS: tuple[Claim, ...] = (
    # ------------------------------------------------------------------ the scale of initialisation
    Claim(
        "scale_of_initialisation",
        "The population loss of a student grows with the scale of its initialisation, by more than a factor of three.",
        f"{_CHIZAT}, two-layer students",
        "initial_scale",
        f"log10 of the population loss at alpha = 100 over that at alpha = 0.003; {_TRIALS}",
        Expected(0.5, math.inf),
        ratio_of_losses(Student(50, "alpha", 0.003), Student(50, "alpha", 100.0)),
        "best_in_training",
    ),
    Claim(
        "scale_plateau",
        "In lazy training the population loss does not depend on the scale of initialisation.",
        f"{_CHIZAT}, two-layer students",
        "initial_scale",
        f"log10 of the population loss at alpha = 100 over that at alpha = 10; {_TRIALS}",
        Expected.near(0, 0.05),
        ratio_of_losses(Student(50, "alpha", 10.0), Student(50, "alpha", 100.0)),
        "best_in_training",
    ),
    Claim(
        "best_moment_of_lazy_training",
        "A lazy student that is stopped at its best moment is worse than one that learns features, by more than a "
        "factor of three.",
        f"{_CHIZAT}, two-layer students",
        "initial_scale",
        f"log10 of the least population loss in training at alpha = 100 over the last one at alpha = 0.003; {_TRIALS}",
        Expected(0.5, math.inf),
        best_lazy_over_last_feature(100.0, 0.003),
        "best_in_training",
    ),
    Claim(
        "population_sgd_scale",
        "On new samples, without a training set to fit, lazy students are worse by more than a factor of three too.",
        f"{_CHIZAT}, two-layer students",
        "population_sgd",
        f"log10 of the last population loss at alpha = 100 over that at alpha = 0.01; {_TRIALS}",
        Expected(0.5, math.inf),
        ratio_of_losses(Student(50, "alpha", 0.01), Student(50, "alpha", 100.0)),
        "best_in_training",
    ),
    Claim(
        "population_sgd_plateau",
        "On new samples the population loss of lazy training does not depend on the scale of initialisation.",
        f"{_CHIZAT}, two-layer students",
        "population_sgd",
        f"log10 of the last population loss at alpha = 100 over that at alpha = 10; {_TRIALS}",
        Expected.near(0, 0.05),
        ratio_of_losses(Student(50, "alpha", 10.0), Student(50, "alpha", 100.0)),
        "best_in_training",
    ),
    # ------------------------------------------------------------------ the tangent kernel
    Claim(
        "spectrum_on_images",
        "The spectrum of the tangent kernel falls faster on images than on noise, as their covariances do.",
        f"{_CHIZAT}, appendix, for the comparison; arXiv:2002.02561, for the sign",
        "kernel_spectra",
        "exponent of lambda_i in the rank i, from 5 to 200, on images minus that on noise; paired over seeds of the "
        "initial weights, error over these",
        Expected(-math.inf, 0),
        exponent_on_images_minus_noise,
        "image_spectra",
        "From the second eigenvalue to the last one the sign is the expected one, which three seeds do not resolve.",
    ),
    Claim(
        "constant_mode",
        "One eigenvalue makes most of the trace of the kernel of a deep network in the ordered phase, on any inputs.",
        "arXiv:1907.05715, freeze",
        "kernel_spectra",
        f"largest eigenvalue over the trace, at initialisation; {_WEIGHTS}",
        Expected(0.5, 1),
        largest_eigenvalue,
        "image_spectra",
    ),
    Claim(
        "silent_alignment",
        "At a small alpha most of the alignment of the kernel with the labels comes before the train loss has fallen "
        "by a tenth.",
        "arXiv:2111.00034, abstract",
        "kernel_evolution",
        "share of the rise of the alignment at this moment, alpha = 0.01, of the rise from w0 to the largest "
        f"alignment; {_WEIGHTS}",
        Expected(0.5, 1),
        share_of_alignment(0.01, 0.9),
        "kernel_evolution",
    ),
    Claim(
        "alignment_before_growth",
        "At a small alpha the kernel aligns with the labels before its norm grows.",
        "arXiv:2111.00034, abstract",
        "kernel_evolution",
        "share of the rise of the alignment minus that of the growth of the logarithm of the norm, where the train "
        f"loss has fallen by a tenth, alpha = 0.01; {_WEIGHTS}",
        Expected(0, math.inf),
        alignment_ahead_of_norm(0.01, 0.9),
        "kernel_evolution",
    ),
    Claim(
        "learnt_kernel_error",
        "Regression with the kernel at the end has a smaller test error than with the kernel at initialisation.",
        "arXiv:2010.15110, abstract",
        "kernel_evolution",
        "test error of regression with the last kernel minus that with the kernel at w0, in percent; "
        f"{_WEIGHTS}, paired, on one training and one test set",
        Expected(-math.inf, 0),
        last_kernel_minus_first("kernel_evolution/test_error", (0.01, 0.1), 100.0),
        "kernel_evolution",
    ),
    Claim(
        "learnt_kernel_loss",
        "Regression with the kernel at the end has a smaller test loss than with the kernel at initialisation.",
        "arXiv:2010.15110, abstract",
        "kernel_evolution",
        "test loss of regression with the last kernel minus that with the kernel at w0; "
        f"{_WEIGHTS}, paired, on one training and one test set",
        Expected(-math.inf, 0),
        last_kernel_minus_first("kernel_evolution/test_loss", (0.01, 0.1)),
        "kernel_evolution",
    ),
    # ------------------------------------------------------------------ learning rates by layer
    Claim(
        "mup_changes",
        "With the learning rates of muP the activations of each layer change by the same amount at any width.",
        "arXiv:2203.03466, coordinate check",
        "coordinate_check",
        f"exponents of rms(z - z0) against h after one step and after eight; {_POWERS}",
        Expected.near(0, 0.1),
        exponents_of_changes(),
        "coordinate_check",
    ),
    Claim(
        "equal_rates_first_layer",
        "With one learning rate for Adam the activations of the first layer change by the same amount at any width.",
        "arXiv:2203.03466, standard parametrisation",
        "coordinate_check_equal_rates",
        f"exponents of rms(z - z0) against h after one step and after eight; {_POWERS}",
        Expected.near(0, 0.1),
        exponents_of_changes("hidden.0"),
        "coordinate_check",
    ),
    Claim(
        "equal_rates_further_layers",
        "With one learning rate for Adam the activations of the further layers and the output change by sqrt(h).",
        "arXiv:2203.03466, standard parametrisation",
        "coordinate_check_equal_rates",
        f"exponents of rms(z - z0) against h after one step and after eight; {_POWERS}",
        Expected.near(0.5, 0.1),
        exponents_of_changes("hidden.1", "hidden.2", "F"),
        "coordinate_check",
        "The exponent of hidden.1 between neighbouring widths rises with h, from 0.3 to above 0.4: the law of wide "
        "networks is approached from below.",
    ),
    # ------------------------------------------------------------------ grokking
    Claim(
        "rich_networks_do_not_grok",
        "A network that learns features learns its training set and the task at the same time, within a factor of two.",
        "arXiv:2310.06110, abstract",
        "grokking",
        "time at which the test loss has fallen to a tenth of its start over that of the train loss, alpha = 0.02; "
        "mean over training sets, each averaged over two seeds of the initial weights",
        Expected(0.5, 2),
        delay(0.02),
        "flow_curves",
        "It is between 1.7 and 9.3 on the ten training sets of 100 samples in 20 dimensions.",
    ),
    Claim(
        "lazy_networks_grok",
        "The delay of the test loss grows as training becomes lazy.",
        "arXiv:2310.06110, abstract",
        "grokking",
        "log10 of the ratio of the times of the test and the train loss over that at alpha = 0.02; paired over "
        "training sets, each averaged over two seeds of the initial weights; of a test loss that has not fallen so "
        "far, the end of training is taken, which makes the ratio a lower bound",
        Expected(0, math.inf),
        delay_over_rich_one((1.0, 2.0), 0.02),
        "flow_curves",
    ),
    # ------------------------------------------------------------------ noise of SGD
    Claim(
        "noise_moves_weights",
        "At a higher temperature of SGD the weights have moved further when the training set is fitted.",
        "arXiv:2301.13703, abstract (ii)",
        "noise_plane",
        f"log10 of the relative displacement at the highest temperature over that at the lowest; {_BATCHES}",
        Expected(0, math.inf),
        growth_with_temperature("displacement/total"),
        "noise_plane",
    ),
    Claim(
        "noise_takes_time",
        "At a higher temperature of SGD it takes longer to fit the training set.",
        "arXiv:2301.13703, abstract (ii)",
        "noise_plane",
        f"log10 of the time, rate times steps, at the highest temperature over that at the lowest; {_BATCHES}",
        Expected(0, math.inf),
        growth_with_temperature("t"),
        "noise_plane",
    ),
    Claim(
        "noise_leaves_the_lazy_regime",
        "Increasing the temperature takes a lazy network away from its initial kernel.",
        "arXiv:2301.13703, abstract (i)",
        "noise_plane",
        "log10 of the kernel drift at the highest temperature over that at the lowest, where alpha is 1 or larger; "
        f"{_BATCHES}",
        Expected(0, math.inf),
        growth_with_temperature("kernel_drift/total", smallest_alpha=1.0),
        "noise_plane",
    ),
    # ------------------------------------------------------------------ the number of samples
    Claim(
        "narrow_learning_curves",
        "The test error of narrower networks falls more slowly with the number of training samples.",
        "arXiv:2212.12147, abstract",
        "learning_curves",
        f"exponent of the test error in n of h = 30 minus that of h = 100; {_SETS}, error over training sets and "
        "scatter of the points",
        Expected(0, math.inf),
        exponent_of_narrow_minus_wide,
        "error_by_samples",
    ),
    Claim(
        "ensembles_at_many_samples",
        "The average output of three networks has a smaller test error than one of them at many samples, in both "
        "regimes.",
        "arXiv:2212.12147, abstract",
        "learning_curves",
        "mean test error of three networks minus that of their average, in percent, n = 400; mean over training sets",
        Expected(0, math.inf),
        gain_over_training_sets,
        "error_by_samples",
    ),
    Claim(
        "features_reduce_variance",
        "Feature learning reduces the variance over initial weights.",
        "arXiv:2212.12147, abstract",
        "learning_curves",
        "log10 of the variance of F over three seeds of the weights at sqrt(h) alpha = 0.1 over that at 1000, n = 400; "
        "paired over training sets",
        Expected(-math.inf, 0),
        variance_of_feature_over_lazy,
        "bias_by_samples",
    ),
)
"""These claims; names are unique among all."""
