"""A network with the weights at which its tangent kernel is wanted: one set of them, or one for each member."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_map

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.attention import plain_attention
from lazy_lightning.nn.member_state import trainable
from lazy_lightning.nn.members import MemberNetwork, as_columns, layers_of
from lazy_lightning.nn.recurrent import has_recurrent_layers, without_cudnn
from lazy_lightning.nn.tensor_aliases import tensor_aliases

Parameters = Mapping[str, Tensor] | Tensor | None


@dataclass(frozen=True)
class TangentModel:
    """E sets of parameters of one template, all of one dtype and device."""

    template: nn.Module
    params: dict[str, Tensor]
    """(E, *shape) each, the trainable ones alone."""
    member_buffers: dict[str, Tensor]
    """(E, *shape) each: buffers in which members differ."""
    shared_buffers: dict[str, Tensor]
    """(*shape) each."""
    single: bool
    """Whether the parameters came without a member axis, so that results go without one."""
    places: dict[str, str]
    """Each place of a parameter or buffer in the template, and the first name of what stands there."""
    frozen: frozenset[str] = frozenset()
    """Parameters that are not trainable, which are constants here: they stand among the buffers."""

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

        Parameters with ``requires_grad=False`` are constants: no derivative with respect to them is counted.

        Args:
            model: a module, or the :class:`MemberNetwork` of a run.
            params: None for the module's own; a mapping from names to tensors (*shape) or (E, *shape), in which
                frozen parameters may be left out; or flat weights (N,) or (E, N) in the order of
                ``named_parameters``, over the trainable parameters or over all.
            buffers: buffers and frozen parameters in which the members differ, (E, *shape); (*shape) will do without
                a member axis.
            dtype: in which to compute; that of the parameters by default.
            device: where to compute; that of the parameters by default.

        Raises:
            ConfigError: if names or shapes are not those of the network, nothing is trainable, a trainable parameter is
                complex, or the network has no function of its weights and one sample alone.
        """
        template = model.template if isinstance(model, MemberNetwork) else model
        check_separable(template)
        free = _trainable(model)
        named, single = _with_member_axis(template, params, free)
        first = named[free[0]]
        dtype, device = dtype or first.dtype, first.device if device is None else torch.device(device)
        held = {name: p for name, p in named.items() if name not in free}
        held |= _member_buffers(template, free, buffers or {}, len(first), single)
        shared = {name: b for name, b in _constants(template, free).items() if name not in held}
        return cls(
            template,
            {name: _cast(named[name], dtype, device) for name in free},
            # Copies, since some layers write to their buffers.
            {name: _cast(b, dtype, device).clone() for name, b in held.items()},
            {name: _cast(b, dtype, device).clone() for name, b in shared.items()},
            single,
            tensor_aliases(template),
            frozenset(name for name, _ in template.named_parameters() if name not in free),
        )

    @property
    def members(self) -> int:
        """The number of members E."""
        return len(next(iter(self.params.values())))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of all parameters."""
        return next(iter(self.params.values())).dtype

    @property
    def device(self) -> torch.device:
        """The device of all parameters."""
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

        Buffers are copies. Each weight is multiplied by a number from 0.9 to 1.1, so that its sign stays; other numbers
        for each tensor, so that two halves of a network that cancel do not cancel there.
        """
        phase = {name: float(k) for k, name in enumerate((*self.params, *self.shared_buffers, *self.member_buffers))}

        def moved(name: str, p: Tensor) -> Tensor:
            p = p.nan_to_num(0.0, 0.0, 0.0)
            period = 0.1 * (torch.arange(1009.0, device=p.device) + phase[name]).cos().to(p.dtype)
            wave = period.repeat(-(-p.numel() // len(period)))[: p.numel()].reshape(p.shape)
            return torch.where(p == 0, wave, p * (1 + wave))

        def copied(name: str, b: Tensor) -> Tensor:
            return moved(name, b) if name in self.frozen and b.is_floating_point() else b.clone()

        params = {name: moved(name, p) for name, p in self.params.items()}
        shared = {name: copied(name, b) for name, b in self.shared_buffers.items()}
        own = {name: copied(name, b) for name, b in self.member_buffers.items()}
        return replace(self, params=params, shared_buffers=shared, member_buffers=own)

    def accept(self, x: Any) -> Tensor:
        """Samples in the dtype and on the device of the parameters; integers (tokens) keep their type.

        Args:
            x: a tensor (n, ...), or an array or nested lists of numbers.

        Raises:
            ConfigError: it is none of these, or has no axis of samples.
        """
        tensor = x if isinstance(x, Tensor) else _as_tensor(x)
        if not tensor.ndim:
            raise ConfigError("samples came as one number, expected (n, ...) with the samples on the first axis")
        return _cast(tensor, self.dtype, self.device)

    def outputs_per_sample(self, x: Tensor) -> int:
        """c, found out by evaluating one sample.

        Raises:
            ConfigError: if the network cannot be evaluated on such samples.
        """
        try:
            with gradients_on():  # some networks differentiate inside of their forward
                return self.first_member().outputs(x[:1]).shape[-1]
        except (ConfigError, torch.OutOfMemoryError):
            raise
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise ConfigError(
                f"{type(self.template).__name__} cannot be evaluated on samples of shape {tuple(x.shape[1:])} and "
                f"{x.dtype} ({in_short(error)}): give samples that the network takes, images as floats"
            ) from error

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

        with explain_functorch_error(
            self.template, "cannot be mapped over members", "give the weights of one member at a time"
        ):
            return vmap(one)(self.params, self.member_buffers, *per_member)

    def call(self, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """f of one member, (n, c)."""
        given = {**params, **buffers}
        every = {place: given[name] for place, name in self.places.items()}
        recurrent = has_recurrent_layers(self.template)
        with plain_attention(), without_cudnn(recurrent), _without_recomputation(self.template):
            outputs = functional_call(self.template, every, (x,), tie_weights=False)
        if not isinstance(outputs, Tensor):
            raise ConfigError(
                f"the network {type(self.template).__name__} must put out one tensor, (n, outputs) or (n,), but gave a "
                f"{type(outputs).__name__}: wrap it in a module that picks one"
            )
        if outputs.is_complex():
            raise ConfigError(
                f"the network {type(self.template).__name__} puts out complex numbers, and the tangent kernel is that "
                "of real outputs: put out real and imaginary parts (torch.view_as_real)"
            )
        return as_columns(outputs, len(x), self.template)

    def outputs(self, x: Tensor) -> Tensor:
        """f of all members, (E, n, c)."""
        result: Tensor = self.over_members(lambda params, buffers: self.call(params, buffers, x))
        return result


@contextmanager
def explain_functorch_error(template: nn.Module, what: str, remedy: str) -> Iterator[None]:
    """Turns the error of ``torch.func`` for a network that it cannot treat into ours; lack of memory is passed on."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ConfigError(f"{type(template).__name__} {what} ({in_short(error)}): {remedy}") from error


def in_short(error: Exception) -> str:
    """The message of another library, on one line of bounded length."""
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
    found = torch.autograd.grad(value, wanted, retain_graph=keep, allow_unused=True, materialize_grads=True)
    return tuple(gradient.to_dense() if gradient.is_sparse else gradient for gradient in found)


@contextmanager
def _without_recomputation(template: nn.Module) -> Iterator[None]:
    """Refuses activation checkpoints: they would recompute at the module's own weights, not at the given ones."""
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


def _trainable(model: nn.Module | MemberNetwork) -> list[str]:
    """Names of the parameters that derivatives are taken of."""
    template = model.template if isinstance(model, MemberNetwork) else model
    tensors = {**dict(template.named_parameters()), **dict(template.named_buffers())}
    if lazy := [name for name, tensor in tensors.items() if is_lazy(tensor)]:
        raise ConfigError(
            f"{', '.join(lazy)} of {type(template).__name__} have no shape yet: evaluate the network on some samples "
            "once, before anything is asked about its weights"
        )
    return model.names if isinstance(model, MemberNetwork) else list(trainable(template))


def _constants(template: nn.Module, free: Sequence[str]) -> dict[str, Tensor]:
    """Buffers and frozen parameters by name."""
    frozen = {name: p for name, p in template.named_parameters() if name not in free}
    return {**frozen, **dict(template.named_buffers())}


def _with_member_axis(template: nn.Module, params: Parameters, free: Sequence[str]) -> tuple[dict[str, Tensor], bool]:
    """The parameters that were given, (E, *shape), or the template's own; and whether they came without that axis."""
    every = dict(template.named_parameters())
    if params is None:
        return {name: every[name].unsqueeze(0) for name in free}, True
    shapes = {name: p.shape for name, p in every.items()}
    if isinstance(params, Tensor):
        return _unflattened(shapes, free, params)
    missing, unknown = sorted(set(free) - set(params)), sorted(set(params) - set(shapes))
    if missing or unknown:
        raise ConfigError(
            f"params do not name the parameters of {type(template).__name__}: missing {missing or 'none'}, unknown "
            f"{unknown or 'none'}; give dict(model.named_parameters()), or the same with a member axis in front"
        )
    given = [name for name in shapes if name in params]
    single = all(params[name].shape == shapes[name] for name in given)
    members = {params[name].shape[0] if params[name].ndim else 0 for name in given}
    if not single and (len(members) > 1 or any(params[name].shape[1:] != shapes[name] for name in given)):
        wrong = next(name for name in given if params[name].shape[1:] != shapes[name] or len(members) > 1)
        raise ConfigError(
            f"params[{wrong!r}] has shape {tuple(params[wrong].shape)}, expected {tuple(shapes[wrong])}, or that with "
            "a member axis of one length in front of every parameter"
        )
    return {name: params[name].unsqueeze(0) if single else params[name] for name in given}, single


def _member_buffers(
    template: nn.Module, free: Sequence[str], buffers: Mapping[str, Tensor], members: int, single: bool
) -> dict[str, Tensor]:
    """The buffers of each member, (E, *shape) each."""
    shapes = {name: b.shape for name, b in _constants(template, free).items()}
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


def _unflattened(shapes: Mapping[str, torch.Size], free: Sequence[str], flat: Tensor) -> tuple[dict[str, Tensor], bool]:
    counts = {name: shape.numel() for name, shape in shapes.items()}
    N, every = sum(counts[name] for name in free), sum(counts.values())
    if flat.ndim not in (1, 2) or flat.shape[-1] not in (N, every):
        raise ConfigError(
            f"flat weights of shape {tuple(flat.shape)} came to a network of {N} weights: give ({N},) or (members, {N})"
        )
    names = list(free) if flat.shape[-1] == N else list(shapes)
    rows = flat.unsqueeze(0) if flat.ndim == 1 else flat
    blocks = torch.split(rows, [counts[name] for name in names], dim=1)
    return {name: b.reshape(len(rows), *shapes[name]) for name, b in zip(names, blocks, strict=True)}, flat.ndim == 1


def _as_tensor(x: Any) -> Tensor:
    """Arrays and lists of numbers, which keep their digits; and lists of tensors."""
    try:
        parts = list(x) if isinstance(x, list | tuple) else []
        if parts and all(isinstance(part, Tensor) for part in parts):
            return torch.stack(parts)
        return torch.from_numpy(np.array(x))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"samples came as {type(x).__name__} ({in_short(error)}), expected a tensor (n, ...), an array, or lists "
            "of numbers of one length"
        ) from error


def _cast(x: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    # Trainers evaluate in inference mode, and nothing that was made in it can be differentiated.
    with torch.inference_mode(False):
        x = x.clone() if x.is_inference() else x.detach()
        if x.is_complex():
            return x.to(device, dtype.to_complex())
        return x.to(device, dtype) if x.is_floating_point() else x.to(device)


def _first(tree: Any) -> Any:
    return tree_map(lambda x: x[0], tree)


def _lifted(tree: Any) -> Any:
    return tree_map(lambda x: x.unsqueeze(0), tree)
