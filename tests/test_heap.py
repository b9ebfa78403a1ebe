"""Freed blocks stay with the process: allocating again takes no new pages from the system."""

from __future__ import annotations

import platform
import subprocess
import sys
from typing import ClassVar

import pytest

from lazy_lightning import heap
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


def test_tunables_of_other_parts_of_glibc_and_the_smaller_limit_of_older_ones(monkeypatch):
    class Older:
        """glibc 2.34 refuses thresholds above 32 MiB."""

        taken: ClassVar[list[tuple[int, int]]] = []

        def mallopt(self, parameter, value):
            refused = parameter.value == -3 and value.value > 2**25
            if not refused:
                self.taken.append((parameter.value, value.value))
            return int(not refused)

    monkeypatch.setattr(heap, "_c_library", Older)
    assert keep_freed_memory({"GLIBC_TUNABLES": "glibc.pthread.rseq=0"})
    assert Older.taken == [(-3, 2**25), (-1, 2**30)]
    monkeypatch.setattr(heap, "_c_library", object)  # musl has no such function
    assert not keep_freed_memory({})
    assert heap.free_bytes() == 0


@glibc
def test_the_command_line_keeps_freed_memory(monkeypatch, capsys):
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


@glibc
def test_freed_blocks_that_were_never_written_do_not_count_twice():
    """The system has given them no memory, so it counts them as free, too."""
    code = """
import torch
from lazy_lightning import heap
heap.keep_freed_memory()
blocks = [torch.empty(2**30, dtype=torch.uint8) for _ in range(4)]
del blocks
print(heap.free_bytes())
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={})
    assert int(run.stdout) < 2 * 2**30
