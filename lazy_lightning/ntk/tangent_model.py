"""A network with the weights at which its tangent kernel is wanted: one set of them, or one for each member."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_map

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.attention import plain_attention
from lazy_lightning.nn.members import MemberNetwork, as_columns, layers_of
from lazy_lightning.nn.places import places_of

Parameters = Mapping[str, Tensor] | Tensor | None


@dataclass(frozen=True)
class TangentModel:
    """E sets of parameters of one template, all of one dtype and device."""

    template: nn.Module
    params: dict[str, Tensor]
    """(E, *shape) each."""
    member_buffers: dict[str, Tensor]
    """(E, *shape) each: buffers in which members differ."""
    shared_buffers: dict[str, Tensor]
    """(*shape) each."""
    single: bool
    """Whether the parameters came without a member axis, so that results go without one."""
    places: dict[str, str]
    """Each place of a parameter or buffer in the template, and the first name of what stands there."""

    @classmethod
    def of(
        cls,
        model: nn.Module | MemberNetwork,
        params: Parameters = None,
        *,
        buffers: Mapping[str, Tensor] | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> TangentModel:
        """Brings a network and what a user calls its parameters into one form.

        Args:
            model: a module, or the :class:`MemberNetwork` of a run.
            params: None for the module's own; a mapping from names to tensors (*shape) or (E, *shape); or
                flat weights (N,) or (E, N) in the order of ``named_parameters``.
            buffers: buffers in which the members differ, (E, *shape); (*shape) will do without a member axis.
            dtype: in which to compute; that of the parameters by default.
            device: where to compute; that of the parameters by default.

        Raises:
            ConfigError: if names or shapes are not those of the network, or the network has no function of its
                weights and one sample alone.
        """
        template = model.template if isinstance(model, MemberNetwork) else model
        check_separable(template)
        named, single = _with_member_axis(template, params)
        first = next(iter(named.values()))
        dtype, device = dtype or first.dtype, first.device if device is None else torch.device(device)
        held = _member_buffers(template, buffers or {}, len(first), single)
        shared = {name: b for name, b in template.named_buffers() if name not in held}
        return cls(
            template,
            {name: _cast(p, dtype, device) for name, p in named.items()},
            # Copies, since some layers write to their buffers.
            {name: _cast(b, dtype, device).clone() for name, b in held.items()},
            {name: _cast(b, dtype, device).clone() for name, b in shared.items()},
            single,
            places_of(template),
        )

    @property
    def members(self) -> int:
        """E."""
        return len(next(iter(self.params.values())))

    @property
    def dtype(self) -> torch.dtype:
        """Of all parameters."""
        return next(iter(self.params.values())).dtype

    @property
    def device(self) -> torch.device:
        """Of all parameters."""
        return next(iter(self.params.values())).device

    def layers(self) -> dict[str, list[str]]:
        """Parameter names by layer: a layer is a module's own parameters, weight and bias together."""
        names = list(self.params)
        return {layer: [names[i] for i in own] for layer, own in layers_of(names).items()}

    def first_member(self) -> TangentModel:
        """E = 1, for looking at the structure alone."""
        first = {name: p[:1] for name, p in self.params.items()}
        return replace(self, params=first, member_buffers={name: b[:1] for name, b in self.member_buffers.items()})

    def nearby(self) -> TangentModel:
        """The same network at other weights, all finite, none zero: there, no layer hides behind one that is zero.

        Buffers are copies. Each weight is multiplied by a number from 0.9 to 1.1, so that its sign stays.
        """

        def moved(p: Tensor) -> Tensor:
            p = p.nan_to_num(0.0, 0.0, 0.0)
            period = 0.1 * torch.arange(1009.0, device=p.device).cos().to(p.dtype)
            wave = period.repeat(-(-p.numel() // len(period)))[: p.numel()].view(p.shape)
            return torch.where(p == 0, wave, p * (1 + wave))

        params = {name: moved(p) for name, p in self.params.items()}
        shared = {name: b.clone() for name, b in self.shared_buffers.items()}
        own = {name: b.clone() for name, b in self.member_buffers.items()}
        return replace(self, params=params, shared_buffers=shared, member_buffers=own)

    def accept(self, x: Tensor) -> Tensor:
        """Samples in the dtype and on the device of the parameters; integers (tokens) keep their type."""
        return _cast(x, self.dtype, self.device)

    def over_members(self, function: Callable[..., Any], *per_member: Any) -> Any:
        """``function(params, buffers, *arguments)`` for each member; results gain the member axis in front.

        One member runs without ``vmap``: faster, and any operation will do.

        Raises:
            ConfigError: if ``vmap`` cannot map the network over several members.
        """
        if self.members == 1:
            own = [_first(tree) for tree in (self.params, self.member_buffers, *per_member)]
            return _lifted(function(own[0], {**self.shared_buffers, **own[1]}, *own[2:]))

        def one(params: Any, buffers: dict[str, Tensor], *arguments: Any) -> Any:
            return function(params, {**self.shared_buffers, **buffers}, *arguments)

        with told(self.template, "cannot be mapped over members", "give the weights of one member at a time"):
            return vmap(one)(self.params, self.member_buffers, *per_member)

    def call(self, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """f of one member, (n, c)."""
        given = {**params, **buffers}
        every = {place: given[name] for place, name in self.places.items()}
        with plain_attention(), _without_recomputation(self.template):
            outputs = functional_call(self.template, every, (x,), tie_weights=False)
        if not isinstance(outputs, Tensor):
            raise ConfigError(
                f"the network {type(self.template).__name__} must put out one tensor, (n, outputs) or (n,), but gave a "
                f"{type(outputs).__name__}: wrap it in a module that picks one"
            )
        return as_columns(outputs, len(x), self.template)

    def outputs(self, x: Tensor) -> Tensor:
        """f of all members, (E, n, c)."""
        result: Tensor = self.over_members(lambda params, buffers: self.call(params, buffers, x))
        return result


@contextmanager
def told(template: nn.Module, what: str, remedy: str) -> Iterator[None]:
    """Turns what ``torch.func`` says of a network it cannot treat into our error; lack of memory stays what it is."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ConfigError(f"{type(template).__name__} {what} ({in_short(error)}): {remedy}") from error


def in_short(error: Exception) -> str:
    """What another library says, on one line of bounded length."""
    return " ".join(str(error).split())[:200]


@contextmanager
def gradients_on() -> Iterator[None]:
    """Gradients as the kernel needs them, whatever mode the caller is in."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def gradients_of(value: Tensor, wanted: Sequence[Tensor], *, keep: bool = True) -> tuple[Tensor, ...]:
    """Gradients of a number, zero where it does not depend on what is wanted. ``keep`` the graph for more of them."""
    if not value.requires_grad:
        return tuple(torch.zeros_like(tensor) for tensor in wanted)
    return torch.autograd.grad(value, wanted, retain_graph=keep, allow_unused=True, materialize_grads=True)


@contextmanager
def _without_recomputation(template: nn.Module) -> Iterator[None]:
    """Refuses activation checkpoints: they would recompute at the module's own weights, not at those asked for."""
    reason = "activation checkpoints"
    try:
        with torch.autograd.graph.disable_saved_tensors_hooks(reason):
            yield
    except RuntimeError as error:
        if reason not in str(error) and "_NoopSaveInputs" not in str(error):  # torch.utils.checkpoint's own, under vmap
            raise
        raise ConfigError(
            f"{type(template).__name__} uses {reason}, which recompute at other weights than those asked for: switch "
            "them off"
        ) from error


def check_separable(template: nn.Module) -> None:
    """Lets pass the networks whose output for a sample depends on that sample and the weights alone.

    Raises:
        ConfigError: for a layer that draws random numbers, or that takes statistics over the samples of a batch.
    """
    for name, module in template.named_modules():
        where = f"layer {name!r} ({type(module).__name__}) of {type(template).__name__}"
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (module.training or module.running_mean is None):
            raise ConfigError(
                f"{where} normalises by statistics of the batch, so its outputs have no gradient of their own for "
                "each sample: call model.eval() to use its running statistics (which it must keep)"
            )
        if isinstance(module, nn.modules.instancenorm._InstanceNorm) and module.training and module.track_running_stats:
            raise ConfigError(f"{where} changes its running statistics at each evaluation: call model.eval()")
        if module.training and isinstance(module, _RANDOM) and getattr(module, "p", 1.0) > 0:
            raise ConfigError(f"{where} draws random numbers: call model.eval() to switch it off")


_RANDOM = (nn.modules.dropout._DropoutNd, nn.RReLU)


def _with_member_axis(template: nn.Module, params: Parameters) -> tuple[dict[str, Tensor], bool]:
    shapes = {name: p.shape for name, p in template.named_parameters()}
    if not shapes:
        raise ConfigError(f"{type(template).__name__} has no parameters, so it has no tangent kernel")
    if params is None:
        return {name: p.unsqueeze(0) for name, p in template.named_parameters()}, True
    if isinstance(params, Tensor):
        return _unflattened(shapes, params)
    if set(params) != set(shapes):
        missing, unknown = sorted(set(shapes) - set(params)), sorted(set(params) - set(shapes))
        raise ConfigError(
            f"params do not name the parameters of {type(template).__name__}: missing {missing or 'none'}, unknown "
            f"{unknown or 'none'}; give dict(model.named_parameters()), or the same with a member axis in front"
        )
    single = all(params[name].shape == shape for name, shape in shapes.items())
    members = {params[name].shape[0] if params[name].ndim else 0 for name in shapes}
    if not single and (len(members) > 1 or any(params[name].shape[1:] != shape for name, shape in shapes.items())):
        wrong = next(name for name, shape in shapes.items() if params[name].shape[1:] != shape or len(members) > 1)
        raise ConfigError(
            f"params[{wrong!r}] has shape {tuple(params[wrong].shape)}, expected {tuple(shapes[wrong])}, or that with "
            "a member axis of one length in front of every parameter"
        )
    return {name: params[name].unsqueeze(0) if single else params[name] for name in shapes}, single


def _member_buffers(
    template: nn.Module, buffers: Mapping[str, Tensor], members: int, single: bool
) -> dict[str, Tensor]:
    """(E, *shape) each."""
    shapes = {name: b.shape for name, b in template.named_buffers()}
    if unknown := sorted(set(buffers) - set(shapes)):
        raise ConfigError(
            f"buffers names {unknown}, expected some of {', '.join(shapes) or 'none'}: {type(template).__name__} has "
            "no others"
        )
    held = {name: b.unsqueeze(0) if single and b.shape == shapes[name] else b for name, b in buffers.items()}
    for name, b in held.items():
        if b.shape != (members, *shapes[name]):
            raise ConfigError(
                f"buffers[{name!r}] has shape {tuple(b.shape)}, expected {(members, *shapes[name])}: one a member"
            )
    return held


def _unflattened(shapes: Mapping[str, torch.Size], flat: Tensor) -> tuple[dict[str, Tensor], bool]:
    sizes = [shape.numel() for shape in shapes.values()]
    if flat.ndim not in (1, 2) or flat.shape[-1] != sum(sizes):
        raise ConfigError(
            f"flat weights of shape {tuple(flat.shape)} came to a network of {sum(sizes)} weights: give "
            f"({sum(sizes)},) or (members, {sum(sizes)})"
        )
    rows = flat.view(1, -1) if flat.ndim == 1 else flat
    blocks = torch.split(rows, sizes, dim=1)
    named = {name: b.reshape(len(rows), *shape) for (name, shape), b in zip(shapes.items(), blocks, strict=True)}
    return named, flat.ndim == 1


def _cast(x: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    # Trainers evaluate in inference mode, and nothing that was made in it can be differentiated.
    with torch.inference_mode(False):
        x = x.clone() if x.is_inference() else x.detach()
        return x.to(device, dtype) if x.is_floating_point() else x.to(device)


def _first(tree: Any) -> Any:
    return tree_map(lambda x: x[0], tree)


def _lifted(tree: Any) -> Any:
    return tree_map(lambda x: x.unsqueeze(0), tree)
