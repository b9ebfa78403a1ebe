"""The main function of the command line: runs a subcommand, prints errors as one sentence, returns an exit code."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence

from lazy_lightning.cli import imports, messages, short_help
from lazy_lightning.cli.bundled import bundled_configs, resolve_configs
from lazy_lightning.cli.resume import split_resume
from lazy_lightning.cli.subcommands import CONFIGURED, STORED, SUBCOMMANDS, WRITING
from lazy_lightning.cli.version_report import version_report
from lazy_lightning.errors import ConfigError, LazyLightningError, suggestion
from lazy_lightning.plain_text import printable

DEBUG_VARIABLE = "LAZY_LIGHTNING_DEBUG"

_NETWORK_TIMEOUT = 30.0  # seconds; torchvision sets none, so a firewall that drops packets would block a download


def main(args: Sequence[str] | None = None) -> int:
    """Runs one subcommand and returns the exit code, for the console script and ``python -m lazy_lightning``.

    Exit codes: 0 for success, 1 if the run or a part of a sweep failed, 2 if the configuration is invalid, 130 if a
    signal stopped the run after everything was written.
    """
    if args is None:
        _import_from_working_folder()
    given = list(sys.argv[1:] if args is None else args)
    try:
        text = _text_without_torch(given)
        if text is not None:
            print(text, flush=True)
            return 0
        if given[0] in WRITING:
            return _initialised(given)
        return _stored(given) if given[0] in STORED else _built(given)
    except LazyLightningError as error:  # raised before torch was imported, or by a command of the run store
        if os.environ.get(DEBUG_VARIABLE):
            raise
        return _print_error(messages.squeeze(str(error)), isinstance(error, ConfigError))
    except SystemExit as stop:  # raised by the parsers' --help and --print_config, and by Ctrl-C inside the trainer
        return _exit_code(stop)
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:  # the reader of the output has ended, as in lazy-lightning --version | head -1
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _import_from_working_folder() -> None:
    """Lets a configuration name modules of the working folder, as Python does for ``-m`` and not for console scripts.

    The folder comes last, so that its files hide no installed module. Python's option ``-P`` switches this off.
    """
    if not sys.flags.safe_path and "" not in sys.path:
        sys.path.append("")


def _text_without_torch(given: Sequence[str]) -> str | None:
    """Returns the output of commands that need no torch, which takes seconds to import; None for other commands.

    Raises:
        ConfigError: the subcommand is missing or unknown, or there is no configuration.
    """
    if "--version" in given[:1]:
        return version_report()
    if given[:1] in (["--help"], ["-h"]):
        return short_help.program_help()
    name = next((argument for argument in given if not argument.startswith("-")), None)
    known = ", ".join(SUBCOMMANDS)
    if not given or (name is None and given[0].startswith("-")):
        raise ConfigError(f"no subcommand: start with lazy-lightning {messages.EXAMPLE}; there are {known}")
    if given[0].startswith("-"):
        raise ConfigError(f"options and --config come after the subcommand: lazy-lightning {messages.EXAMPLE}")
    if given[0] not in SUBCOMMANDS:
        near = suggestion(given[0], SUBCOMMANDS)
        raise ConfigError(f"unknown subcommand {given[0]}{near or f': choose from {known}'}")
    if given[0] in CONFIGURED and not {"--help", "-h"}.isdisjoint(given):
        return short_help.subcommand_help(given[0])
    if given[0] in CONFIGURED and len(given) == 1:
        configs = ", ".join(sorted(bundled_configs()))
        raise ConfigError(
            f"no model and no data given: name a configuration, as in --config digits_fc.yaml; there are {configs}"
        )
    return None


def _stored(given: Sequence[str]) -> int:
    """Runs a command of the run store, which needs no network and does not import torch."""
    from lazy_lightning.cli import store

    command: Callable[[Sequence[str]], int] = getattr(store, given[0])
    return command(given[1:])


def _initialised(given: Sequence[str]) -> int:
    """Writes a configuration for the user's data, which imports torch to read them."""
    from lazy_lightning.cli.new_configuration import init

    return init(given[1:])


def _built(given: Sequence[str]) -> int:
    """Trains or evaluates; the configurations are read first, because torch and Lightning take seconds to import."""
    given, resumed = split_resume(given) if given[0] == "fit" else (given, None)
    resolved, files = resolve_configs(["--help" if argument == "--help=all" else argument for argument in given])

    begin = time.perf_counter()
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    from lazy_lightning.cli.flow_cli import FlowCLI
    from lazy_lightning.cli.sweep_cli import SweepCLI
    from lazy_lightning.cli.user_messages import filter_warnings, user_message
    from lazy_lightning.denormals import flush_denormals
    from lazy_lightning.heap import keep_freed_memory

    imports.seconds = time.perf_counter() - begin
    keep_freed_memory()
    flush_denormals()
    filter_warnings()
    socket.setdefaulttimeout(socket.getdefaulttimeout() or _NETWORK_TIMEOUT)
    try:
        if given[0] == "sweep":
            return SweepCLI(resolved).exit_code
        return FlowCLI(resolved, folder=resumed, resumed=resumed is not None).exit_code
    except Exception as error:
        sentence = user_message(error, files)
        if sentence is None or os.environ.get(DEBUG_VARIABLE):
            raise
        return _print_error(sentence, isinstance(error, (ConfigError, MisconfigurationException)))


def _print_error(sentence: str, of_configuration: bool) -> int:
    text = printable(messages.shorten(sentence))
    encoding = sys.stderr.encoding or "utf-8"
    print(f"error: {text}".encode(encoding, "backslashreplace").decode(encoding), file=sys.stderr)
    return 2 if of_configuration else 1


def _exit_code(stop: SystemExit) -> int:
    if isinstance(stop.__context__, KeyboardInterrupt):
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.default_int_handler)  # the trainer has switched it off
        return _interrupted()
    if isinstance(stop.code, str):
        print(stop.code, file=sys.stderr)
    return stop.code if isinstance(stop.code, int) else int(stop.code is not None)


def _interrupted() -> int:
    print("interrupted", file=sys.stderr)
    return 130
