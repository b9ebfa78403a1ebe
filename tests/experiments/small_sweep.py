"""A sweep of seconds whose batches write checkpoints often enough to be cut off after one."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

_CONFIG = """
trainer:
  enable_progress_bar: false
  callbacks+:
  - {class_path: lazy_lightning.callbacks.RunCheckpoint, init_args: {every_seconds: 0.1}}
model:
  class_path: lazy_lightning.modules.FlowModule
  init_args:
    network: {class_path: lazy_lightning.nn.FC, init_args: {width: 8, depth: 2}}
    dt: 1.0e-3
    controller: {class_path: ConstantStep}
    stop: {margin: null, max_steps: STEPS}
data:
  class_path: lazy_lightning.data.Digits
  init_args: {n_train: 40, n_test: 30, pca: 4}
"""
_WITHOUT_FIGURES = "  - {class_path: lazy_lightning.callbacks.DisableCallbacks, init_args: {names: [LearningCurves]}}\n"
DEADLINE = 120.0


def configuration(steps: int, *, figures: bool = True) -> str:
    """The content of a configuration file, with a number of steps a member."""
    content = _CONFIG.replace("STEPS", str(steps))
    return content if figures else content.replace("model:\n", f"{_WITHOUT_FIGURES}model:\n", 1)


def until(condition: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Waits for a condition, while a process goes on if one is given."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert process is None or process.poll() is None, "it has ended before"
        assert time.monotonic() < deadline, "that takes too long"
        time.sleep(0.01)
