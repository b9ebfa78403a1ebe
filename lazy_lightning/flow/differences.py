"""Backward differences of a solution at equal steps, in which the numerical differentiation formulas are written.

With D_j = nabla^j y_n, the formula of order k is sum_(j=1)^k gamma_j nabla^j y_(n+1) - kappa_k gamma_k (y_(n+1) -
y_predicted) = h y'_(n+1), with gamma_j = sum_(i<=j) 1/i (L. F. Shampine, M. W. Reichelt, "The MATLAB ODE suite", SIAM
J. Sci. Comput. 18 (1997) 1).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

MAX_ORDER = 5
ROWS = MAX_ORDER + 3
"""D_0 to D_(k+2), of which the last two estimate the errors of orders k and k + 1."""
_KAPPA = (0.0, -0.1850, -1 / 9, -0.0823, -0.0415, 0.0)


@dataclass(frozen=True)
class Formulas:
    """The coefficients of all orders on a device; index 0 is not used. All float64."""

    leading: Tensor
    """(6,) (1 - kappa_k) gamma_k: c = h / leading."""
    error: Tensor
    """(7,) the error of order k is this times y_(n+1) - y_predicted; infinity beyond the last order."""
    prediction: Tensor
    """(6, 2, 8) the weights of the differences in the prediction and in psi."""
    update: Tensor
    """(6, 8, 8) the differences after a step from those before, but for the increment."""
    increment: Tensor
    """(6, 8) the weights of the increment in the differences after a step."""

    @classmethod
    def on(cls, device: torch.device) -> Formulas:
        """Makes them on a device."""
        gamma = torch.tensor([sum(1 / i for i in range(1, k + 1)) for k in range(MAX_ORDER + 1)], dtype=torch.float64)
        kappa = torch.tensor(_KAPPA, dtype=torch.float64)
        leading = (1 - kappa) * gamma
        error = torch.full((MAX_ORDER + 2,), torch.inf, dtype=torch.float64)
        error[:-1] = kappa * gamma + 1 / torch.arange(1, MAX_ORDER + 2, dtype=torch.float64)
        prediction = torch.zeros(MAX_ORDER + 1, 2, ROWS, dtype=torch.float64)
        update = torch.eye(ROWS, dtype=torch.float64).repeat(MAX_ORDER + 1, 1, 1)
        increment = torch.zeros(MAX_ORDER + 1, ROWS, dtype=torch.float64)
        for k in range(1, MAX_ORDER + 1):
            prediction[k, 0, : k + 1] = 1
            prediction[k, 1, 1 : k + 1] = gamma[1 : k + 1] / leading[k]
            update[k, : k + 1, : k + 1] = torch.ones(k + 1, k + 1).triu()
            update[k, k + 1, k + 1] = 0
            update[k, k + 2, k + 1 : k + 3] = torch.tensor([-1.0, 0.0])
            increment[k, : k + 3] = 1
        return cls(*(x.to(device) for x in (leading, error, prediction, update, increment)))

    def to(self, device: torch.device) -> Formulas:
        """The same on another device."""
        return Formulas(*(getattr(self, item.name).to(device) for item in fields(self)))


def predicted(differences: Tensor, order: Tensor, formulas: Formulas) -> tuple[Tensor, Tensor]:
    """The prediction and psi, (E, N) each, from differences (E, 8, N) of orders (E,)."""
    both = formulas.prediction[order].to(differences.dtype) @ differences
    return both[:, 0], both[:, 1]


def advanced(differences: Tensor, increment: Tensor, order: Tensor, formulas: Formulas) -> Tensor:
    """(E, 8, N) the differences at the new point y_predicted + increment (E, N)."""
    dtype = differences.dtype
    moved = formulas.update[order].to(dtype) @ differences
    return moved.addcmul_(formulas.increment[order].to(dtype).unsqueeze(2), increment.unsqueeze(1))


def interpolated(differences: Tensor, order: Tensor, share: Tensor) -> Tensor:
    """(R, N) the polynomial of orders (R,) after shares (R,) float64 of the last step; differences (R, 8, N)."""
    index = torch.arange(MAX_ORDER, dtype=share.dtype, device=share.device)
    factors = (share.unsqueeze(1) - 1 + index) / (index + 1)
    weights = torch.cat([torch.ones_like(factors[:, :1]), factors.cumprod(dim=1)], dim=1)
    weights = torch.where(torch.arange(MAX_ORDER + 1, device=order.device) <= order.unsqueeze(1), weights, 0.0)
    return (weights.to(differences.dtype).unsqueeze(1) @ differences[:, : MAX_ORDER + 1]).squeeze(1)


def rescaled(differences: Tensor, order: Tensor, factor: Tensor) -> Tensor:
    """(E, 8, N) the differences of the same interpolating polynomial at steps ``factor`` (E,) times as long."""
    change = _powers(factor) @ _powers(torch.ones_like(factor))
    index = torch.arange(MAX_ORDER + 1, device=order.device)
    within = index <= order.unsqueeze(1)
    inside = within.unsqueeze(2) & within.unsqueeze(1)
    identity = torch.eye(MAX_ORDER + 1, dtype=change.dtype, device=change.device)
    change = torch.where(inside, change, identity).mT.to(differences.dtype)
    return torch.cat([change @ differences[:, : MAX_ORDER + 1], differences[:, MAX_ORDER + 1 :]], dim=1)


def _powers(factor: Tensor) -> Tensor:
    """(E, 6, 6) prod_(l=1)^i (l - 1 - factor j)/l."""
    index = torch.arange(MAX_ORDER + 1, dtype=factor.dtype, device=factor.device)
    steps = (index.view(1, -1, 1) - 1 - factor.view(-1, 1, 1) * index.view(1, 1, -1)) / index.clamp_min(1).view(
        1, -1, 1
    )
    steps[:, 0] = 1
    return steps.cumprod(dim=1)
