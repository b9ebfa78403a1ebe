"""Alpha-centering: F(w, x) = alpha (f(w, x) - f(w0, x)) and the weight 1/alpha^2 of its loss (arXiv:1906.08034).

This is the only module that branches on whether centering is enabled, and the only one that writes these factors.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lazy_lightning.errors import ConfigError


class Centering:
    """The trained function F of E members, each with its own alpha, from the outputs f of their networks.

    With centering, F = alpha (f - f0), where f0 = f(w0, x); without it, F = alpha f. The loss of n samples is
    L = 1/(alpha^2 n) sum_i ell(F_i, y_i) in both cases, so that the time of lazy convergence does not depend on alpha.

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

    def select(self, rows: Tensor | slice | None) -> Centering:
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

    def from_change(self, df: Tensor, f0: Tensor | Callable[[], Tensor]) -> Tensor:
        """F from the change of the outputs since w0: alpha df with centering, else alpha (df + f0).

        Where df is known by itself, as for a linearized network, this keeps the digits that f - f0 would lose.

        Args:
            df: (E, n, c) f(w, x) - f(w0, x).
            f0: (E, n, c) f(w0, x), or a function that evaluates it, which is called without centering alone.

        Returns:
            (E, n, c) F.

        >>> df, f0 = torch.tensor([[[2.0]]]), torch.tensor([[[1.0]]])
        >>> alpha = torch.tensor([2.0])
        >>> Centering(alpha).from_change(df, f0), Centering(alpha, enabled=False).from_change(df, f0)
        (tensor([[[4.]]]), tensor([[[6.]]]))
        """
        if not self.enabled:
            df = df + (f0 if isinstance(f0, Tensor) else f0())
        return df * self.column(df.dtype)

    def initial_outputs(self, base: Tensor, evaluate: Callable[[], Tensor]) -> Tensor:
        """f(w0, x), (E, n, c): ``base`` itself with centering, else (where it is zero) what ``evaluate`` gives.

        Args:
            base: (E, n, c) from :meth:`base`.
            evaluate: computes f(w0, x), on samples that may be evaluated repeatedly.
        """
        return base if self.enabled else evaluate()

    def offset(self, f0: Tensor | Callable[[], Tensor]) -> Tensor | None:
        """F at w0, (E, n, c): None for zero with centering, else alpha f0.

        Args:
            f0: (E, n, c) f(w0, x), or a function that evaluates it, which is called without centering alone.
        """
        if self.enabled:
            return None
        f0 = f0 if isinstance(f0, Tensor) else f0()
        return f0 * self.column(f0.dtype)

    def loss_divisor(self, samples: int, dtype: torch.dtype | None = None) -> Tensor:
        """(E,) alpha^2 n, by which the sum of ell over n samples is divided.

        Args:
            samples: n; 1 where the mean of ell is divided.
            dtype: of the result; None for that of alpha.

        >>> Centering(torch.tensor([2.0])).loss_divisor(3)
        tensor([12.])
        """
        return (self.alpha if dtype is None else self.alpha.to(dtype)) ** 2 * samples

    def loss_weight(self, samples: int) -> Tensor:
        """(E,) 1/(alpha^2 n), the weight of each of n samples in L.

        >>> Centering(torch.tensor([0.5])).loss_weight(2)
        tensor([2.])
        """
        return 1 / self.loss_divisor(samples)

    def slope_weight(self, samples: int, dtype: torch.dtype) -> Tensor:
        """(E,) 1/(alpha n): the slope of L with f(w, x_i) is this times ell'(F_i, y_i), of n samples.

        >>> Centering(torch.tensor([0.5])).slope_weight(2, torch.float32)
        tensor([1.])
        """
        return 1 / (self.alpha.to(dtype) * samples)

    def column(self, dtype: torch.dtype) -> Tensor:
        """alpha as (E, 1, 1)."""
        return self.alpha.to(dtype).view(-1, 1, 1)
