"""The program: one subcommand, one sentence for whatever goes wrong, an exit code."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from lazy_lightning.bundled import resolve_configs
from lazy_lightning.cli import store
from lazy_lightning.errors import ConfigError, LazyLightningError
from lazy_lightning.messages import squeeze

DEBUG_VARIABLE = "LAZY_LIGHTNING_DEBUG"

_NETWORK_TIMEOUT = 30.0  # seconds; torchvision sets none, and a firewall that swallows packets would hang a download


def main(args: Sequence[str] | None = None) -> int:
    """Runs one subcommand and returns the exit code; the console script and ``python -m lazy_lightning``.

    0: done. 1: the run, or some of a sweep, failed. 2: the configuration is wrong. 130: stopped by a signal, with all
    written.
    """
    given = list(sys.argv[1:] if args is None else args)
    try:
        if given[:1] and given[0] in store.COMMANDS:
            return _stored(given)
        return _built(given)
    except SystemExit as stop:  # --help, --version, --print_config, and Ctrl-C inside the trainer
        return _exit_code(stop)
    except KeyboardInterrupt:
        return _interrupted()


def _stored(given: Sequence[str]) -> int:
    """What needs no network is not kept waiting for torch."""
    try:
        command: Callable[[Sequence[str]], int] = getattr(store, given[0])
        return command(given[1:])
    except LazyLightningError as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        return _told(squeeze(str(error)), isinstance(error, ConfigError))


def _built(given: Sequence[str]) -> int:
    """Trains or evaluates; torch and Lightning take seconds to import."""
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    from lazy_lightning.cli.flow_cli import FlowCLI
    from lazy_lightning.cli.sweep_cli import SweepCLI
    from lazy_lightning.cli.told import quieten, told
    from lazy_lightning.denormals import flush_denormals

    flush_denormals()
    quieten()
    socket.setdefaulttimeout(socket.getdefaulttimeout() or _NETWORK_TIMEOUT)
    files: list[Path] = []
    try:
        resolved, found = resolve_configs(given)
        files.extend(found)
        return (SweepCLI if _subcommand(resolved) == "sweep" else FlowCLI)(resolved).exit_code
    except Exception as error:
        sentence = told(error, files)
        if sentence is None or os.environ.get(DEBUG_VARIABLE):
            raise
        return _told(sentence, isinstance(error, (ConfigError, MisconfigurationException)))


def _told(sentence: str, of_configuration: bool) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return 2 if of_configuration else 1


def _subcommand(args: Sequence[str]) -> str | None:
    """The first argument that is no option."""
    return next((argument for argument in args if not argument.startswith("-")), None)


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
