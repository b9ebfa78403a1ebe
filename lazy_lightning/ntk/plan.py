"""Which layers of a network can be treated by their structure, found out by trying, and which cannot and why."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from lazy_lightning.errors import ConfigError
from lazy_lightning.ntk.capture import Call, Passes, calls_of, run_passes
from lazy_lightning.ntk.factors import Outer
from lazy_lightning.ntk.jacobian import mapped_rows
from lazy_lightning.ntk.layer_rules import known_rules, rule_for
from lazy_lightning.ntk.tangent_model import TangentModel, gradients_of, gradients_on

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
    mapped: bool = True
    """Whether ``torch.func`` gives the right Jacobian for all samples at once; else one sample at a time."""

    @property
    def layers(self) -> tuple[str, ...]:
        """All layers that the kernel is made of."""
        return (*self.structured, *self.jacobian)

    def fitted(self, model: TangentModel, x: Tensor) -> Plan:
        """For samples of another shape, at which the same layers have other positions.

        Raises:
            ConfigError: if a layer does not look as its rule expects there.
        """
        calls = calls_of(model.first_member(), self.structured, x[:1]) if self.structured else []
        wrong = [call for call in calls if not isinstance(call, Call)]
        if wrong:
            raise ConfigError(f"{wrong[0]} for samples of shape {tuple(x.shape[1:])}: use method='jacobian'")
        return replace(self, calls=tuple(call for call in calls if isinstance(call, Call)))


_PLANS: WeakKeyDictionary[nn.Module, dict[Hashable, Plan]] = WeakKeyDictionary()


def plan_for(model: TangentModel, x: Tensor, method: Method = "auto", layers: LayerChoice = None) -> Plan:
    """:func:`make_plan`, once for a network as long as nothing that it depends on has changed: at other weights, of
    any number of members, the structure is the same. Trying costs as much as a small kernel itself.
    """
    chosen = layers if layers is None or isinstance(layers, str) else tuple(layers)
    inputs = (min(len(x), 3), x.shape[1:], x.dtype, model.dtype, model.device)
    key = (method, chosen, inputs, known_rules(), _build(model))
    plans = _PLANS.setdefault(model.template, {})
    if key not in plans:
        plans[key] = make_plan(model, x, method, layers)
    return plans[key]


def _build(model: TangentModel) -> Hashable:
    """What a network is made of, but for its numbers; holds none of it, so that it can be forgotten."""
    modules = tuple(
        (name, id(module), module.training, type(module), module.extra_repr(), _code(module), *_hooks(module))
        for name, module in model.template.named_modules(remove_duplicate=False)
    )
    return modules, tuple(model.places.items())


def _code(module: nn.Module) -> tuple[int, int]:
    """The forward of its class, and one that stands in its place for this module alone."""
    return id(type(module).forward), id(module.__dict__.get("forward"))


def _hooks(module: nn.Module) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return tuple(map(id, module._forward_hooks.values())), tuple(map(id, module._forward_pre_hooks.values()))


@torch.inference_mode(False)
def make_plan(model: TangentModel, x: Tensor, method: Method = "auto", layers: LayerChoice = None) -> Plan:
    """Tries the structure of each layer, and what ``torch.func`` makes of the others, on some samples against autograd.

    Args:
        model: the network; it is tried near the weights of its first member, where none is zero.
        x: samples; the first three are used.
        method: ``structured`` refuses layers without structure, ``jacobian`` uses none of it.
        layers: names of the layers whose kernel is wanted, ``last`` for the output layer, None for all.

    Raises:
        ConfigError: for an unknown layer or method, a network whose samples depend on each other, or a layer without
            structure where that was asked for.
    """
    if method not in METHODS:
        raise ConfigError(f"method is {method!r}, expected one of {', '.join(METHODS)}")
    one, few = model.first_member().nearby(), x[:3]
    few = few.nan_to_num(0.0, 0.0, 0.0) if few.is_floating_point() else few
    check_independence(one, few)
    parameters = chosen_layers(model, layers)
    if method == "jvp":
        return Plan((), (), {name: tuple(own) for name, own in parameters.items()}, {})
    calls, reasons = ([], {}) if method == "jacobian" else _candidates(one, parameters, few)
    trial = _Trial.of(one, parameters, few)
    good = _verified(trial, calls, reasons)
    if method == "structured" and reasons:
        told = "; ".join(reasons[name] for name in sorted(reasons))
        raise ConfigError(
            f"method='structured' cannot treat {len(reasons)} of {len(parameters)} layers ({told}): use method='auto', "
            "which forms the Jacobian of these alone"
        )
    others = {name: tuple(own) for name, own in parameters.items() if name not in good}
    mapped = _can_be_mapped(trial, others)
    return Plan(tuple(call for call in calls if call.layer in good), tuple(good), others, reasons, mapped)


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


def check_independence(near: TangentModel, x: Tensor) -> None:
    """Compares the output for a sample alone with that in company.

    Args:
        near: of one member; what :meth:`TangentModel.nearby` gives, so that no zero weight hides anything.
        x: some samples.

    Raises:
        ConfigError: if they differ by more than rounding, or evaluating the network has other effects.
    """
    held = {**near.shared_buffers, **near.member_buffers, **near.params}
    versions, state = {name: t._version for name, t in held.items()}, _random_state(near.device)
    with torch.no_grad():
        together, alone = near.outputs(x), torch.cat([near.outputs(sample.unsqueeze(0)) for sample in x], dim=1)
    if not torch.equal(state, _random_state(near.device)):
        raise ConfigError(
            f"{type(near.template).__name__} draws random numbers, so it is no function of its weights: call "
            "model.eval(), or remove the layer that draws"
        )
    changed = [name for name, t in held.items() if t._version != versions[name]]
    if changed:
        raise ConfigError(
            f"{type(near.template).__name__} changes {', '.join(changed)} at each evaluation: call model.eval(), or "
            "remove the layer that does so"
        )
    if not bool(together.isfinite().all()):
        return  # nothing can be compared; the kernel will not be finite either, and say so
    distance = (together - alone).norm()
    if bool(distance > _AGREEMENT.get(near.dtype, 1e-2) * (together.norm() + alone.norm())):
        raise ConfigError(
            f"{type(near.template).__name__} gives another output for a sample when others are in the batch, so the "
            "tangent kernel of a pair of samples is not defined: replace the layer that mixes samples"
        )


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _candidates(
    model: TangentModel, parameters: Mapping[str, list[str]], x: Tensor
) -> tuple[list[Call], dict[str, str]]:
    """Calls of the layers that have a rule and look as it expects, and the reasons of the others."""
    reasons: dict[str, str] = {}
    for name, own in parameters.items():
        module = model.template.get_submodule(name)
        if rule_for(module) is None:
            reasons[name] = f"{_named(model.template, name)} has no structured rule"
        elif any(first in own and place not in own for place, first in model.places.items()):
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


@dataclass(frozen=True)
class _Trial:
    """What autograd says on some samples, one backward pass each: the measure of all shorter ways."""

    model: TangentModel
    x: Tensor
    cotangent: Tensor
    """(n, c) of numbers v; what is compared is the gradient of sum_k v_k f_k."""
    gradients: Mapping[str, tuple[Tensor, ...]]
    """(n, P) for each parameter of a layer."""

    @classmethod
    def of(cls, model: TangentModel, parameters: Mapping[str, list[str]], x: Tensor) -> _Trial:
        params = {name: p[0].detach().requires_grad_() for name, p in model.params.items()}
        buffers = {**model.shared_buffers, **{name: b[0] for name, b in model.member_buffers.items()}}
        wanted = [params[name] for own in parameters.values() for name in own]
        with gradients_on():
            outputs = model.call(params, buffers, x)
            cotangent = torch.linspace(1.0, 2.0, outputs.numel(), dtype=model.dtype, device=model.device)
            cotangent = cotangent.view_as(outputs)
            values = (outputs * cotangent).sum(dim=1)
            rows = [gradients_of(value, wanted) for value in values]
        stacks = iter([torch.stack(own).view(len(x), -1) for own in zip(*rows, strict=True)])
        by_layer = {layer: tuple(next(stacks) for _ in own) for layer, own in parameters.items()}
        return cls(model, x, cotangent, by_layer)

    def agrees(self, found: Tensor, expected: Tensor) -> bool:
        """To rounding, relative to the size of what is expected."""
        return bool((found - expected).norm() <= _AGREEMENT.get(self.model.dtype, 1e-2) * expected.norm())


def _verified(trial: _Trial, calls: Sequence[Call], reasons: dict[str, str]) -> list[str]:
    """The layers whose structured kernel between the samples is that of autograd; notes the others' reason."""
    names = list(dict.fromkeys(call.layer for call in calls))
    if not names:
        return []
    template, passes = trial.model.template, run_passes(trial.model, calls, trial.x)
    good = []
    for name in names:
        expected = torch.stack([g @ g.mT for g in trial.gradients[name]]).sum(dim=0)
        if trial.agrees(_projected_kernel(template, name, calls, passes, trial.cotangent), expected):
            good.append(name)
        else:
            reasons[name] = f"{_named(template, name)} is used otherwise than by being called"
    return good


def _can_be_mapped(trial: _Trial, parameters: Mapping[str, Sequence[str]]) -> bool:
    """Whether ``torch.func`` gives what autograd gives: of PReLU it gives wrong numbers when n = c, else none."""
    names = [name for own in parameters.values() for name in own]
    if not names:
        return True
    try:
        with gradients_on():
            rows = mapped_rows(trial.model, names, trial.x)[0]
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ConfigError):
        return False
    found = torch.einsum("ncp,nc->np", rows, trial.cotangent)
    expected = [torch.cat(trial.gradients[layer], dim=1) for layer in parameters]
    parts = torch.split(found, [g.shape[1] for g in expected], dim=1)
    return all(map(trial.agrees, parts, expected))


def _projected_kernel(
    template: nn.Module, name: str, calls: Sequence[Call], passes: Passes, cotangent: Tensor
) -> Tensor:
    """(n, n) the kernel of sum_k v_k f_k, by the rule."""
    outer = layer_factors(template, name, calls, passes)
    b = torch.einsum("enc...,nc->en...", outer.b, cotangent).unsqueeze(2)
    return Outer(outer.a, b).product(Outer(outer.a, b), "trace")[0]


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


def _named(template: nn.Module, name: str) -> str:
    return f"layer {name or '(the network itself)'!r} ({type(template.get_submodule(name)).__name__})"
