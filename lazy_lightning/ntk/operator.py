"""Products with the tangent kernel that never form it: K v = J (J^T v), one reverse and one forward pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.members import MemberNetwork
from lazy_lightning.ntk.independence import check_independence
from lazy_lightning.ntk.kernel_plan import LayerChoice, chosen_layers
from lazy_lightning.ntk.tangent_map import TangentMap, kernel_products
from lazy_lightning.ntk.tangent_model import Parameters, TangentModel, explain_functorch_error
from lazy_lightning.ntk.trial_samples import trial_samples

if TYPE_CHECKING:
    from scipy.sparse.linalg import LinearOperator


class NTKOperator:
    """The kernel between samples as a linear map from (n2 c,) to (n1 c,), in the memory of some copies of the weights.

    Vectors run over samples, then outputs. With members they have the member axis in front, (E, n2 c).

    Args:
        model: as in :func:`~lazy_lightning.ntk.empirical_ntk`.
        params: likewise.
        x1: (n1, ...)
        x2: (n2, ...); None for x1, and then the map is symmetric.
        layers: the part of some layers alone.
        dtype: in which to compute; that of the parameters by default.
        device: where to compute.
        buffers: in which members differ.
        chunk_size: samples evaluated at once; None for all.
        vectors: how many vectors of a matrix go through the network at once.

    Raises:
        ConfigError: as for :func:`~lazy_lightning.ntk.empirical_ntk`.

    >>> operator = NTKOperator(nn.Linear(3, 1, bias=False), None, torch.eye(3)[:2])
    >>> operator @ torch.tensor([1.0, 2.0])
    tensor([1., 2.])
    """

    def __init__(
        self,
        model: nn.Module | MemberNetwork,
        params: Parameters,
        x1: Tensor,
        x2: Tensor | None = None,
        *,
        layers: LayerChoice = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        buffers: Mapping[str, Tensor] | None = None,
        chunk_size: int | None = None,
        vectors: int = 16,
    ) -> None:
        network = TangentModel.of(model, params, buffers=buffers, dtype=dtype, device=device)
        names = tuple(name for own in chosen_layers(network, layers).values() for name in own)
        if vectors < 1:
            raise ConfigError(f"vectors is {vectors}, expected at least 1 to go through the network at once")
        x1, x2 = network.accept(x1), None if x2 is None else network.accept(x2)
        if not len(x1) or (x2 is not None and not len(x2)):
            raise ConfigError("a kernel operator between no samples was asked for: give at least one")
        self._left = TangentMap(network, x1, names, chunk_size)
        self._right = self._left if x2 is None else TangentMap(network, x2, names, chunk_size)
        self._check_independence()
        self._vectors = vectors

    def _check_independence(self) -> None:
        near = self._left.model.first_member().nearby()
        self._left.model.outputs_per_sample(self._left.x)  # whether it can be evaluated at all
        check_independence(near, trial_samples(near, self._left.x))
        self._left.check_batches()
        if not self.symmetric:
            self._right.check_batches()

    @property
    def shape(self) -> tuple[int, int]:
        """(n1 c, n2 c)"""
        return tuple(len(side.x) * side.outputs_per_sample for side in (self._left, self._right))  # type: ignore[return-value]

    @property
    def symmetric(self) -> bool:
        """Whether rows and columns are the same samples."""
        return self._left is self._right

    @property
    def members(self) -> int | None:
        """E, or None if vectors come without a member axis."""
        return None if self._left.model.single else self._left.model.members

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the products."""
        return self._left.model.dtype

    @property
    def device(self) -> torch.device:
        """The device of the products."""
        return self._left.model.device

    @property
    def T(self) -> NTKOperator:
        """The transpose: x1 and x2 exchanged."""
        other = object.__new__(NTKOperator)
        other._left, other._right, other._vectors = self._right, self._left, self._vectors
        return other

    def __matmul__(self, v: Tensor) -> Tensor:
        """K v for v (n2 c,), or K V for V (n2 c, k); with the member axis in front if there is one.

        Raises:
            ConfigError: for a vector of another length.
        """
        lead = () if self.members is None else (self.members,)
        expected = (*lead, self.shape[1])
        if v.shape[: len(expected)] != expected or v.ndim > len(expected) + 1:
            raise ConfigError(
                f"a vector of shape {tuple(v.shape)} came to a kernel operator of shape {self.shape}, "
                f"expected {expected} or {(*expected, 'k')}"
            )
        is_vector = v.ndim == len(expected)
        columns = v.to(self.device, self.dtype).reshape(*(lead or (1,)), self.shape[1], -1)
        product = self._product(columns.movedim(-1, 0)).movedim(0, -1)
        product = product if lead else product[0]
        return product[..., 0] if is_vector else product

    @torch.no_grad()
    def _product(self, vectors: Tensor) -> Tensor:
        """(k, E, n2 c) to (k, E, n1 c)."""
        cotangents = vectors.reshape(*vectors.shape[:2], len(self._right.x), -1)
        with explain_functorch_error(
            self._left.model.template, "has no products with its Jacobian", "use empirical_ntk"
        ):
            products = kernel_products(self._left, self._right, cotangents, at_once=self._vectors)
        return products.flatten(-2)

    def to_scipy(self) -> LinearOperator:
        """The same as a ``scipy.sparse.linalg.LinearOperator``, for its solvers.

        Raises:
            ConfigError: if it has a member axis, which scipy does not support.
        """
        from scipy.sparse.linalg import LinearOperator

        if self.members is not None:
            raise ConfigError(f"scipy's operators have no member axis, this one has {self.members}: give one member")

        def product(operator: NTKOperator, v: NDArray[np.floating]) -> NDArray[np.floating]:
            return (operator @ torch.from_numpy(np.ascontiguousarray(v)).to(operator.dtype)).cpu().numpy()

        return LinearOperator(
            self.shape,
            matvec=lambda v: product(self, v.reshape(-1)),
            rmatvec=lambda v: product(self.T, v.reshape(-1)),
            matmat=lambda v: product(self, v),
            rmatmat=lambda v: product(self.T, v),
            dtype=np.dtype(str(self.dtype).removeprefix("torch.")),
        )
