"""The check of an option that is a positive number."""

from __future__ import annotations

import sys

from lazy_lightning.errors import ConfigError


def positive_number(name: str, value: object, expected: str) -> float:
    """Returns the value of an option that must be a finite number > 0.

    Args:
        name: of the option.
        value: as it was given.
        expected: completes the sentence "NAME is VALUE, expected ...".

    Raises:
        ConfigError: it is something else.
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value <= sys.float_info.max:
        raise ConfigError(f"{name} is {value!r}, expected {expected}")
    return float(value)
