"""Runs on disk: configurations and identities, checkpoints, atomic writes, the run store and `load_runs`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lazy_lightning.runs.load import load_runs

__all__ = ["load_runs"]


def __getattr__(name: str) -> Any:
    if name == "load_runs":  # imported on first use, because pandas takes half a second to import
        from lazy_lightning.runs.load import load_runs

        return load_runs
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
