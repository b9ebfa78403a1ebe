"""Messages of exceptions for users, and filters of warnings that do not apply."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException

from lazy_lightning.cli import messages
from lazy_lightning.cli.bundled import bundled_configs
from lazy_lightning.cli.parser import ParserError
from lazy_lightning.errors import LazyLightningError


def user_message(error: Exception, files: Sequence[Path] = ()) -> str | None:
    """Returns the one-sentence message of an exception; None for one that indicates a bug in this package."""
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


def filter_warnings() -> None:
    """Ignores warnings of Lightning that do not apply, such as the advice to add workers to a loader of bursts."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")  # our own sinks log observations
    warnings.filterwarnings("ignore", message=".*torch.jit.script.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # they concern Lightning's calls of jsonargparse
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
