"""Exceptions for errors that a user can correct.

The command line prints only the message of these exceptions, without a traceback; in a notebook they are
ordinary exceptions. A message is one sentence that names the value, what was expected, and what to do;
:func:`suggestion` adds the known name that resembles a mistyped one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LazyLightningError(Exception):
    """Base class of all errors that a user can correct."""


class ConfigError(LazyLightningError, ValueError):
    """A value in the configuration cannot be used."""


class DataError(LazyLightningError):
    """A data set is missing, too small, or does not fit the task."""


class RunError(LazyLightningError):
    """A run has no result, because every member diverged or its folder cannot be written."""


class UnwrittenError(RunError):
    """A run was trained completely, but some of its results could not be written."""


class MemoryShortageError(RunError):
    """A computation needs more memory than is available; fewer members may fit."""


class AnalysisError(LazyLightningError, ValueError):
    """The data do not determine a quantity: there are too few points or seeds, or a level is never crossed."""


def suggestion(wrong: str, known: Iterable[str]) -> str:
    """Returns ``: did you mean X?`` for the closest known name, or an empty string if none is similar.

    >>> suggestion("alhpa", ["alpha", "seeds"])
    ': did you mean alpha?'
    """
    parent, _, leaf = wrong.rpartition(".")
    siblings = {name.rpartition(".")[2]: name for name in known if name.rpartition(".")[0] == parent}
    near = difflib.get_close_matches(leaf, list(siblings), n=1, cutoff=0.6)
    return f": did you mean {siblings[near[0]]}?" if near else ""
