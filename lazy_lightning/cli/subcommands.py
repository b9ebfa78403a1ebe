"""Names and descriptions of the subcommands. This module does not import torch, so help and errors are immediate."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

STORED: Mapping[str, str] = MappingProxyType(
    {
        "report": "every figure that the runs in some folders support, as files and as one page",
        "runs": "lists, shows, removes and exports runs",
    }
)
"""The subcommands that build no network."""

CONFIGURED: Mapping[str, str] = MappingProxyType(
    {
        "fit": "trains the networks of a configuration, all alphas and seeds in one batch",
        "validate": "computes the metrics of a checkpoint on the validation set",
        "test": "computes the metrics of a checkpoint on the test set",
        "predict": "writes the outputs of a checkpoint on the test set to predictions.safetensors",
        "kernel": "integrates the same flow on the frozen tangent kernel of the networks",
        "sweep": "trains a grid of configurations, scales and seeds, and resumes a stopped sweep",
    }
)
"""The subcommands with the option ``--config``."""

WRITING: Mapping[str, str] = MappingProxyType(
    {"init": "writes a commented configuration for data of your own, an .npz, .csv or .parquet file"}
)
"""The subcommand that writes a configuration."""

SUBCOMMANDS: Mapping[str, str] = MappingProxyType({**CONFIGURED, **WRITING, **STORED})
