"""Text of ``--version``: the versions and the machine, for bug reports. This module does not import torch."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lazy_lightning import __version__

PACKAGES = ("torch", "pytorch-lightning", "torchmetrics", "torchvision", "jsonargparse", "numpy", "scipy", "pandas")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_GPU_SECONDS = 5.0


def version_report() -> str:
    """Returns one line for each of: the program, Python, the main packages, CUDA, GPUs and threads."""
    rows = {
        "lazy-lightning": f"{__version__} ({Path(__file__).parents[1]})",
        "python": f"{platform.python_version()} ({platform.platform()})",
        **{name: package_version(name) for name in PACKAGES},
        "cuda of torch": _cuda_version(),
        "gpu": _gpus(),
        "cpu threads": _threads(),
    }
    head = f"lazy-lightning {__version__} (torch {rows['torch']})"
    return "\n".join([head, "", *(f"{name:<18}{value}" for name, value in rows.items())])


def machine_line() -> str:
    """Returns the versions and the machine on one line, for pages with measured numbers."""
    return (
        f"lazy-lightning {__version__}, torch {package_version('torch')}, Python {platform.python_version()}, "
        f"{platform.machine()}, CPU threads {_threads()}; GPU {_gpus()}."
    )


def package_version(name: str) -> str:
    """Returns the installed version of a distribution, or ``not installed``."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _cuda_version() -> str:
    """Returns the CUDA version that torch was built for, from ``version.py``, since an import takes seconds."""
    spec = importlib.util.find_spec("torch")
    path = None if spec is None or spec.origin is None else Path(spec.origin).with_name("version.py")
    if path is None or not path.is_file():
        return "unknown"
    found = re.search(r"^cuda\b[^=]*= *(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    built_for = found[1].strip(" '\"") if found else "unknown"
    return "none: torch is built for the CPU" if built_for == "None" else built_for


def _gpus() -> str:
    """Returns the names, memory and driver of the GPUs that ``nvidia-smi`` lists."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return "none (nvidia-smi not found)"
    command = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=_GPU_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unknown ({type(error).__name__} from nvidia-smi)"
    return "; ".join(line.strip() for line in listed.stdout.splitlines()) or "none listed by nvidia-smi"


def _threads() -> str:
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    limits = "".join(f", {name}={os.environ[name]}" for name in _THREAD_VARIABLES if name in os.environ)
    return f"{available} of {os.cpu_count()} available{limits}"
