"""Regression on the outputs of a small two-layer teacher (arXiv:1812.07956)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.data.streams import StreamedTask, normal_rows
from lazy_lightning.errors import ConfigError
from lazy_lightning.seeding import generator


class TeacherStudent(StreamedTask):
    """Inputs uniform on the unit sphere in d dimensions, y = s sum_j b_j relu(w_j . x).

    The teacher's weights w_j are random unit vectors and its signs b_j = +1 or -1 are random. On the unit
    sphere w . x is of order 1/sqrt(d), so E[y^2] is of order 1/d at s = 1, the paper's setting. With
    ``normalise`` the factor s makes E[y^2] = 1 exactly, by the closed form of :func:`mean_square`. The task is
    ``regression`` with one output, y of shape ``(n,)``. The sets come from streams of their own: each depends
    on its own seed (and the teacher's), and a smaller set is the beginning of a larger one.

    Attributes:
        teacher_weights: ``(teacher_neurons, d)`` float64, unit rows w_j; known at once, before setup.
        teacher_signs: ``(teacher_neurons,)`` float64, b_j.
        teacher_scale: s.

    Args:
        d: number of inputs, at least 2.
        teacher_neurons: number of hidden neurons of the teacher.
        teacher_seed: draws the teacher.
        normalise: scale y to E[y^2] = 1; false leaves s = 1.
        options: n_train, n_test, n_kernel, batch_size and the seeds of :class:`FlowData`.

    Raises:
        ConfigError: d or teacher_neurons is out of range.
    """

    kind = "regression"

    def __init__(
        self,
        d: int = 100,
        teacher_neurons: int = 3,
        teacher_seed: int = 0,
        normalise: bool = True,
        **options: Any,
    ) -> None:
        check_arguments(TeacherStudent, locals())
        super().__init__(d, **options)
        if d < 2 or teacher_neurons < 1:
            raise ConfigError(
                f"a teacher needs d >= 2 inputs and at least one neuron, got d = {d} and "
                f"teacher_neurons = {teacher_neurons}"
            )
        self.teacher_weights = _unit(normal_rows(teacher_neurons, d, "data/teacher/weights", teacher_seed))
        coins = torch.randint(2, (teacher_neurons,), generator=generator("data/teacher/signs", teacher_seed))
        self.teacher_signs = 2 * coins.double() - 1
        mean = mean_square(self.teacher_weights, self.teacher_signs)
        self.teacher_scale = 1 / math.sqrt(mean) if normalise else 1.0

    def teacher(self, x: Tensor) -> Tensor:
        """The teacher's outputs ``(n,)`` for inputs ``(n, d)``."""
        return self.teacher_scale * (x @ self.teacher_weights.T).relu() @ self.teacher_signs

    def samples(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs on the sphere, and the teacher's outputs."""
        x = _unit(rows)
        return x, self.teacher(x)


def mean_square(weights: Tensor, signs: Tensor) -> float:
    """E[(sum_j b_j relu(w_j . x))^2] for x uniform on the unit sphere in d dimensions.

    (1/d) sum_jk b_j b_k (sin a + (pi - a) cos a) / (2 pi), with a the angle between the unit vectors w_j, w_k.

    Args:
        weights: ``(m, d)``, unit rows.
        signs: ``(m,)``.

    >>> one = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    >>> round(mean_square(one, torch.ones(1, dtype=torch.float64)), 12)  # E[relu(cos)^2] = 1/4
    0.25
    """
    cosine = (weights @ weights.T).clamp(-1, 1)
    angle = cosine.arccos()
    kernel = (angle.sin() + (math.pi - angle) * cosine) / (2 * math.pi)
    return float(signs @ kernel @ signs) / weights.shape[1]


def _unit(x: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / norms
