"""The sharpness of the training loss, beside the limit of stability of Euler's rule or SGD."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.callbacks.measured_at_times import MeasuredAtTimes
from lazy_lightning.errors import ConfigError
from lazy_lightning.modules.observation import Observation
from lazy_lightning.ntk.estimates import random_signs, random_start
from lazy_lightning.ntk.sharpness import extreme_eigenvalues, trace_estimate
from lazy_lightning.objective.full_batch import Objective

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule

SHARPNESS = "sharpness"


class Sharpness(MeasuredAtTimes):
    """Observer of the Hessian of the loss L(w) = 1/(alpha^2 n) sum ell(F, y) on training samples, by its products.

    * ``sharpness/largest``, ``sharpness/smallest``: the ends of its spectrum, by Lanczos' method.
    * ``sharpness/error``: an eigenvalue lies within this of ``largest``.
    * ``sharpness/trace``, ``sharpness/trace_error``: by Hutchinson's method, with the standard error.
    * ``sharpness/limit``: 2/dt, above which a step of Euler's rule of length dt oscillates with growing amplitude along
      the first eigenvector; likewise for SGD without momentum, where dt is the learning rate. With momentum beta it is
      2 (1 + beta)/lr, of Nesterov's kind 2 (1 + beta)/((1 + 2 beta) lr). NaN for other optimizers and
      for rates by layer, whose steps are not along the gradient. ``largest`` near ``limit`` is the edge of stability
      (arXiv:2103.00065).

    A member is measured when its t has passed the next power of ``t_factor``, and when it stops. In other records its
    columns are NaN, and after it has stopped they keep their values. A measurement takes ``products`` + ``vectors``
    Hessian-vector products, each in the time of some four gradients on the samples.

    Args:
        samples: number of training samples; None for all that are observed.
        products: number of products for the eigenvalues.
        vectors: number of random vectors for the trace; 0 leaves the trace out.
        t_factor: ratio of t between measurements; None measures at every observation, ``inf`` only at the start and
            the end.

    Raises:
        ConfigError: a value is out of range; at the start of a run, devices divide the training samples.
    """

    needs_all_inputs = True

    needs_shared_inputs = False

    def __init__(
        self, samples: int | None = None, products: int = 20, vectors: int = 8, t_factor: float | None = 1.5
    ) -> None:
        check_arguments(Sharpness, locals())
        super().__init__(t_factor)
        if samples is not None and samples < 1:
            raise ConfigError(f"Sharpness needs samples >= 1, or null for all, got {samples}")
        if products < 2:
            raise ConfigError(f"Sharpness needs products >= 2, got {products}: set for example 20")
        if vectors < 0 or vectors == 1:
            raise ConfigError(f"Sharpness needs vectors >= 2, or 0 to leave the trace out, got {vectors}")
        self.samples = samples
        self.products = products
        self.vectors = vectors
        self._drawn: tuple[Tensor, Tensor] | None = None
        traces = ("trace", "trace_error") if vectors else ()
        names = ("largest", "smallest", "error", *traces, "limit")
        self.column_names = tuple(f"{SHARPNESS}/{name}" for name in names)  # type: ignore[misc]

    def measure(self, module: ObservableModule, observation: Observation, rows: Tensor) -> Mapping[str, Tensor]:
        """Returns the columns of the class."""
        objective, w = self._objective(module).select(rows), module.w.detach()[rows]
        start, signs = self._random_vectors(w)

        def product(v: Tensor) -> Tensor:
            return objective.hessian_product(w, v)

        extremes = extreme_eigenvalues(product, start.expand_as(w), self.products)
        found = {**extremes._asdict(), "limit": stability_limit(module, observation.state.dt[rows])}
        if self.vectors:
            trace = trace_estimate(product, signs, len(w))
            found |= {"trace": trace.value, "trace_error": trace.error}
        return {f"{SHARPNESS}/{name}": column for name, column in found.items()}

    def _objective(self, module: ObservableModule) -> Objective:
        objective = module.objective
        assert isinstance(objective, Objective)  # else devices divide the samples, see needs_all_inputs
        if self.samples is None or self.samples >= len(objective.x):
            return objective
        part = slice(self.samples)
        return replace(objective, x=objective.x[part], y=objective.y[part], f0=objective.f0[:, part], samples=None)

    def _random_vectors(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the start (N,) and the signs (k, N), which are the same for all members and measurements."""
        size = w.shape[1]
        if self._drawn is None or self._drawn[0].shape != (size,) or self._drawn[0].device != w.device:
            self._drawn = (random_start(size).to(w), random_signs(self.vectors, size).to(w))
        return self._drawn


def stability_limit(module: ObservableModule, dt: Tensor) -> Tensor:
    """Returns the curvature above which steps of length dt (E,) are unstable, see :class:`Sharpness`."""
    if module.follows_flow:
        return 2 / dt
    optimizer = module.trainer.optimizers[0]
    if not isinstance(optimizer, torch.optim.SGD) or isinstance(getattr(module, "layer_rates", None), Mapping):
        return torch.full_like(dt, torch.nan)
    group = optimizer.param_groups[0]
    beta, dampening = float(group["momentum"]), float(group["dampening"])
    if beta and not group["nesterov"]:
        return 2 * (1 + beta) / ((1 - dampening) * dt)
    return 2 * (1 + beta) / ((1 + 2 * beta) * dt)
