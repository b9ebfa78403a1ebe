"""The members of a run at initialisation: the networks that their seeds build, as rows of weights and buffers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.construction import PLAIN_TENSORS, NetworkFactory, built_from, fitted_to_data
from lazy_lightning.nn.member_state import (
    attribute_values,
    differing_attribute,
    differing_tensor,
    equal_tensors,
    held_tensors,
    trainable,
)
from lazy_lightning.nn.member_trial import MemberTrial
from lazy_lightning.nn.members import Named, check_deterministic


class InitialMembers:
    """The members' networks at initialisation: w0 (E, N), their buffers, and the network itself.

    Member ``seed`` is built on the CPU in float64 under its own random stream, so its weights do not depend on
    the device, the dtype of the run (which only rounds them), or the other members. A trial makes sure of that: each
    member's output equals that of the module that its seed builds, see :mod:`lazy_lightning.nn.member_trial`.

    ``buffers`` (E, *shape) each are the floating-point buffers, and those frozen parameters and other buffers in which
    seeds differ.

    Args:
        factory: builds a network, see :func:`~lazy_lightning.nn.construction.fitted_to_data`.
        seeds: one a member.
        input_shape: of one sample.
        num_outputs: outputs per sample.
        samples: some inputs (n, *input_shape) that the network may be tried on, if it takes no arbitrary numbers.

    Raises:
        ConfigError: the network is no function of its weights and a sample alone, or seeds differ in something that is
            neither parameter nor buffer.
    """

    def __init__(
        self,
        factory: NetworkFactory,
        seeds: Sequence[int],
        input_shape: Sequence[int],
        num_outputs: int,
        samples: Tensor | None = None,
    ) -> None:
        build = fitted_to_data(factory, input_shape, num_outputs)
        distinct = list(dict.fromkeys(seeds))  # members that differ by alpha alone share their start
        first = built_from(build, distinct[0], input_shape)
        check_deterministic(first)
        trainable(first)
        attributes = attribute_values(first)
        _require_reproducible(first, attributes, built_from(build, distinct[0], input_shape), distinct[0])
        trial = MemberTrial(first, input_shape, samples)
        rows: dict[int, Tensor] = {}
        held: dict[int, Named] = {}
        for seed in distinct:
            module = first if seed == distinct[0] else built_from(build, seed, input_shape)
            if module is not first:
                _require_same_kind(first, attributes, module, f"between seeds {distinct[0]} and {seed}")
            rows[seed] = _flat(module)
            held[seed] = {name: tensor.clone() for name, tensor in held_tensors(module).items()}
            trial.expect(module)
        own = _own_to_members(first, held)
        self.w0 = torch.stack([rows[seed] for seed in seeds])
        self.buffers = {name: torch.stack([held[seed][name] for seed in seeds]) for name in own}
        self.network = trial.verified({name: torch.stack([held[seed][name] for seed in distinct]) for name in own})
        self.trial_inputs = trial.x
        """(n, *input_shape) float64 on which the trial was made."""
        self.outputs = trial.outputs[0].shape[1]
        """Numbers that the network puts out for a sample."""


def _own_to_members(first: nn.Module, held: dict[int, Named]) -> list[str]:
    """What is not trained and each member has for itself: registered floats, as in all checkpoints; what differs."""
    start, *others = held.values()
    floats = {name for name, buffer in first.named_buffers() if buffer.is_floating_point()} - _unsaved(first)
    return [n for n in start if n in floats or any(not equal_tensors(start[n], other[n]) for other in others)]


def _unsaved(module: nn.Module) -> set[str]:
    """Names of the plain tensors that have been registered on the way, see ``hold_tensors``."""
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, part in module.named_modules()
        for name in getattr(part, PLAIN_TENSORS, ())
    }


def _require_reproducible(one: nn.Module, attributes: Mapping[str, Any], other: nn.Module, seed: int) -> None:
    changed = _difference(one, attributes, other)
    if changed is not None:
        raise ConfigError(
            f"the network {type(one).__name__} is another each time that it is built from seed {seed} (its {changed}): "
            "draw from the global generators of torch, NumPy or Python, which are seeded for each member"
        )


def _difference(one: nn.Module, attributes: Mapping[str, Any], other: nn.Module) -> str | None:
    for what, tensors in (("parameter", nn.Module.named_parameters), ("buffer", nn.Module.named_buffers)):
        name = differing_tensor(dict(tensors(one)), dict(tensors(other)))
        if name is not None:
            return f"{what} {name}"
    attribute = differing_attribute(attributes, attribute_values(other))
    return None if attribute is None else f"attribute {attribute}"


def _require_same_kind(one: nn.Module, attributes: Mapping[str, Any], other: nn.Module, between: str) -> None:
    """Refuses members that differ in more than the values of parameters and buffers."""
    kind = type(one).__name__
    layout, others = _layout(one), _layout(other)
    if layout != others:
        names = [n for n in (*layout, *others) if layout.get(n) != others.get(n)]
        raise ConfigError(
            f"{names[0]} of the network {kind} differs in shape, dtype or requires_grad {between}, but members have "
            "one architecture: draw values alone"
        )
    if (name := differing_attribute(attributes, attribute_values(other))) is not None:
        raise ConfigError(
            f"the attribute {name} of the network {kind} differs {between}, but members share what is neither "
            "parameter nor buffer: hold it as a tensor, by register_buffer"
        )


def _layout(module: nn.Module) -> dict[str, tuple[torch.Size, torch.dtype, bool]]:
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return {name: (tensor.shape, tensor.dtype, tensor.requires_grad) for name, tensor in tensors}


def _flat(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in trainable(module).values()])
