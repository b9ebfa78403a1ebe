"""Text of ``--help``: the most used keys of a configuration. ``--help=all`` also lists all others and the trainer's."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from lazy_lightning.cli.bundled import bundled_configs
from lazy_lightning.cli.subcommands import CONFIGURED, SUBCOMMANDS

_OPTIONS: Mapping[str, str] = {
    "--config NAME": "a bundled configuration or the path of a file; of several, later ones override earlier ones",
    "--ckpt_path FILE": "resume from this checkpoint, or evaluate it",
    "--print_config": "print the whole configuration as YAML and exit",
    "--KEY VALUE": "any key of a configuration; VALUE is YAML: --model.alpha='[0.01, 1, 100]'",
    "--model.help CLASS": "the arguments of FlowModule or MiniBatchModule; likewise --data.help Digits",
    "--help=all": "list every option, including those of Lightning's trainer",
}
_OF_SUBCOMMAND: Mapping[str, Mapping[str, str]] = {
    "fit": {"--resume RUN": "resume an interrupted run in its own folder, from its checkpoint"},
    "kernel": {
        "--at init|end": "the weights at which the kernel is computed; with --ckpt_path, those of the checkpoint",
        "--layers NAMES": "use only the contribution of these layers; last is the kernel of the features",
        "--kernel_outputs full|mean": "use the full kernel between outputs, or its mean over outputs for each",
    },
    "sweep": {
        "--sweep FILE": "the grid, a YAML file such as sweeps/phase_diagram.yaml",
        "--out FOLDER": "the folder of the sweep; by default the sweep's name, in the logger's save_dir",
        "--dry_run": "print the plan with estimates of time and memory, and train nothing",
        "--retry_failed": "train failed members again",
        "--workers N": "number of processes or jobs that train batches in parallel; 0 trains in this process",
        "--max_members N": "largest number of members in a batch",
        "--executor NAME": "what trains the batches: local (the default), ray or slurm",
        "--retries N": "how often a batch whose process has died is resumed before it is divided",
        "--cpus N": "number of cores of a batch, with ray and slurm",
        "--gpus F": "GPUs of a batch with ray; 0.25 lets four batches share one",
        "--address A": "a running Ray cluster, or auto; without it Ray is started on this machine",
        "--partition P": "partition of SLURM; also --time, --gres gpu:1, --mem GB and --account",
    },
}
KEYS: Mapping[str, Mapping[str, str]] = {
    "model (lazy_lightning.modules.FlowModule)": {
        "model.network": "a network such as lazy_lightning.nn.FC; its arguments are model.network.KEY",
        "model.loss": "softhinge(20), hinge, quadratic_hinge, mse, cross_entropy, or package.Loss",
        "model.alpha": "the scale or a list of scales: small for feature learning, large for lazy training",
        "model.seeds": "the number of initial seeds, or a list of them",
        "model.centering": "whether to subtract the initial output f(w0, x)",
        "model.tau": "memory time of the momentum; 0 for gradient flow",
        "model.controller": "step-size controller: gradient_change, reference, or a class",
        "model.dt": "size of the first tried step",
        "model.stop.margin": "stop when all margins are at least this",
        "model.stop.t_max": "stop at this time of the flow",
        "model.stop.max_steps": "stop after this many tried steps",
        "model.stop.max_wall": "stop after this many seconds",
        "model.chunk_size": "number of samples evaluated at once, to bound the memory",
        "model.shard": "what is distributed over several devices: members, samples or both",
    },
    "data (lazy_lightning.data)": {
        "data": "Digits, MNIST, FashionMNIST, CIFAR10, ArrayFile, Stripe, Sphere, Cylinder, TeacherStudent, ...",
        "data.n_train": "number of training samples",
        "data.n_test": "number of test samples",
        "data.train_seed": "seed of the draw of the training samples",
        "data.labels": "parity, multiclass, a pair of classes, or a map {0: 1, 1: -1}",
        "data.batch_size": "size of the mini-batches, for MiniBatchModule",
    },
    "trainer (pytorch_lightning.Trainer)": {
        "trainer.precision": "64-true (as in the papers) or 32-true",
        "trainer.accelerator": "auto, cpu or gpu",
        "trainer.max_epochs": "number of epochs of mini-batch training",
        "trainer.logger.save_dir": "folder of the runs",
        "trainer.logger.name": "name of the run",
        "trainer.callbacks+": "observers to add; callbacks/ contains presets",
    },
}
"""Keys of a configuration by group, each with its description."""
_WIDTH = 100


def program_help() -> str:
    """Returns the text of ``lazy-lightning --help``."""
    return "\n".join(
        [
            "usage: lazy-lightning SUBCOMMAND [options]",
            "",
            "Integrates the gradient flow of alpha-scaled, centred networks, from lazy to feature-learning.",
            "",
            *_table(SUBCOMMANDS),
            "",
            "lazy-lightning SUBCOMMAND --help shows its options, lazy-lightning --version the versions.",
            "To begin: lazy-lightning fit --config digits_fc.yaml",
            "With data of your own: lazy-lightning init --data FILE",
        ]
    )


def subcommand_help(name: str) -> str:
    """Returns the text of ``lazy-lightning NAME --help``."""
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
