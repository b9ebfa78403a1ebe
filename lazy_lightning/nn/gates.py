"""The choices of a piecewise linear network: which side of zero each ReLU is on, which pixel each max-pool takes.

With all of them held the network is a multilinear map of its weights, and lazy training leaves them nearly all as they
were (arXiv:1812.07956). They are noted and held by hooks on the modules that make them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.activations import Activation

Gates = dict[str, Tensor]
"""By module, ``#2`` and so on for its later calls: bool (n, ...) of a ReLU, int64 pixels (n, ...) of a max-pool."""


def has_gates(template: nn.Module) -> bool:
    """Whether gates decide all that is not linear in a network: some ReLU or max-pool, and no other nonlinearity."""
    kinds = [_kind(module) for module in template.modules()]
    return any(kind in ("relu", "pool") for kind in kinds) and "smooth" not in kinds


def check_gates(template: nn.Module) -> None:
    """Lets pass the networks that :func:`has_gates`.

    Raises:
        ConfigError: for others, with the module that is in the way.
    """
    for name, module in template.named_modules():
        if _kind(module) == "smooth":
            what = module.name if isinstance(module, Activation) else type(module).__name__
            raise ConfigError(
                f"layer {name!r} of the network {type(template).__name__} is {what}, which makes no choice that could "
                "be frozen: use activation: relu, or leave frozen_activations out"
            )
    if not has_gates(template):
        raise ConfigError(
            f"the network {type(template).__name__} has no ReLU and no max-pool among its modules, so there is nothing "
            "to freeze: use activation: relu, or leave frozen_activations out"
        )


@contextmanager
def recorded_gates(template: nn.Module) -> Iterator[Gates]:
    """What is chosen while the network is evaluated.

    Raises:
        ConfigError: the network makes such a choice outside of a module, where no hook can see it.
    """
    noted: Gates = {}
    watch = _Watch(type(template).__name__)

    def note(key: str, module: Any, z: Tensor, output: Tensor) -> None:
        noted[key] = output > 0 if _kind(module) == "relu" else _pixels(module, z)

    with _hooked(template, note, watch), watch:
        yield noted


@contextmanager
def frozen_gates(template: nn.Module, gates: Mapping[str, Tensor]) -> Iterator[None]:
    """The network's gates are set to recorded choices, whatever it is evaluated at."""

    def hold(key: str, module: Any, z: Tensor, output: Tensor) -> Tensor:
        if _kind(module) == "relu":
            passed = torch.where(gates[key], z, torch.zeros_like(z))
            return passed * module.scale if isinstance(module, Activation) and module.scale != 1.0 else passed
        return z.flatten(-2).gather(-1, gates[key].flatten(-2)).view_as(output)

    with _hooked(template, hold, None):
        yield


def _kind(module: nn.Module) -> str | None:
    """``relu``, ``pool``, ``smooth`` for other nonlinearities, None for the rest."""
    if isinstance(module, nn.ReLU) or (isinstance(module, Activation) and module.name == "relu"):
        return "relu"
    if isinstance(module, nn.MaxPool2d):
        return "pool"
    if isinstance(module, Activation):
        return None if module.name == "linear" else "smooth"
    smooth = type(module).__module__ == "torch.nn.modules.activation" or isinstance(module, _OTHER_POOLS)
    return "smooth" if smooth else None


_OTHER_POOLS = (nn.MaxPool1d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d)


def _pixels(pool: nn.MaxPool2d, z: Tensor) -> Tensor:
    """Which pixel of z (..., H, W) is taken at each position, as its place in H W."""
    found: Tensor = F.max_pool2d(
        z, pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode, return_indices=True
    )[1]
    return found


Visit = Callable[[str, nn.Module, Tensor, Tensor], "Tensor | None"]
"""From the call's name, the module, its input and its output; what it returns takes the output's place."""


@contextmanager
def _hooked(template: nn.Module, visit: Visit, watch: _Watch | None) -> Iterator[None]:
    calls: Counter[str] = Counter()
    inputs: list[Tensor] = []

    def before(module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if watch is not None:
            watch.seen = True
        inputs.append(args[0])
        return (args[0].clone(),) if getattr(module, "inplace", False) else args  # which would overwrite it

    def after(name: str) -> Callable[[nn.Module, Any, Tensor], Tensor | None]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
            calls[name] += 1
            key = name if calls[name] == 1 else f"{name}#{calls[name]}"
            changed = visit(key, module, inputs.pop(), output)
            if watch is not None:
                watch.seen = False
            return changed

        return hook

    with ExitStack() as stack:
        for name, module in template.named_modules():
            if _kind(module) in ("relu", "pool"):
                for handle in (module.register_forward_pre_hook(before), module.register_forward_hook(after(name))):
                    stack.callback(handle.remove)
        yield


_FUNCTIONS = frozenset(
    [
        "relu",
        "relu_",
        "relu6",
        "leaky_relu",
        "prelu",
        "elu",
        "gelu",
        "silu",
        "softplus",
        "tanh",
        "sigmoid",
        "hardtanh",
        "clamp",
        "clamp_min",
        "maximum",
        "abs",
        "max_pool2d",
        "_max_pool2d",
        "max_pool2d_with_indices",
    ]
)
"""Names of torch's functions, which are looked up wherever they are called from."""


class _Watch(TorchFunctionMode):
    """Refuses nonlinear functions that are called outside of the modules that hooks can see."""

    def __init__(self, network: str) -> None:
        super().__init__()
        self.network = network
        self.seen = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in _FUNCTIONS and not self.seen:
            raise ConfigError(
                f"the network {self.network} calls {name} as a function, where its choices cannot be frozen: write it "
                "as a module, such as torch.nn.ReLU, or leave frozen_activations out"
            )
        return func(*args, **(kwargs or {}))
