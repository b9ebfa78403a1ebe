"""The argument parser: LightningCLI's, with errors that can be told in one sentence."""

from __future__ import annotations

import functools
import inspect
import re
from typing import Any

import yaml
from jsonargparse import DefaultHelpFormatter, get_loader, set_config_read_mode, set_loader, set_parsing_settings
from pytorch_lightning.cli import LightningArgumentParser

from lazy_lightning.cli.allowed import standard_library
from lazy_lightning.errors import ConfigError
from lazy_lightning.messages import NETWORKS
from lazy_lightning.yaml_file import parse_yaml

KERNEL_OPTIONS = ("at", "layers", "kernel_outputs")
_MANY = 12
_NOT_ACCEPTED = re.compile(r"(?:accept option '|^[Uu]nrecognized arguments: --)(\w+)")


class ParserError(ConfigError):
    """What the parser has to say, not yet in one sentence: it may be quoted by the parser around it."""


class ShortFormatter(DefaultHelpFormatter):  # type: ignore[misc]  # untyped
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

    def _known_names(self, message: str) -> set[str]:
        subcommands = self._subcommands_action
        parsers = [self] if subcommands is None else list(subcommands.choices.values())
        actions = [action for parser in parsers for action in parser._actions]
        if message[1:].startswith("nrecognized"):
            return {name for action in actions for name in action.option_strings if name.startswith("--")}
        names = {action.dest.partition(".")[0] for action in actions} - {"help", "config", "print_config"}
        return names | {action.dest for action in actions if "." in action.dest}


@functools.cache
def bound_parser() -> None:
    """Takes from jsonargparse what a configuration has no use for; for all of its parsers in this process.

    Texts go through the reader with limits, nothing is fetched from an address (``memory://``, ``http://``), and what
    Python's own library holds cannot be named, so that it is not imported either. Interpolation (``${...}``) and
    ``@file`` are off by default: they stay texts.
    """
    stock = get_loader("yaml")

    def bounded(text: str) -> Any:
        parse_yaml(text, "a value")
        return stock(text)

    set_loader("yaml", bounded, (yaml.YAMLError, ConfigError))
    set_config_read_mode(fsspec_enabled=False, urls_enabled=False)
    if "import_path_denylist" in inspect.signature(set_parsing_settings).parameters:  # since jsonargparse 4.53
        set_parsing_settings(import_path_denylist=sorted(standard_library()))
