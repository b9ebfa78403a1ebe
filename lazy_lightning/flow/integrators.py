"""The integrators of the flow by their names in a configuration."""

from __future__ import annotations

from lazy_lightning.errors import ConfigError
from lazy_lightning.flow.auto import Auto
from lazy_lightning.flow.controllers import Controller, controller
from lazy_lightning.flow.euler import Euler
from lazy_lightning.flow.evaluator import Closure, TangentClosure
from lazy_lightning.flow.explicit import ExplicitPair
from lazy_lightning.flow.implicit import Implicit
from lazy_lightning.flow.integrator import Integrator

_BY_TOLERANCE: dict[str, type[ExplicitPair | Implicit | Auto]] = {
    kind.name: kind for kind in (ExplicitPair, Implicit, Auto)
}
NAMES = (Euler.name, *_BY_TOLERANCE)
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
    if spec == Euler.name:
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
    return _BY_TOLERANCE[spec](DEFAULT_TOL if tol is None else tol)


def fitting(integrator: Integrator, closure: Closure) -> Integrator:
    """The integrator, or its fallback where the closure does not give the tangent kernel that it needs.

    Raises:
        ConfigError: it has no fallback.
    """
    if integrator.needs_tangent:
        try:
            _require_tangent(integrator, closure)
        except ConfigError:
            if integrator.fallback is None:
                raise
            return integrator.fallback
    return integrator


def _require_tangent(integrator: Integrator, closure: Closure) -> None:
    if not isinstance(closure, TangentClosure):
        raise ConfigError(
            f"the integrator {integrator.name} needs the tangent kernel, but the closure is a "
            f"{type(closure).__name__}: give an ObjectiveClosure, or integrator explicit or euler"
        )
    closure.check()
