"""The subcommand ``init``: writes a commented configuration for the data in a file of the user.

The choices follow from the data: classes or numbers to predict, the sizes of the sets, preprocessing, loss and stop.
The data are then prepared with these choices, so a configuration that is written can be trained.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
import yaml
from torch import Tensor

from lazy_lightning.data import ArrayFile, TableFile
from lazy_lightning.data.image_data import ImageData
from lazy_lightning.data.table_file import read_table
from lazy_lightning.errors import ConfigError, DataError
from lazy_lightning.plain_text import printable
from lazy_lightning.runs.atomic import written_atomically

_TABLES = (".csv", ".parquet")
_MOST_TRAINING_SAMPLES = 1000
_MOST_TEST_SAMPLES = 1000
_LARGE_INPUT = 20_000_000
"""Numbers in the training set from which a flow evaluates it in parts."""
_FEWEST_PIXELS = 16
"""Height and width from which the CNN is offered."""
_EPOCHS = 20
_MOST_STEPS = 10_000
_LARGEST_KERNEL = 2000
"""Rows of a tangent kernel, training samples times outputs, up to which the integrator ``auto`` is chosen."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog}: {message}; --help lists the options")


class Choices(NamedTuple):
    """What the data decide.

    Attributes:
        source: the class that reads the file, ``ArrayFile`` or ``TableFile``.
        description: what the file contains, one sentence.
        options: arguments of the class with the comment on each.
        inputs: shape of one sample.
        task: ``binary``, ``multiclass`` or ``regression``.
        outputs: numbers that a network puts out for one sample.
    """

    source: str
    description: str
    options: Mapping[str, tuple[Any, str]]
    inputs: tuple[int, ...]
    task: str
    outputs: int

    def datamodule(self) -> ImageData:
        """Builds the datamodule that the configuration describes."""
        given = {name: value for name, (value, _) in self.options.items()}
        return TableFile(**given) if self.source == "TableFile" else ArrayFile(**given)


def init(args: Sequence[str]) -> int:
    """Runs ``init --data FILE`` and returns the exit code.

    Raises:
        ConfigError: an option is invalid or the configuration exists already.
        DataError: the file cannot be read, or its samples cannot be divided into training and test sets.
    """
    given = _parser().parse_args(args)
    output = given.output or Path(f"{given.data.stem}.yaml")
    if output.exists():
        raise ConfigError(f"{output} exists already: name another file by --output, or remove this one")
    if not output.parent.is_dir():
        raise ConfigError(f"there is no folder {output.parent} for the configuration: create it, or change --output")
    if given.batch_size is not None and given.batch_size < 1:
        raise ConfigError(f"--batch_size must be at least 1, got {given.batch_size}")
    choices = prepared(choose(given.data, given.targets, given.batch_size))
    text = configuration_text(choices, given.network, given.batch_size)
    with written_atomically(output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"{printable(given.data)}: {choices.description}")
    print(f"wrote {printable(output)}; train it by: lazy-lightning fit --config {printable(output)}")
    return 0


def _parser() -> _Parser:
    parser = _Parser("lazy-lightning init", description="Writes a commented configuration for data of your own.")
    parser.add_argument(
        "--data",
        required=True,
        type=Path,
        help=".npz file with x (n, ...) and y (n,), or a .csv or .parquet table with a row for each sample",
    )
    parser.add_argument("--targets", nargs="+", help="of a table: the columns to predict (default: the last one)")
    parser.add_argument("--output", type=Path, help="the configuration (default: the name of the data, with .yaml)")
    parser.add_argument("--network", choices=("fc", "cnn"), default="fc", help="fully connected, or convolutional")
    parser.add_argument(
        "--batch_size", type=int, help="train on mini-batches of this size (default: flow of the whole training set)"
    )
    return parser


# ---------------------------------------------------------------------- choices


def choose(path: Path, targets: Sequence[str] | None = None, batch_size: int | None = None) -> Choices:
    """Reads the file and chooses labels, sizes of the sets and preprocessing.

    Args:
        path: an ``.npz``, ``.csv`` or ``.parquet`` file.
        targets: columns of a table to predict; None for the last one.
        batch_size: size of mini-batches, or None for full-batch flow.

    Raises:
        ConfigError: targets are given for a file without columns.
        DataError: the file cannot be read or used.
    """
    options: dict[str, tuple[Any, str]] = {"path": (str(path), "relative to the folder in which fit is started")}
    if path.suffix.lower() in _TABLES:
        source = "TableFile"
        names = [str(read_table(path.expanduser()).columns[-1])] if targets is None else list(targets)
        options["targets"] = (names, "columns to predict; all others are inputs, unless features: [...] names them")
        file: ImageData = TableFile(
            str(path), names, labels="regression" if len(names) > 1 else "multiclass", n_train=1, n_test=1
        )
    elif targets is not None:
        raise ConfigError(f"--targets names columns of a table, but {path} is not a .csv or .parquet file")
    else:
        source, file = "ArrayFile", ArrayFile(str(path), n_train=1, n_test=1)
    pool = file.load_pool()
    task, labels, told = _labels(pool.y, {number: name for name, number in file.class_names.items()}, path)
    options |= labels
    options |= _sizes(pool.y, task)
    if batch_size is not None:
        options["batch_size"] = (batch_size, "samples of a mini-batch")
    inputs = tuple(pool.x.shape[1:])
    options |= _preprocessing(pool.x)
    shape = " x ".join(map(str, inputs))
    return Choices(
        source, f"{len(pool.y)} samples of {shape} inputs, {told}", options, inputs, task, _outputs(pool.y, task)
    )


def _outputs(y: Tensor, task: str) -> int:
    if task == "multiclass":
        return len(torch.unique(y))
    return y.shape[1] if y.ndim == 2 else 1


def _labels(y: Tensor, names: Mapping[int, str], path: Path) -> tuple[str, dict[str, tuple[Any, str]], str]:
    """Returns the task, the options about labels, and a description of the targets."""
    if y.is_floating_point():
        if bool((y == y[0]).all()):
            raise DataError(f"all targets in {path} are equal: there is nothing to learn from them")
        count = 1 if y.ndim == 1 else y.shape[1]
        whole = bool((y == y.round()).all()) and len(torch.unique(y)) <= 20
        hint = "; they are whole numbers: if they are classes, save y as integers" if whole else ""
        options: dict[str, tuple[Any, str]] = {
            "labels": ("regression", "the targets are real numbers"),
            "standardise_targets": (True, "mean 0 and variance 1 over the training set"),
        }
        return "regression", options, f"{count} real target{'s' if count > 1 else ''}{hint}"
    values, counts = torch.unique(y, return_counts=True)
    if not names and len(values) > max(2, len(y) // 2):  # hardly any two are equal: amounts, not classes
        task, numbers, told = _labels(y.double() + 0.0, names, path)
        return task, numbers, told.partition(";")[0] + ", whole numbers of which hardly two are equal"
    if len(values) < 2:
        raise DataError(f"{path} contains one class alone: give samples of at least two, or real-valued targets")
    if int(counts.min()) < 2:
        rare = int(values[counts.argmin()])
        raise DataError(
            f"{path} contains one sample of class {names.get(rare, rare)}, but training and test sets need one each: "
            "add samples or remove this one; if y are numbers to predict, save them as floating-point numbers"
        )
    if len(values) > 2:
        return (
            "multiclass",
            {"labels": ("multiclass", f"one output for each of {len(values)} classes")},
            f"{len(values)} classes",
        )
    low, high = (names.get(int(value), int(value)) for value in values)
    signs = {low: -1, high: 1}
    return "binary", {"labels": (signs, "the sign of each class; 0 drops a class")}, f"two classes, {low} and {high}"


def _sizes(y: Tensor, task: str) -> dict[str, tuple[Any, str]]:
    """Returns the sizes of the sets, such that no class is used up by the test set, which is drawn first."""
    n = len(y)
    test = max(1, min(n // 5, _MOST_TEST_SAMPLES))
    if task != "regression":
        counts = torch.unique(y, return_counts=True)[1]
        test = len(counts) * max(1, min(test // len(counts), int(counts.min()) // 2))
    elif n < 2:
        raise DataError(f"there is {n} sample, but training and test sets need one each: add samples")
    train = min(n - test, _MOST_TRAINING_SAMPLES)
    drawn = "drawn class by class, before the training set" if task != "regression" else "drawn before the training set"
    return {
        "n_train": (train, f"training samples; {n} samples are there in all"),
        "n_test": (test, f"test samples, {drawn}"),
    }


def _preprocessing(x: Tensor) -> dict[str, tuple[Any, str]]:
    """Columns of a table have units of their own; images are centred and scaled to one norm, as in arXiv:1906.08034."""
    if x.ndim > 2:
        return {
            "centre": (True, "subtract the mean image of the training set"),
            "sphere": (True, "scale each sample to the norm sqrt(number of inputs)"),
        }
    return {
        "standardise": (True, "shift and scale each input to mean 0 and variance 1 over the training set"),
        "centre": (False, "standardise does so already"),
        "sphere": (False, "true: scale each sample to the norm sqrt(number of inputs)"),
    }


_WITHOUT = {
    "standardise": "off, because an input is constant over the training set",
    "sphere": "off, because a sample has no direction",
}


def prepared(choices: Choices) -> Choices:
    """Prepares the data as training will, and switches off a step of preprocessing that they do not admit.

    Raises:
        DataError: the data cannot be prepared in any of these ways.
    """
    for name, reason in _WITHOUT.items():
        try:
            choices.datamodule().setup()
            return choices
        except DataError:
            if not choices.options.get(name, (False, ""))[0]:
                continue
            changed: dict[str, tuple[Any, str]] = {**choices.options, name: (False, reason)}
            if name == "standardise":
                changed["centre"] = (True, "subtract the mean of each input over the training set")
            choices = choices._replace(options=changed)
    choices.datamodule().setup()
    return choices


# ---------------------------------------------------------------------- text


def configuration_text(choices: Choices, network: str, batch_size: int | None) -> str:
    """Returns the YAML text of the configuration, with a comment for each key.

    Raises:
        ConfigError: a convolutional network is asked for, but the samples are not images.
    """
    loss, told = {
        "binary": ("softhinge(20)", "smooth hinge: zero once all margins are 1, where the training ends"),
        "multiclass": ("cross_entropy", "of the outputs for all classes"),
        "regression": ("mse", "(F - y)^2/2; mean 1/2 at the start for targets of variance 1"),
    }[choices.task]
    name = Path(choices.options["path"][0]).stem
    lines = [
        f"# {choices.description}; written by: lazy-lightning init --data {choices.options['path'][0]}".replace(
            "\n", " "
        ),
        "# Any key can be changed here or on the command line: --model.alpha='[0.1, 10]'. The most used keys",
        "# are listed by lazy-lightning fit --help, those of a class by --model.help CLASS and --data.help CLASS.",
        "trainer:",
        "  precision: 64-true           # 32-true is faster, but loses digits of f - f0 at alpha > 10",
        *([] if batch_size is None else [f"  max_epochs: {_EPOCHS}               # passes over the training set"]),
        "  logger:",
        "    class_path: pytorch_lightning.loggers.TensorBoardLogger",
        f"    init_args: {{save_dir: runs, name: {_value(name)}, default_hp_metric: false}}   # in runs/NAME/version_K",
        "  callbacks+:                  # observers; callbacks/ntk.yaml, callbacks/full.yaml ... add more",
        "    - class_path: lazy_lightning.callbacks.WeightDisplacement   # ||w - w0||/||w0||, by layer",
        "model:",
        f"  class_path: lazy_lightning.modules.{'FlowModule' if batch_size is None else 'MiniBatchModule'}",
        "  init_args:",
        *_network_lines(choices.inputs, network),
        f"    loss: {loss}    # {told}",
        "    alpha: [0.01, 1, 100]      # output scales: a small one learns features, a large one trains lazily",
        "    seeds: 2                   # initialisations of each alpha; all members are one batch",
        *(_flow_lines(choices, network) if batch_size is None else _mini_batch_lines()),
        "data:",
        f"  class_path: lazy_lightning.data.{choices.source}",
        "  init_args:",
        *(f"    {key}: {_value(value)}    # {comment}" for key, (value, comment) in choices.options.items()),
    ]
    text = "\n".join(lines) + "\n"
    yaml.safe_load(text)
    return text


def _value(value: Any) -> str:
    """Formats a value as flow-style YAML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_value(key)}: {_value(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    plain = isinstance(value, str) and value.replace("_", "").replace("/", "").isalpha() and value.isascii()
    reserved = plain and yaml.safe_load(value) != value
    return value if plain and not reserved else json.dumps(value)


def _network_lines(inputs: tuple[int, ...], network: str) -> list[str]:
    images = len(inputs) == 3 and min(inputs[1:]) >= _FEWEST_PIXELS
    if network == "cnn" and not images:
        raise ConfigError(
            f"--network cnn needs images (n, channels, height, width) of at least {_FEWEST_PIXELS} pixels a side, but "
            f"a sample has the shape {inputs}: leave it at fc"
        )
    fc = "{class_path: lazy_lightning.nn.FC, init_args: {width: 100, depth: 3, activation: softplus(5)}}"
    cnn = (
        "{class_path: lazy_lightning.nn.CNN, init_args: {width: 16, stages: 2, layers: 2, filter_size: 5, padding: 1}}"
    )
    chosen, other = (cnn, fc) if network == "cnn" else (fc, cnn)
    alternative = f"or {other}" if images else "or package.YourNetwork, any nn.Module"
    return [
        f"    # Sizes of inputs and outputs come from the data; {alternative}.",
        f"    network: {chosen}",
    ]


def _flow_lines(choices: Choices, network: str) -> list[str]:
    stop = "" if choices.task == "binary" else "loss: 0.01, "
    reason = "" if choices.task == "binary" else "training loss at a hundredth of its start, or "
    large = choices.options["n_train"][0] * torch.Size(choices.inputs).numel() > _LARGE_INPUT
    rows = choices.options["n_train"][0] * choices.outputs
    integrator = (
        "auto           # few evaluations at any alpha; euler: the rule of the papers"
        if rows <= _LARGEST_KERNEL and network == "fc"
        else f"euler          # auto takes fewer evaluations, but needs the tangent kernel, of {rows} rows"
    )
    return [
        f"    integrator: {integrator}",
        "    tau: 0                     # memory time of the momentum; 0 is gradient flow",
        "    dt: 0.01                   # first tried step; the step size adapts from there",
        f"    chunk_size: {'200 ' if large else 'null'}           # samples evaluated at once; bounds the memory",
        f"    stop: {{{stop}max_steps: {_MOST_STEPS}}}   # {reason}at most {_MOST_STEPS} tried steps",
    ]


def _mini_batch_lines() -> list[str]:
    return [
        "    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1, momentum: 0.9}}",
        "    search: {candidates: [10.0, 1.0, 0.1, 0.01], steps: 60}   # learning rate of each alpha, by short trials",
        "    companions: [linearized]   # the linearisation, trained on the same batches",
    ]
