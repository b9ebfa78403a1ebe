"""Runs the tests of ``tests/emulated`` in processes of their own: the device must be registered before any backward."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "emulated"
PARTS = {  # of about the same length, for two workers
    "modules and observers": ["test_evaluation_on_a_device.py", "test_observers_on_a_device.py"],
    "runs, waits and kernels": [
        "test_integrators_on_a_device.py",
        "test_kernel_engine_on_a_device.py",
        "test_runs_on_a_device.py",
        "test_shards_on_a_device.py",
        "test_waits_of_the_host.py",
    ],
}


@pytest.mark.parametrize("part", PARTS)
def test_device_path_on_the_emulated_accelerator(part, request):
    """All tests of the files pass, and there are some; their report is shown where one fails."""
    files = [str(FOLDER / name) for name in PARTS[part]]
    command = [sys.executable, "-m", "pytest", *files, "-v", "-p", "no:cacheprovider", "-p", "no:xdist"]
    environment = {**os.environ, "LAZY_LIGHTNING_DEVICE": "emulated", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=request.config.rootpath, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


def test_every_file_is_run():
    listed = [name for names in PARTS.values() for name in names]
    assert sorted(listed) == sorted(path.name for path in FOLDER.glob("test_*.py"))
