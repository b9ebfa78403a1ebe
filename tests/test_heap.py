"""Freed blocks stay with the process: allocating again takes no new pages from the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from lazy_lightning.heap import keep_freed_memory

MEASURE = """
import resource, torch
from lazy_lightning.heap import keep_freed_memory
kept = {call}
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def ten_blocks():
    for _ in range(10):
        torch.ones(64 * 2**20, dtype=torch.uint8)
ten_blocks()
begin = faults()
ten_blocks()
print(kept, (faults() - begin) * resource.getpagesize() / (640 * 2**20))
"""

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="thresholds of glibc's heap")


def pages_mapped_again(call: str, **environment: str) -> tuple[bool, float]:
    """Returns what the call returned, and the share of allocated bytes whose pages came from the system."""
    code = MEASURE.replace("{call}", call)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    kept, share = run.stdout.split()
    return kept == "True", float(share)


@glibc
def test_freed_blocks_are_used_again():
    # Huge pages count as one fault each, so nothing is asserted of the heap without the call.
    kept, share = pages_mapped_again("keep_freed_memory()")
    assert kept
    assert share < 0.001  # 64 MiB in pages of 4 KiB are 16384 faults; a few come from the interpreter


@glibc
def test_the_users_own_thresholds_count():
    environment = {"MALLOC_MMAP_THRESHOLD_": "100000"}
    kept, _ = pages_mapped_again("keep_freed_memory()", **environment)
    assert not kept
    assert not keep_freed_memory({"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=1"})


@glibc
def test_the_command_line_keeps_freed_memory(monkeypatch, capsys):
    from lazy_lightning import heap
    from lazy_lightning.cli import main

    calls: list[bool] = []
    monkeypatch.setattr(heap, "keep_freed_memory", lambda: calls.append(True) or True)
    assert main(["fit", "--config", "digits_fc.yaml", "--print_config"]) == 0
    assert calls == [True]


@glibc
def test_memory_that_the_heap_keeps_counts_as_available():
    code = """
import torch
from lazy_lightning import heap, memory
heap.keep_freed_memory()
torch.ones(256 * 2**20, dtype=torch.uint8)
outside = min(memory._host_bytes(), memory._container_bytes())
print(heap.free_bytes(), memory.available_bytes(torch.device("cpu")) - outside)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={})
    free, counted = map(int, run.stdout.split())
    assert 256 * 2**20 <= free < 512 * 2**20
    assert abs(counted - free) < 64 * 2**20  # other processes allocate between the two readings
