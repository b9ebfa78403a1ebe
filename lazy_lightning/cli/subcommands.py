"""The subcommands by name; nothing here imports torch, so that help and errors come at once."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

STORED: Mapping[str, str] = MappingProxyType(
    {
        "report": "every figure that the runs in some folders support, as files and as one page",
        "runs": "lists, shows, removes and exports runs",
    }
)
"""Those that build no network."""

CONFIGURED: Mapping[str, str] = MappingProxyType(
    {
        "fit": "trains the networks of a configuration, all alphas and seeds in one batch",
        "validate": "metrics of a checkpoint on the validation set",
        "test": "metrics of a checkpoint on the test set",
        "predict": "outputs of a checkpoint on the test set, as predictions.safetensors",
        "kernel": "the same flow on the frozen tangent kernel of the networks",
        "sweep": "trains a grid of configurations, scales and seeds, and goes on where it was stopped",
    }
)
"""Those that take ``--config``."""

SUBCOMMANDS: Mapping[str, str] = MappingProxyType({**CONFIGURED, **STORED})
