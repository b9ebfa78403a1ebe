"""The first-order model of a network at its initialisation, by forward-mode differentiation.

F_lin(w, x) = alpha J(w0, x) (w - w0) (arXiv:1812.07956, arXiv:1906.08034).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.construction import construct
from lazy_lightning.nn.directional_derivative import directional_derivative, has_one_sided_rules
from lazy_lightning.nn.member_state import trainable
from lazy_lightning.nn.recurrent import has_recurrent_layers, without_cudnn
from lazy_lightning.nn.tensor_aliases import tensor_aliases


def tangent_outputs(outputs: Callable[[Tensor], Tensor], w0: Tensor, displacement: Tensor) -> Tensor:
    """J(w0) dw, the change of the outputs to first order, by :func:`directional_derivative`: no Jacobian.

    Args:
        outputs: maps weights (E, N) to outputs (E, n, ...).
        w0: (E, N).
        displacement: (E, N) dw.

    >>> tangent_outputs(lambda w: w**2, torch.tensor([[3.0]]), torch.tensor([[0.5]]))
    tensor([[3.]])
    """
    return cast(Tensor, directional_derivative(outputs, w0, displacement)[1])


def tangent_departure(centered: Tensor, linear: Tensor) -> Tensor:
    """‖F - F_lin‖ / ‖F‖ for each member, (E,): 0 when lazy, of order 1 when features are learnt.

    Both arguments are (E, n, ...). NaN where F is exactly 0.
    """
    distance: Tensor = torch.linalg.vector_norm((centered - linear).flatten(1), dim=1)
    size: Tensor = torch.linalg.vector_norm(centered.flatten(1), dim=1)
    return distance / size


class LinearizedNetwork(nn.Module):
    """The first-order model of a network at its initialisation, f_lin(w, x) = f(w0, x) + J(w0, x) (w - w0).

    Any network, evaluated by one forward-mode pass, no Jacobian. Its parameters are w, under the names that they
    have in the network, and start at w0, which is held in the buffers ``origin.NAME``. What it learns under any
    optimizer is what the network learns in the limit of large alpha (arXiv:1812.07956). A forward hook on a
    module that owns parameters sees the first-order model of what that module puts out in the network.

    As the network of a :class:`~lazy_lightning.modules.FlowModule`, each member has the w0 that the network itself
    has at its seed, and F = alpha J(w0, x) (w - w0); in YAML, with the shapes still taken from the data::

        network:
          class_path: lazy_lightning.nn.linearize.LinearizedNetwork
          init_args:
            network: {class_path: lazy_lightning.nn.FC, init_args: {width: 100, depth: 3}}

    Args:
        network: builds the network; called with ``input_shape`` and ``num_outputs`` if it has arguments of these
            names. Or a network, of which a copy is taken at its present weights.
        input_shape: shape of one sample, passed on to the factory; filled in from the data in a run.
        num_outputs: outputs per sample, passed on likewise.
        tangent: the tangent part alone, J(w0, x) dw: the parameters are dw = w - w0 and start at zero, and f(w0, x),
            which centering would subtract again, is left out. F is the same and keeps all digits at any alpha.

    The default has w for parameters, so that norms and relative displacements of weights mean what they do for the
    network; but w holds dw only to the digits of w0. F is then wrong by a relative 1e-7 alpha in float32 and 1e-16
    alpha in float64, ten times less than the network's own; ``tangent`` is for float32 at alpha over 1e3 or so.
    With it, what is relative to the parameters' start is infinite, and weight decay draws to w0.

    The network is held in evaluation mode: with the statistics of a batch or random layers there is no J(w0, x). Where
    torch has no forward-mode rule two reverse passes take its place. Frozen parameters stay frozen. A loss and its
    gradient take two to three times as long as those of the network under ``vmap``, for the values at w0 go along with
    their change.

    Raises:
        ConfigError: a part of the network has a name that this class needs, or it has no trainable parameters, or a
            complex one.

    >>> net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    >>> model, x = LinearizedNetwork(net), torch.ones(2, 3)
    >>> torch.equal(model(x), net(x)), [name for name, _ in model.named_parameters()]
    (True, ['0.weight', '0.bias', '2.weight', '2.bias'])
    """

    def __init__(
        self,
        network: Callable[[], nn.Module],
        input_shape: Sequence[int] | int | None = None,
        num_outputs: int | None = None,
        *,
        tangent: bool = False,
    ) -> None:
        check_arguments(LinearizedNetwork, locals())
        super().__init__()
        base = _copied(network) if isinstance(network, nn.Module) else construct(network, input_shape, num_outputs)
        trainable(base)
        w0 = dict(base.named_parameters())
        self._tangent_alone, self._reverse = tangent, has_one_sided_rules(base)
        self._weights_of = {place: name for place, name in tensor_aliases(base).items() if name in w0}
        self._layers = [layer for layer in dict.fromkeys(name.rpartition(".")[0] for name in w0) if layer]
        self.origin, self._recurrent = _frozen(base), has_recurrent_layers(base)
        _check_names(self, w0)
        for name, value in w0.items():
            start = torch.zeros_like(value) if tangent else value.detach().clone()
            _own(self, name, nn.Parameter(start, requires_grad=value.requires_grad))
        if isinstance(width := getattr(base, "width", None), int):  # sqrt(h) alpha is known of a first-order model too
            self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """f_lin(w, x), of the shape of f(w, x)."""
        own, w0 = dict(self.named_parameters()), dict(self.origin.named_buffers())
        w0 = {name: w0[name] for name in own}
        dw = own if self._tangent_alone else {name: w - w0[name] for name, w in own.items()}
        watched = [layer for layer in self._layers if self.get_submodule(layer)._forward_hooks]

        def outputs(w: dict[str, Tensor]) -> tuple[Tensor, dict[str, list[Tensor]]]:
            every = {name: w[first] for name, first in self._weights_of.items()}
            with without_cudnn(self._recurrent), _caught_outputs(self.origin, watched) as caught:
                return functional_call(self.origin, every, (x,), tie_weights=False), caught

        (f, z), (df, dz) = directional_derivative(outputs, w0, dw, reverse=self._reverse)
        for layer, parts in z.items():
            moved = [part + change for part, change in zip(parts, dz[layer], strict=True)]
            self.get_submodule(layer)(moved[0] if len(moved) == 1 else tuple(moved))
        return cast(Tensor, df if self._tangent_alone else f + df)

    def train(self, mode: bool = True) -> Self:
        """As of any module, but the network itself stays in evaluation mode."""
        super().train(mode)
        self.origin.eval()
        return self


class _Layer(nn.Module):
    """Holds the weights of one layer of a first-order model; its hooks see what that layer puts out."""

    def forward(self, z: Tensor) -> Tensor:
        return z


def _copied(network: nn.Module) -> nn.Module:
    """A copy; tensors that it computed last and still holds (as the old ``weight_norm`` does) without their graph."""
    held = [value for part in network.modules() for value in vars(part).values() if isinstance(value, Tensor)]
    return copy.deepcopy(network, {id(value): value.detach().clone() for value in held if not value.is_leaf})


def _frozen(base: nn.Module) -> nn.Module:
    """The same network in evaluation mode, with buffers in place of its parameters."""
    for module in base.modules():
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach())
    return base.eval()


def _check_names(model: nn.Module, names: Iterable[str]) -> None:
    for part in dict.fromkeys(name.partition(".")[0] for name in names):
        if hasattr(model, part):
            raise ConfigError(
                f"the network has a part named {part!r}, a name that {type(model).__name__} uses itself: rename it"
            )


def _own(root: nn.Module, name: str, parameter: nn.Parameter) -> None:
    """Registers a parameter under a dotted name, with the modules on the way."""
    *path, last = name.split(".")
    owner = root
    for part in path:
        if part not in owner._modules:
            owner.add_module(part, _Layer())
        owner = owner.get_submodule(part)
    owner.register_parameter(last, parameter)


@contextmanager
def _caught_outputs(network: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, list[Tensor]]]:
    """What the layers put out while the network is evaluated, by name: one tensor, or those among several results."""
    caught: dict[str, list[Tensor]] = {}

    def catch(layer: str, module: nn.Module, args: Any, output: Any) -> None:
        tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
        if tensors:
            caught[layer] = tensors

    handles = [network.get_submodule(layer).register_forward_hook(partial(catch, layer)) for layer in layers]
    try:
        yield caught
    finally:
        for handle in handles:
            handle.remove()
