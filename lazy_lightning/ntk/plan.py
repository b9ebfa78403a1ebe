"""Which layers of a network can be treated by their structure, found out by trying, and which cannot and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from lazy_lightning.errors import ConfigError
from lazy_lightning.ntk.capture import Call, Passes, calls_of, run_passes
from lazy_lightning.ntk.factors import Outer
from lazy_lightning.ntk.layer_rules import rule_for
from lazy_lightning.ntk.tangent_model import TangentModel

Method = Literal["auto", "structured", "jacobian", "jvp"]
METHODS = ("auto", "structured", "jacobian", "jvp")
LayerChoice = Literal["last"] | Sequence[str] | None

_AGREEMENT = {torch.float64: 1e-8, torch.float32: 1e-3}
"""Relative to the layer's own kernel: far over rounding, far under any mistake of a rule."""


@dataclass(frozen=True)
class Plan:
    """How each layer's share of the kernel is computed. Fixed for a network; good for any weights of it."""

    calls: tuple[Call, ...]
    """Uses of the structured layers, in the order of the forward pass."""
    structured: tuple[str, ...]
    """Layers taken apart into input and backward Gram matrices."""
    jacobian: Mapping[str, tuple[str, ...]]
    """Parameter names by layer, for the layers whose Jacobian is formed sample by sample."""
    reasons: Mapping[str, str]
    """Why a layer is not structured, by name."""

    @property
    def layers(self) -> tuple[str, ...]:
        """All layers that the kernel is made of."""
        return (*self.structured, *self.jacobian)


def make_plan(model: TangentModel, x: Tensor, method: Method = "auto", layers: LayerChoice = None) -> Plan:
    """Tries the structure of each layer on the first samples, against autograd.

    Args:
        model: the network; its first member is looked at.
        x: samples; the first three are used.
        method: ``structured`` refuses layers without structure, ``jacobian`` uses none of it.
        layers: names of the layers whose kernel is wanted, ``last`` for the output layer, None for all.

    Raises:
        ConfigError: for an unknown layer or method, a network whose samples depend on each other, or a layer without
            structure where that was asked for.
    """
    if method not in METHODS:
        raise ConfigError(f"method is {method!r}, expected one of {', '.join(METHODS)}")
    one, few = model.first_member(), x[:3]
    check_independence(one, few)
    parameters = chosen_layers(model, layers)
    if method in ("jacobian", "jvp"):
        return Plan((), (), {name: tuple(own) for name, own in parameters.items()}, {})
    calls, reasons = _candidates(one, parameters, few)
    good = _verified(one, parameters, calls, few, reasons)
    if method == "structured" and reasons:
        told = "; ".join(reasons[name] for name in sorted(reasons))
        raise ConfigError(
            f"method='structured' cannot treat {len(reasons)} of {len(parameters)} layers ({told}): use method='auto', "
            "which forms the Jacobian of these alone"
        )
    others = {name: tuple(own) for name, own in parameters.items() if name not in good}
    return Plan(tuple(call for call in calls if call.layer in good), tuple(good), others, reasons)


def chosen_layers(model: TangentModel, layers: LayerChoice) -> dict[str, list[str]]:
    """Parameter names of the layers asked for.

    Raises:
        ConfigError: if one is not a layer of the network.
    """
    known = model.layers()
    if layers is None:
        return known
    wanted = [list(known)[-1]] if layers == "last" else [layers] if isinstance(layers, str) else list(layers)
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise ConfigError(f"layers names {unknown or 'nothing'}, expected some of {', '.join(known)}, or last")
    return {name: own for name, own in known.items() if name in wanted}


def check_independence(model: TangentModel, x: Tensor) -> None:
    """Compares the output for a sample alone with that in company.

    Raises:
        ConfigError: if they differ by more than rounding.
    """
    if len(x) < 2:
        return
    with torch.no_grad():
        together, alone = model.outputs(x)[:, :1], model.outputs(x[:1])
    if not bool(together.isfinite().all()):
        return  # nothing can be compared; the kernel will not be finite either, and say so
    distance = (together - alone).norm()
    if bool(distance > _AGREEMENT.get(model.dtype, 1e-2) * (together.norm() + alone.norm())):
        raise ConfigError(
            f"{type(model.template).__name__} gives another output for a sample when others are in the batch, so the "
            "tangent kernel of a pair of samples is not defined: replace the layer that mixes samples"
        )


def _candidates(
    model: TangentModel, parameters: Mapping[str, list[str]], x: Tensor
) -> tuple[list[Call], dict[str, str]]:
    """Calls of the layers that have a rule and look as it expects, and the reasons of the others."""
    reasons: dict[str, str] = {}
    for name, own in parameters.items():
        module = model.template.get_submodule(name)
        if rule_for(module) is None:
            reasons[name] = f"{_named(model.template, name)} has no structured rule"
        elif _tied(model.template, own):
            reasons[name] = f"{_named(model.template, name)} shares a parameter with another layer"
    names = [name for name in parameters if name not in reasons]
    calls: list[Call] = []
    for call in calls_of(model, names, x) if names else []:
        if isinstance(call, Call):
            calls.append(call)
        else:
            reasons[call.partition(":")[0]] = call
    for name in names:
        if name not in reasons and all(call.layer != name for call in calls):
            reasons[name] = f"{_named(model.template, name)} is not called as a module"
    return [call for call in calls if call.layer not in reasons], reasons


def _verified(
    model: TangentModel,
    parameters: Mapping[str, list[str]],
    calls: Sequence[Call],
    x: Tensor,
    reasons: dict[str, str],
) -> list[str]:
    """The layers whose structured kernel between the samples is that of autograd; notes the others' reason."""
    names = list(dict.fromkeys(call.layer for call in calls))
    if not names:
        return []
    passes = run_passes(model, calls, x)
    cotangent = torch.linspace(1.0, 2.0, passes.outputs[0].numel(), dtype=model.dtype, device=model.device)
    cotangent = cotangent.view(passes.outputs.shape[1:])
    expected = _autograd_kernels(model, {name: parameters[name] for name in names}, x, cotangent)
    good = []
    for name in names:
        difference = (_projected_kernel(model.template, name, calls, passes, cotangent) - expected[name]).norm()
        if bool(difference <= _AGREEMENT.get(model.dtype, 1e-2) * expected[name].norm()):
            good.append(name)
        else:
            reasons[name] = f"{_named(model.template, name)} is used otherwise than by being called"
    return good


def _projected_kernel(
    template: nn.Module, name: str, calls: Sequence[Call], passes: Passes, cotangent: Tensor
) -> Tensor:
    """(n, n) the kernel of sum_k v_k f_k, by the rule."""
    outer = layer_factors(template, name, calls, passes)
    b = torch.einsum("enc...,nc->en...", outer.b, cotangent).unsqueeze(2)
    return Outer(outer.a, b).product(Outer(outer.a, b), "trace")[0]


def _autograd_kernels(
    model: TangentModel, parameters: Mapping[str, list[str]], x: Tensor, cotangent: Tensor
) -> dict[str, Tensor]:
    """(n, n) the same by gradients of each sample's output, one backward pass a sample."""
    params = {name: p[0].clone().requires_grad_() for name, p in model.params.items()}
    buffers = {**model.shared_buffers, **{name: b[0] for name, b in model.member_buffers.items()}}
    wanted = [params[p] for own in parameters.values() for p in own]
    with torch.enable_grad():
        projected = (model.call(params, buffers, x) * cotangent).sum(dim=1)
        rows = [
            torch.autograd.grad(value, wanted, retain_graph=True, allow_unused=True, materialize_grads=True)
            for value in projected
        ]
    kernels, start = {}, 0
    for name, own in parameters.items():
        part = [torch.cat([g.flatten() for g in row[start : start + len(own)]]) for row in rows]
        kernels[name] = torch.stack(part) @ torch.stack(part).mT
        start += len(own)
    return kernels


def layer_factors(template: nn.Module, name: str, calls: Sequence[Call], passes: Passes) -> Outer:
    """The factors of one layer; a layer that is called several times has the positions of all its calls."""
    module = template.get_submodule(name)
    rule = rule_for(module)
    assert rule is not None  # it is in the plan
    uses = [i for i, call in enumerate(calls) if call.layer == name]
    parts = [rule(module, passes.inputs[i], passes.backward[i]) for i in uses]
    if len(parts) == 1:
        return Outer(*parts[0])
    members = max(len(a) for a, _ in parts)
    a = torch.cat([a.expand(members, *a.shape[1:]) for a, _ in parts], dim=3)
    return Outer(a, torch.cat([b for _, b in parts], dim=4))


def _tied(template: nn.Module, own: Sequence[str]) -> bool:
    by_name = dict(template.named_parameters(remove_duplicate=False))
    mine = {id(by_name[name]) for name in own}
    return any(id(p) in mine for name, p in by_name.items() if name not in own)


def _named(template: nn.Module, name: str) -> str:
    return f"layer {name or '(the network itself)'!r} ({type(template.get_submodule(name)).__name__})"
