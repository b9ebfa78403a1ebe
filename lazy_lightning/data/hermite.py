"""Regression on a polynomial of one projection of Gaussian inputs (arXiv:2310.06110)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.data.streams import StreamedTask, normal_rows
from lazy_lightning.errors import ConfigError

QUADRATIC = (0.5, 0.0, 2**-0.5)
"""Hermite coefficients of u^2/2."""


class HermiteRegression(StreamedTask):
    """Inputs x ~ N(0, 1/d) in d dimensions, y = sum_k c_k h_k(beta . x), with the norm of beta equal to sqrt(d).

    So u = beta . x is standard normal, and the normalised Hermite polynomials h_k = He_k/sqrt(k!) are orthonormal in
    it: E[y] = c_0 and E[y^2] = sum_k c_k^2. The default is y = u^2/2, the task on which arXiv:2310.06110 shows
    grokking. The task is ``regression`` with one output, y of shape ``(n,)``. The sets come from streams of their own:
    each depends on its own seed (and the teacher's), and a smaller set is the beginning of a larger one.

    Attributes:
        direction: ``(d,)`` float64, beta; known at once, before setup.

    Args:
        d: number of inputs.
        coefficients: c_0, c_1, ... of the normalised Hermite polynomials; null for those of u^2/2.
        teacher_seed: draws beta, uniformly on the sphere of radius sqrt(d).
        options: n_train, n_test, n_kernel, batch_size and the seeds of :class:`FlowData`.

    Raises:
        ConfigError: d is less than 1, or there are no finite coefficients.
    """

    kind = "regression"

    def __init__(
        self, d: int = 100, coefficients: list[float] | None = None, teacher_seed: int = 0, **options: Any
    ) -> None:
        check_arguments(HermiteRegression, locals())
        super().__init__(d, **options)
        self.coefficients = list(QUADRATIC) if coefficients is None else [float(c) for c in coefficients]
        if d < 1 or not self.coefficients or not all(map(math.isfinite, self.coefficients)):
            raise ConfigError(
                f"a Hermite teacher needs d >= 1 inputs and a list of finite coefficients, got d = {d} and "
                f"coefficients = {coefficients}"
            )
        row = normal_rows(1, d, "data/teacher/direction", teacher_seed)[0]
        self.direction = row * (math.sqrt(d) / row.norm())

    def teacher(self, x: Tensor) -> Tensor:
        """The teacher's outputs ``(n,)`` for inputs ``(n, d)``."""
        factors = [c / math.sqrt(math.factorial(k)) for k, c in enumerate(self.coefficients)]
        values = np.polynomial.hermite_e.hermeval((x @ self.direction).numpy(), factors)
        return torch.from_numpy(np.broadcast_to(values, len(x)).copy())

    def samples(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs of variance 1/d, and the teacher's outputs."""
        x = rows / math.sqrt(self.d)
        return x, self.teacher(x)
