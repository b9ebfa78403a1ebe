"""Registers the emulated device in the process that is meant for it, and leaves its tests out of all others.

With ``LAZY_LIGHTNING_DEVICE=cuda`` the same tests run on a real device, but for the records of synchronisations.
"""

import logging
import os
import warnings

import pytest

CHOSEN = os.environ.get("LAZY_LIGHTNING_DEVICE")
if CHOSEN == "cuda":
    collect_ignore_glob = ["test_waits_of_the_host.py"]
elif CHOSEN == "emulated":
    from emulated.accelerator import install_accelerator
    from emulated.backend import install

    install()
    install_accelerator()
else:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def quiet_lightning():
    """Advice about devices, workers and folders: a run here has no use for it."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric|lightning_utilities")
        yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
