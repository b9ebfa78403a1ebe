"""The program: one subcommand, one sentence for whatever goes wrong, an exit code."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException

from lazy_lightning import messages
from lazy_lightning.bundled import bundled_configs, resolve_configs
from lazy_lightning.callbacks import GracefulStop
from lazy_lightning.cli.flow_cli import FlowCLI
from lazy_lightning.cli.parser import ParserError
from lazy_lightning.denormals import flush_denormals
from lazy_lightning.errors import ConfigError, LazyLightningError

DEBUG_VARIABLE = "LAZY_LIGHTNING_DEBUG"

_NETWORK_TIMEOUT = 30.0  # seconds; torchvision sets none, and a firewall that swallows packets would hang a download


def main(args: Sequence[str] | None = None) -> int:
    """Runs one subcommand and returns the exit code; the console script and ``python -m lazy_lightning``.

    0: done. 1: the run failed. 2: the configuration is wrong. 130: stopped by a signal, all written.
    """
    flush_denormals()
    quieten()
    socket.setdefaulttimeout(socket.getdefaulttimeout() or _NETWORK_TIMEOUT)
    files: list[Path] = []
    try:
        resolved, found = resolve_configs(sys.argv[1:] if args is None else args)
        files.extend(found)
        cli = FlowCLI(resolved)
    except SystemExit as stop:  # --help, --version, --print_config, and Ctrl-C inside the trainer
        return _exit_code(stop)
    except KeyboardInterrupt:
        return _interrupted()
    except Exception as error:
        sentence = told(error, files)
        if sentence is None or os.environ.get(DEBUG_VARIABLE):
            raise
        print(f"error: {sentence}", file=sys.stderr)
        return 2 if isinstance(error, (ConfigError, MisconfigurationException)) else 1
    stops = [c for c in cli.trainer.callbacks if isinstance(c, GracefulStop)]  # type: ignore[attr-defined]
    return 130 if any(stop.received for stop in stops) else 0


def told(error: Exception, files: Sequence[Path] = ()) -> str | None:
    """What the user is told of an exception; None for one that is nobody's mistake but ours."""
    if isinstance(error, ParserError):
        sentence = messages.one_sentence(str(error), files)
        if "no model" in sentence or "no data" in sentence:
            sentence = f"{sentence}; there are {', '.join(sorted(bundled_configs()))}"
        return sentence
    if isinstance(error, (LazyLightningError, MisconfigurationException)):
        return messages.squeeze(str(error))
    if isinstance(error, torch.OutOfMemoryError):
        return "the device is out of memory: set --model.chunk_size, or fewer seeds and alphas a run"
    if isinstance(error, OSError):
        return messages.squeeze(str(error))
    return None


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


def quieten() -> None:
    """Silences advice that does not apply: our loader has no workers to add, and tips are not results."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("fontTools").setLevel(logging.ERROR)  # remarks on the time stamps of fonts, once a PDF
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*torch.jit.script.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # about Lightning's calls of it
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
