"""One forward and c backward passes that keep each layer's input and the gradient at its output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lazy_lightning.errors import ConfigError
from lazy_lightning.ntk.tangent_model import TangentModel, gradients_of, gradients_on


@dataclass(frozen=True)
class Call:
    """One use of a layer in a forward pass; a layer that is used twice shares its weights between the two."""

    layer: str
    input_shape: tuple[int, ...]
    """Of one sample."""
    output_shape: tuple[int, ...]


@dataclass
class Passes:
    """What the passes of some samples leave, one entry a call."""

    outputs: Tensor
    """(E, n, c)"""
    inputs: list[Tensor]
    """(E, n, *in), or (1, n, *in) where all members see the same."""
    backward: list[Tensor]
    """(E, n, c, *out)"""


@dataclass
class _Tape:
    """What hooks write down during one forward pass."""

    calls: Sequence[Call] = ()
    probes: Sequence[Tensor] | None = None
    names: list[str] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)

    def hook(self, name: str, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        position = len(self.names)
        self.names.append(name)
        self.inputs.append(args[0] if args else None)
        self.outputs.append(output)
        if self.probes is None:
            return None
        known = position < len(self.calls) and self.calls[position].layer == name
        if not known or output.shape != self.probes[position].shape:
            raise _called_otherwise(name)
        # A zero added to the output: its gradient is the gradient there, and the weights need none.
        return output + self.probes[position]


@contextmanager
def _recorded(template: nn.Module, layers: Sequence[str], tape: _Tape) -> Iterator[None]:
    def hook_of(name: str) -> Any:
        return lambda module, args, output: tape.hook(name, module, args, output)

    handles = [template.get_submodule(name).register_forward_hook(hook_of(name)) for name in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _called_otherwise(name: str) -> ConfigError:
    return ConfigError(
        f"layer {name!r} is called otherwise for some samples than for the first ones (how often, in which order, or "
        "with another shape), so it has no structure that holds for all: use method='jacobian'"
    )


def calls_of(model: TangentModel, layers: Sequence[str], x: Tensor) -> list[Call | str]:
    """The uses of some layers in the order of the forward pass, or why a use cannot be taken apart.

    ``model`` has one member.
    """
    tape = _Tape()
    with gradients_on(), _recorded(model.template, layers, tape):
        model.outputs(x)
    return [_call(*parts, samples=len(x)) for parts in zip(tape.names, tape.inputs, tape.outputs, strict=True)]


def _call(name: str, given: Any, output: Any, samples: int) -> Call | str:
    for what, tensor in (("input", given), ("output", output)):
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            return f"{name}: its {what} is not a tensor of real numbers"
        if tensor.ndim < 2 or len(tensor) != samples:
            return f"{name}: its {what} of shape {tuple(tensor.shape)} does not have the samples on its first axis"
    return Call(name, tuple(given.shape[1:]), tuple(output.shape[1:]))


def run_passes(model: TangentModel, calls: Sequence[Call], x: Tensor) -> Passes:
    """The passes for all members; ``calls`` are those of :func:`calls_of`, all of them layers of known shape.

    Raises:
        ConfigError: if the layers are called otherwise for these samples.
    """
    with gradients_on():
        out, inputs, probes = _forward(model, calls, x)
        backward = _backward(out, probes)
    return Passes(out.detach(), [_once(a.detach()) for a in inputs], backward)


def run_forward(model: TangentModel, calls: Sequence[Call], x: Tensor) -> list[Tensor]:
    """The outputs and the layers' inputs alone, as :func:`run_passes` has them."""
    with gradients_on():
        out, inputs, _ = _forward(model, calls, x)
    return [out.detach(), *(_once(a.detach()) for a in inputs)]


def _forward(model: TangentModel, calls: Sequence[Call], x: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    layers = list(dict.fromkeys(call.layer for call in calls))
    probes = [
        torch.zeros(model.members, len(x), *call.output_shape, dtype=model.dtype, device=model.device) for call in calls
    ]
    for probe in probes:
        probe.requires_grad_()

    def forward(params: Mapping[str, Tensor], buffers: Mapping[str, Tensor], probes: list[Tensor]) -> Any:
        tape = _Tape(calls, probes)
        with _recorded(model.template, layers, tape):
            out = model.call(params, buffers, x)
        if len(tape.names) < len(calls):
            raise _called_otherwise(calls[len(tape.names)].layer)
        return out, tape.inputs

    out, inputs = model.over_members(forward, probes)
    return out, inputs, probes


def _backward(outputs: Tensor, probes: Sequence[Tensor]) -> list[Tensor]:
    """Gradients of each output: samples do not mix, so one pass serves all samples of all members."""
    count = outputs.shape[-1]
    by_output = [gradients_of(outputs[..., k].sum(), probes, keep=k + 1 < count) for k in range(count)]
    return [torch.stack(gradients, dim=2) for gradients in zip(*by_output, strict=True)]


def _once(a: Tensor) -> Tensor:
    """(1, n, ...) of what the member axis only repeats: the samples themselves."""
    return a[:1] if len(a) > 1 and a.stride(0) == 0 else a
