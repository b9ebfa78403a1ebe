"""The kernels of the bundled network at infinite width, layer by layer.

With S^l the covariance of the preactivations z^l, and T^l the tangent kernel of z^l (arXiv:1806.07572),

    S^1 = x x'/d + b^2,                        T^1 = S^1,
    S^(l+1) = E[phi(u) phi(v)] + b^2,          T^(l+1) = S^(l+1) + E[phi'(u) phi'(v)] T^l,   (u, v) ~ N(0, S^l),

b the bias scale of the layer, that of the head in the last step. The S of a layer is also its own share of T, that of
its weights and bias; the later layers multiply it.
"""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.activations import Activation
from lazy_lightning.nn.activations import activation as build_activation
from lazy_lightning.nn.fc import FC, Head
from lazy_lightning.nn.layers import NTKLinear
from lazy_lightning.ntk.dual_activation import dual_activation, second_moments
from lazy_lightning.ntk.one_device import require_one_device


class InfiniteWidthKernels(NamedTuple):
    """The kernels of one output; outputs are independent of each other. All float64, on the device of the samples.

    Attributes:
        nngp: E[f(x) f(x')] over the initial weights, (n1, n2).
        ntk: the limit of J(w0, x) J(w0, x')^T, (n1, n2).
        by_layer: the share of the parameters of each layer in ``ntk``, by the names ``hidden.0``, ..., ``head``.
    """

    nngp: Tensor
    ntk: Tensor
    by_layer: dict[str, Tensor]


def infinite_width_kernels(
    x1: Tensor,
    x2: Tensor | None = None,
    *,
    depth: int,
    activation: str | Activation,
    bias: float = 0.0,
    last_bias: float = 0.0,
    head: Head = "ntk",
) -> InfiniteWidthKernels:
    """NNGP and NTK of :class:`lazy_lightning.nn.FC` as its width goes to infinity.

    Args:
        x1: samples (n1, ...), flattened, of any floating dtype.
        x2: samples (n2, ...); None for the kernel of ``x1`` with itself, which is then symmetric to the bit and
            takes half the time.
        depth: number L of hidden layers; 0 is a linear model.
        activation: as for the network.
        bias: scale of the biases of the hidden layers.
        last_bias: scale of the bias of the head.
        head: ``ntk``; a mean-field head has no kernel at infinite width.

    >>> kernels = infinite_width_kernels(torch.eye(2), depth=1, activation="relu")
    >>> torch.pi * kernels.nngp  # of samples at right angles
    tensor([[1.5708, 0.5000],
            [0.5000, 1.5708]], dtype=torch.float64)
    >>> list(kernels.by_layer)
    ['hidden.0', 'head']

    Raises:
        ConfigError: a setting out of range, a mean-field head, samples that do not fit each other or are not finite,
            or an activation too rough for its dual.
    """
    _check_settings(depth, bias, last_bias, head)
    phi = build_activation(activation)
    require_one_device(x1=x1, x2=x2)
    a1 = _flat_samples(x1, "x1")
    a2 = None if x2 is None else _flat_samples(x2, "x2")
    _check_fit(a1, a2)
    covariance, q1, q2 = _products(a1, a2)
    shares: dict[str, Tensor] = {}
    names = [*(f"hidden.{i}" for i in range(depth)), "head"]
    for layer, name in enumerate(names):
        if layer:
            covariance, slope = dual_activation(phi, covariance, q1, q2)
            q1 = second_moments(phi, q1).value
            q2 = None if q2 is None else second_moments(phi, q2).value
            shares = {earlier: share * slope for earlier, share in shares.items()}
        variance = (last_bias if name == "head" else bias) ** 2
        covariance, q1, q2 = covariance + variance, q1 + variance, None if q2 is None else q2 + variance
        shares[name] = covariance
    return InfiniteWidthKernels(covariance, sum(shares.values(), torch.zeros_like(covariance)), shares)


def infinite_width_of(network: FC, x1: Tensor, x2: Tensor | None = None) -> InfiniteWidthKernels:
    """The kernels of the infinitely wide network with the settings of ``network``, whatever its weights.

    >>> network = FC(width=8, depth=2, activation="relu", input_shape=3)
    >>> infinite_width_of(network, torch.ones(1, 3)).ntk.round(decimals=12)
    tensor([[3.]], dtype=torch.float64)

    Raises:
        ConfigError: ``network`` is not an FC in NTK parametrisation, or as for :func:`infinite_width_kernels`.
    """
    if not isinstance(network, FC):
        raise ConfigError(
            f"the network is {type(network).__name__}, expected the bundled FC: only its infinite-width kernels are"
            " known here, so measure the empirical kernel instead."
        )
    return infinite_width_kernels(
        network._flatten(x1),
        None if x2 is None else network._flatten(x2),
        depth=network.depth,
        activation=network.activation,
        bias=cast(NTKLinear, network.hidden[0]).bias_scale if network.depth else 0.0,
        last_bias=network.head.bias_scale,
        head="ntk" if network.head.scale == network.head.in_features**-0.5 else "mean_field",
    )


def _products(a1: Tensor, a2: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """x x'/d and the variances of each set."""
    d = a1.shape[1]
    if a2 is not None:
        return a1 @ a2.mT / d, a1.square().sum(1) / d, a2.square().sum(1) / d
    covariance = a1 @ a1.mT / d
    covariance = (covariance + covariance.mT) / 2  # not every matrix product is symmetric to the bit
    return covariance, covariance.diagonal().clone(), None


def _flat_samples(x: Tensor, name: str) -> Tensor:
    if x.ndim < 2 or not x.numel():
        raise ConfigError(f"{name} has shape {tuple(x.shape)}, expected (n, ...) with n >= 1: give samples as rows.")
    if not x.isfinite().all():
        raise ConfigError(f"{name} has entries that are not finite, expected numbers: mend or leave out these samples.")
    return x.detach().reshape(len(x), -1).double()


def _check_fit(a1: Tensor, a2: Tensor | None) -> None:
    if a2 is not None and (a2.shape[1], a2.device) != (a1.shape[1], a1.device):
        raise ConfigError(
            f"x2 has {a2.shape[1]} inputs on {a2.device} and x1 {a1.shape[1]} on {a1.device}, expected the same:"
            " give samples of one shape on one device."
        )


def _check_settings(depth: int, bias: float, last_bias: float, head: str) -> None:
    if head == "mean_field":
        raise ConfigError(
            "head is 'mean_field', whose kernels vanish like 1/h as the width h grows, expected 'ntk': use"
            ' head="ntk", and divide by h for a mean-field network of width h.'
        )
    if head != "ntk":
        raise ConfigError(f"head is {head!r}, expected 'ntk': use head=\"ntk\".")
    if depth < 0:
        raise ConfigError(f"depth is {depth}, expected an integer >= 0: set the number of hidden layers.")
    for name, value in (("bias", bias), ("last_bias", last_bias)):
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{name} is {value}, expected its scale >= 0: set 0 for no bias, 1 for N(0, 1).")
