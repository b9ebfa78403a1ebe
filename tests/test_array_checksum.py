"""Files of arrays are equal where their arrays are, metadata included."""

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lazy_lightning.runs.array_checksum import sort_metadata


def test_equal_arrays_make_equal_files(tmp_path):
    """The library alone writes metadata in an order that changes from call to call."""
    arrays = {"train": torch.arange(3.0), "größe": torch.ones(2, 2, dtype=torch.float64)}
    contents = set()
    for number in range(20):
        path = tmp_path / f"{number}.safetensors"
        save_file(arrays, str(path), metadata={"schema": "1", "crc32": "0123abcd", "another": "x"})
        sort_metadata(path)
        contents.add(path.read_bytes())
    assert len(contents) == 1
    found = load_file(path)
    assert all(torch.equal(found[name], value) for name, value in arrays.items())
    with safe_open(str(path), framework="pt") as file:
        assert file.metadata()["crc32"] == "0123abcd"
