"""``lazy-lightning --version``: what a bug report needs, without importing torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lazy_lightning import __version__
from lazy_lightning.cli import version_report


def test_versions_are_those_of_the_imported_packages() -> None:
    shown = version_report.version_report()
    rows = dict(line.split(maxsplit=1) for line in shown.splitlines()[2:] if not line.startswith(("cuda", "cpu")))
    assert shown.startswith(f"lazy-lightning {__version__} (torch {torch.__version__.partition('+')[0]}")
    assert rows["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert rows["python"].startswith(sys.version.split()[0])
    assert {"pytorch-lightning", "torchmetrics", "torchvision", "jsonargparse", "gpu"} <= set(rows)


def test_cuda_version_is_that_of_torch() -> None:
    assert version_report._cuda_version() == (torch.version.cuda or "none: torch is built for the CPU")


def test_gpus_are_those_that_nvidia_smi_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H100, 81559 MiB, 580.1'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert version_report._gpus() == "NVIDIA H100, 81559 MiB, 580.1"
    program.write_text("#!/bin/sh\nexit 9\n")
    assert version_report._gpus() == "none listed by nvidia-smi"


def test_a_missing_package_is_no_error() -> None:
    assert version_report.package_version("no-such-package") == "not installed"


def test_a_reader_that_ends_early_gets_no_traceback() -> None:
    """As in `lazy-lightning --version | head -1`."""
    program = subprocess.Popen(
        [sys.executable, "-m", "lazy_lightning", "--version"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    program.stdout.close()
    _, shown = program.communicate(timeout=60)
    assert shown == ""
