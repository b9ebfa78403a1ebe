"""How one network is built: with the shapes of the data, under its seed, in float64 on the CPU."""

from __future__ import annotations

import functools
import inspect
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.data_shapes import DataShapes, building_for
from lazy_lightning.seeding import derived_seed

NetworkFactory = Callable[..., nn.Module]
Build = Callable[[], nn.Module]

PLAIN_TENSORS = "_plain_tensors"
"""The attribute in which :func:`hold_tensors` notes what it has registered."""
_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")
_MISSING = re.compile(r"missing \d+ required .*argument")


def fitted_to_data(factory: NetworkFactory, input_shape: Sequence[int], num_outputs: int) -> Build:
    """The factory with the shapes of the data, under the names that it has for them.

    A class, a function, a lambda or a ``functools.partial`` will do. ``num_classes`` is what torchvision's networks
    call ``num_outputs``; to a factory with ``**options`` all are offered, and those that it refuses are left out.

    Raises:
        ConfigError: it is no factory but a network, of which members would be copies; or, when called, it requires
            other arguments or gives no module.
    """
    if isinstance(factory, nn.Module):
        raise ConfigError(
            f"the network {type(factory).__name__} has been built already, and all seeds would be copies of it: give a "
            "class, or its class_path (of torchvision, lazy_lightning.nn.TorchvisionNetwork with a name)"
        )
    if not callable(factory):
        raise ConfigError(f"the network is {factory!r}, expected a class or a function that builds one")
    shapes = DataShapes(tuple(input_shape), num_outputs)
    accepted = accepted_arguments(factory)
    outputs = "num_classes" if "num_classes" in accepted and "num_outputs" not in accepted else "num_outputs"
    given: dict[str, Any] = {"input_shape": shapes.input_shape, outputs: num_outputs}
    if not _takes_any(factory):
        given = {name: value for name, value in given.items() if name in accepted}
    return functools.partial(_construct, factory, given, shapes)


def construct(factory: NetworkFactory, input_shape: Sequence[int] | int | None, num_outputs: int | None) -> nn.Module:
    """A network inside of another one, with the shapes that are known."""
    if input_shape is None or num_outputs is None:
        known = {"input_shape": input_shape, "num_outputs": num_outputs}
        accepted = accepted_arguments(factory)
        return factory(**{name: value for name, value in known.items() if value is not None and name in accepted})
    shape = (input_shape,) if isinstance(input_shape, int) else tuple(input_shape)
    network = fitted_to_data(factory, shape, num_outputs)()
    initialise_lazy(network, shape)
    return network


def accepted_arguments(factory: NetworkFactory) -> set[str]:
    """Names of the arguments that a factory takes; of a ``functools.partial``, those already bound too.

    >>> sorted(accepted_arguments(functools.partial(nn.Linear, 3)))
    ['bias', 'device', 'dtype', 'out_features']
    """
    bound = set(factory.keywords) if isinstance(factory, functools.partial) else set()
    named = {
        name
        for name, parameter in _arguments(factory).items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    return bound | named


def built_from(build: Build, seed: int, input_shape: Sequence[int]) -> nn.Module:
    """The network of one seed: torch's, NumPy's and Python's global generators are seeded for it, and restored."""
    default = torch.get_default_dtype()
    with _seeded(derived_seed("init", seed)), torch.device("cpu"):
        torch.set_default_dtype(torch.float64)
        try:
            module = build()
            hold_tensors(module)
            initialise_lazy(module, input_shape)
            return module.double()
        finally:
            torch.set_default_dtype(default)


def initialise_lazy(module: nn.Module, input_shape: Sequence[int]) -> None:
    """Gives lazy layers (``LazyLinear`` and the like) their shapes, by one evaluation of one sample of zeros.

    Raises:
        ConfigError: the network cannot take samples of this shape, or does not reach all of its layers.
    """
    if not _lazy_names(module):
        return
    try:
        module(torch.zeros(1, *input_shape))
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise cannot_take(module, input_shape, error) from error
    if names := _lazy_names(module):
        raise ConfigError(
            f"the network {type(module).__name__} has layers without a shape that its forward does not reach "
            f"({', '.join(names[:3])}): give them their sizes"
        )


def cannot_take(module: nn.Module, input_shape: Sequence[int], error: Exception) -> ConfigError:
    """The error of a network that fails on a sample, in one sentence."""
    reason = " ".join(str(error).split())[:300]
    types = re.search(r"dtype|scalar type|expected .*(Float|Double|Half)|same type", reason)
    remedy = (
        "networks are computed in the dtype of their input, which is float64 here, so make what forward creates "
        "follow x.dtype"
        if types
        else "choose a network for this shape, or other data"
    )
    return ConfigError(
        f"the network {type(module).__name__} cannot take samples of shape {tuple(input_shape)} ({reason}): {remedy}"
    )


def hold_tensors(module: nn.Module) -> None:
    """Registers tensors that are plain attributes of a layer as buffers, which follow device, dtype and member.

    A tensor with a history, such as the weight that ``weight_norm`` computes in each forward, is left as it is.
    """
    for part in module.modules():
        if isinstance(part, torch.jit.ScriptModule):
            continue
        for name, value in list(vars(part).items()):
            if isinstance(value, Tensor) and value.grad_fn is None:
                delattr(part, name)
                part.register_buffer(name, value.detach(), persistent=False)
                vars(part).setdefault(PLAIN_TENSORS, []).append(name)
        if isinstance(part, nn.Embedding | nn.EmbeddingBag):
            part.sparse = False  # the same function; gradients of all weights are one dense matrix here


def count_weights(factory: NetworkFactory, input_shape: Sequence[int], num_outputs: int) -> int | None:
    """How many weights a network will have, found without allocating any; None where that cannot be found out."""
    build = fitted_to_data(factory, input_shape, num_outputs)
    try:
        with _seeded(0), torch.device("meta"):
            parameters = list(build().parameters())
    except (RuntimeError, NotImplementedError, TypeError, ValueError):  # building it raises the error that explains it
        return None
    return None if any(is_lazy(p) for p in parameters) else sum(p.numel() for p in parameters)


def _construct(factory: NetworkFactory, given: dict[str, Any], shapes: DataShapes) -> nn.Module:
    while True:
        try:
            with building_for(shapes):
                network = factory(**given)
        except TypeError as error:
            refused = _UNEXPECTED.search(str(error))
            if refused is None or refused[1] not in given or not _takes_any(factory):
                raise _refused_arguments(factory, error) from error
            del given[refused[1]]  # once: the next seeds are built with what is left
            if refused[1] == "num_outputs":
                given["num_classes"] = shapes.num_outputs
            continue
        if not isinstance(network, nn.Module):
            raise ConfigError(
                f"{_name(factory)} gave a {type(network).__name__}, expected a torch.nn.Module: return the network"
            )
        return network


def _refused_arguments(factory: NetworkFactory, error: TypeError) -> Exception:
    reason = " ".join(str(error).split())
    if _MISSING.search(reason):
        return ConfigError(
            f"the network cannot be built by {_name(factory)} ({reason}): bind these arguments, or take the shapes of "
            "the data by name, as in lambda input_shape, num_outputs: MyNetwork(input_shape, num_outputs)"
        )
    if _UNEXPECTED.search(reason):
        return ConfigError(f"the network cannot be built by {_name(factory)} ({reason}): leave this argument out")
    return error


def _name(factory: Callable[..., Any]) -> str:
    while isinstance(factory, functools.partial):
        built = [part for part in factory.args if inspect.isclass(part)]  # jsonargparse binds the class it is to build
        factory = built[0] if built else factory.func
    return getattr(factory, "__qualname__", type(factory).__name__)


def _takes_any(factory: NetworkFactory) -> bool:
    return any(p.kind is p.VAR_KEYWORD for p in _arguments(factory).values())


def _arguments(factory: NetworkFactory) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(factory).parameters
    except (TypeError, ValueError) as error:
        bound = ", ".join(factory.keywords) if isinstance(factory, functools.partial) else ""
        raise ConfigError(
            f"the network cannot be built by {_name(factory)} with these arguments ({bound or error}): leave out those "
            "that it does not take"
        ) from error


def _lazy_names(module: nn.Module) -> list[str]:
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return [name for name, tensor in tensors if is_lazy(tensor)]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002  # of constructors
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPU's too
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)  # noqa: NPY002
