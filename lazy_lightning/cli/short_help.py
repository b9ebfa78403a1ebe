"""What ``--help`` prints: the keys that experiments are made of. ``--help=all`` lists the others, the trainer's too."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from importlib.metadata import version

from lazy_lightning import __version__
from lazy_lightning.cli.bundled import bundled_configs
from lazy_lightning.cli.subcommands import CONFIGURED, SUBCOMMANDS

_OPTIONS: Mapping[str, str] = {
    "--config NAME": "a configuration, bundled or a path; several are stacked, and later ones win",
    "--ckpt_path FILE": "go on from this checkpoint, or evaluate it",
    "--print_config": "print the whole configuration as YAML, and do nothing",
    "--KEY VALUE": "any key of a configuration; VALUE is YAML: --model.alpha='[0.01, 1, 100]'",
    "--model.help CLASS": "the arguments of FlowModule or MiniBatchModule; likewise --data.help Digits",
    "--help=all": "every option, those of Lightning's trainer too",
}
_OF_SUBCOMMAND: Mapping[str, Mapping[str, str]] = {
    "fit": {"--resume RUN": "go on with an interrupted run, in its own folder, from its checkpoint"},
    "kernel": {
        "--at init|end": "the weights whose kernel it is; with --ckpt_path, those of the checkpoint",
        "--layers NAMES": "the part of some layers alone; last is the kernel of the features",
        "--kernel_outputs full|mean": "couple the outputs as the network does, or give each the mean kernel",
    },
    "sweep": {
        "--sweep FILE": "the grid, a YAML file such as sweeps/phase_diagram.yaml",
        "--out FOLDER": "of the sweep; by default its name, in the logger's save_dir",
        "--dry_run": "show the plan with an estimate of time and memory, and train nothing",
        "--retry_failed": "train members again that have failed",
        "--workers N": "processes that train batches at a time; 0 trains in this one",
        "--max_members N": "members of a batch, at most",
    },
}
KEYS: Mapping[str, Mapping[str, str]] = {
    "model (lazy_lightning.modules.FlowModule)": {
        "model.network": "such as lazy_lightning.nn.FC; its own arguments are model.network.KEY",
        "model.loss": "softhinge(20), hinge, quadratic_hinge, mse, cross_entropy, or package.Loss",
        "model.alpha": "the scale, or a list: small learns features, large is lazy",
        "model.seeds": "how many initial seeds, or a list of them",
        "model.centering": "subtract f(w0, x)",
        "model.tau": "memory time of the momentum; 0 is gradient flow",
        "model.controller": "step sizes: gradient_change, reference, or a class",
        "model.dt": "first step size to try",
        "model.stop.margin": "end when all margins are at least this",
        "model.stop.t_max": "end at this time of the flow",
        "model.stop.max_steps": "end after this many tried steps",
        "model.stop.max_wall": "end after this many seconds",
        "model.chunk_size": "samples evaluated at once, to bound memory",
    },
    "data (lazy_lightning.data)": {
        "data": "Digits, MNIST, FashionMNIST, CIFAR10, ArrayFile, Stripe, Sphere, Cylinder, TeacherStudent, ...",
        "data.n_train": "training samples",
        "data.n_test": "test samples",
        "data.train_seed": "which samples are drawn for training",
        "data.labels": "parity, multiclass, a pair of classes, or a map {0: 1, 1: -1}",
        "data.batch_size": "mini-batches, for MiniBatchModule",
    },
    "trainer (pytorch_lightning.Trainer)": {
        "trainer.precision": "64-true (the papers') or 32-true",
        "trainer.accelerator": "auto, cpu, gpu",
        "trainer.max_epochs": "of mini-batch training",
        "trainer.logger.save_dir": "folder of the runs",
        "trainer.logger.name": "name of the run",
        "trainer.callbacks+": "observers to add; presets of them are in callbacks/",
    },
}
"""Keys of a configuration by group, each with what it is."""
_WIDTH = 100


def version_line() -> str:
    """Name and versions, read from what is installed: importing torch takes seconds."""
    return f"lazy-lightning {__version__} (torch {version('torch')})"


def program_help() -> str:
    """For ``lazy-lightning --help``."""
    return "\n".join(
        [
            "usage: lazy-lightning SUBCOMMAND [options]",
            "",
            "Follows the gradient flow of alpha-centred neural networks, lazy or feature-learning.",
            "",
            *_table(SUBCOMMANDS),
            "",
            "lazy-lightning SUBCOMMAND --help shows its options. To begin: lazy-lightning fit --config digits_fc.yaml",
        ]
    )


def subcommand_help(name: str) -> str:
    """For ``lazy-lightning NAME --help``."""
    bundled = ", ".join(sorted(key.removesuffix(".yaml") for key in bundled_configs()))
    sections = [_titled("options", {**_OF_SUBCOMMAND.get(name, {}), **_OPTIONS})]
    sections += [_titled(title, {f"--{key}": what for key, what in keys.items()}) for title, keys in KEYS.items()]
    return "\n\n".join(
        [
            f"usage: lazy-lightning {name} --config NAME [--config NAME ...] [--KEY VALUE ...]",
            f"{CONFIGURED[name][0].upper()}{CONFIGURED[name][1:]}.",
            *sections,
            "bundled configurations:\n" + textwrap.fill(bundled, _WIDTH, initial_indent="  ", subsequent_indent="  "),
        ]
    )


def _titled(title: str, rows: Mapping[str, str]) -> str:
    return "\n".join([f"{title}:", *_table(rows)])


def _table(rows: Mapping[str, str]) -> list[str]:
    wide = 26
    lines = []
    for name, what in rows.items():
        text = textwrap.wrap(what, _WIDTH - wide)
        first = f"  {name:<{wide - 2}}"
        lines += [first + text[0]] if len(name) < wide - 2 else [first.rstrip(), " " * wide + text[0]]
        lines += [" " * wide + line for line in text[1:]]
    return lines
