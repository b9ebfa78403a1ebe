"""Binary tasks on Gaussian inputs, x ~ N(0, 1)^d, whose answer is known in closed form."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.data.streams import StreamedTask
from lazy_lightning.errors import ConfigError


class GaussianTask(StreamedTask):
    """Inputs ``(n, d)`` from N(0, 1)^d, labelled by a region.

    Args:
        d: number of inputs.
        options: n_train, n_test, n_kernel, batch_size and the seeds of :class:`FlowData`.

    Raises:
        ConfigError: d is under 1.
    """

    kind = "binary"

    def __init__(self, d: int, **options: Any) -> None:
        check_arguments(GaussianTask, locals())
        super().__init__(d, **options)
        if d < 1:
            raise ConfigError(f"d, the number of inputs, must be at least 1, got {d}")

    @abstractmethod
    def positive(self, x: Tensor) -> Tensor:
        """``(n,)`` bool: which of the inputs ``(n, d)`` carry y = +1."""

    def inputs(self, x: Tensor) -> Tensor:
        """The inputs made from standard normal numbers, both ``(n, d)``."""
        return x

    def samples(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The inputs, and +1 where they are ``positive``."""
        x = self.inputs(rows)
        return x, 2 * self.positive(x).double() - 1


class Stripe(GaussianTask):
    """y = +1 iff -0.3 < x_0 < 1.18549, one relevant direction out of d; P(y = +1) = 1/2.

    Args:
        d: number of inputs.
        options: n_train, n_test, n_kernel, batch_size and the seeds of :class:`FlowData`.

    >>> data = Stripe(d=3, n_train=4, n_test=2)
    >>> data.setup()
    >>> data.train.x.shape
    torch.Size([4, 3])
    """

    def positive(self, x: Tensor) -> Tensor:
        """Whether each input lies inside of the stripe."""
        return (x[:, 0] > -0.3) & (x[:, 0] < 1.18549)


class Sphere(GaussianTask):
    """y = +1 iff ‖x‖^2 > d (1 - 2/(9 d))^3, the median of a chi-square of d degrees (Wilson-Hilferty).

    Args:
        d: number of inputs.
        options: n_train, n_test, n_kernel, batch_size and the seeds of :class:`FlowData`.
    """

    def positive(self, x: Tensor) -> Tensor:
        """Whether each input lies outside of the sphere."""
        return x.square().sum(1) > self.d * (1 - 2 / (9 * self.d)) ** 3


class Cylinder(GaussianTask):
    """y = +1 iff the sum of the first ``sphere_dims`` squares exceeds sphere_dims - 2/3, about its median.

    The other inputs are independent of y; they are multiplied by ``stretch``. At ``sphere_dims = 1`` the
    approximate median gives P(y = +1) = 0.56; from 5 on it is within 0.01 of 1/2.

    Args:
        d: number of inputs.
        sphere_dims: number of relevant inputs, from 1 to d.
        stretch: factor on the irrelevant inputs.
        options: n_train, n_test, n_kernel, batch_size and the seeds of :class:`FlowData`.

    Raises:
        ConfigError: sphere_dims is out of range.
    """

    def __init__(self, d: int, sphere_dims: int, stretch: float = 1.0, **options: Any) -> None:
        check_arguments(Cylinder, locals())
        super().__init__(d, **options)
        if not 1 <= sphere_dims <= d:
            raise ConfigError(f"sphere_dims must be from 1 to d = {d}, got {sphere_dims}")
        self.sphere_dims = sphere_dims
        self.stretch = stretch

    def inputs(self, x: Tensor) -> Tensor:
        """The inputs, of which the irrelevant ones are stretched."""
        x[:, self.sphere_dims :] *= self.stretch
        return x

    def positive(self, x: Tensor) -> Tensor:
        """Whether each input lies outside of the cylinder."""
        return x[:, : self.sphere_dims].square().sum(1) > self.sphere_dims - 2 / 3
