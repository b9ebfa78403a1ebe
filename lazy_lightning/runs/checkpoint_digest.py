"""Digest of a checkpoint's named content, which detects tensors that have been exchanged, renamed or edited.

The checksums of the file's parts (:mod:`lazy_lightning.runs.checkpoints`) detect accidental changes of each part; they
remain correct if two parts are exchanged or if a part is written anew with another content.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

DIGEST = "digest"
"""Name of the digest in the entry of this package in a checkpoint; checkpoints of version 0.1.0 have none."""
FOUND = "digest_of_content"
"""Name of the digest that was computed from the content of a file when it was loaded; not stored."""
_NUMBERS = (bool, int, float, complex, str, bytes)


def checkpoint_digest(checkpoint: Mapping[str, Any], key: str) -> str:
    """Returns the SHA-256 of the names, types, shapes, dtypes and values in a checkpoint, as hexadecimal digits.

    Of a tensor its CRC-32 enters, which is several times faster than writing it.

    Args:
        checkpoint: nested mappings and lists with tensors and plain values; tensors may be on any device.
        key: name of the mapping that holds the digest itself, which does not enter.

    >>> one = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0, 4.0])}
    >>> exchanged = {"a": one["b"], "b": one["a"]}
    >>> checkpoint_digest(one, "own") == checkpoint_digest(exchanged, "own")
    False
    """
    own = checkpoint.get(key)
    if isinstance(own, Mapping):
        kept = {name: value for name, value in own.items() if name not in (DIGEST, FOUND)}
        checkpoint = {**checkpoint, key: kept}
    digest = hashlib.sha256()
    for part in _parts(checkpoint):
        digest.update(part)
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[bytes]:
    """Yields bytes that determine a value, each part with its type and its length."""
    if isinstance(value, Tensor):
        host = value.detach().cpu().contiguous()
        crc = zlib.crc32(host.reshape(-1).view(torch.uint8).numpy().data)
        yield f"tensor {host.dtype} {tuple(host.shape)} {crc:08x};".encode()
    elif isinstance(value, Mapping):
        yield f"mapping {len(value)};".encode()
        for name, item in value.items():
            yield from _parts(name)
            yield from _parts(item)
    elif isinstance(value, (list, tuple)):
        yield f"list {len(value)};".encode()
        for item in value:
            yield from _parts(item)
    else:
        text = repr(value).encode() if value is None or isinstance(value, _NUMBERS) else b""
        yield f"{type(value).__name__} {len(text)};".encode()  # of other objects the type alone
        yield text
