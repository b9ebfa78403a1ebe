"""Sweeps, and the store of runs that they fill."""

from lazy_lightning.experiments.runs import load_runs

__all__ = ["load_runs"]
