"""The argument parser: LightningCLI's, with errors that can be told in one sentence."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any

import yaml
from jsonargparse import DefaultHelpFormatter, get_loader, set_config_read_mode, set_loader, set_parsing_settings
from pytorch_lightning.cli import LightningArgumentParser
from torch import nn

from lazy_lightning.cli.allowed import imported, returns, standard_library
from lazy_lightning.cli.bundled import check_content
from lazy_lightning.cli.messages import NETWORKS
from lazy_lightning.deprecations import present_names
from lazy_lightning.errors import ConfigError
from lazy_lightning.runs.yaml_file import parse_yaml

KERNEL_OPTIONS = ("at", "layers", "kernel_outputs")
_FROM_DATA = ("input_shape", "num_outputs", "num_classes")
_MANY = 12
_NOT_ACCEPTED = re.compile(r"(?:accept option '|^[Uu]nrecognized arguments: --)(\w+)")


class ParserError(ConfigError):
    """What the parser has to say, not yet in one sentence: it may be quoted by the parser around it."""


class ShortFormatter(DefaultHelpFormatter):
    """Leaves out of each argument's help the hundreds of classes that would be its subclasses, but for ours."""

    def _expand_help(self, action: Any) -> str:
        text: str = super()._expand_help(action)
        return re.sub(r", known subclasses: ([^)]*)", _ours, text)


def _ours(listed: re.Match[str]) -> str:
    own = [name for name in listed[1].split(", ") if name.startswith("lazy_lightning.")]
    if len(own) > _MANY:  # of nn.Module; the others are parts of networks
        own = [name for name in own if name.rpartition(".")[2] in NETWORKS]
    return f", such as {', '.join(own)}" if own else ""


class FlowArgumentParser(LightningArgumentParser):
    """A parser whose errors are exceptions, with the names that would have been known."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"formatter_class": ShortFormatter, "prog": "lazy-lightning", **options})

    def error(self, message: str, ex: Exception | None = None) -> Any:
        """Raises instead of printing the usage of several hundred options."""
        wrong = _NOT_ACCEPTED.search(message)
        if wrong is not None and wrong[1] in KERNEL_OPTIONS:
            raise ParserError(f"{wrong[1]} is an option of the subcommand kernel alone: leave it out here") from ex
        if re.search(r"Option '[^']*' is not accepted$|does not accept option '[^']*'$|^[Uu]nrecognized", message):
            message = f"{message} (known: {', '.join(sorted(self._known_names(message)))})"
        raise ParserError(message) from ex

    # ------------------------------------------------------------------ networks: factories that the data complete

    def add_class_arguments(self, theclass: type, *args: Any, **options: Any) -> Any:
        """Adds a class's arguments; those of a network that the data decide are not required.

        jsonargparse skips zero positional arguments, ``{0}``, of a class that a ``Callable[[], Class]`` builds.
        """
        added = super().add_class_arguments(theclass, *args, **options)
        if 0 in (options.get("skip") or ()) and inspect.isclass(theclass) and issubclass(theclass, nn.Module):
            self._require_no_shapes()
        return added

    def add_function_arguments(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Adds a function's arguments; if it builds a network, those that the data decide are not required."""
        added = super().add_function_arguments(function, *args, **options)
        if returns(function, nn.Module):
            self._require_no_shapes()
        return added

    def instantiate_classes(self, cfg: Any, **options: Any) -> Any:
        """Builds the classes; a function that builds networks gets its arguments bound, and is called for each seed."""
        for key, path in cfg.items():
            if key.endswith("network.class_path") and not inspect.isclass(function := imported(path, key)):
                self.add_instantiator(_bound, function, subclasses=False)
        return super().instantiate_classes(cfg, **options)

    def _require_no_shapes(self) -> None:
        decided = decided_by_data({action.dest for action in self._actions})
        for action in self._actions:
            if action.dest in decided:
                action.required = False
        getattr(self, "required_args", set()).difference_update(decided)  # of jsonargparse before 4.53

    # ------------------------------------------------------------------ errors

    def _known_names(self, message: str) -> set[str]:
        subcommands = self._subcommands_action
        parsers = [self] if subcommands is None else list(subcommands.choices.values())
        actions = [action for parser in parsers for action in parser._actions]
        if message[1:].startswith("nrecognized"):
            return {name for action in actions for name in action.option_strings if name.startswith("--")}
        names = {action.dest.partition(".")[0] for action in actions} - {"help", "config", "print_config"}
        return names | {action.dest for action in actions if "." in action.dest}


def decided_by_data(arguments: Iterable[str]) -> set[str]:
    """Those of a network's arguments that :func:`~lazy_lightning.nn.construction.fitted_to_data` gives.

    >>> sorted(decided_by_data(["width", "num_classes"])), sorted(decided_by_data(["num_outputs", "num_classes"]))
    (['num_classes'], ['num_outputs'])
    """
    decided = {name for name in arguments if name in _FROM_DATA}
    return decided - {"num_classes"} if "num_outputs" in decided else decided


def default_arguments(path: str) -> dict[str, Any]:
    """The arguments of a class or function as the parser sees them, with their defaults; None where there is none."""
    target = imported(path, "class_path")
    parser = FlowArgumentParser(exit_on_error=False)
    add = parser.add_class_arguments if inspect.isclass(target) else parser.add_function_arguments
    add(target, fail_untyped=False)
    return {action.dest: parser.get_defaults().get(action.dest) for action in parser._actions}


def _bound(function: Callable[..., Any], *args: Any, **options: Any) -> Callable[..., Any]:
    return functools.partial(function, *args, **options)


@functools.cache
def bound_parser() -> None:
    """Takes from jsonargparse what a configuration has no use for; for all of its parsers in this process.

    Texts go through the reader with limits, nothing is fetched from an address (``memory://``, ``http://``), and what
    Python's own library holds cannot be named, so that it is not imported either. Interpolation (``${...}``) and
    ``@file`` are off by default: they stay texts.
    """
    stock = get_loader("yaml")

    def bounded(text: str) -> Any:
        check_content(parse_yaml(text, "a value"), "a value")
        return present_names(stock(text))

    set_loader("yaml", bounded, (yaml.YAMLError, ConfigError))
    set_config_read_mode(fsspec_enabled=False, urls_enabled=False)
    if "import_path_denylist" in inspect.signature(set_parsing_settings).parameters:  # since jsonargparse 4.53
        set_parsing_settings(import_path_denylist=sorted(standard_library()))
