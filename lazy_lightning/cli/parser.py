"""The argument parser: LightningCLI's, with errors that can be told in one sentence."""

from __future__ import annotations

import re
from typing import Any

from pytorch_lightning.cli import LightningArgumentParser

from lazy_lightning.errors import ConfigError

KERNEL_OPTIONS = ("at", "layers", "kernel_outputs")
_NOT_ACCEPTED = re.compile(r"(?:accept option '|^[Uu]nrecognized arguments: --)(\w+)")


class ParserError(ConfigError):
    """What the parser has to say, not yet in one sentence: it may be quoted by the parser around it."""


class FlowArgumentParser(LightningArgumentParser):
    """A parser whose errors are exceptions, with the names that would have been known."""

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
