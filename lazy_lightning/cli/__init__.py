"""The command line: ``python -m lazy_lightning fit --config digits_fc.yaml``."""

from lazy_lightning.cli.program import main

__all__ = ["main"]
