"""PairedNetwork: the change f(w0 + dw, x) - f(w0, x) of E networks without cancellation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.utils._pytree import tree_map

from lazy_lightning.nn.member_state import in_precision
from lazy_lightning.nn.members import MemberNetwork, Named, Weights, as_columns
from lazy_lightning.nn.pairs import Bases, Pair, unsupported
from lazy_lightning.nn.tensor_aliases import tensor_aliases

Kept = tuple[Tensor, ...]
"""What the network computes at w0 on some samples, (E, ...) each."""


class PairedNetwork:
    """Passes pairs of a value at w0 and its change through the operations of a network.

    Args:
        network: of E members.

    Raises:
        ConfigError: the network differentiates inside of forward.
    """

    def __init__(self, network: MemberNetwork) -> None:
        if network.needs_graph:
            raise unsupported(f"{type(network.template).__name__}, which differentiates inside of forward")
        self.network = network
        self._places = tensor_aliases(network.template)

    def bases(self, w0: Tensor, x: Tensor, buffers: Named) -> Kept:
        """What a call computes at ``w0`` on ``x``, for ``kept``: it does not depend on the change of the weights.

        It is computed in float64 and rounded once, so that the side of a ReLU's kink on which a value lies is right.
        """
        wide = {name: in_precision(buffer, torch.float64) for name, buffer in buffers.items()}
        with torch.no_grad():
            record = self._evaluate(w0.double(), None, x.double(), wide, ())[1]
        return tuple(tensor.to(w0.dtype) for tensor in record)

    def __call__(self, w0: Tensor, dw: Weights, x: Tensor, buffers: Named, kept: Kept | None = None) -> Tensor:
        """f(w0 + dw, x) - f(w0, x), (E, n, c), differentiable in dw.

        Args:
            w0: (E, N).
            dw: (E, N), or by parameter name.
            x: (n, ...).
            buffers: (E, *shape) each, in which members differ.
            kept: from :meth:`bases` of the same w0, x and buffers; None to compute them again.

        Raises:
            ConfigError: the network uses an operation without a rule.
        """
        change = self._evaluate(w0, dw, x, buffers, self.bases(w0, x, buffers) if kept is None else kept)[0]
        if change is None:
            raise unsupported("an output that does not depend on the weights")
        return change

    def _evaluate(
        self, w0: Tensor, dw: Weights | None, x: Tensor, buffers: Named, kept: Kept
    ) -> tuple[Tensor | None, Kept]:
        """The change of the outputs with ``kept``, or without dw what is to be kept."""
        network = self.network
        start, change = network.unpack(w0), {} if dw is None else network.unpack(dw)
        if network.is_batched and not buffers:
            bases = Bases(kept or None)
            weights: Any = {name: Pair(start[name], change.get(name), bases) for name in start}
            output = cast(Any, network.template).forward_members(weights, x)
            return _change_of(output), tuple(bases.record)

        def one(p0: Named, dp: Named, own: Named, known: Kept) -> tuple[Kept, Kept]:
            bases = Bases(known or None)
            weights = {name: Pair(p0[name], dp.get(name), bases) for name in p0}
            every = {place: {**weights, **own}[name] for place, name in self._places.items() if name in weights | own}
            with _substituted(network.template, every):
                moved = _change_of(network.template(x))
            outputs = () if moved is None else (as_columns(moved, len(x), network.template),)
            return outputs, tuple(bases.record)

        trees: tuple[Any, ...] = (start, change, buffers, kept)
        if network.loops or w0.device.type == "cpu":  # faster there, and a nonlinearity may look at its values
            results = [one(*(tree_map(lambda tensor, e=e: tensor[e], tree) for tree in trees)) for e in range(len(w0))]
            outputs, record = (tuple(map(torch.stack, zip(*part, strict=True))) for part in zip(*results, strict=True))
        else:
            outputs, record = vmap(one)(*trees)
        return (outputs[0] if outputs else None), record


def _change_of(output: Any) -> Tensor | None:
    if not isinstance(output, Pair):
        raise unsupported("an output that does not depend on the weights")
    return output.change


@contextmanager
def _substituted(template: nn.Module, values: dict[str, Any]) -> Iterator[None]:
    """Puts pairs or tensors in place of parameters and buffers, by their names."""
    before: list[tuple[dict[str, Any], str, Any]] = []
    try:
        for place, value in values.items():
            owner, _, name = place.rpartition(".")
            module = template.get_submodule(owner)
            held: dict[str, Any] = module._parameters if name in module._parameters else module._buffers
            before.append((held, name, held[name]))
            held[name] = value
        yield
    finally:
        for held, name, value in before:
            held[name] = value
