"""Runs the tests of ``tests/emulated`` in a process of their own: the device must be registered before any backward."""

import os
import subprocess
import sys


def test_device_path_on_the_emulated_accelerator(request):
    """All tests of the folder pass, and there are some; their report is shown where one fails."""
    command = [sys.executable, "-m", "pytest", "tests/emulated", "-v", "-p", "no:cacheprovider", "-p", "no:xdist"]
    environment = {**os.environ, "LAZY_LIGHTNING_DEVICE": "emulated", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=request.config.rootpath, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
