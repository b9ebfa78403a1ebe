"""Files of checkpoints: validation before anything is computed, and atomic writes into the run's folder."""

from __future__ import annotations

import functools
import pickle
import re
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from lazy_lightning.errors import ConfigError
from lazy_lightning.runs.atomic import written_atomically
from lazy_lightning.runs.checkpoint_digest import DIGEST, FOUND, checkpoint_digest

KEY = "lazy_lightning"
"""Key of the entries that the modules of this package add to a checkpoint."""
_UNREADABLE = (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError, KeyError, TypeError, AttributeError,
    IndexError, AssertionError)  # fmt: skip
"""Exceptions of torch for files that are not checkpoints; the last three for pickles without tensors."""
_TIME_RESOLUTION = 2.0  # seconds after a change within which another change may leave the same time on the file
_VERSION = re.compile(r"\d+(\.\d+)*((a|b|rc|\.post|\.dev)\d+)*(\+[\w.]+)?$")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Returns the content of a run's checkpoint, whose tensors are memory-mapped.

    Raises:
        ConfigError: the file does not exist, is not a checkpoint of a run, or is damaged.
    """
    if not path.is_file():
        raise ConfigError(
            f"there is no checkpoint {path}: give the checkpoint.ckpt in the folder of a run, or leave --ckpt_path out"
        )
    require_intact(path)
    return require_checkpoint(_load(path), path)


def require_checkpoint(content: Any, path: Path) -> dict[str, Any]:
    """Returns the content of a file if it is a checkpoint of a run.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(content, dict) or not isinstance(content.get(KEY), dict):
        raise ConfigError(
            f"{path} is not a checkpoint of a run of this package: give the checkpoint.ckpt in its folder"
        )
    _require_version(content, path)
    return content


def _require_version(content: dict[str, Any], path: Any) -> None:
    """Checks the version of Lightning in a checkpoint, which Lightning parses before any other entry."""
    version = content.get("pytorch-lightning_version")
    if not isinstance(version, str) or not _VERSION.match(version):
        raise ConfigError(
            f"the checkpoint {path} cannot be used: its pytorch-lightning_version is {version!r}, expected a version "
            "such as '2.6.0'; give the checkpoint.ckpt that a run has written"
        )


def require_digest(checkpoint: dict[str, Any], path: Any) -> None:
    """Compares the content of a checkpoint with its digest; one without a digest, as of version 0.1.0, is accepted.

    Args:
        checkpoint: the content as loaded by :func:`read_checkpoint` or :class:`RunCheckpointIO`. The latter computes
            the digest before the content is divided among ranks.
        path: of the file, for the error.

    Raises:
        ConfigError: the content has been changed since it was written.
    """
    own = checkpoint[KEY]
    expected = own.get(DIGEST)
    if expected is None:
        return
    found = own[FOUND] if FOUND in own else checkpoint_digest(checkpoint, KEY)
    if found != expected:
        raise ConfigError(
            f"the checkpoint {path} has been changed since it was written: the digest of its content is "
            f"{str(found)[:12]}..., expected {str(expected)[:12]}...; use a copy or an older checkpoint, or train again"
        )


def require_intact(path: Path) -> None:
    """Compares the content of a checkpoint with the checksums (CRC-32) that torch writes with each of its parts.

    Files of version 0.1.0 have them, too. An intact file is read again only after it has changed.

    Raises:
        ConfigError: the file has been changed since it was written, is truncated, or is not a checkpoint.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path) from error
    if time.time() - status.st_mtime < _TIME_RESOLUTION:
        _compare_checksums(path)
    else:
        _compare_once(path.absolute(), (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))


@functools.lru_cache(maxsize=8)
def _compare_once(path: Path, _status: tuple[int, ...]) -> None:
    _compare_checksums(path)


def _compare_checksums(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise _unreadable(path) from error
    if wrong is not None:
        raise ConfigError(
            f"{path} is damaged: its content differs from its checksum (in {wrong}), so use a copy or an older "
            "checkpoint, or train again"
        )


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except _UNREADABLE as error:
        raise _unreadable(path) from error


def _unreadable(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} cannot be read as a checkpoint: give the checkpoint.ckpt in the folder of a run, or a full copy of it"
    )


class RunCheckpointIO(TorchCheckpointIO):
    """CheckpointIO that writes checkpoints atomically and compares their checksums on loading.

    The temporary file is in the checkpoint's own folder, because Lightning's temporary folder (TMPDIR) may be on a
    smaller disk. Paths on remote storage (``s3://...``) are handled by Lightning.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Writes the file atomically, with a digest of its content.

        Raises:
            RunError: the file cannot be written.
        """
        if isinstance(own := checkpoint.get(KEY), dict):
            own = {name: value for name, value in own.items() if name != FOUND}
            digest = checkpoint_digest(checkpoint, KEY)
            checkpoint = {**checkpoint, KEY: {**own, DIGEST: digest}}
        if _is_remote(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with written_atomically(Path(path)) as temporary:
            write_checkpoint(checkpoint, temporary)

    def load_checkpoint(self, path: Any, map_location: Any | None = None, weights_only: bool | None = None) -> Any:
        """Returns the content of the file.

        Raises:
            ConfigError: the file is damaged.
        """
        if _is_remote(path) or not Path(path).is_file():
            return super().load_checkpoint(path, map_location, weights_only)
        require_intact(Path(path))
        try:
            content = super().load_checkpoint(path, map_location, weights_only)
            own = content.get(KEY) if isinstance(content, dict) else None
            if isinstance(own, dict) and DIGEST in own:
                own[FOUND] = checkpoint_digest(content, KEY)  # compared after the content has been validated
        except _UNREADABLE as error:  # parts of wrong sizes, which memory-mapping does not detect
            raise _unreadable(Path(path)) from error
        if isinstance(content, dict) and KEY in content:
            _require_version(content, path)
        return content


def write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Writes a checkpoint to a path.

    Raises:
        OSError: the disk is full, or the file cannot be written for another reason.
    """
    with path.open("wb") as file:
        try:
            torch.save(checkpoint, file)
        except RuntimeError as error:  # torch raises its own error with that of the disk as its context
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise


def _is_remote(path: Any) -> bool:
    return "://" in str(path)
