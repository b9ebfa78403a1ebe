"""torchvision's networks by name, made fit for a flow: without BatchNorm and Dropout, for any number of channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor, nn

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.data_shapes import resolved_shapes


class TorchvisionNetwork(nn.Module):
    """A network of ``torchvision.models`` with random weights: (n, channels, H, W) -> (n, num_outputs).

    BatchNorm, which couples the samples of a batch, is left out, Dropout does nothing, and the first convolution takes
    as many channels as the images have. (Other networks of torchvision, and options: by ``class_path`` of their class.)

    Args:
        name: as in ``torchvision.models``, such as ``resnet18`` or ``vgg11``.
        options: further arguments of that model.
        input_shape: shape of one image, filled in from the data.
        num_outputs: outputs per sample, filled in likewise.

    >>> import torch
    >>> TorchvisionNetwork("squeezenet1_1", input_shape=(1, 32, 32), num_outputs=3)(torch.zeros(2, 1, 32, 32)).shape
    torch.Size([2, 3])

    Raises:
        ConfigError: there is no such model, it refuses an option, or the samples are no images.
    """

    def __init__(
        self,
        name: str,
        options: Mapping[str, Any] | None = None,
        *,
        input_shape: Sequence[int] | None = None,
        num_outputs: int = 1,
    ) -> None:
        super().__init__()
        shape, outputs = resolved_shapes(input_shape, num_outputs)
        if len(shape) != 3:
            raise ConfigError(f"{name} got samples of shape {shape}, expected (channels, height, width)")
        self.net = _built(name, {"num_classes": outputs, "weights": None, **(options or {})})
        _replace(self.net, shape[0])

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


def _replace(net: nn.Module, channels: int) -> None:
    first = True
    for path, module in list(net.named_modules()):
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            _put(net, path, nn.Identity())
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
