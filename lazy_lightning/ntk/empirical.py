"""The empirical tangent kernel Theta(x, x')_kl = d f_k(x)/dw . d f_l(x')/dw of any network (arXiv:1906.08034)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lazy_lightning.errors import ConfigError
from lazy_lightning.memory import require_bytes
from lazy_lightning.nn.members import MemberNetwork
from lazy_lightning.ntk.factors import Contraction, Output
from lazy_lightning.ntk.kernel_plan import LayerChoice, Method, Plan, plan_for
from lazy_lightning.ntk.progress_bar import with_progress_bar
from lazy_lightning.ntk.tangent_map import TangentMap, kernel_products
from lazy_lightning.ntk.tangent_model import Parameters, TangentModel, explain_functorch_error
from lazy_lightning.ntk.tangents import Tangents
from lazy_lightning.ntk.tile_ranks import TileRanks, exchanged_totals, shared_tile_size
from lazy_lightning.ntk.tiles import Tile, kernel_tiles, tile_size

OUTPUTS = ("full", "diagonal", "trace", "mean")
_COLUMNS_AT_ONCE = 16


def empirical_ntk(
    model: nn.Module | MemberNetwork,
    params: Parameters,
    x1: Tensor,
    x2: Tensor | None = None,
    *,
    output: Output = "full",
    method: Method = "auto",
    layers: LayerChoice = None,
    tile: int | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    buffers: Mapping[str, Tensor] | None = None,
    out: Tensor | NDArray[Any] | None = None,
    memory: int | None = None,
    progress: bool | None = None,
    ranks: TileRanks | None = None,
) -> Tensor:
    """The tangent kernel between samples, summed over layers.

    ``structured`` takes layers that are linear in their weights apart into the Gram matrices of their inputs and of the
    gradients at their outputs: one forward and c backward passes, then two matrix products a layer. ``jacobian``
    forms J and multiplies. ``jvp`` needs the memory of some copies of the weights alone, and time. ``auto`` uses
    structure where trying it on three samples shows that it holds, and the Jacobian elsewhere. All agree to rounding.

    Args:
        model: maps (n, ...) to (n, c) or (n,); or the :class:`MemberNetwork` of a run.
        params: None for the model's own parameters, a mapping by name, or flat weights (N,); with a member axis in
            front, (E, ...), for a kernel of each member.
        x1: (n1, ...) samples.
        x2: (n2, ...); None for x1, of which only half of the pairs are then computed.
        output: ``full`` all pairs of outputs; ``diagonal`` pairs of equal outputs; ``trace`` their sum over c;
            ``mean`` that divided by c.
        method: see above.
        layers: the part of some layers alone; ``last`` is the kernel of the features before the output layer.
        tile: samples a side of the blocks that are computed at once.
        dtype: in which to compute, and of the result; that of the parameters by default.
        device: where to compute; where the parameters are by default.
        buffers: the buffers in which members differ, (E, ...) each.
        out: where to write: a tensor on any device, or an array, also one on disk (see :func:`kernel_file`).
        memory: bytes for intermediate results; a quarter of what is free by default.
        progress: a progress bar; by default in a terminal when it takes more than two seconds.
        ranks: processes that all make this call, and compute the tiles in turn. Each gets the whole kernel, and writes
            it to its own ``out``: where only one shall keep it, the others give a tensor on the device ``meta``.

    Returns:
        (n1, n2, c, c) for ``full``, (n1, n2, c) for ``diagonal``, (n1, n2) for ``trace`` and ``mean``; (E, ...) of
        these for parameters with a member axis. ``out`` as a tensor if that was given.

    Raises:
        ConfigError: for options out of range, networks that draw random numbers or couple samples, shapes that do
            not fit.
        RunError: if the result does not fit in memory.

    >>> net = nn.Linear(3, 1, bias=False)
    >>> x = torch.eye(3)[:2]
    >>> empirical_ntk(net, None, x, output="trace")
    tensor([[1., 0.],
            [0., 1.]])
    """
    pair = _Pair.of(model, params, x1, x2, output, dtype, device, buffers)
    target = pair.target(out)
    written = target.unsqueeze(0) if pair.model.single else target
    if method == "jvp":
        if ranks is not None and ranks.count > 1:
            raise ConfigError("method='jvp' has no tiles that processes could share: use auto, or leave ranks out")
        _write_columns(pair, written, layers, progress)
        return target
    plan = pair.plan(method, layers)
    if ranks is None or ranks.count == 1:
        for block in pair.tiles(plan, tile, memory, progress):
            pair.write(written, block, block.total)
        return target
    for block, total in pair.shared_tiles(plan, tile, memory, progress, ranks):
        pair.write(written, block, total)
    return target


def empirical_ntk_by_layer(
    model: nn.Module | MemberNetwork,
    params: Parameters,
    x1: Tensor,
    x2: Tensor | None = None,
    *,
    output: Output = "full",
    method: Method = "auto",
    layers: LayerChoice = None,
    tile: int | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    buffers: Mapping[str, Tensor] | None = None,
    memory: int | None = None,
    progress: bool | None = None,
) -> dict[str, Tensor]:
    """The part of each layer, from one pass: a layer is a module's own parameters. The parts sum up to the kernel.

    Arguments and errors are those of :func:`empirical_ntk`; ``jvp`` does not separate layers.
    """
    if method == "jvp":
        raise ConfigError("method='jvp' does not tell layers apart: use auto, or one layer at a time")
    pair = _Pair.of(model, params, x1, x2, output, dtype, device, buffers)
    plan = pair.plan(method, layers)
    kernels = {name: pair.target(None, kernels=len(plan.layers)) for name in plan.layers}
    for block in pair.tiles(plan, tile, memory, progress):
        for name, part in block.by_layer.items():
            pair.write(kernels[name].unsqueeze(0) if pair.model.single else kernels[name], block, part)
    order = list(pair.model.layers())
    return {name: kernels[name] for name in sorted(kernels, key=order.index)}


def empirical_ntk_diagonal(
    model: nn.Module | MemberNetwork,
    params: Parameters,
    x: Tensor,
    *,
    output: Output = "full",
    method: Method = "auto",
    layers: LayerChoice = None,
    tile: int | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    buffers: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """The kernel of each sample with itself: (n, c, c), (n, c) or (n,); with members, (E, ...). Its sum is exact.

    Arguments and errors are those of :func:`empirical_ntk`; ``tile`` samples go through the network at once.
    """
    pair = _Pair.of(model, params, x, None, output, dtype, device, buffers)
    plan = pair.plan("jacobian" if method == "jvp" else method, layers)
    tangents = Tangents(pair.model, plan, pair.x1, pair.contraction)
    size = tile_size(tile, pair.model.device)
    parts = []
    for start in range(0, len(pair.x1), size):
        factors = tangents.factors(slice(start, start + size))
        parts.append(sum(held.own_products(pair.contraction) for held in factors.values()))
    whole = torch.cat(parts, dim=1) / (pair.outputs if output == "mean" else 1)  # type: ignore[arg-type]
    return whole[0] if pair.model.single else whole


class _Pair(NamedTuple):
    """Two sets of samples and the network, brought to one dtype and device, and the form of the result."""

    model: TangentModel
    x1: Tensor
    x2: Tensor | None
    output: Output
    outputs: int
    """c"""

    @classmethod
    def of(
        cls,
        model: nn.Module | MemberNetwork,
        params: Parameters,
        x1: Tensor,
        x2: Tensor | None,
        output: Output,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
        buffers: Mapping[str, Tensor] | None,
    ) -> _Pair:
        if output not in OUTPUTS:
            raise ConfigError(f"output is {output!r}, expected one of {', '.join(OUTPUTS)}")
        network = TangentModel.of(model, params, buffers=buffers, dtype=dtype, device=device)
        x1, x2 = network.accept(x1), None if x2 is None else network.accept(x2)
        if not len(x1) or (x2 is not None and not len(x2)):
            raise ConfigError("the tangent kernel of no samples was asked for: give at least one")
        return cls(network, x1, x2, output, network.outputs_per_sample(x1))

    @property
    def contraction(self) -> Contraction:
        """What is computed; the mean is divided afterwards."""
        return "trace" if self.output == "mean" else self.output

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the kernel that is returned."""
        tail = {"full": (self.outputs, self.outputs), "diagonal": (self.outputs,)}.get(self.output, ())
        lead = () if self.model.single else (self.model.members,)
        return (*lead, len(self.x1), len(self.x1 if self.x2 is None else self.x2), *tail)

    @property
    def alike(self) -> bool:
        """Whether all samples have one shape."""
        return self.x2 is None or self.x1.shape[1:] == self.x2.shape[1:]

    def plan(self, method: Method, layers: LayerChoice) -> Plan:
        return plan_for(self.model, self.x1, method, layers)

    def shared_tiles(
        self, plan: Plan, tile: int | None, memory: int | None, progress: bool | None, ranks: TileRanks
    ) -> Iterator[tuple[Tile, Tensor]]:
        """The tiles, which the processes compute in turn, with their sums over the layers."""
        samples = max(len(self.x1), 0 if self.x2 is None else len(self.x2))
        size = tile or shared_tile_size(tile_size(None, self.model.device), samples, ranks.count)
        own = self.tiles(plan, size, memory, progress, lambda number: number % ranks.count == ranks.rank)
        like = torch.empty((), dtype=self.model.dtype, device=self.model.device)
        contracted = {"full": (self.outputs, self.outputs), "diagonal": (self.outputs,)}
        return exchanged_totals(own, ranks, self.model.members, contracted.get(self.contraction, ()), like)

    def tiles(
        self,
        plan: Plan,
        tile: int | None,
        memory: int | None,
        progress: bool | None,
        is_own: Callable[[int], bool] = lambda number: True,
    ) -> Iterator[Tile]:
        left = Tangents(self.model, plan, self.x1, self.contraction)
        right = None
        if self.x2 is not None:
            there = plan if self.alike else plan.fitted(self.model, self.x2)
            right = Tangents(self.model, there, self.x2, self.contraction)
        blocks = kernel_tiles(left, right, tile=tile, memory=memory, is_own=is_own)
        pairs = len(left) * len(left if right is None else right)
        return with_progress_bar(blocks, pairs, "tangent kernel", progress, size=lambda block: block.pairs)

    def target(self, out: Tensor | NDArray[Any] | None, *, kernels: int = 1) -> Tensor:
        """Where the result goes, as a tensor; an array on disk shares its memory with it."""
        if out is None:
            size = kernels * torch.Size(self.shape).numel() * self.model.dtype.itemsize
            remedy = (
                "pass out= an array on disk (ntk.kernel_file) or a tensor elsewhere, or use fewer samples, "
                "output='trace', dtype=torch.float32, or an NTKOperator, which never forms it"
            )
            what = f"a tangent kernel of shape {self.shape} in {self.model.dtype}"
            require_bytes(size, self.model.device, f"{kernels} times {what}" if kernels > 1 else what, remedy)
            return torch.empty(self.shape, dtype=self.model.dtype, device=self.model.device)
        target = torch.from_numpy(out) if isinstance(out, np.ndarray) else out
        if target.shape != self.shape:
            raise ConfigError(f"out has shape {tuple(target.shape)}, the kernel has {self.shape}")
        return target

    def write(self, target: Tensor, block: Tile, part: Tensor) -> None:
        """Puts a block where it belongs, and its transpose if it stands for that too."""
        if self.output == "mean":
            part = part / self.outputs
        target[:, block.rows, block.cols] = part.to(target.device)
        if block.mirrored:
            transposed = part.transpose(1, 2)
            target[:, block.cols, block.rows] = (transposed.mT if self.output == "full" else transposed).to(
                target.device
            )


def _write_columns(pair: _Pair, target: Tensor, layers: LayerChoice, progress: bool | None) -> None:
    """Column by column, K e_jk = J (J^T e_jk): slow, lean, and independent of the other methods."""
    names = pair.plan("jvp", layers).jacobian.values()
    chosen = tuple(name for own in names for name in own)
    left = TangentMap(pair.model, pair.x1, chosen)
    right = TangentMap(pair.model, pair.x1 if pair.x2 is None else pair.x2, chosen)
    left.check_batches()
    if pair.output in ("trace", "mean"):
        target.zero_()
    for k in with_progress_bar(range(pair.outputs), pair.outputs, "tangent kernel", progress):
        for start in range(0, len(right.x), _COLUMNS_AT_ONCE):
            cols = slice(start, min(start + _COLUMNS_AT_ONCE, len(right.x)))
            _put_columns(pair, target, cols, k, _columns(left, right, cols, k, pair.outputs))


def _columns(left: TangentMap, right: TangentMap, cols: slice, k: int, outputs: int) -> Tensor:
    """(E, n1, columns, c) of the kernel against output ``k`` of some samples."""
    model = left.model
    count = cols.stop - cols.start
    unit = torch.zeros(count, model.members, count, outputs, dtype=model.dtype, device=model.device)
    unit[..., k] = torch.eye(count, dtype=model.dtype, device=model.device).unsqueeze(1)
    part = TangentMap(model, right.x[cols], right.names)
    remedy = "use method='auto'"
    with torch.no_grad(), explain_functorch_error(model.template, "cannot be differentiated in forward mode", remedy):
        return kernel_products(left, part, unit).movedim(0, 2)


def _put_columns(pair: _Pair, target: Tensor, cols: slice, k: int, columns: Tensor) -> None:
    if pair.output == "full":
        target[:, :, cols, :, k] = columns.to(target.device)
    elif pair.output == "diagonal":
        target[:, :, cols, k] = columns[..., k].to(target.device)
    else:
        share = pair.outputs if pair.output == "mean" else 1
        target[:, :, cols] += (columns[..., k] / share).to(target.device)
