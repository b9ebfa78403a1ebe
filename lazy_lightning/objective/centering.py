"""Alpha-centering: F(w, x) = alpha (f(w, x) - f(w0, x)), the one place where it happens (arXiv:1906.08034)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lazy_lightning.errors import ConfigError


class Centering:
    """What is trained instead of the network's output, for members of their own alpha.

    Args:
        alpha: (E,) the scale of each member.
        enabled: False keeps alpha f (at large h the paper finds the same).

    Raises:
        ConfigError: if an alpha is not positive and finite.
    """

    def __init__(self, alpha: Tensor, *, enabled: bool = True) -> None:
        for value in alpha.tolist():
            if not 0 < value < float("inf"):
                raise ConfigError(
                    f"alpha must be > 0 and finite, got {value}: a small one (0.01) learns features, a large one (100) "
                    "trains lazily"
                )
        self.alpha = alpha
        self.enabled = enabled

    def select(self, rows: Tensor | None) -> Centering:
        """The same for some of the members; None for all."""
        if rows is None:
            return self
        return self._with(self.alpha[rows])

    def to(self, device: torch.device) -> Centering:
        """The same on another device."""
        return self if self.alpha.device == device else self._with(self.alpha.to(device))

    def _with(self, alpha: Tensor) -> Centering:
        copy = object.__new__(Centering)  # alpha has been checked: no second look, no synchronisation
        copy.alpha, copy.enabled = alpha, self.enabled
        return copy

    def base(self, outputs: Callable[[Tensor], Tensor], w0: Tensor) -> Tensor:
        """f0 = f(w0, x) (E, n, c), computed once per data set and held; zeros if centering is off."""
        with torch.no_grad():
            f0 = outputs(w0)
        return f0 if self.enabled else torch.zeros_like(f0)

    def __call__(self, f: Tensor, f0: Tensor) -> Tensor:
        """F from f and f0, both (E, n, c).

        >>> Centering(torch.tensor([2.0]))(torch.tensor([[[3.0]]]), torch.tensor([[[1.0]]]))
        tensor([[[4.]]])
        """
        return (f - f0) * self.column(f.dtype)

    def column(self, dtype: torch.dtype) -> Tensor:
        """alpha as (E, 1, 1)."""
        return self.alpha.to(dtype).view(-1, 1, 1)
