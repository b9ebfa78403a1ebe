"""Sweeps, and the store of runs that they fill."""

from lazy_lightning.runs.load import load_runs

__all__ = ["load_runs"]
