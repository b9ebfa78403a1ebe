"""How alike two kernels are, and how well a kernel suits its labels.

A kernel is (..., n, n), symmetric, with any leading member axes; all is computed in float64. Alignments of kernels
that are zero (after centring) are 0/0: NaN, or noise if they are zero to rounding only. A member that is not finite
gets NaN, the others are left alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lazy_lightning.errors import ConfigError
from lazy_lightning.ntk.one_device import require_one_device
from lazy_lightning.objective.losses import is_class_index


def relative_drift(now: Tensor, start: Tensor) -> Tensor:
    """‖K_t - K_0‖_F / ‖K_0‖_F, (...,): the order parameter of lazy training (arXiv:1906.08034).

    The difference is taken in float64 entry by entry, so a small drift is known to the rounding of the entries.

    >>> relative_drift(torch.full((2, 2), 1.5), torch.ones(2, 2))
    tensor(0.5000, dtype=torch.float64)
    """
    require_one_device(now=now, start=start)
    return _norm(now.double() - start.double()) / _norm(start.double())


def kernel_alignment(first: Tensor, second: Tensor, *, centered: bool = True) -> Tensor:
    """Centred kernel alignment <HKH, HK'H>_F / (‖HKH‖_F ‖HK'H‖_F), with H = 1 - 11^T/n (arXiv:1203.0550); (...,).

    Between 0 and 1 for kernels that are positive semi-definite; 1 where they are equal up to a factor.

    Args:
        first: (..., n, n).
        second: (..., n, n).
        centered: False gives <K, K'>_F / (‖K‖_F ‖K'‖_F).

    Raises:
        ConfigError: a kernel is not square, or they are not of one size.

    >>> kernel_alignment(torch.diag(torch.tensor([1.0, 0.0])), torch.eye(2), centered=False)
    tensor(0.7071, dtype=torch.float64)
    """
    check_square(first)
    check_square(second)
    if first.shape[-1] != second.shape[-1]:
        raise ConfigError(
            f"kernels of {first.shape[-1]} and {second.shape[-1]} samples were compared, expected the same samples:"
            " compute both on one set."
        )
    require_one_device(first=first, second=second)
    K, K2 = (centered_kernel(k) if centered else k.double() for k in (first, second))
    return (K * K2).sum((-2, -1)) / (_norm(K) * _norm(K2))


def label_alignment(kernel: Tensor, y: Tensor, *, centered: bool = True) -> Tensor:
    """The alignment of K with the kernel of the labels Y Y^T, which is not formed: tr(Y^T K Y)/(‖K‖_F ‖Y^T Y‖_F).

    Args:
        kernel: (..., n, n).
        y: (n,) labels +-1 or real targets, (n, c) real targets, or (n,) classes, which stand for their one-hot targets.
        centered: replace K by H K H and Y by H Y; see :func:`kernel_alignment`.

    Raises:
        ConfigError: the shapes do not fit.

    >>> label_alignment(torch.eye(4), torch.tensor([1.0, -1.0, 1.0, -1.0]))  # 1/3^(1/2)
    tensor(0.5774, dtype=torch.float64)
    """
    check_square(kernel)
    Y = target_matrix(y, kernel, centered=centered)
    K = centered_kernel(kernel) if centered else kernel.double()
    return ((K @ Y) * Y).sum((-2, -1)) / (_norm(K) * _norm(Y.mT @ Y))


def centered_kernel(kernel: Tensor) -> Tensor:
    """H K H with H = 1 - 11^T/n: the kernel of the features less their mean; (..., n, n) float64.

    >>> centered_kernel(torch.tensor([[2.0, 0.0], [0.0, 0.0]]))
    tensor([[ 0.5000, -0.5000],
            [-0.5000,  0.5000]], dtype=torch.float64)
    """
    # The second mean is that of numbers already small: their sum does not lose what the first subtraction kept.
    half = kernel.double() - kernel.double().mean(-2, keepdim=True)
    return half - half.mean(-1, keepdim=True)


def target_matrix(y: Tensor, kernel: Tensor, *, centered: bool) -> Tensor:
    """The targets Y (n, c) float64 of a kernel's n samples, less their mean over samples if centered.

    Floats (n,) become (n, 1), floats (n, c) stay, classes (n,) become the one-hot targets of the classes that occur;
    finding these waits for the device.

    Raises:
        ConfigError: the shapes do not fit.
    """
    return _target_matrix(y.to(kernel.device), kernel.shape[-1], centered=centered)


def check_square(kernel: Tensor) -> None:
    """Lets pass what has two equal last axes.

    Raises:
        ConfigError: the tensor is no (..., n, n).
    """
    if kernel.ndim < 2 or kernel.shape[-1] != kernel.shape[-2]:
        raise ConfigError(
            f"a kernel has shape {tuple(kernel.shape)}, expected (..., n, n): give the kernel of one set of samples"
            " with itself."
        )


class KernelComparison:
    """Drift and alignments of two symmetric kernels that come tile by tile and are never held.

    With the mean m = sum_ij K_ij/n^2 and the row sums r_i = sum_j K_ij, in which delta r = r - mean(r),

        <HKH, HK'H> = sum_ij (K_ij - m)(K'_ij - m') - (2/n) delta r . delta r'.

    The first sum is taken about the mean so far (a running covariance), not as <K, K'> - n^2 m m': an offset common
    to all entries, of any size c against a spread s, costs only digits of K itself, a relative error of eps c/s and
    not of eps (c/s)^2. What still cancels is what the row means explain of the spread, say all but a share q^2 of it:
    the alignment then errs by some eps/q^2. For q and s/c of order 1 it agrees with the dense formula to 1e-15 at
    n = 3000, and 1 - alignment is never known better than that. The drift has no such losses.

    Sums are float64 whatever the tiles are, on the device of the tiles, and nothing waits for it until a result is
    read by the host.

    Args:
        n: samples.
        batch_shape: the member axes of the tiles.
        device: where the tiles are.
        labels: as for :func:`label_alignment`; centred here. Classes are read by the host.

    Raises:
        ConfigError: the labels are not those of n samples.

    >>> both = KernelComparison(3)
    >>> K0 = torch.eye(3)
    >>> for rows, cols in [(slice(0, 2), slice(0, 2)), (slice(0, 2), slice(2, 3)), (slice(2, 3), slice(2, 3))]:
    ...     both.add(rows, cols, 3 * K0[rows, cols], K0[rows, cols])
    >>> both.drift, round(float(both.alignment), 12)
    (tensor(2., dtype=torch.float64), 1.0)
    """

    def __init__(
        self,
        n: int,
        batch_shape: Sequence[int] = (),
        device: torch.device | str = "cpu",
        *,
        labels: Tensor | None = None,
    ) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros((*batch_shape, *shape), dtype=torch.float64, device=device)

        self.n = n
        self.batch_shape = tuple(batch_shape)
        self._targets = None if labels is None else _target_matrix(labels.to(device), n, centered=True)
        self._entries = 0  # counted on the host
        # Of the pair (now, start): means and products about them, (..., 2) and (..., 2, 2); row sums (..., 2, n).
        self._means, self._products, self._row_sums = zeros(2), zeros(2, 2), zeros(2, n)
        self._change, self._label_product = zeros(), zeros()

    @torch.no_grad()
    def add(self, rows: slice, cols: slice, now: Tensor, start: Tensor) -> None:
        """Takes a tile of both kernels, (..., r, c) each. If rows != cols it stands for its transpose too.

        So tiles are to come from the upper block triangle, each once, those on the diagonal whole, in any order.

        Raises:
            ConfigError: the tile is not one of the kernels, or crosses the diagonal without being square upon it.
        """
        require_one_device(sums=self._change, now=now, start=start)
        rows, cols = self._span(rows), self._span(cols)
        weight = self._weight(rows, cols, now, start)
        pair = torch.stack((now.double(), start.double()), dim=-3)
        self._change += weight * (pair[..., 0, :, :] - pair[..., 1, :, :]).square().sum((-2, -1))
        self._row_sums[..., rows] += pair.sum(-1)
        if weight == 2:
            self._row_sums[..., cols] += pair.sum(-2)
        if self._targets is not None:
            projected = self._targets[rows].mT @ pair[..., 0, :, :]
            self._label_product += weight * (projected * self._targets[cols].mT).sum((-2, -1))
        self._merge(pair.flatten(-2), weight)

    @property
    def drift(self) -> Tensor:
        """‖K - K_0‖_F/‖K_0‖_F, (...,). The differences are taken entry by entry: a small drift keeps its digits."""
        return (self._change / self._squares()[..., 1]).sqrt()

    @property
    def alignment(self) -> Tensor:
        """The centred alignment of the two kernels, (...,); see :func:`kernel_alignment`."""
        inner = self._centered_products()
        norms = inner.diagonal(dim1=-2, dim2=-1).sqrt().prod(-1)
        return inner[..., 0, 1] / norms

    @property
    def uncentered_alignment(self) -> Tensor:
        """<K, K_0>_F/(‖K‖_F ‖K_0‖_F), (...,)."""
        product = self._products[..., 0, 1] + self.n**2 * self._means.prod(-1)
        return product / self._squares().sqrt().prod(-1)

    @property
    def label_alignment(self) -> Tensor:
        """The centred alignment of the present kernel with the labels, (...,); see :func:`label_alignment`.

        Raises:
            ConfigError: no labels were given.
        """
        if self._targets is None:
            raise ConfigError("this comparison has no labels to align with: give labels when it is made.")
        norm = self._centered_products()[..., 0, 0].sqrt()
        return self._label_product / (norm * _norm(self._targets.mT @ self._targets))

    def _span(self, of: slice) -> slice:
        start, stop, step = of.indices(self.n)
        if step != 1 or start >= stop:
            raise ConfigError(
                f"a tile of {of} came, expected a range of the {self.n} samples without gaps: cut blocks."
            )
        return slice(start, stop)

    def _weight(self, rows: slice, cols: slice, now: Tensor, start: Tensor) -> int:
        """How often the entries count."""
        expected = (*self.batch_shape, rows.stop - rows.start, cols.stop - cols.start)
        if now.shape != expected or start.shape != expected:
            raise ConfigError(
                f"tiles of shapes {tuple(now.shape)} and {tuple(start.shape)} came for rows {rows.start} to {rows.stop}"
                f" and columns {cols.start} to {cols.stop} of {self.n} samples, expected {expected}: cut both kernels"
                " alike."
            )
        if rows == cols:
            return 1
        if rows.start < cols.stop and cols.start < rows.stop:
            raise ConfigError(
                f"a tile of rows {rows.start} to {rows.stop} and columns {cols.start} to {cols.stop} crosses the"
                " diagonal, where it would count twice, expected equal or disjoint ranges: cut rows and columns alike."
            )
        return 2

    def _merge(self, entries: Tensor, weight: int) -> None:
        """Joins means and products of a tile's entries (..., 2, r c), each ``weight`` times, to those so far."""
        count = weight * entries.shape[-1]
        total = self._entries + count
        mean = entries.mean(-1)
        deviation = entries - mean.unsqueeze(-1)
        step = mean - self._means
        self._products += weight * (deviation @ deviation.mT)
        self._products += step.unsqueeze(-1) * step.unsqueeze(-2) * (self._entries * count / total)
        self._means += step * (count / total)
        self._entries = total

    def _squares(self) -> Tensor:
        """‖K‖^2 and ‖K_0‖^2, (..., 2): a sum of positive terms."""
        self._check_complete()
        return self._products.diagonal(dim1=-2, dim2=-1) + self.n**2 * self._means.square()

    def _centered_products(self) -> Tensor:
        """<HKH, HK'H> for each two of the pair, (..., 2, 2)."""
        self._check_complete()
        deviation = self._row_sums - self._row_sums.mean(-1, keepdim=True)
        return self._products - (2 / self.n) * (deviation @ deviation.mT)

    def _check_complete(self) -> None:
        if self._entries != self.n**2:
            raise ConfigError(
                f"tiles of {self._entries} entries were compared, expected {self.n**2} for {self.n} samples: add every"
                " tile of the upper block triangle once."
            )


def _target_matrix(y: Tensor, n: int, *, centered: bool) -> Tensor:
    if y.ndim not in (1, 2) or y.shape[0] != n or (y.ndim == 2 and is_class_index(y)):
        raise ConfigError(
            f"targets {y.dtype} of shape {tuple(y.shape)} came with a kernel of {n} samples, expected floats (n,) or"
            " (n, c), or integer classes (n,): give the targets of the kernel's samples."
        )
    Y = _one_hot(y) if is_class_index(y) else y.double().view(n, -1)
    return Y - Y.mean(0) if centered else Y


def _one_hot(y: Tensor) -> Tensor:
    """(n, c) float64 for the classes that occur: the others would add nothing to Y Y^T."""
    classes: Tensor = torch.unique(y)
    return (y.unsqueeze(-1) == classes).double()


def _norm(matrix: Tensor) -> Tensor:
    # Summed pairwise: torch's vector_norm adds one by one and at n = 2000 has lost three digits more.
    return matrix.square().sum((-2, -1)).sqrt()
