"""Writing of a run's arrays as a safetensors file with a checksum, which is compared when they are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from lazy_lightning.runs.array_checksum import KEY, array_checksum, sort_metadata


def save_arrays(arrays: Mapping[str, Tensor], path: Path, schema: int) -> None:
    """Writes tensors of any device, with the number of the schema and their checksum.

    Each tensor is copied, because several may be views of one buffer, which the format does not allow.

    Raises:
        OSError, SafetensorError: the file cannot be written.
    """
    host = {name: array.detach().cpu().clone().contiguous() for name, array in arrays.items()}
    checksum = array_checksum({name: array.numpy() for name, array in host.items()})
    save_file(host, str(path), metadata={"schema": str(schema), KEY: checksum})
    sort_metadata(path)
