"""One network evaluated for E members at once: how any ``nn.Module`` gets its member axis."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.attention import plain_attention
from lazy_lightning.nn.gates import check_gates, frozen_gates, recorded_gates
from lazy_lightning.nn.member_samples import MemberSamples, Samples
from lazy_lightning.nn.member_state import in_precision, trainable
from lazy_lightning.nn.recurrent import has_recurrent_layers, without_cudnn
from lazy_lightning.nn.tensor_aliases import tensor_aliases

Named = dict[str, Tensor]
"""Tensors by name."""
Weights = Tensor | Named
"""Weights of E members: (E, N), or (E, *shape) each by parameter name as :meth:`MemberNetwork.unpack` gives them."""


@runtime_checkable
class BatchedOverMembers(Protocol):
    """A network with a faster path over the member axis than ``vmap``, and equal to it."""

    def forward_members(self, params: dict[str, Tensor], x: Tensor) -> Tensor:
        """``params`` (E, *shape) each, ``x`` (n, ...) shared by all: (E, n, c)."""
        ...


@runtime_checkable
class BatchedOverSamples(Protocol):
    """A network whose faster path over the member axis also takes samples of each member's own."""

    def forward_own_samples(self, params: dict[str, Tensor], x: Tensor) -> Tensor:
        """``params`` (E, *shape) each, ``x`` (E, n, ...): (E, n, c)."""
        ...


class MemberNetwork:
    """Turns rows of weights (E, N) into outputs (E, n, c). Holds no weights that are trained.

    The N weights are the parameters with ``requires_grad``. Frozen parameters and buffers are the template's own, or
    given for each member in ``buffers``.

    Args:
        template: a network; its trainable parameters give names, shapes and order of the N weights, nothing else.
        loops: evaluate one member after the other, for networks that ``vmap`` cannot map.
        needs_graph: evaluate with gradients on, for networks that differentiate inside of forward.

    Raises:
        ConfigError: if the network has no trainable parameters, a complex one, or a layer that draws random numbers or
            mixes samples.
    """

    def __init__(self, template: nn.Module, *, loops: bool = False, needs_graph: bool = False) -> None:
        check_deterministic(template)
        self.template = template
        self.loops, self.needs_graph = loops, needs_graph
        self._recurrent = has_recurrent_layers(template)
        weights = trainable(template)
        self.names = list(weights)
        self.shapes = [p.shape for p in weights.values()]
        self.sizes = [p.numel() for p in weights.values()]
        self.layers = layers_of(self.names)
        self._places = tensor_aliases(template)
        self._frozen = [name for name, p in template.named_parameters() if not p.requires_grad]
        self._batched = template if isinstance(template, BatchedOverMembers) else None  # slow to determine, so once

    def in_precision(self, dtype: torch.dtype) -> MemberNetwork:
        """The same object, with what all members share in the precision of ``dtype``."""
        self.template._apply(lambda tensor: in_precision(tensor, dtype))  # type: ignore[no-untyped-call]
        return self

    @property
    def is_batched(self) -> bool:
        """Whether the network has a path of its own over the member axis, and takes it."""
        return self._batched is not None and not self.loops

    @property
    def weights(self) -> int:
        """The number of weights N of a member."""
        return sum(self.sizes)

    def unpack(self, w: Weights) -> Named:
        """Views of (E, N) by parameter name, (E, *shape) each. One split, so its backward is one pass."""
        if isinstance(w, dict):
            return w
        blocks = torch.split(w, self.sizes, dim=1)
        return {n: b.view(len(w), *s) for n, b, s in zip(self.names, blocks, self.shapes, strict=True)}

    def layer_slices(self) -> dict[str, slice]:
        """Columns of (E, N) by layer: a layer is a module's own parameters, weight and bias together."""
        slices, start = {}, 0
        for layer, size in self.layers.items():
            slices[layer] = slice(start, start + sum(self.sizes[i] for i in size))
            start = slices[layer].stop
        return slices

    def __call__(self, w: Weights, x: Samples, buffers: Named | None = None) -> Tensor:
        """Outputs f(w, x): ``w`` (E, N) and ``x`` (n, ...) give (E, n, c); c = 1 keeps its axis.

        ``x`` may be :class:`~lazy_lightning.nn.member_samples.MemberSamples`, each member's own n samples. ``buffers``
        (E, *shape) each are the buffers and frozen parameters in which members differ.
        """
        params, own = self.unpack(w), buffers or {}
        if self.is_batched and own.keys() <= set(self._frozen):
            every = params | self._frozen_of_members(own, len(params[self.names[0]]))
            if not isinstance(x, MemberSamples):
                return cast(BatchedOverMembers, self._batched).forward_members(every, x)
            if isinstance(self._batched, BatchedOverSamples):
                return self._batched.forward_own_samples(every, x.by_member)

        def one(p: Named, b: Named, given: Tensor) -> Tensor:
            return as_columns(self._call(p, b, given), len(x), self.template)

        return cast(Tensor, self._over_members(one, x, params, own))

    def _frozen_of_members(self, given: Named, members: int) -> Named:
        if not self._frozen:
            return {}
        own = dict(self.template.named_parameters())
        return {n: given[n] if n in given else own[n].detach().expand(members, *own[n].shape) for n in self._frozen}

    def _over_members(self, one: Callable[..., Any], x: Samples, *trees: Named) -> Any:
        """``one`` of each member's part of the trees and its samples; the result gains the axis E.

        It is a tensor or a dictionary of tensors.
        """
        given = x.by_member if isinstance(x, MemberSamples) else x
        if not self.loops:
            return vmap(one, in_dims=(*(0 for _ in trees), None if given is x else 0))(*trees, given)
        members = len(next(iter(trees[0].values())))
        rows = [{name: tensor.unbind() for name, tensor in tree.items()} for tree in trees]
        results = [
            one(*({name: row[e] for name, row in tree.items()} for tree in rows), x if given is x else given[e])
            for e in range(members)
        ]
        if isinstance(results[0], Tensor):
            return torch.stack(results)
        return {name: torch.stack([result[name] for result in results]) for name in results[0]}

    def _call(self, params: Named, buffers: Named, x: Tensor) -> Any:
        given = {**params, **buffers}
        every = {place: given[name] for place, name in self._places.items() if name in given}
        if not self.needs_graph:
            with plain_attention(), without_cudnn(self._recurrent):
                return functional_call(self.template, every, (x,), tie_weights=False)
        wanted = torch.is_grad_enabled()
        with plain_attention(), without_cudnn(self._recurrent), torch.enable_grad():
            output = functional_call(self.template, every, (x.detach().clone(),), tie_weights=False)
        return output if wanted or not isinstance(output, Tensor) else output.detach()

    def preactivations(self, w: Tensor, x: Samples, buffers: Named | None = None) -> Named:
        """What each layer puts out before the next nonlinearity, (E, n, ...) by layer name.

        A layer is a module that owns trainable parameters; its output is caught by a forward hook inside ``vmap``. Of
        several tensors that it puts out, as an LSTM or an attention does, the first is taken. A layer that is never
        called as a module has none: the output projection of ``nn.MultiheadAttention`` is what the attention puts out.
        """

        def one(p: Named, b: Named, given: Tensor) -> Named:
            caught: Named = {}
            handles = [
                self.template.get_submodule(layer).register_forward_hook(functools.partial(_catch, caught, layer))
                for layer in self.layers
            ]
            try:
                self._call(p, b, given)
            finally:
                for handle in handles:
                    handle.remove()
            return {layer: caught[layer] for layer in self.layers if layer in caught}

        return cast(Named, self._over_members(one, x, self.unpack(w), buffers or {}))

    def gates(self, w: Tensor, x: Samples, buffers: Named | None = None) -> Named:
        """What each ReLU and max-pool chooses, (E, n, ...) by module, see :mod:`lazy_lightning.nn.gates`."""
        check_gates(self.template)

        def one(p: Named, b: Named, given: Tensor) -> Named:
            with recorded_gates(self.template) as noted:
                self._call(p, b, given)
            return noted

        return cast(Named, self._over_members(one, x, self.unpack(w), buffers or {}))

    def with_frozen_gates(self, w: Tensor, w0: Tensor, x: Samples, buffers: Named | None = None) -> Tensor:
        """f(w, x) with all ReLUs and max-pools choosing as they do at w0 on the same x, (E, n, c)."""
        check_gates(self.template)

        def one(p: Named, p0: Named, b: Named, given: Tensor) -> Tensor:
            with recorded_gates(self.template) as gates, torch.no_grad():
                self._call(p0, b, given)
            with frozen_gates(self.template, gates):
                return as_columns(self._call(p, b, given), len(x), self.template)

        return cast(Tensor, self._over_members(one, x, self.unpack(w), self.unpack(w0), buffers or {}))


def layers_of(names: Sequence[str]) -> dict[str, list[int]]:
    """Positions of the parameters by the module that owns them, whose name is theirs up to the last dot."""
    layers: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        layers.setdefault(name.rpartition(".")[0], []).append(i)
    return layers


def _catch(caught: Named, layer: str, module: nn.Module, args: Any, output: Any) -> None:
    tensor = first_tensor(output)
    if tensor is not None:
        caught[layer] = tensor
        if isinstance(module, nn.MultiheadAttention):  # which uses the weights of its projection in a function
            caught[f"{layer}.out_proj" if layer else "out_proj"] = tensor


def first_tensor(output: Any) -> Tensor | None:
    """The first tensor in what a module puts out: a tensor, or tuples, lists and dictionaries of them."""
    if isinstance(output, Tensor):
        return output
    parts = output.values() if isinstance(output, Mapping) else output if isinstance(output, list | tuple) else ()
    return next((tensor for tensor in map(first_tensor, parts) if tensor is not None), None)


def as_columns(output: Any, samples: int, template: nn.Module) -> Tensor:
    """The output of a network as (n, c).

    Raises:
        ConfigError: if it is neither (n, c) nor (n,), no tensor, or complex.
    """
    kind = type(template).__name__
    if not isinstance(output, Tensor):
        raise ConfigError(
            f"the network {kind} must put out one tensor, (n, outputs) or (n,), but gave a {type(output).__name__}: "
            "wrap it in a module that picks one"
        )
    if output.is_complex():
        raise ConfigError(f"the network {kind} puts out complex numbers, expected real ones: return their real part")
    if output.ndim == 1 and len(output) == samples:
        return output.unsqueeze(1)
    if output.ndim != 2 or len(output) != samples:
        raise ConfigError(
            f"the network {kind} must map (n, ...) to (n, outputs) or (n,), "
            f"but {samples} samples gave shape {tuple(output.shape)}"
        )
    return output


_RANDOM = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.RReLU)


def check_deterministic(template: nn.Module) -> None:
    """Lets pass the networks without a layer that draws random numbers or couples the samples of a batch.

    Raises:
        ConfigError: for others, with the layer's name.
    """
    for name, module in template.named_modules():
        where = f"layer {name!r} ({type(module).__name__}) of the network {type(template).__name__}"
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ConfigError(
                f"{where} couples the samples of a batch, so the output for one sample is not a function of its "
                "weights alone: use GroupNorm or LayerNorm, or no normalisation as the papers do"
            )
        if isinstance(module, _RANDOM) and getattr(module, "p", 1.0) > 0:
            raise ConfigError(
                f"{where} draws random numbers, so the flow has no gradient to follow: remove it or set p=0"
            )
