"""One network evaluated for E members at once: how any ``nn.Module`` gets its member axis."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.gates import check_gates, gates_held, gates_noted
from lazy_lightning.nn.places import places_of
from lazy_lightning.seeding import derived_seed

NetworkFactory = Callable[..., nn.Module]


@runtime_checkable
class BatchedOverMembers(Protocol):
    """A network with a faster path over the member axis than ``vmap``, and equal to it."""

    def forward_members(self, params: dict[str, Tensor], x: Tensor) -> Tensor:
        """``params`` (E, *shape) each, ``x`` (n, ...) shared by all: (E, n, c)."""
        ...


class MemberNetwork:
    """Turns rows of weights (E, N) into outputs (E, n, c). Holds no weights that are trained.

    Args:
        template: a network; its parameters give names, shapes and order of the N weights, nothing else.

    Raises:
        ConfigError: if the network has no parameters, or a layer that draws random numbers or mixes samples.
    """

    def __init__(self, template: nn.Module) -> None:
        _check_deterministic(template)
        self.template = template.requires_grad_(False)
        self.names = [name for name, _ in template.named_parameters()]
        self.shapes = [p.shape for p in template.parameters()]
        self.sizes = [p.numel() for p in template.parameters()]
        if not self.names:
            raise ConfigError(f"the network {type(template).__name__} has no parameters, so there is nothing to train")
        self.layers = layers_of(self.names)
        self._places = places_of(template)
        self._batched = template if isinstance(template, BatchedOverMembers) else None  # a slow question, asked once

    @property
    def weights(self) -> int:
        """N."""
        return sum(self.sizes)

    def unpack(self, w: Tensor) -> dict[str, Tensor]:
        """Views of (E, N) by parameter name, (E, *shape) each. One split, so its backward is one pass."""
        blocks = torch.split(w, self.sizes, dim=1)
        return {n: b.view(len(w), *s) for n, b, s in zip(self.names, blocks, self.shapes, strict=True)}

    def layer_slices(self) -> dict[str, slice]:
        """Columns of (E, N) by layer: a layer is a module's own parameters, weight and bias together."""
        slices, start = {}, 0
        for layer, size in self.layers.items():
            slices[layer] = slice(start, start + sum(self.sizes[i] for i in size))
            start = slices[layer].stop
        return slices

    def __call__(self, w: Tensor, x: Tensor, buffers: dict[str, Tensor] | None = None) -> Tensor:
        """Outputs f(w, x): ``w`` (E, N) and ``x`` (n, ...) give (E, n, c); c = 1 keeps its axis.

        ``buffers`` (E, *shape) each are the network's own, if members differ in them.
        """
        params = self.unpack(w)
        if self._batched is not None and not buffers:
            return self._batched.forward_members(params, x)
        return self._vmapped(params, buffers or {}, x)

    def _vmapped(self, params: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        def one(p: dict[str, Tensor], b: dict[str, Tensor]) -> Tensor:
            return as_columns(self._call(p, b, x), len(x), self.template)

        return vmap(one)(params, buffers)

    def _call(self, params: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Any:
        given = {**params, **buffers}
        every = {place: given[name] for place, name in self._places.items() if name in given}
        return functional_call(self.template, every, (x,), tie_weights=False)

    def preactivations(self, w: Tensor, x: Tensor, buffers: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """What each layer puts out before the next nonlinearity, (E, n, ...) by layer name.

        A layer is a module that owns parameters; its output is caught by a forward hook inside ``vmap``.
        """

        def one(p: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, Tensor]:
            caught: dict[str, Tensor] = {}
            handles = [
                self.template.get_submodule(layer).register_forward_hook(functools.partial(_catch, caught, layer))
                for layer in self.layers
            ]
            try:
                self._call(p, b, x)
            finally:
                for handle in handles:
                    handle.remove()
            return caught

        return vmap(one)(self.unpack(w), buffers or {})

    def gates(self, w: Tensor, x: Tensor, buffers: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """What each ReLU and max-pool chooses, (E, n, ...) by module, see :mod:`lazy_lightning.nn.gates`."""
        check_gates(self.template)

        def one(p: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, Tensor]:
            with gates_noted(self.template) as noted:
                self._call(p, b, x)
            return noted

        return vmap(one)(self.unpack(w), buffers or {})

    def held(self, w: Tensor, w0: Tensor, x: Tensor, buffers: dict[str, Tensor] | None = None) -> Tensor:
        """f(w, x) with all ReLUs and max-pools choosing as they do at w0 on the same x, (E, n, c)."""
        check_gates(self.template)

        def one(p: dict[str, Tensor], p0: dict[str, Tensor], b: dict[str, Tensor]) -> Tensor:
            with gates_noted(self.template) as gates, torch.no_grad():
                self._call(p0, b, x)
            with gates_held(self.template, gates):
                return as_columns(self._call(p, b, x), len(x), self.template)

        return vmap(one)(self.unpack(w), self.unpack(w0), buffers or {})


class InitialMembers:
    """The members' networks at initialisation: w0 (E, N), their buffers, and the network itself.

    Member ``seed`` is built on the CPU in float64 under its own random stream, so its weights do not depend on
    the device, the dtype of the run (which only rounds them), or the other members.
    """

    def __init__(
        self, factory: NetworkFactory, seeds: Sequence[int], input_shape: Sequence[int], num_outputs: int
    ) -> None:
        build = fitted_to_data(factory, input_shape, num_outputs)
        rows: dict[int, tuple[Tensor, dict[str, Tensor]]] = {}
        for seed in seeds:
            if seed not in rows:  # members that differ by alpha alone share their start
                module = _built(build, seed)
                rows[seed] = (_flat(module), {n: b for n, b in module.named_buffers() if b.is_floating_point()})
        self.network = MemberNetwork(module)
        self.w0 = torch.stack([rows[seed][0] for seed in seeds])
        self.buffers = {n: torch.stack([rows[seed][1][n] for seed in seeds]) for n in rows[seeds[0]][1]}


def fitted_to_data(factory: NetworkFactory, input_shape: Sequence[int], num_outputs: int) -> NetworkFactory:
    """The factory with the shapes of the data, under the names that it has for them.

    ``num_classes`` is what torchvision's networks call ``num_outputs``.

    Raises:
        ConfigError: it is no factory but a network, of which members would be copies.
    """
    if isinstance(factory, nn.Module):
        raise ConfigError(
            f"the network {type(factory).__name__} has been built already, and all seeds would be copies of it: give a "
            "class, or its class_path (of torchvision, lazy_lightning.nn.TorchvisionNetwork with a name)"
        )
    accepted = accepted_arguments(factory)
    given: dict[str, Any] = {"input_shape": tuple(input_shape), "num_outputs": num_outputs}
    if "num_outputs" not in accepted:
        given["num_classes"] = num_outputs
    return functools.partial(factory, **{name: value for name, value in given.items() if name in accepted})


@torch.no_grad()
def require_fit(template: nn.Module, input_shape: Sequence[int]) -> None:
    """Tries a network on one sample, on the CPU and in float64.

    Raises:
        ConfigError: it cannot take samples of this shape, or does not give a row of outputs for each.
    """
    try:
        output = template(torch.zeros(1, *input_shape, dtype=torch.float64))
    except (RuntimeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"the network {type(template).__name__} cannot take samples of shape {tuple(input_shape)} ({reason}): "
            "choose a network for this shape, or other data"
        ) from error
    as_columns(output, 1, template)


def accepted_arguments(factory: NetworkFactory) -> set[str]:
    """Names of the arguments that a factory takes; of a ``functools.partial``, those already bound too.

    >>> sorted(accepted_arguments(functools.partial(nn.Linear, 3)))
    ['bias', 'device', 'dtype', 'out_features']
    """
    bound = set(factory.keywords) if isinstance(factory, functools.partial) else set()
    named = {
        name
        for name, parameter in inspect.signature(factory).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    return bound | named


def _built(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    default = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(derived_seed("init", seed))  # torch.manual_seed would seed the GPU's too
        torch.set_default_dtype(torch.float64)
        try:
            return build().double()
        finally:
            torch.set_default_dtype(default)


def _flat(module: nn.Module) -> Tensor:
    parameters = [p.detach().reshape(-1) for p in module.parameters()]
    return torch.cat(parameters) if parameters else torch.empty(0)


def layers_of(names: Sequence[str]) -> dict[str, list[int]]:
    """Positions of the parameters by the module that owns them, whose name is theirs up to the last dot."""
    layers: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        layers.setdefault(name.rpartition(".")[0], []).append(i)
    return layers


def _catch(caught: dict[str, Tensor], layer: str, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
    caught[layer] = output


def as_columns(output: Tensor, samples: int, template: nn.Module) -> Tensor:
    """The output of a network as (n, c).

    Raises:
        ConfigError: if it is neither (n, c) nor (n,).
    """
    if output.ndim == 1 and len(output) == samples:
        return output.unsqueeze(1)
    if output.ndim != 2 or len(output) != samples:
        raise ConfigError(
            f"the network {type(template).__name__} must map (n, ...) to (n, outputs) or (n,), "
            f"but {samples} samples gave shape {tuple(output.shape)}"
        )
    return output


_RANDOM = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.RReLU)


def _check_deterministic(template: nn.Module) -> None:
    for name, module in template.named_modules():
        where = f"layer {name!r} ({type(module).__name__}) of the network {type(template).__name__}"
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ConfigError(
                f"{where} couples the samples of a batch, so the output for one sample is not a function of its "
                "weights alone: use GroupNorm or LayerNorm, or no normalisation as the papers do"
            )
        if isinstance(module, _RANDOM) and getattr(module, "p", 1.0) > 0:
            raise ConfigError(
                f"{where} draws random numbers, so the flow has no gradient to follow: remove it or set p=0"
            )
