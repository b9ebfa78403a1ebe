"""Derivatives along a direction: forward mode, and what stands in for it where torch has no forward rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.attention import plain_attention

_MISSING = ("forward AD", "functorch", "does not require grad", "not have been used in the graph")
"""Words by which torch says so."""

Tree = Any
"""Tensors, alone or in dictionaries, lists and tuples."""


def directional_derivative(
    function: Callable[[Tree], Tree], at: Tree, along: Tree, *, reverse: bool = False
) -> tuple[Tree, Tree]:
    """The value f(w) and the derivative J(w) dw, by one forward-mode pass where that is possible.

    Attention is evaluated by plain products, and weight normalisation by its formula, as their fused forms have no
    forward rule. Where an operation has none, J dw is the derivative of <J^T u, dw> by u: two reverse passes, of
    ``torch.func``, or of plain autograd for networks that differentiate inside of forward. The result can be
    differentiated again; so can that of plain autograd, but not by ``torch.func``.

    Args:
        function: from tensors to tensors.
        at: w.
        along: dw, of the same structure.
        reverse: two reverse passes at once, for networks whose forward rules are not those of their backward pass;
            see :func:`has_one_sided_rules`.

    Raises:
        ConfigError: if an operation can be differentiated in none of these ways.

    >>> directional_derivative(lambda w: w**2, torch.tensor(3.0), torch.tensor(0.5))
    (tensor(9.), tensor(3.))
    """
    ways = (_forward, _forward_by_formulas, _two_passes, _two_plain_passes)
    errors: list[RuntimeError] = []
    for way in ways[2:] if reverse else ways:
        try:
            with plain_attention():
                return way(function, at, along)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ConfigError) as error:
            cause = error if isinstance(error, RuntimeError) else error.__cause__
            if not isinstance(cause, RuntimeError) or (not errors and not _is_missing_rule(cause)):
                raise
            errors.append(cause)
    told = " ".join(str(errors[0]).split())[:200]
    raise ConfigError(
        f"the network cannot be differentiated along a change of its weights ({told}): replace the layer that does this"
    ) from errors[-1]


def has_one_sided_rules(network: nn.Module) -> bool:
    """Whether forward and reverse mode differ: torch's reverse mode leaves out the padding row of an embedding."""
    return any(getattr(part, "padding_idx", None) is not None for part in network.modules())


def _forward(function: Callable[[Tree], Tree], at: Tree, along: Tree) -> tuple[Tree, Tree]:
    value, change = torch.func.jvp(function, (at,), (along,))[:2]
    return value, change


def _forward_by_formulas(function: Callable[[Tree], Tree], at: Tree, along: Tree) -> tuple[Tree, Tree]:
    with _PlainWeightNorm():
        return _forward(function, at, along)


def _two_passes(function: Callable[[Tree], Tree], at: Tree, along: Tree) -> tuple[Tree, Tree]:
    with _PlainWeightNorm():
        value, pull = torch.func.vjp(function, at)[:2]
        push = torch.func.vjp(lambda u: pull(u)[0], tree_map(torch.zeros_like, value))[1]
        return value, push(along)[0]


def _two_plain_passes(function: Callable[[Tree], Tree], at: Tree, along: Tree) -> tuple[Tree, Tree]:
    wanted = torch.is_grad_enabled()
    with torch.enable_grad(), _PlainWeightNorm():
        leaves, structure = tree_flatten(at)
        weights = [leaf if leaf.requires_grad else leaf.detach().requires_grad_() for leaf in leaves]
        value = function(tree_unflatten(weights, structure))
        outputs, form = tree_flatten(value)
        dual = [torch.zeros_like(output, requires_grad=True) for output in outputs]
        pulled = _gradients(outputs, weights, dual)
        changes = _gradients(pulled, dual, tree_flatten(along)[0])
    if not wanted:
        outputs, changes = ([tensor.detach() for tensor in part] for part in (outputs, changes))
    return tree_unflatten(outputs, form), tree_unflatten(changes, form)


def _gradients(of: Sequence[Tensor], by: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    pairs = [(o, w) for o, w in zip(of, weights, strict=True) if o.requires_grad]
    if not pairs:
        return [torch.zeros_like(tensor) for tensor in by]
    outputs, cotangents = zip(*pairs, strict=True)
    return list(
        torch.autograd.grad(outputs, by, cotangents, create_graph=True, allow_unused=True, materialize_grads=True)
    )


def _is_missing_rule(error: RuntimeError) -> bool:
    """Whether another way may do: a missing forward rule, or autograd inside of what ``torch.func`` transforms."""
    told = str(error)
    return isinstance(error, NotImplementedError) or any(
        words in told
        for words in ("forward AD", "functorch", "does not require grad", "not have been used in the graph")
    )


class _PlainWeightNorm(TorchFunctionMode):
    """Weight normalisation as v g/|v|: the fused form has no forward rule, and torch 2.15's second derivatives of it
    are wrong on CPUs.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch._weight_norm:
            return _weight_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    others = [axis for axis in range(v.ndim) if axis != dim % v.ndim] if dim != -1 else list(range(v.ndim))
    return v * (g / torch.linalg.vector_norm(v, dim=others, keepdim=True))
