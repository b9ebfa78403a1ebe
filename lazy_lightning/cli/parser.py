"""The argument parser: that of LightningCLI, with errors that can be reduced to one sentence."""

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
    """The parser's original message, reduced to one sentence later, because an outer parser may quote it."""


class ShortFormatter(DefaultHelpFormatter):
    """Help formatter that lists only this package's subclasses of an argument's type, not hundreds of others."""

    def _expand_help(self, action: Any) -> str:
        text: str = super()._expand_help(action)
        return re.sub(r", known subclasses: ([^)]*)", _own_subclasses, text)


def _own_subclasses(listed: re.Match[str]) -> str:
    own = [name for name in listed[1].split(", ") if name.startswith("lazy_lightning.")]
    if len(own) > _MANY:  # subclasses of nn.Module, of which most are parts of networks
        own = [name for name in own if name.rpartition(".")[2] in NETWORKS]
    return f", such as {', '.join(own)}" if own else ""


class FlowArgumentParser(LightningArgumentParser):
    """Argument parser whose errors are exceptions with a list of the known names."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"formatter_class": ShortFormatter, "prog": "lazy-lightning", **options})

    def error(self, message: str, ex: Exception | None = None) -> Any:
        """Raises ParserError instead of printing the usage of several hundred options."""
        wrong = _NOT_ACCEPTED.search(message)
        if wrong is not None and wrong[1] in KERNEL_OPTIONS:
            raise ParserError(f"{wrong[1]} is an option of the subcommand kernel alone: leave it out here") from ex
        if re.search(r"Option '[^']*' is not accepted$|does not accept option '[^']*'$|^[Uu]nrecognized", message):
            message = f"{message} (known: {', '.join(sorted(self._known_names(message)))})"
        raise ParserError(message) from ex

    # ------------------------------------------------------------------ network factories, completed from the data

    def add_class_arguments(self, theclass: type, *args: Any, **options: Any) -> Any:
        """Adds a class's arguments; the arguments of a network that are derived from the data are not required.

        jsonargparse skips zero positional arguments, ``{0}``, of a class that a ``Callable[[], Class]`` builds.
        """
        added = super().add_class_arguments(theclass, *args, **options)
        if 0 in (options.get("skip") or ()) and inspect.isclass(theclass) and issubclass(theclass, nn.Module):
            self._require_no_shapes()
        return added

    def add_function_arguments(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Adds a function's arguments; those of a network factory that are derived from the data are not required."""
        added = super().add_function_arguments(function, *args, **options)
        if returns(function, nn.Module):
            self._require_no_shapes()
        return added

    def instantiate_classes(self, cfg: Any, **options: Any) -> Any:
        """Builds the classes; a network factory is only bound to its arguments, because it is called for each seed."""
        for key, path in cfg.items():
            if key.endswith("network.class_path") and not inspect.isclass(function := imported(path, key)):
                self.add_instantiator(_bound, function, subclasses=False)
        return super().instantiate_classes(cfg, **options)

    def _require_no_shapes(self) -> None:
        decided = decided_by_data({action.dest for action in self._actions})
        for action in self._actions:
            if action.dest in decided:
                action.required = False
        getattr(self, "required_args", set()).difference_update(decided)  # exists in jsonargparse before 4.53

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
    """Returns the arguments of a network that :func:`~lazy_lightning.nn.construction.fitted_to_data` sets.

    >>> sorted(decided_by_data(["width", "num_classes"])), sorted(decided_by_data(["num_outputs", "num_classes"]))
    (['num_classes'], ['num_outputs'])
    """
    decided = {name for name in arguments if name in _FROM_DATA}
    return decided - {"num_classes"} if "num_outputs" in decided else decided


def default_arguments(path: str) -> dict[str, Any]:
    """Returns the arguments of a class or function with the parser's defaults, None for those without a default."""
    target = imported(path, "class_path")
    parser = FlowArgumentParser(exit_on_error=False)
    add = parser.add_class_arguments if inspect.isclass(target) else parser.add_function_arguments
    add(target, fail_untyped=False)
    return {action.dest: parser.get_defaults().get(action.dest) for action in parser._actions}


def _bound(function: Callable[..., Any], *args: Any, **options: Any) -> Callable[..., Any]:
    return functools.partial(function, *args, **options)


@functools.cache
def bound_parser() -> None:
    """Disables unsafe features of jsonargparse, for all of its parsers in this process.

    Strings are read by the YAML reader with limits, nothing is fetched from an address (``memory://``, ``http://``),
    and modules of Python's standard library cannot be named, so they are not imported either. Interpolation
    (``${...}``) and ``@file`` are disabled by default: they remain strings.
    """
    stock = get_loader("yaml")

    def bounded(text: str) -> Any:
        check_content(parse_yaml(text, "a value"), "a value")
        return present_names(stock(text))

    set_loader("yaml", bounded, (yaml.YAMLError, ConfigError))
    set_config_read_mode(fsspec_enabled=False, urls_enabled=False)
    if "import_path_denylist" in inspect.signature(set_parsing_settings).parameters:  # since jsonargparse 4.53
        set_parsing_settings(import_path_denylist=sorted(standard_library()))
