"""What can go wrong by the user's hand, each told in one sentence with its remedy.

Every exception below is shown by the command line as its message alone, without a traceback; in a
notebook it is an ordinary exception. A message names the value, what was expected, and what to do.
"""


class LazyLightningError(Exception):
    """Base of all errors that a user can mend."""


class ConfigError(LazyLightningError, ValueError):
    """A value in the configuration cannot be used."""


class DataError(LazyLightningError):
    """A data set is missing, too small, or does not fit the task."""


class RunError(LazyLightningError):
    """A run ended without a result: every member diverged, or its folder cannot be written."""


class UnwrittenError(RunError):
    """A run was trained to its end, but some of its results could not be written."""


class MemoryShortageError(RunError):
    """What is to be computed needs more memory than there is; fewer members may fit."""


class AnalysisError(LazyLightningError, ValueError):
    """Numbers that do not say what is asked of them: too few points or seeds, or a level that is never crossed."""
