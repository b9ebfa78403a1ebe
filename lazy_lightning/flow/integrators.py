"""The integrators of the flow by their names in a configuration."""

from __future__ import annotations

from lazy_lightning.errors import ConfigError
from lazy_lightning.flow.auto import Auto
from lazy_lightning.flow.controllers import Controller, controller
from lazy_lightning.flow.euler import Euler
from lazy_lightning.flow.explicit import ExplicitPair
from lazy_lightning.flow.implicit import Implicit
from lazy_lightning.flow.integrator import Integrator

NAMES = ("euler", "explicit", "implicit", "auto")
DEFAULT_TOL = 1e-3
_DEFAULT_CONTROLLER = "gradient_change"


def build_integrator(
    spec: str | Integrator, steering: str | Controller = _DEFAULT_CONTROLLER, tol: float | None = None
) -> Integrator:
    """The integrator of a name, or the object itself.

    Args:
        spec: ``euler``, ``explicit``, ``implicit``, ``auto``, or an :class:`Integrator`.
        steering: the step-size controller of ``euler``; the others choose their steps by ``tol``.
        tol: the error of a step that is allowed, an rms over the outputs F; None for 1e-3. Not for ``euler``.

    Raises:
        ConfigError: for an unknown name, a tolerance that is not > 0, or an option that the integrator does not take.
    """
    if isinstance(spec, Integrator):
        if tol is not None:
            raise ConfigError(f"tol is {tol}, but the integrator {spec!r} was given as an object: give tol to it")
        return spec
    if spec not in NAMES:
        raise ConfigError(f"unknown integrator {spec!r}: choose one of {', '.join(NAMES)}, or give an Integrator")
    chosen = controller(steering)
    if spec == "euler":
        if tol is not None:
            raise ConfigError(
                f"tol is {tol}, but the integrator euler chooses its steps by the controller {steering!r}: leave tol "
                "out, or choose the integrator explicit, implicit or auto"
            )
        return Euler(chosen)
    if steering != _DEFAULT_CONTROLLER:
        raise ConfigError(
            f"the controller {steering!r} is for the integrator euler, and {spec} chooses its steps by tol: leave "
            "controller out, or set integrator to euler"
        )
    tol = DEFAULT_TOL if tol is None else tol
    built: dict[str, type[ExplicitPair | Implicit | Auto]] = {
        "explicit": ExplicitPair,
        "implicit": Implicit,
        "auto": Auto,
    }
    return built[spec](tol)
