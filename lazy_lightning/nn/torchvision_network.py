"""torchvision's networks by name, made fit for a flow: no statistics of a batch, no Dropout, any number of channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast, get_args

from torch import Tensor, nn

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.data_shapes import resolved_shapes
from lazy_lightning.nn.fixed_batch_norm import FixedBatchNorm

BatchNorms = Literal["none", "statistics"]


class TorchvisionNetwork(nn.Module):
    """A network of ``torchvision.models`` with random weights: (n, channels, H, W) -> (n, num_outputs).

    BatchNorm, which couples the samples of a batch, is left out, Dropout does nothing, and the first convolution takes
    as many channels as the images have. With ``batch_norm="statistics"`` BatchNorm is what it is in evaluation, an
    affine layer with the running mean and variance as constants: a pretrained state_dict of torchvision's model, given
    to a module as ``init``, then has the function that it was trained to. (Other networks of torchvision, and options:
    by ``class_path`` of their class.)

    Args:
        name: as in ``torchvision.models``, such as ``resnet18`` or ``vgg11``.
        options: further arguments of that model.
        input_shape: shape of one image, filled in from the data.
        num_outputs: outputs per sample, filled in likewise.
        batch_norm: ``none`` leaves BatchNorm out; ``statistics`` applies its running statistics, 0 and 1 if not given.

    >>> import torch
    >>> TorchvisionNetwork("squeezenet1_1", input_shape=(1, 32, 32), num_outputs=3)(torch.zeros(2, 1, 32, 32)).shape
    torch.Size([2, 3])

    Raises:
        ConfigError: there is no such model, it refuses an option, the samples are no images, or a BatchNorm keeps no
            running statistics.
    """

    def __init__(
        self,
        name: str,
        options: Mapping[str, Any] | None = None,
        *,
        input_shape: Sequence[int] | None = None,
        num_outputs: int = 1,
        batch_norm: BatchNorms = "none",
    ) -> None:
        check_arguments(TorchvisionNetwork, locals())
        super().__init__()
        shape, outputs = resolved_shapes(input_shape, num_outputs)
        if len(shape) != 3:
            raise ConfigError(f"{name} got samples of shape {shape}, expected (channels, height, width)")
        if batch_norm not in get_args(BatchNorms):
            raise ConfigError(f"batch_norm is {batch_norm!r}, expected {' or '.join(get_args(BatchNorms))}")
        self.net = _built(name, {"num_classes": outputs, "weights": None, **(options or {})})
        _replace(self.net, shape[0], batch_norm)

    def forward(self, x: Tensor) -> Tensor:
        """The outputs f(w, x), (n, num_outputs)."""
        return cast(Tensor, self.net(x))


def _built(name: str, options: Mapping[str, Any]) -> nn.Module:
    from torchvision import models

    if name not in models.list_models(module=models):
        raise ConfigError(
            f"torchvision has no model {name!r}: there are for example resnet18, vgg11, squeezenet1_1, convnext_tiny"
        )
    try:
        return cast(nn.Module, models.get_model(name, **options))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"torchvision's {name} refuses its options ({' '.join(str(error).split())})") from error


def _replace(net: nn.Module, channels: int, batch_norm: BatchNorms) -> None:
    first = True
    for path, module in list(net.named_modules()):
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            _put(net, path, nn.Identity() if batch_norm == "none" else FixedBatchNorm.of(module, path))
        elif isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        elif isinstance(module, nn.Conv2d) and first:
            first = False
            if module.in_channels != channels:
                _put(net, path, _with_channels(module, channels))


def _put(net: nn.Module, path: str, module: nn.Module) -> None:
    owner, _, name = path.rpartition(".")
    setattr(net.get_submodule(owner), name, module)


def _with_channels(layer: nn.Conv2d, channels: int) -> nn.Conv2d:
    return nn.Conv2d(
        channels, layer.out_channels, cast(Any, layer.kernel_size), cast(Any, layer.stride), cast(Any, layer.padding),
        bias=layer.bias is not None,
    )  # fmt: skip
