"""Derivatives along a direction: forward mode, and what stands in for it where torch has no forward rule."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.attention import plain_attention

_MISSING = ("forward AD", "forward gradient", "functorch", "does not require grad", "not have been used in the graph")
"""Fragments of torch's messages by which this is recognised."""

Tree = Any
"""Tensors, alone or in dictionaries, lists and tuples."""


def directional_derivative(
    function: Callable[[Tree], Tree], at: Tree, along: Tree, *, reverse: bool = False
) -> tuple[Tree, Tree]:
    """The value f(w) and the derivative J(w) dw, by one forward-mode pass where that is possible.

    Attention is evaluated by plain products, and weight normalisation by its formula, as their fused forms have no
    forward rule. Where an operation has none, J dw is the derivative of <J^T u, dw> by u: two reverse passes, of
    ``torch.func``, or of plain autograd for networks that differentiate inside of forward; they are verified by
    <u, J dw> = <J^T u, dw>. The result can be differentiated again.

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
    errors: list[Exception] = []
    for way in ways[2:] if reverse else ways:
        try:
            with plain_attention():
                return way(function, at, along)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ConfigError) as error:
            if not errors and not is_missing_rule(error):
                raise
            errors.append(error)
    told = " ".join(str(errors[0]).split())[:200]
    raise ConfigError(
        f"the network cannot be differentiated along a change of its weights ({told}): replace the layer that does this"
    ) from errors[-1]


def pullback(function: Callable[[Tensor], Tensor], at: Tensor, cotangent: Tensor) -> Tensor:
    """J(w)^T u, by ``torch.func`` or, for networks that differentiate inside of forward, by plain autograd."""
    try:
        with plain_attention(), _PlainWeightNorm():
            pull = torch.func.vjp(function, at)[1]
            return cast(Tensor, pull(cotangent)[0])
    except (RuntimeError, ConfigError) as error:
        if not is_missing_rule(error):
            raise
    with torch.enable_grad(), plain_attention():
        w = at.detach().requires_grad_()
        return torch.autograd.grad(function(w), w, cotangent, materialize_grads=True)[0]


def has_one_sided_rules(network: nn.Module) -> bool:
    """Whether forward and reverse mode differ: torch's reverse mode leaves out the padding row of an embedding."""
    return any(getattr(part, "padding_idx", None) is not None for part in network.modules())


@functools.cache
def load_forward_rules() -> None:
    """Loads torch's forward-mode rules without the deprecation warning that torch gives to itself.

    The first use of forward mode imports ``torch._decomp.decompositions_for_jvp``, which calls ``torch.jit.script``
    and so warns that this is deprecated. A user can do nothing about it. Where torch has moved the module, torch loads
    it itself.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.script.*")
        try:
            importlib.import_module("torch._decomp.decompositions_for_jvp")
        except ModuleNotFoundError:
            return


def _forward(function: Callable[[Tree], Tree], at: Tree, along: Tree) -> tuple[Tree, Tree]:
    load_forward_rules()
    value, change = torch.func.jvp(function, (at,), (along,))[:2]
    return value, change


def _forward_by_formulas(function: Callable[[Tree], Tree], at: Tree, along: Tree) -> tuple[Tree, Tree]:
    with _PlainWeightNorm():
        return _forward(function, at, along)


def _two_passes(function: Callable[[Tree], Tree], at: Tree, along: Tree) -> tuple[Tree, Tree]:
    with _PlainWeightNorm():
        value, pull = torch.func.vjp(function, at)[:2]
        dual = tree_map(_some_numbers, value)
        pulled, push = torch.func.vjp(lambda u: pull(u)[0], dual)[:2]
        change = push(along)[0]
    _check_adjoint(*(tree_leaves(tree) for tree in (dual, change, pulled, along)))
    return value, change


def _two_plain_passes(function: Callable[[Tree], Tree], at: Tree, along: Tree) -> tuple[Tree, Tree]:
    wanted = torch.is_grad_enabled()
    with torch.enable_grad(), _PlainWeightNorm():
        leaves, structure = tree_flatten(at)
        weights = [leaf if leaf.requires_grad else leaf.detach().requires_grad_() for leaf in leaves]
        directions = tree_leaves(along)
        outputs, form = tree_flatten(function(tree_unflatten(weights, structure)))
        dual = [_some_numbers(output).requires_grad_() for output in outputs]
        pulled = _gradients(outputs, weights, dual)
        changes = _gradients(pulled, dual, directions)
    _check_adjoint(dual, changes, pulled, directions)
    if not wanted:
        outputs, changes = ([tensor.detach() for tensor in part] for part in (outputs, changes))
    return tree_unflatten(outputs, form), tree_unflatten(changes, form)


def _some_numbers(like: Tensor) -> Tensor:
    """None of them zero. What is linear in them has the same derivative everywhere, so any will do."""
    flat = torch.linspace(1.0, 2.0, like.numel(), dtype=torch.float64, device=like.device)
    return flat.to(like.dtype).view(like.shape)


def _check_adjoint(u: Sequence[Tensor], Jv: Sequence[Tensor], Ju: Sequence[Tensor], v: Sequence[Tensor]) -> None:
    """<u, J v> = <J^T u, v>: a backward pass that cannot be differentiated itself may silently leave a part out.

    Raises:
        NotImplementedError: if they are not equal, or cannot be read, inside of ``vmap`` and its like.
    """
    if any(is_functorch_wrapped_tensor(tensor) for tensor in (*Jv, *Ju, *v)):
        raise NotImplementedError("two reverse passes cannot be verified inside of functorch's transforms")
    terms = [[(a.detach() * b.detach()).sum() for a, b in zip(*pair, strict=True)] for pair in ((u, Jv), (Ju, v))]
    size = torch.stack([(a.detach() * b.detach()).abs().sum() for a, b in zip(Ju, v, strict=True)]).sum()
    tolerance = torch.finfo(size.dtype).eps ** 0.5
    if bool((torch.stack(terms[0]).sum() - torch.stack(terms[1]).sum()).abs() > tolerance * size):
        raise NotImplementedError("a backward pass of the network cannot be differentiated a second time")


def _gradients(of: Sequence[Tensor], by: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    pairs = [(o, w) for o, w in zip(of, weights, strict=True) if o.requires_grad]
    if not pairs:
        return [torch.zeros_like(tensor) for tensor in by]
    outputs, cotangents = zip(*pairs, strict=True)
    return list(
        torch.autograd.grad(outputs, by, cotangents, create_graph=True, allow_unused=True, materialize_grads=True)
    )


def is_missing_rule(error: Exception) -> bool:
    """Whether another way may do: a missing rule, or autograd inside of what ``torch.func`` transforms."""
    cause = error if isinstance(error, RuntimeError) else error.__cause__
    return isinstance(cause, NotImplementedError) or (
        isinstance(cause, RuntimeError) and any(words in str(cause) for words in _MISSING)
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
    length: Tensor = torch.linalg.vector_norm(v, dim=others, keepdim=True)
    return v * (g / length)
