"""What a user is told of an exception, and what is not worth telling."""

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


def filter_warnings() -> None:
    """Silences advice that does not apply: our loader has no workers to add, and tips are not results."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")  # observations are logged by us
    warnings.filterwarnings("ignore", message=".*torch.jit.script.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # about Lightning's calls of it
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
