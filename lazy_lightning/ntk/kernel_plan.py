"""Which layers of a network can be treated by their structure, found out by trying, and which cannot and why."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from lazy_lightning.errors import ConfigError
from lazy_lightning.ntk.capture import Call, Passes, calls_of, run_passes
from lazy_lightning.ntk.factors import Outer
from lazy_lightning.ntk.fingerprint import fingerprint
from lazy_lightning.ntk.independence import check_independence
from lazy_lightning.ntk.layer_rules import known_rules, rule_for
from lazy_lightning.ntk.tangent_model import TangentModel
from lazy_lightning.ntk.trial import Trial
from lazy_lightning.ntk.trial_samples import ATTEMPTS, trial_samples

Method = Literal["auto", "structured", "jacobian", "jvp"]
METHODS = ("auto", "structured", "jacobian", "jvp")
LayerChoice = Literal["last"] | Sequence[str] | None


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
    sizes: set[int] = field(default_factory=set, compare=False)
    """Sizes of batches in which samples have been found to give what they give alone; the engine adds to them."""

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
        return replace(self, calls=tuple(call for call in calls if isinstance(call, Call)), sizes=set())


_PLANS: WeakKeyDictionary[nn.Module, dict[Hashable, Plan]] = WeakKeyDictionary()


_KEPT = 8
"""Plans by network; a plan is removed with its network."""


def plan_for(model: TangentModel, x: Tensor, method: Method = "auto", layers: LayerChoice = None) -> Plan:
    """:func:`make_plan`, once for a network as long as nothing that its structure depends on has changed.

    At other weights, of any number of members, the structure is the same, and trying it costs as much as a small
    kernel. What invalidates a plan: another method, choice of layers, shape or dtype of the samples, dtype, device, or
    set of trainable parameters; a new rule; and any change of what :func:`~lazy_lightning.ntk.fingerprint.fingerprint`
    compares. A network that it cannot look into completely is tried anew each time. Not seen are changes through
    ``tensor.data``, and values of buffers passed for each member.
    """
    chosen = layers if layers is None or isinstance(layers, str) else tuple(layers)
    built, complete = fingerprint(model.template)
    if not complete:
        return make_plan(model, x, method, layers)
    inputs = (x.shape[1:], x.dtype, model.dtype, model.device, tuple(model.params), tuple(model.places.items()))
    key = (method, chosen, inputs, known_rules(), built)
    plans = _PLANS.setdefault(model.template, {})
    if key not in plans:
        made = make_plan(model, x, method, layers)
        while len(plans) >= _KEPT:
            del plans[next(iter(plans))]
        plans[key] = made
    return plans[key]


@torch.inference_mode(False)
def make_plan(model: TangentModel, x: Tensor, method: Method = "auto", layers: LayerChoice = None) -> Plan:
    """Tries the structure of each layer, and what ``torch.func`` makes of the others, on some samples against autograd.

    A layer is structured only if its kernel between all pairs of the trial's samples, under a random combination of
    outputs for each, is that of autograd and not zero; one whose gradient is zero at all inputs tried is not.

    Args:
        model: the network; it is tried near the weights of its first member, where none is zero.
        x: the samples; see :func:`~lazy_lightning.ntk.trial_samples.trial_samples` for which are tried.
        method: ``structured`` refuses layers without structure, ``jacobian`` uses none of it.
        layers: names of the layers whose kernel is wanted, ``last`` for the output layer, None for all.

    Raises:
        ConfigError: for an unknown layer or method, a network whose samples depend on each other, or a layer without
            structure where that was required.
    """
    if method not in METHODS:
        raise ConfigError(f"method is {method!r}, expected one of {', '.join(METHODS)}")
    one = model.first_member().nearby()
    few = trial_samples(one, x)
    check_independence(one, few)
    parameters = chosen_layers(model, layers)
    if method == "jvp":
        return Plan((), (), {name: tuple(own) for name, own in parameters.items()}, {})
    calls, reasons = ([], {}) if method == "jacobian" else _candidates(one, parameters, few)
    trial = Trial.of(one, parameters, few)
    good = _verified(trial, calls, x, reasons)
    if method == "structured" and reasons:
        told = "; ".join(reasons[name] for name in sorted(reasons))
        raise ConfigError(
            f"method='structured' cannot treat {len(reasons)} of {len(parameters)} layers ({told}): use method='auto', "
            "which forms the Jacobian of these alone"
        )
    others = {name: tuple(own) for name, own in parameters.items() if name not in good}
    mapped = trial.can_be_mapped(others)
    return Plan(tuple(call for call in calls if call.layer in good), tuple(good), others, reasons, mapped)


def chosen_layers(model: TangentModel, layers: LayerChoice) -> dict[str, list[str]]:
    """Parameter names of the chosen layers.

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
        elif trained_columns(module, name, own) is None:
            reasons[name] = f"{_named(model.template, name)} has other frozen parameters than weight or bias"
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


def _verified(trial: Trial, calls: Sequence[Call], x: Tensor, reasons: dict[str, str]) -> list[str]:
    """The layers whose structured kernel between the samples is that of autograd; notes the others' reason.

    Layers without a gradient at these samples are tried again at others.
    """
    names = list(dict.fromkeys(call.layer for call in calls))
    good, silent = [], names
    for attempt in range(ATTEMPTS):
        if not silent:
            break
        verdicts = _verdicts(trial if attempt == 0 else _again(trial, silent, x, attempt), silent, calls)
        good += [name for name in silent if verdicts[name]]
        for name in (name for name in silent if verdicts[name] is False):
            reasons[name] = f"{_named(trial.model.template, name)} is used otherwise than by being called"
        silent = [name for name in silent if verdicts[name] is None]
    for name in silent:
        reasons[name] = f"{_named(trial.model.template, name)} has no gradient at any input that was tried"
    return [name for name in names if name in good]


def _again(trial: Trial, layers: Sequence[str], x: Tensor, attempt: int) -> Trial:
    own = trial.model.layers()
    samples = trial_samples(trial.model, x, attempt)
    return Trial.of(trial.model, {name: own[name] for name in layers}, samples)


def _verdicts(trial: Trial, names: Sequence[str], calls: Sequence[Call]) -> dict[str, bool | None]:
    model = trial.model
    uses = [call for call in calls if call.layer in names]
    passes = run_passes(model, uses, trial.x)
    return {name: trial.verdict(name, _projected_kernel(model, name, uses, passes, trial.cotangent)) for name in names}


def _projected_kernel(
    model: TangentModel, name: str, calls: Sequence[Call], passes: Passes, cotangent: Tensor
) -> Tensor:
    """(n, n) the kernel of sum_k v_k f_k, by the rule."""
    outer = layer_factors(model, name, calls, passes)
    b = torch.einsum("enc...,nc->en...", outer.b, cotangent).unsqueeze(2)
    return Outer(outer.a, b).product(Outer(outer.a, b), "trace")[0]


def layer_factors(model: TangentModel, name: str, calls: Sequence[Call], passes: Passes) -> Outer:
    """The factors of one layer; a layer that is called several times has the positions of all its calls."""
    module = model.template.get_submodule(name)
    rule, columns = rule_for(module), trained_columns(module, name, model.layers()[name])
    assert rule is not None  # it is in the plan
    assert columns is not None
    uses = [i for i, call in enumerate(calls) if call.layer == name]
    parts = [rule(module, passes.inputs[i], passes.backward[i]) for i in uses]
    parts = [(a[..., columns], b) for a, b in parts]
    if len(parts) == 1:
        return Outer(*parts[0])
    members = max(len(a) for a, _ in parts)
    a = torch.cat([a.expand(members, *a.shape[1:]) for a, _ in parts], dim=3)
    return Outer(a, torch.cat([b for _, b in parts], dim=4))


def trained_columns(module: nn.Module, name: str, own: Sequence[str]) -> slice | None:
    """The features of a layer's inputs that belong to its trainable parameters: the last one is that of the bias.

    None where only a part of other parameters than ``weight`` and ``bias`` is trainable.
    """
    trained = {parameter.removeprefix(f"{name}.") for parameter in own}
    every = {local for local, _ in module.named_parameters(recurse=False)}
    if trained == every:
        return slice(None)
    if every != {"weight", "bias"}:
        return None
    return slice(-1) if "weight" in trained else slice(-1, None)


def _named(template: nn.Module, name: str) -> str:
    return f"layer {name or '(the network itself)'!r} ({type(template.get_submodule(name)).__name__})"
