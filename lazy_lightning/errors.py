"""Exceptions for errors that a user can correct.

The command line prints only the message of these exceptions, without a traceback; in a notebook they are
ordinary exceptions. A message is one sentence that names the value, what was expected, and what to do.
"""


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
