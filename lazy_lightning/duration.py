"""Durations formatted for display."""


def duration(seconds: float) -> str:
    """Formats a number of seconds in seconds, minutes and seconds, or hours and minutes.

    >>> duration(3.21), duration(75), duration(3 * 3600 + 130)
    ('3.2 s', '1 min 15 s', '3 h 2 min')
    """
    if seconds < 60:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
