"""What the convolutional networks have in common: features of an image, their mean over pixels, a linear head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.data_shapes import resolved_shapes
from lazy_lightning.nn.fc import Head
from lazy_lightning.nn.initialisation import Fan, Initialisation, Parametrisation


class ImageNetwork(nn.Module):
    """(n, channels, height, width) -> (n, num_outputs). Subclasses make the features, and call :meth:`assemble`.

    Args:
        activation: see :func:`lazy_lightning.nn.activations.activation`.
        bias: scale of the biases of all layers; 0 for none.
        head: the head divides by sqrt(h) (``ntk``) or by h (``mean_field``), h the number of features.
        parametrisation: ``ntk`` or ``standard``, see :class:`~lazy_lightning.nn.initialisation.Initialisation`.
        gain: of the layers, see there.
        fan: see there.
        input_shape: shape of one image, filled in from the data when the configuration leaves it.
        num_outputs: outputs per sample, filled in likewise.

    Raises:
        ConfigError: a value out of range, or samples that are no images.
    """

    features: nn.Sequential
    head: nn.Module
    width: int
    """Features that the head sees: the h of sqrt(h) alpha."""

    def __init__(
        self,
        activation: str = "relu",
        bias: float = 0.0,
        head: Head = "ntk",
        parametrisation: Parametrisation = "ntk",
        gain: float | None = None,
        fan: Fan = "in",
        *,
        input_shape: Sequence[int] | None = None,
        num_outputs: int = 1,
    ) -> None:
        check_arguments(ImageNetwork, locals())
        super().__init__()
        self.kind = Initialisation(activation, parametrisation, gain, fan, bias, head)
        shape, self.num_outputs = resolved_shapes(input_shape, num_outputs)
        self.input_shape = _image_shape(shape)

    def assemble(self, features: Sequence[nn.Module], width: int) -> None:
        """Takes the layers, and adds the head."""
        self.features = nn.Sequential(*features)
        self.width = width
        self.head = self.kind.last(width, self.num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """The outputs f(w, x), (n, num_outputs)."""
        if tuple(x.shape[1:]) != self.input_shape:
            raise ConfigError(
                f"samples of shape {tuple(x.shape[1:])} came to a network built for {self.input_shape}:"
                " leave input_shape out of the configuration to take it from the data."
            )
        return cast(Tensor, self.head(self.features(x).mean((2, 3))))


def _image_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ConfigError(
            f"a convolutional network got samples of shape {shape}, expected (channels, height, width): use images, "
            "and no principal components."
        )
    channels, height, width = shape
    return channels, height, width


def widened(channels: int, factor: float) -> int:
    """Channels times a widening factor, at least one.

    >>> widened(64, 0.125), widened(64, 0.001)
    (8, 1)

    Raises:
        ConfigError: the factor is not positive.
    """
    if not 0 < factor < float("inf"):
        raise ConfigError(f"widening is {factor}, expected a number > 0: 1 is the usual network")
    return max(1, round(channels * factor))
