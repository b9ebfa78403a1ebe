"""Pairs (z, dz) of a value at the initial weights and its change since, passed through the operations of a network.

A product passes on A dB + dA (B + dB), and a nonlinearity its difference by a formula without cancellation, so that the
change of the outputs has all digits of the precision however small it is beside the outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.pair_activations import (
    ErfDifference,
    GeluDifference,
    ReluDifference,
    SoftplusDifference,
    SwishDifference,
    TanhDifference,
    normal_distribution,
    tanh_slope,
)
from lazy_lightning.nn.pair_products import ConvolutionChange, ProductChange


class Bases:
    """The values at the initial weights: computed and recorded, or taken from an earlier record in the same order.

    Args:
        kept: what :attr:`record` was after a pass on the same samples; None to compute them.
    """

    def __init__(self, kept: Sequence[Tensor] | None = None) -> None:
        self._kept: Iterator[Tensor] | None = None if kept is None else iter(kept)
        self.record: list[Tensor] = []

    def of(self, compute: Callable[[], Tensor]) -> Tensor:
        """The next value in the order of evaluation."""
        if self._kept is not None:
            return next(self._kept)
        self.record.append(compute())
        return self.record[-1]


class Pair:
    """A value at the initial weights and its change; torch's functions and operators act on both.

    Args:
        base: z.
        change: dz of the same shape; None for zero.
        bases: of the pass.
    """

    def __init__(self, base: Tensor, change: Tensor | None, bases: Bases) -> None:
        self.base, self.change, self.bases = base, change, bases

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Applies the rule for a function of torch.

        Raises:
            ConfigError: there is none.
        """
        name = getattr(func, "__name__", str(func)).strip("_")
        if name not in RULES:
            raise unsupported(f"torch's {name}")
        return RULES[name](*args, **(kwargs or {}))

    def linear_map(self, function: Callable[[Tensor], Tensor]) -> Pair:
        """A linear function of both; a view costs nothing, so its base is not recorded."""
        return Pair(function(self.base), None if self.change is None else function(self.change), self.bases)

    def __getattr__(self, name: str) -> Any:
        """A method or property of tensors, by the same rules."""
        if name in ("shape", "ndim", "dtype", "device", "size", "dim", "requires_grad"):
            return getattr(self.base, name)
        if name == "mT":
            return self.linear_map(lambda z: z.mT)
        if name in RULES:
            return lambda *args, **kwargs: RULES[name](self, *args, **kwargs)
        if name.startswith("__"):
            raise AttributeError(name)
        raise unsupported(f"a tensor's {name}")

    def __add__(self, other: Any) -> Pair:
        return _add(self, other)

    def __radd__(self, other: Any) -> Pair:
        return _add(self, other)

    def __sub__(self, other: Any) -> Pair:
        return _sub(self, other)

    def __rsub__(self, other: Any) -> Pair:
        return _sub(other, self)

    def __neg__(self) -> Pair:
        return _mul(self, -1.0)

    def __mul__(self, other: Any) -> Pair:
        return _mul(self, other)

    def __rmul__(self, other: Any) -> Pair:
        return _mul(self, other)

    def __truediv__(self, other: Any) -> Pair:
        return _div(self, other)

    def __matmul__(self, other: Any) -> Pair:
        return _matmul(self, other)

    def __rmatmul__(self, other: Any) -> Pair:
        return _matmul(other, self)


def unsupported(what: str) -> ConfigError:
    """The error for a part of a network without a rule."""
    return ConfigError(
        f"model.paired has no rule for {what}, which the network uses: use a bundled network (FC, TwoLayer, CNN, VGG, "
        "ResNet18, WideResNet), or set model.paired to false and trainer.precision to 64-true"
    )


def _parts(value: Any) -> tuple[Any, Tensor | None]:
    return (value.base, value.change) if isinstance(value, Pair) else (value, None)


def _bases(*values: Any) -> Bases:
    return next(value.bases for value in values if isinstance(value, Pair))


def _sum(*terms: Tensor | None) -> Tensor | None:
    present = [term for term in terms if term is not None]
    return sum(present[1:], present[0]) if present else None


def _add(a: Any, b: Any, alpha: float = 1) -> Pair:
    if alpha != 1:
        raise unsupported("torch.add with alpha")
    bases, (a0, da), (b0, db) = _bases(a, b), _parts(a), _parts(b)
    base = bases.of(lambda: a0 + b0)
    return Pair(base, _shaped(_sum(da, db), base), bases)


def _shaped(change: Tensor | None, base: Tensor) -> Tensor | None:
    return change if change is None or change.shape == base.shape else change.expand(base.shape)


def _sub(a: Any, b: Any, alpha: float = 1) -> Pair:
    if alpha != 1:
        raise unsupported("torch.sub with alpha")
    bases, (a0, da), (b0, db) = _bases(a, b), _parts(a), _parts(b)
    base = bases.of(lambda: a0 - b0)
    return Pair(base, _shaped(_sum(da, None if db is None else -db), base), bases)


def _mul(a: Any, b: Any) -> Pair:
    return _bilinear(a, b, lambda u, v: u * v)


def _div(a: Any, b: Any) -> Pair:
    if isinstance(b, Pair):
        raise unsupported("a division by what depends on the weights")
    return _mul(a, 1 / b)


def _bilinear(a: Any, b: Any, product: Callable[[Any, Any], Tensor]) -> Pair:
    """The product of two factors; (A + dA)(B + dB) - A B = A dB + dA (B + dB)."""
    bases, (a0, da), (b0, db) = _bases(a, b), _parts(a), _parts(b)
    base = bases.of(lambda: product(a0, b0))
    by_b = None if db is None else product(a0, db)
    by_a = None if da is None else product(da, b0 if db is None else b0 + db)
    return Pair(base, _sum(by_b, by_a), bases)


def _matmul(a: Any, b: Any) -> Pair:
    return _bilinear(a, b, torch.matmul)


def _bmm(a: Any, b: Any) -> Pair:
    bases, (a0, da), (b0, db) = _bases(a, b), _parts(a), _parts(b)
    if da is None or db is None:
        return _bilinear(a, b, torch.bmm)
    change = ProductChange.apply(a0, da, b0, db)
    return Pair(bases.of(lambda: torch.bmm(a0, b0)), change, bases)


def _baddbmm(added: Any, a: Any, b: Any) -> Pair:
    return _add(_bmm(a, b), added)


def _linear(x: Any, weight: Any, bias: Any = None) -> Pair:
    product = _bilinear(x, weight, F.linear)
    return product if bias is None else _add(product, bias)


def _conv2d(
    x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Pair:
    if isinstance(padding, str):
        raise unsupported(f"a convolution with padding={padding!r}")
    options = (_sides(stride), _sides(padding), _sides(dilation), groups)
    bases, (x0, dx), (w0, dw) = _bases(x, weight), _parts(x), _parts(weight)
    if dx is None or dw is None:
        product = _bilinear(x, weight, lambda u, v: F.conv2d(u, v, None, *options))
    else:
        base = bases.of(lambda: F.conv2d(x0, w0, None, *options))
        product = Pair(base, ConvolutionChange.apply(x0, dx, w0, dw, *options), bases)
    return product if bias is None else _add(product, bias.view(-1, 1, 1))


def _relu(z: Pair, inplace: bool = False) -> Pair:
    change = None if z.change is None else ReluDifference.apply(z.base, z.change)
    return Pair(z.bases.of(lambda: torch.relu(z.base)), change, z.bases)


def _softplus(z: Pair, beta: float = 1.0, threshold: float = 20.0) -> Pair:
    base = z.bases.of(lambda: F.softplus(z.base, beta, threshold))
    s = z.bases.of(lambda: torch.sigmoid(beta * z.base))
    if z.change is None:
        return Pair(base, None, z.bases)
    change = SoftplusDifference.apply(z.base, s, float(beta), z.change)[0]
    return Pair(base, change, z.bases)


def _tanh(z: Pair) -> Pair:
    a, q = z.bases.of(lambda: torch.tanh(z.base)), z.bases.of(lambda: tanh_slope(z.base))
    change = None if z.change is None else TanhDifference.apply(z.base, a, q, z.change)[0]
    return Pair(a, change, z.bases)


def _swish(z: Pair, inplace: bool = False) -> Pair:
    base, s = z.bases.of(lambda: F.silu(z.base)), z.bases.of(lambda: torch.sigmoid(z.base))
    change = None if z.change is None else SwishDifference.apply(z.base, s, z.change)[0]
    return Pair(base, change, z.bases)


def _erf(z: Pair) -> Pair:
    change = None if z.change is None else ErfDifference.apply(z.base, z.change)[0]
    return Pair(z.bases.of(lambda: torch.erf(z.base)), change, z.bases)


def _gelu(z: Pair, approximate: str = "none") -> Pair:
    if approximate != "none":
        raise unsupported(f"gelu with approximate={approximate!r}")
    base, distribution = z.bases.of(lambda: F.gelu(z.base)), z.bases.of(lambda: normal_distribution(z.base))
    change = None if z.change is None else GeluDifference.apply(z.base, distribution, z.change)[0]
    return Pair(base, change, z.bases)


def _max_pool2d(
    z: Pair,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Pair:
    """max_i ((z_i - M) + dz_i) in each window, M its maximum before: the chosen entry's own dz where none overtakes."""
    size, step = _sides(kernel_size), _sides(kernel_size if stride in (None, []) else stride)
    if _sides(padding) != (0, 0) or _sides(dilation) != (1, 1) or ceil_mode or return_indices:
        raise unsupported("a max-pool with padding, dilation, ceil_mode or indices")
    windows = _windows(z.base, size, step)
    base = z.bases.of(lambda: windows.amax(dim=-1))
    if z.change is None:
        return Pair(base, None, z.bases)
    change = (windows - base.unsqueeze(-1) + _windows(z.change, size, step)).max(dim=-1).values
    return Pair(base, change, z.bases)


def _sides(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[-1]))


def _windows(z: Tensor, size: tuple[int, int], step: tuple[int, int]) -> Tensor:
    """(..., H', W', entries of a window)."""
    return z.unfold(-2, size[0], step[0]).unfold(-2, size[1], step[1]).flatten(-2)


def _linear_rule(name: str, function: Callable[..., Tensor], *, is_view: bool) -> Callable[..., Pair]:
    def rule(z: Pair, *args: Any, **kwargs: Any) -> Pair:
        if not isinstance(z, Pair) or any(isinstance(other, Pair) for other in args):
            raise unsupported(f"torch's {name} of several tensors")
        if is_view:
            return z.linear_map(lambda u: function(u, *args, **kwargs))
        base = z.bases.of(lambda: function(z.base, *args, **kwargs))
        return Pair(base, None if z.change is None else function(z.change, *args, **kwargs), z.bases)

    return rule


_VIEWS = ("flatten", "reshape", "view", "unsqueeze", "squeeze", "transpose", "permute", "expand", "contiguous")
_LINEAR: dict[str, Callable[..., Tensor]] = {
    "mean": torch.mean,
    "sum": torch.sum,
    "avg_pool2d": F.avg_pool2d,
    "adaptive_avg_pool2d": cast("Callable[..., Tensor]", F.adaptive_avg_pool2d),
}
RULES: dict[str, Callable[..., Pair]] = {
    "add": _add,
    "baddbmm": _baddbmm,
    "bmm": _bmm,
    "conv2d": _conv2d,
    "div": _div,
    "erf": _erf,
    "gelu": _gelu,
    "linear": _linear,
    "matmul": _matmul,
    "max_pool2d": _max_pool2d,
    "mul": _mul,
    "relu": _relu,
    "rmul": _mul,
    "radd": _add,
    "rmatmul": lambda a, b: _matmul(b, a),
    "silu": _swish,
    "softplus": _softplus,
    "sub": _sub,
    "tanh": _tanh,
    "rsub": lambda a, b: _sub(b, a),
    **{name: _linear_rule(name, getattr(Tensor, name), is_view=True) for name in _VIEWS},
    **{name: _linear_rule(name, function, is_view=False) for name, function in _LINEAR.items()},
}
"""By the name of torch's function or operator."""
