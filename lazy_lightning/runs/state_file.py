"""Files of a network's weights by name: safetensors, or a state dictionary that torch has saved."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lazy_lightning.errors import ConfigError
from lazy_lightning.runs.checkpoints import KEY, require_checkpoint, require_digest, require_intact
from lazy_lightning.runs.run_files import CHECKPOINT

_UNREADABLE = (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError, KeyError, TypeError, AttributeError,
    IndexError, AssertionError, SafetensorError)  # fmt: skip
_COUNTER = "num_batches_tracked"
"""What a BatchNorm counts besides its statistics; it enters no output in evaluation."""


def read_weights(path: Path) -> dict[str, Any]:
    """Returns the content of a checkpoint of this package, or tensors by name; both may be memory-mapped.

    Args:
        path: the folder of a run, a checkpoint, or a file of weights: ``.safetensors``, or a mapping saved by torch,
            also one under the key ``state_dict``.

    Raises:
        ConfigError: there is no such file, it cannot be read, has been changed since it was written, or has no weights.
    """
    if path.is_dir():
        path = path / CHECKPOINT
    if not path.is_file():
        raise ConfigError(
            f"there is no file {path}: give the folder of a run with its {CHECKPOINT}, a checkpoint, or a file of "
            "weights (.safetensors, or a state_dict saved by torch)"
        )
    content = _content(path)
    if isinstance(content.get(KEY), dict):
        require_intact(path)
        checkpoint = require_checkpoint(content, path)
        require_digest(checkpoint, path)
        return checkpoint
    nested = content.get("state_dict")
    state = nested if isinstance(nested, Mapping) else content
    tensors = {str(name): tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}
    if not tensors:
        raise ConfigError(f"{path} has no tensors by name: give a state_dict, or the checkpoint of a run")
    for name, tensor in tensors.items():
        _require_array(name, tensor, path)
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(_COUNTER)}


def _require_array(name: str, tensor: Tensor, path: Path) -> None:
    """Refuses what is no array of numbers."""
    kinds = {
        "is quantised": tensor.is_quantized,
        "is sparse": tensor.layout != torch.strided or tensor.is_nested,
        "has no values": tensor.is_meta,
    }
    for kind, found in kinds.items():
        if found:
            raise ConfigError(f"{name} in {path} {kind}, expected an array of numbers: save the network's own")


def _content(path: Path) -> Mapping[str, Any]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{path} is no file of tensors alone, and other objects are not loaded, because they can run code: give a "
            ".safetensors file, or save the network's state_dict() by torch.save"
        ) from error
    except _UNREADABLE as error:
        raise ConfigError(
            f"{path} cannot be read as weights ({' '.join(str(error).split())[:150]}): give a .safetensors file, or a "
            "state_dict saved by torch.save"
        ) from error
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path} holds a {type(content).__name__}, expected a state_dict: save the network's own")
    return content
