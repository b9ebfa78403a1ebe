"""Formatting of numbers with their errors, and of durations, for display."""

from __future__ import annotations

import math

_DIGITS = 6
"""Largest number of decimals."""


def with_error(value: float, error: float) -> str:
    """Formats a value to the second digit of its error, or to four digits if the error is not a positive number.

    >>> with_error(-1.00392, 0.0104)
    '-1.004 ± 0.010'
    >>> with_error(0.25, float("nan"))
    '0.25 ± nan'
    >>> with_error(1.2345e-7, 2.1e-9)
    '(1.235 ± 0.021)e-07'
    """
    if not (math.isfinite(value) and math.isfinite(error) and error > 0):
        return f"{value:.4g} ± {error:.2g}"
    size = math.floor(math.log10(max(abs(value), error)))
    if -4 <= size < 6:
        return _fixed(value, error)
    return f"({_fixed(value / 10.0**size, error / 10.0**size)})e{size:+03d}"


def within_factor(value: float, log10_error: float) -> str:
    """Formats a positive value with its error as a factor: the interval of one error is value/factor to value*factor.

    Args:
        value: a positive number.
        log10_error: the error of log10 value; NaN if it is unknown.

    >>> within_factor(2.5, 0.2553), within_factor(21.894, 0.0531)
    ('2.5 (within a factor 1.8)', '21.9 (within a factor 1.13)')
    >>> within_factor(2.5, float("nan")), within_factor(2.5, float("inf"))
    ('2.5 (error not known)', '2.5 (error not bounded)')
    """
    if log10_error != log10_error:
        return f"{value:.4g} (error not known)"
    if log10_error == math.inf:
        return f"{value:.4g} (error not bounded)"
    factor = 10.0**log10_error
    more = factor - 1
    digits = min(_DIGITS + 1, max(3, 2 - math.floor(math.log10(more)))) if more > 0 else 4
    return f"{value:.{digits}g} (within a factor {1 + float(f'{more:.2g}'):.{_DIGITS}g})"


def duration(seconds: float) -> str:
    """Formats a number of seconds in seconds, minutes and seconds, or hours and minutes.

    >>> duration(3.21), duration(75), duration(3 * 3600 + 130)
    ('3.2 s', '1 min 15 s', '3 h 2 min')
    """
    if seconds < 60:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _fixed(value: float, error: float) -> str:
    digits = max(0, 1 - math.floor(math.log10(error)))
    if digits > _DIGITS:  # the seeds agree to rounding
        return f"{value:.{_DIGITS}f} ± {error:.1g}"
    return f"{value:.{digits}f} ± {error:.{digits}f}"
