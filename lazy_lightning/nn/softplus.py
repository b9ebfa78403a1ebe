"""What the softplus activation and the soft losses share: where torch may cut it off, and how a beta is written."""

from __future__ import annotations

import re
from collections.abc import Collection

from lazy_lightning.errors import ConfigError

# F.softplus becomes the identity where beta * z exceeds `threshold`. Torch's default of 20 drops exp(-20) = 2e-9
# there, a step in the function and its slope that float64 sees; exp(-40) = 4e-18 is below its rounding.
SOFTPLUS_THRESHOLD = 40.0

_NAME_AND_BETA = re.compile(r"(?P<name>\w+)\s*(?:\(\s*(?:beta\s*=\s*)?(?P<beta>[^()=]*?)\s*\))?")


def name_and_beta(
    spec: str, kind: str, known: Collection[str], with_beta: str, example: str
) -> tuple[str, float | None]:
    """Reads ``name``, ``name(5)`` or ``name(beta=5)``; the beta is None where it is left out.

    Args:
        spec: the text in the configuration.
        kind: what is named, for the messages.
        known: all names.
        with_beta: the only one of them that takes a beta.
        example: how to write it.

    >>> name_and_beta("softhinge(10)", "loss", ["hinge", "softhinge"], "softhinge", "softhinge(20)")
    ('softhinge', 10.0)

    Raises:
        ConfigError: the name is unknown, or it comes with a parameter that it does not have.
    """
    if not isinstance(spec, str):
        raise ConfigError(f"the {kind} is {spec!r:.60}, expected a name such as {example}")
    match = _NAME_AND_BETA.fullmatch(spec.strip())
    if match is None or match["name"] not in known:
        raise ConfigError(f"unknown {kind} {spec!r}, expected one of {', '.join(known)}, or {with_beta}(beta).")
    name, beta = match["name"], match["beta"]
    if not beta:
        return name, None
    if name != with_beta:
        raise ConfigError(f"{kind} {spec!r} has a parameter but only {with_beta} takes one: write {name}.")
    try:
        return name, float(beta)
    except ValueError:
        raise ConfigError(f"{kind} {spec!r} has a beta that is not a number: write {example}.") from None
