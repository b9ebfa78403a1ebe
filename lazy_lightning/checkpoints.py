"""Looking at a checkpoint before anything is computed."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from lazy_lightning.errors import ConfigError

KEY = "lazy_lightning"
"""What our modules add to a checkpoint."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a run's checkpoint, its tensors mapped from the file and not read.

    Raises:
        ConfigError: there is no such file, or it is no checkpoint of a run.
    """
    if not path.is_file():
        raise ConfigError(
            f"there is no checkpoint {path}: give the checkpoint.ckpt in the folder of a run, or leave --ckpt_path out"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError) as error:
        raise ConfigError(
            f"{path} cannot be read as a checkpoint: give the checkpoint.ckpt in the folder of a run"
        ) from error
    if not isinstance(content, dict) or KEY not in content:
        raise ConfigError(
            f"{path} is not a checkpoint of a run of this package: give the checkpoint.ckpt in its folder"
        )
    return content
