"""The experiments of the claims: commands whose runs the claims are measured on."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from lazy_lightning.claims.experiment import FIT as _FIT
from lazy_lightning.claims.experiment import Experiment
from lazy_lightning.claims.further_experiments import FURTHER_EXPERIMENTS

_SCALING = "--config digits_fc.yaml --config callbacks/t1.yaml --config overlays/auto.yaml"
_DIGITS = "--config digits_fc.yaml --data.n_train=200 --data.n_test=797 --model.dt=1e-3"
_VGG = "--config cifar_vgg.yaml --config overlays/cifar_vgg_fitted.yaml"
_FC = "--model.network=FC --model.network.width=100 --model.network.depth=3 --model.network.activation=swish"
_FASHION = (
    "--data=FashionMNIST --data.augment=null --data.n_train=1000 --data.n_test=5000 --trainer.max_epochs=40 "
    "--model.alpha=[0.1,100] --model.seeds=2 --model.data_seeds=5"
)
_STUDENT = "--config teacher_student.yaml --config overlays/teacher_student_small.yaml"

EXPERIMENTS: Mapping[str, Experiment] = MappingProxyType(
    {
        "scaling": Experiment(
            "digits, parity, 200 images; FC of three layers, h = 50 to 400; sqrt(h) alpha from 0.001 to 10000, five "
            "seeds; kernels on 100 further images; integrator auto, from 100 on with a tolerance of 3e-5",
            {
                "feature": f"sweep {_SCALING} --sweep sweeps/scaling_feature.yaml --out FOLDER",
                "lazy": f"sweep {_SCALING} --config callbacks/laziness.yaml --sweep sweeps/scaling_lazy.yaml "
                "--out FOLDER",
            },
        ),
        "kernels": Experiment(
            "digits, parity, 200 images; frozen kernels at initialisation of FC, h = 100 to 800, 40 seeds",
            {
                f"h{width}": f"kernel {_DIGITS} --model.network.width={width} --model.alpha=1.0 --model.seeds=40 {_FIT}"
                for width in (100, 200, 400, 800)
            },
        ),
        "ensembles": Experiment(
            "digits, parity, 200 images; FC of three layers, h = 30 and 300, ten seeds; integrator auto",
            {"": f"sweep {_DIGITS} --config overlays/auto.yaml --sweep sweeps/ensembles.yaml --out FOLDER"},
        ),
        "fashion_fc": Experiment(
            "Fashion-MNIST, parity, 250 and 1000 images, 5000 test images; FC of three layers, h = 30 and 100; a lazy "
            "and a feature-learning scale; five training sets with three seeds of the weights each; integrator auto",
            {
                "": "sweep --config fashion_fc.yaml --config overlays/auto.yaml --data.n_test=5000 "
                "--model.stop.margin_share=0.98 --sweep sweeps/fully_connected.yaml --out FOLDER"
            },
            images="FashionMNIST",
        ),
        "cifar_cnn": Experiment(
            "CIFAR-10, parity, 1300 images with crops and flips, 700 test images; CNN of 16 channels, SGD, five seeds",
            {"": f"fit --config cifar_cnn_minibatch.yaml {_FIT}"},
            images="CIFAR10",
        ),
        "fashion_cnn": Experiment(
            "Fashion-MNIST, parity, 1000 images without augmentation, 5000 test images; CNN of 16 channels, SGD for 40 "
            "epochs; five training sets with two seeds of the weights each",
            {"": f"fit --config cifar_cnn_minibatch.yaml {_FASHION} {_FIT}"},
            images="FashionMNIST",
        ),
        "cifar_fc": Experiment(
            "CIFAR-10 as for the CNN; FC of three layers, h = 100, SGD, five seeds",
            {"": f"fit --config cifar_cnn_minibatch.yaml {_FC} {_FIT}"},
            images="CIFAR10",
        ),
        "cifar_vgg": Experiment(
            "CIFAR-10, ten classes, 1000 images without augmentation, 1034 test images; VGG-11 with an eighth of the "
            "channels and weights of variance 4/(fan_in + fan_out), SGD for 120 epochs, three seeds",
            {"": f"fit {_VGG} {_FIT}"},
            images="CIFAR10",
        ),
        "students": Experiment(
            "two-layer students of a teacher of three neurons, d = 100, n = 1000, five seeds, full-batch gradient flow",
            {
                scaling: f"sweep {_STUDENT} --sweep sweeps/students_{scaling}.yaml --out FOLDER"
                for scaling in ("sqrt", "mean")
            },
        ),
        **FURTHER_EXPERIMENTS,
    }
)
"""Experiments by name, which is also the name of the folder of their runs."""
