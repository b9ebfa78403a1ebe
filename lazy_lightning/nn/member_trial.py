"""A trial of a network as members: each must put out what the module that its seed builds puts out.

It determines by evaluation whether ``vmap`` can map the network, whether its forward needs gradients, and whether it
computes with anything that is neither a parameter nor a buffer.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.attention import plain_attention
from lazy_lightning.nn.construction import cannot_take
from lazy_lightning.nn.member_state import differing_tensor, held_tensors, trainable
from lazy_lightning.nn.members import MemberNetwork, as_columns

_SAMPLES = 2
_TOLERANCE = 1e-4
"""Of the largest output: rounding stays below it even where a network computes in float32, another seed's state not."""
_NUMBERS_AT_ONCE = 2**24


class MemberTrial:
    """Compares members with the modules of their seeds, at weights away from w0, where no zero weight hides another.

    Args:
        first: the module of the first seed, which becomes the template.
        input_shape: of one sample.
        samples: inputs of the data (n, *input_shape), for networks that do not take arbitrary numbers.

    Raises:
        ConfigError: the network does not take such samples, or its output is no function of its weights and one sample.
    """

    def __init__(self, first: nn.Module, input_shape: Sequence[int], samples: Tensor | None = None) -> None:
        self.template = first
        self.input_shape = tuple(input_shape)
        self.generator = torch.Generator().manual_seed(0)
        self.needs_graph = False
        self.rows: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.gradient = torch.empty(0)
        self.x = torch.empty(0)
        self._choose_inputs(samples)
        self.cotangent = torch.randn(self._evaluate(first, self.x).shape, generator=self.generator, dtype=torch.float64)

    def expect(self, module: nn.Module) -> None:
        """Notes what the module of one more seed puts out at weights of its own, and leaves it as it was."""
        weights = trainable(module)
        start = [p.detach().clone() for p in weights.values()]
        moved = [self._moved(p) for p in start]
        _put(weights, moved)
        try:
            if not self.rows:
                self._require_function(module)
                self.gradient = self._gradient(module)
            self.outputs.append(self._evaluate(module, self.x))
        finally:
            _put(weights, start)
        self.rows.append(torch.cat([p.reshape(-1) for p in moved]))

    def verified(self, buffers: Mapping[str, Tensor]) -> MemberNetwork:
        """The network that evaluates members, by ``vmap`` if that gives the right numbers, else one after the other.

        Args:
            buffers: (seeds, *shape) each, in the order of :meth:`expect`.

        Raises:
            ConfigError: neither gives them.
        """
        network = MemberNetwork(self.template, needs_graph=self.needs_graph)
        by_vmap = self._disagreement(network, buffers)
        if by_vmap is None:
            return network
        looped = MemberNetwork(self.template, loops=True, needs_graph=self.needs_graph)
        by_loop = self._disagreement(looped, buffers)
        kind = type(self.template).__name__
        if by_loop is not None:
            raise ConfigError(
                f"the network {kind} cannot be evaluated as a member ({by_loop}): it must compute with its parameters "
                "and buffers alone, and not with tensors that its constructor made from them or drew outside of them"
            )
        if network.is_batched:
            raise ConfigError(f"{kind}.forward_members is not what forward is ({by_vmap}): correct it, or remove it")
        if len(self.rows) > 1:
            warnings.warn(
                f"vmap cannot map the network {kind} over members ({by_vmap}): they are evaluated one after the other",
                stacklevel=2,
            )
        return looped

    # ------------------------------------------------------------------ the module itself

    def _choose_inputs(self, samples: Tensor | None) -> None:
        """Random numbers if the network takes them, else samples of the data, else zeros."""
        errors: list[Exception] = []
        unusable: Tensor | None = None
        for x in self._candidates(samples):
            try:
                output = self._evaluate(self.template, x)
            except ConfigError:
                raise
            except Exception as error:  # whatever a network's own code raises
                errors.append(error)
                continue
            if bool(output.isfinite().all()):
                self.x = x
                return
            unusable = x if unusable is None else unusable
        if unusable is None:
            raise cannot_take(self.template, self.input_shape, errors[-1]) from errors[-1]
        self.x = unusable

    def _candidates(self, samples: Tensor | None) -> Iterator[Tensor]:
        yield torch.randn(_SAMPLES, *self.input_shape, generator=self.generator, dtype=torch.float64)
        if samples is not None and len(samples):
            yield samples[torch.linspace(0, len(samples) - 1, _SAMPLES).long()].double()
        yield torch.zeros(_SAMPLES, *self.input_shape, dtype=torch.float64)

    def _evaluate(self, module: nn.Module, x: Tensor) -> Tensor:
        """f(x), (n, c), without a graph."""
        if not self.needs_graph:
            try:
                with torch.no_grad():
                    return self._called(module, x)
            except RuntimeError as error:
                if "grad" not in str(error):
                    raise
        output = self._called(module, x).detach()
        self.needs_graph = True
        return output

    def _called(self, module: nn.Module, x: Tensor) -> Tensor:
        with plain_attention(), torch.random.fork_rng(devices=[]):
            torch.default_generator.seed()
            return as_columns(module(x.clone()), len(x), module)

    def _gradient(self, module: nn.Module) -> Tensor:
        weights = list(trainable(module).values())
        total = (self._called(module, self.x) * self.cotangent).sum()
        if not total.requires_grad:
            raise ConfigError(
                f"the output of the network {type(module).__name__} has no gradient, so there is nothing to train: "
                "compute it from the weights without detach or no_grad"
            )
        gradients = torch.autograd.grad(total, weights, allow_unused=True)
        filled = [torch.zeros_like(w) if g is None else g for g, w in zip(gradients, weights, strict=True)]
        return torch.cat([g.reshape(-1) for g in filled])

    def _moved(self, p: Tensor) -> Tensor:
        size = float(p.square().mean().sqrt()) if p.numel() else 0.0
        noise = torch.randn(p.shape, generator=self.generator, dtype=p.dtype)
        return p + (0.3 * size if size > 0 else 0.1) * noise

    def _require_function(self, module: nn.Module) -> None:
        """Refuses outputs that depend on more than weights and one sample, or that change these."""
        kind = type(module).__name__
        before = {name: tensor.clone() for name, tensor in _state(module).items()}
        once, again = self._evaluate(module, self.x), self._evaluate(module, self.x)
        if (name := differing_tensor(before, _state(module))) is not None:
            raise ConfigError(
                f"the network {kind} changes {name} at each evaluation, so its output is no function of its weights: "
                "call eval() on this layer in the constructor, or leave it out"
            )
        if not _agree(once, again):
            raise ConfigError(
                f"the network {kind} draws random numbers in forward, so the flow has no gradient to follow: remove "
                "them or set their probability to 0"
            )
        try:
            alone = self._evaluate(module, self.x[:1])
        except ConfigError:
            raise
        except Exception as error:  # whatever a network's own code raises
            raise cannot_take(module, self.input_shape, error) from error
        if not _agree(alone, once[:1]):
            raise ConfigError(
                f"the network {kind} couples the samples of a batch: one gives another output when others are in the "
                "batch, so the output for one sample is not a function of its weights alone: use GroupNorm or "
                "LayerNorm in the place of statistics over the batch"
            )

    # ------------------------------------------------------------------ the members

    def _disagreement(self, network: MemberNetwork, buffers: Mapping[str, Tensor]) -> str | None:
        """In which way members are not what the modules are; None if they are."""
        with warnings.catch_warnings(action="ignore"):  # training will give what torch warns of
            return self._compared(network, buffers)

    def _compared(self, network: MemberNetwork, buffers: Mapping[str, Tensor]) -> str | None:
        try:
            if not _agree(self._member_gradient(network, buffers), self.gradient):
                return "gradients differ"
            for part in self._parts():
                rows, own = torch.stack(self.rows[part]), {name: b[part] for name, b in buffers.items()}
                with torch.no_grad():
                    outputs = network(rows, self.x, own)
                for seed, expected in zip(outputs, self.outputs[part], strict=True):
                    if not _agree(seed, expected):
                        return "outputs differ"
        except Exception as error:  # of torch.func, or of the network's own code inside of it
            return " ".join(str(error).split())[:200]
        return None

    def _member_gradient(self, network: MemberNetwork, buffers: Mapping[str, Tensor]) -> Tensor:
        pair = torch.stack([self.rows[0], self.rows[-1]]).requires_grad_()
        own = {name: b[[0, -1]] for name, b in buffers.items()}
        total = (network(pair, self.x, own) * self.cotangent).sum()
        return torch.autograd.grad(total, pair)[0][0]

    def _parts(self) -> Iterator[slice]:
        step = max(1, _NUMBERS_AT_ONCE // len(self.rows[0]))
        return (slice(i, i + step) for i in range(0, len(self.rows), step))


def _put(weights: Mapping[str, nn.Parameter], values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for weight, value in zip(weights.values(), values, strict=True):
            weight.copy_(value)


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in trainable(module).items()} | held_tensors(module)


def _agree(one: Tensor, other: Tensor) -> bool:
    """Equal to rounding, where NaN equals NaN."""
    if one.shape != other.shape:
        return False
    finite = other[other.isfinite()]
    size = float(finite.abs().max()) if finite.numel() else 0.0
    return torch.allclose(one.double(), other.double(), rtol=0.0, atol=_TOLERANCE * size, equal_nan=True)
