"""Losses ell(F, y) of the centred output F, their margins and errors.

Every function takes F with any leading member axes and targets y that all members share. The kind of target is
read from its dtype and shape, so nothing waits for the device (the mean square alone, which takes labels and real
numbers in the same dtype, reads the values of each tensor of labels once, before its first margins):

=============================  =================  ==============
task                           y                  F
=============================  =================  ==============
binary                         (n,) float, +-1    (..., n)
regression, one output         (n,) float         (..., n)
regression, c outputs          (n, c) float       (..., n, c)
multiclass                     (n,) integer       (..., n, c)
=============================  =================  ==============

The factor 1/2 of the quadratic losses makes their gradient the residual: d ell / dF = F - y for the mean square.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as nnf
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.softplus import SOFTPLUS_THRESHOLD, name_and_beta

Task = Literal["binary", "multiclass", "regression"]


class Loss(ABC):
    """A loss ell(F, y) with what observers and stopping criteria need.

    Attributes:
        name: how a configuration names it.
        supports: the tasks it fits.
        has_margin_stop: whether training ends when every training margin is at least 1.
    """

    name: ClassVar[str]
    supports: ClassVar[frozenset[Task]]
    has_margin_stop: ClassVar[bool]

    @abstractmethod
    def per_sample(self, F: Tensor, y: Tensor) -> Tensor:
        """ell(F, y) of each sample, (..., n).

        Raises:
            ConfigError: the shapes of F and y do not fit.
        """

    def margins(self, F: Tensor, y: Tensor) -> Tensor:
        """How far each sample is on the right side, (..., n): F y if binary.

        For classes, F_y - max_(c != y) F_c, or in the hinge family the least one-versus-all margin.

        Raises:
            ConfigError: the targets are those of a regression, or the shapes do not fit.
        """
        return class_margins(F, y) if is_class_index(y) else signed_margins(F, y)

    @property
    def has_curvature(self) -> bool:
        """Whether d^2 ell / dF^2 is more than zero somewhere, so that an implicit integrator can use it."""
        return True

    @torch.enable_grad()
    def slopes(self, F: Tensor, y: Tensor) -> Tensor:
        """d ell / dF, of the shape of F (..., n) or (..., n, c)."""
        point = F.detach().requires_grad_(True)
        (slopes,) = torch.autograd.grad(self.per_sample(point, y).sum(), point)
        return slopes

    @torch.enable_grad()
    def curvature_root(self, F: Tensor, y: Tensor) -> Tensor:
        """S with S S^T = d^2 ell / dF^2 of each sample, without its negative part.

        Here by automatic differentiation, c backward passes and an eigendecomposition of c x c matrices.

        Returns:
            (E, n) for F (E, n); for F (E, n, c) either (E, n c), the diagonal of a separable loss, or (E, n, c, c).
        """
        point = F.detach().requires_grad_(True)
        (slopes,) = torch.autograd.grad(self.per_sample(point, y).sum(), point, create_graph=True)
        columns = [slopes] if F.ndim == 2 else list(slopes.unbind(-1))
        rows = [torch.autograd.grad(column.sum(), point, retain_graph=True)[0] for column in columns]
        if F.ndim == 2:
            return rows[0].clamp_min(0.0).sqrt()
        values, vectors = torch.linalg.eigh(torch.stack(rows, dim=-1))
        root: Tensor = vectors * values.clamp_min(0.0).sqrt().unsqueeze(-2)
        return root

    def flat(self, F: Tensor, y: Tensor) -> Tensor | None:
        """Whether every sample lies where a piecewise linear loss is constant, (...,); None for a smooth loss.

        There a gradient of exactly zero is an end, which a flow reaches; that of a smooth loss is only approached.
        """
        return None

    def errors(self, F: Tensor, y: Tensor) -> Tensor:
        """Whether each sample is misclassified, (..., n) bool.

        A tie is an error, F = 0 in particular, and so is a NaN: an untrained or failed member never looks right.

        Raises:
            ConfigError: the targets are those of a regression, or the shapes do not fit.
        """
        return ~((class_margins(F, y) if is_class_index(y) else signed_margins(F, y)) > 0)

    def check(self, task: Task) -> None:
        """Let pass the tasks that this loss fits.

        Raises:
            ConfigError: this loss does not fit ``task``.
        """
        if task not in self.supports:
            fitting = ", ".join(sorted(name for name, kind in LOSSES.items() if task in kind.supports))
            raise ConfigError(
                f"the loss {self.name} got a {task} task, expected {' or '.join(sorted(self.supports))}:"
                f" choose a loss that fits ({fitting or 'none'}) or change the data."
            )


@dataclass(frozen=True)
class Hinge(Loss):
    """ell = max(0, 1 - F y); for classes, summed one-versus-all over the outputs.

    >>> Hinge().per_sample(torch.tensor([0.0, 2.0, -1.0]), torch.tensor([1.0, 1.0, 1.0]))
    tensor([1., 0., 2.])
    """

    name: ClassVar[str] = "hinge"
    supports: ClassVar[frozenset[Task]] = frozenset({"binary", "multiclass"})
    has_margin_stop: ClassVar[bool] = True

    def per_sample(self, F: Tensor, y: Tensor) -> Tensor:
        """The penalty of 1 - F s, summed over the outputs if there are several; (..., n)."""
        signs = one_versus_all(F, y) if is_class_index(y) else y
        return _sum_outputs(self.penalty(1 - _product(F, signs)), signs)

    def penalty(self, gap: Tensor) -> Tensor:
        """The cost of a margin that is ``gap`` below one, elementwise."""
        return torch.relu(gap)

    def margins(self, F: Tensor, y: Tensor) -> Tensor:
        """F y, or its least value over the one-versus-all outputs; (..., n)."""
        return signed_margins(F, one_versus_all(F, y) if is_class_index(y) else y)

    @property
    def has_curvature(self) -> bool:
        """False: it is piecewise linear."""
        return False

    def flat(self, F: Tensor, y: Tensor) -> Tensor | None:
        """Whether all margins are at least 1, (...,)."""
        return (self.margins(F, y) >= 1).all(dim=-1)


@dataclass(frozen=True)
class SoftHinge(Hinge):
    """ell = log(1 + exp(beta (1 - F y))) / beta, a smooth hinge (arXiv:1906.08034, beta = 20).

    Raises:
        ConfigError: ``beta`` is not a positive finite number.
    """

    beta: float = 20.0
    name: ClassVar[str] = "softhinge"

    def __post_init__(self) -> None:
        check_arguments(SoftHinge, vars(self))
        if not (math.isfinite(self.beta) and self.beta > 0):
            raise ConfigError(
                f"softhinge got beta = {self.beta}, expected a positive number: write for example softhinge(20)."
            )

    def penalty(self, gap: Tensor) -> Tensor:
        """Softplus of the gap."""
        return nnf.softplus(gap, self.beta, SOFTPLUS_THRESHOLD)

    @property
    def has_curvature(self) -> bool:
        """True: it is curved near the margin."""
        return True

    def curvature_root(self, F: Tensor, y: Tensor) -> Tensor:
        """The root of beta s (1 - s), s the sigmoid of beta times the gap, (E, n) or (E, n c)."""
        signs = one_versus_all(F, y) if is_class_index(y) else y
        steep = torch.sigmoid(self.beta * (1 - _product(F, signs)))
        return (self.beta * steep * (1 - steep)).sqrt().flatten(1)

    def flat(self, F: Tensor, y: Tensor) -> Tensor | None:
        """None: it is smooth."""
        return None


@dataclass(frozen=True)
class QuadraticHinge(Hinge):
    """ell = max(0, 1 - F y)^2 / 2, whose gradient is the missing margin."""

    name: ClassVar[str] = "quadratic_hinge"

    def penalty(self, gap: Tensor) -> Tensor:
        """Half the square of the positive part."""
        return torch.relu(gap).square() / 2

    @property
    def has_curvature(self) -> bool:
        """True: it is curved near the margin."""
        return True

    def curvature_root(self, F: Tensor, y: Tensor) -> Tensor:
        """1 below the margin and 0 beyond, (E, n) or (E, n c)."""
        signs = one_versus_all(F, y) if is_class_index(y) else y
        return (_product(F, signs) < 1).to(F.dtype).flatten(1)

    def flat(self, F: Tensor, y: Tensor) -> Tensor | None:
        """None: its slope goes to zero gradually."""
        return None


@dataclass(frozen=True)
class MSE(Loss):
    """ell = (F - y)^2 / 2, summed over the outputs; classes are compared with one-hot targets."""

    name: ClassVar[str] = "mse"
    supports: ClassVar[frozenset[Task]] = frozenset({"binary", "multiclass", "regression"})
    has_margin_stop: ClassVar[bool] = False

    def per_sample(self, F: Tensor, y: Tensor) -> Tensor:
        """Half the squared distance, (..., n)."""
        target = one_hot(F, y).to(F.dtype) if is_class_index(y) else y
        _check_shapes(F, target)
        return _sum_outputs((F - target).square() / 2, target)

    def curvature_root(self, F: Tensor, y: Tensor) -> Tensor:
        """1, (E, n) or (E, n c)."""
        return torch.ones_like(F).flatten(1)

    def margins(self, F: Tensor, y: Tensor) -> Tensor:
        """As :meth:`Loss.margins`; the values of float targets are read once a tensor, to refuse real numbers."""
        _check_labels(y)
        return super().margins(F, y)

    def errors(self, F: Tensor, y: Tensor) -> Tensor:
        """As :meth:`Loss.errors`; the values of float targets are read once a tensor, to refuse real numbers."""
        _check_labels(y)
        return super().errors(F, y)


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """ell = -log softmax(F)_y for classes, log(1 + exp(-F y)) for labels +-1.

    Both are log(1 + exp(-m)), with m = F_y - logsumexp_(c != y) F_c for classes: written so, a well classified
    sample keeps its full relative precision, where log_softmax rounds to zero below 1e-16.
    """

    name: ClassVar[str] = "cross_entropy"
    supports: ClassVar[frozenset[Task]] = frozenset({"binary", "multiclass"})
    has_margin_stop: ClassVar[bool] = False

    def per_sample(self, F: Tensor, y: Tensor) -> Tensor:
        """The negative log-likelihood, (..., n); labels +-1 of shape (n, c) are summed over c."""
        if is_class_index(y):
            right, others = _right_and_others(F, y)
            return nnf.softplus(others.logsumexp(-1) - right, 1.0, SOFTPLUS_THRESHOLD)
        return _sum_outputs(nnf.softplus(-_product(F, y), 1.0, SOFTPLUS_THRESHOLD), y)

    def curvature_root(self, F: Tensor, y: Tensor) -> Tensor:
        """The root of diag(p) - p p^T, (E, n, c, c); of p (1 - p) for labels +-1, (E, n) or (E, n c).

        With u = sqrt(p), of norm one, it is diag(u) (1 - u u^T) diag(u), and 1 - u u^T is its own square.
        """
        if not is_class_index(y):
            p = torch.sigmoid(-_product(F, y))
            return (p * (1 - p)).sqrt().flatten(1)
        u = F.softmax(-1).sqrt()
        identity = torch.eye(F.shape[-1], dtype=F.dtype, device=F.device)
        return u.unsqueeze(-1) * (identity - u.unsqueeze(-1) * u.unsqueeze(-2))


def is_class_index(y: Tensor) -> bool:
    """Whether the targets are class indices (integers) rather than labels +-1 or real numbers (floats)."""
    return not y.is_floating_point()


def one_hot(F: Tensor, y: Tensor) -> Tensor:
    """The mask (n, c) that is true at each sample's class, for F (..., n, c) and integer y (n,)."""
    if F.ndim < 2 or y.ndim != 1 or F.shape[-2] != y.shape[0]:
        raise ConfigError(
            f"outputs of shape {tuple(F.shape)} came with integer targets of shape {tuple(y.shape)}, expected"
            " (..., n, classes) with (n,): give binary labels as floats +-1, classes as integers."
        )
    # Compared rather than scattered: no value is read back, so this can be captured and mapped over members.
    return y.unsqueeze(-1) == torch.arange(F.shape[-1], device=F.device)


def one_versus_all(F: Tensor, y: Tensor) -> Tensor:
    """The targets (n, c), +1 at each sample's class and -1 elsewhere, in the dtype of F."""
    return 2 * one_hot(F, y).to(F.dtype) - 1


def signed_margins(F: Tensor, signs: Tensor) -> Tensor:
    """F s for s (n,); the least over c of F_c s_c for s (n, c). Returns (..., n)."""
    product = _product(F, signs)
    return product.amin(-1) if signs.ndim == 2 else product


def class_margins(F: Tensor, y: Tensor) -> Tensor:
    """F_y - max_(c != y) F_c for F (..., n, c) and integer y (n,); (..., n), positive where argmax F = y."""
    right, others = _right_and_others(F, y)
    return right - others.amax(-1)


def _right_and_others(F: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """F_y (..., n), and F (..., n, c) with -inf at y."""
    mask = one_hot(F, y)
    others = F.masked_fill(mask, -math.inf)
    return torch.where(mask, F, torch.zeros_like(F)).sum(-1), others


def _product(F: Tensor, y: Tensor) -> Tensor:
    _check_shapes(F, y)
    return F * y


def _sum_outputs(cost: Tensor, y: Tensor) -> Tensor:
    return cost.sum(-1) if y.ndim == 2 else cost


def _check_shapes(F: Tensor, y: Tensor) -> None:
    """Broadcasting of (n, 1) against (n,) would silently give n x n numbers."""
    if y.ndim not in (1, 2) or F.shape[-y.ndim :] != y.shape:
        raise ConfigError(
            f"outputs of shape {tuple(F.shape)} came with targets of shape {tuple(y.shape)}, expected the last"
            " axes to be equal: drop the output axis of a binary model, or reshape the targets."
        )


_known_labels: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""The tensors of float targets that have been found to hold labels +-1."""


def _check_labels(y: Tensor) -> None:
    """Reads the values of each tensor once, and those of its views with it: no tried step may wait for the device."""
    if not y.is_floating_point() or y in _known_labels or (y._base is not None and y._base in _known_labels):
        return
    if not bool((y.abs() == 1).all()):
        raise ConfigError(
            "margins and errors of regression targets do not exist, expected labels +-1 or integer classes:"
            " observe the loss instead."
        )
    _known_labels[y] = True


LOSSES: dict[str, type[Loss]] = {kind.name: kind for kind in (Hinge, SoftHinge, QuadraticHinge, MSE, CrossEntropy)}


def build_loss(spec: str | Loss) -> Loss:
    """The loss named by ``spec``: one of ``LOSSES``, ``softhinge(20)`` or ``softhinge(beta=20)``.

    >>> build_loss("softhinge(10)")
    SoftHinge(beta=10.0)

    Raises:
        ConfigError: the name is unknown, or it comes with a parameter that it does not have.
    """
    if isinstance(spec, Loss):
        return spec
    if not isinstance(spec, str):
        raise ConfigError(f"loss is {spec!r}, expected one of {', '.join(LOSSES)}, or a Loss")
    name, beta = name_and_beta(spec, "loss", LOSSES, SoftHinge.name, "softhinge(20)")
    return LOSSES[name]() if beta is None else SoftHinge(beta)
