"""Every way to write a constructor gets the shapes of the data; nonsense sizes get one sentence at once."""

import functools

import pytest
import torch
from fits import digits, fit
from torch import nn

from lazy_lightning.callbacks import ActivationStability
from lazy_lightning.errors import ConfigError, MemoryShortageError
from lazy_lightning.modules import FlowModule, StoppingCriteria
from lazy_lightning.nn import CNN, FC, VGG, ResNet18, TwoLayer, WideResNet
from lazy_lightning.nn.construction import fitted_to_data


class Typed(nn.Linear):
    def __init__(self, input_shape: tuple[int, ...], num_outputs: int, bias: bool = True):
        super().__init__(input_shape[0], num_outputs, bias)


class Classes(nn.Linear):
    def __init__(self, input_shape, num_classes: int):
        super().__init__(input_shape[0], num_classes)


def options_passed_on(**options):
    return FC(width=3, **options)


class OfClassesAlone(nn.Linear):
    def __init__(self, num_classes: int):
        super().__init__(6, num_classes)


def of_classes(**options):
    return OfClassesAlone(**options)


def function(input_shape, num_outputs) -> nn.Module:
    return nn.Linear(input_shape[0], num_outputs)


@pytest.mark.parametrize(
    "factory",
    [
        Typed,
        Classes,
        functools.partial(Typed, bias=False),
        function,
        options_passed_on,
        of_classes,
        lambda: FC(width=3),
        lambda: TwoLayer(4),
        lambda input_shape, num_outputs: Typed(input_shape, num_outputs),
        lambda num_classes: nn.Linear(6, num_classes),
    ],
)
def test_shapes_of_the_data_reach_every_constructor(factory):
    build = fitted_to_data(factory, (6,), 5)
    for _ in range(2):  # each seed anew
        assert build()(torch.zeros(2, 6)).shape == (2, 5)


@pytest.mark.parametrize(
    ("factory", "sentence"),
    [
        (lambda: Typed(num_outputs=1), "missing 1 required .*take the shapes of the data by name"),
        (functools.partial(FC, wdth=3), "cannot be built by FC .*wdth"),
        (lambda: 3, "expected a torch.nn.Module"),
        (3, "expected a class or a function"),
    ],
)
def test_wrong_constructors_are_told_in_one_sentence(factory, sentence):
    with pytest.raises(ConfigError, match=sentence) as error:
        fitted_to_data(factory, (6,), 1)()
    assert "\n" not in str(error.value)


IMAGE = {"input_shape": (1, 16, 16)}


@pytest.mark.parametrize(
    "build",
    [
        lambda: FC(depth=10**7, input_shape=6),
        lambda: FC(depth=-1, input_shape=6),
        lambda: FC(width=0, input_shape=6),
        lambda: TwoLayer(0, input_shape=6),
        lambda: CNN(layers=10**7, **IMAGE),
        lambda: CNN(width=0, **IMAGE),
        lambda: WideResNet(6 * 10**7 + 4, **IMAGE),
        lambda: WideResNet(0, **IMAGE),
        lambda: VGG(0, **IMAGE),
        lambda: VGG(widening=0, **IMAGE),
        lambda: ResNet18(widening=-1, **IMAGE),
    ],
)
def test_nonsense_sizes_are_told_at_once(build):
    with pytest.raises(ConfigError, match="expected"):
        build()


def test_weights_that_do_not_fit_are_told_before_they_are_drawn(tmp_path):
    with pytest.raises(
        MemoryShortageError, match=r"a network of 2,000,0\d+,000,000 weights, for 1 seed, needs .* are free"
    ):
        fit(tmp_path, FlowModule(functools.partial(FC, width=10**6)))


def test_the_gates_of_a_two_layer_network_are_seen(tmp_path):
    model = FlowModule(functools.partial(TwoLayer, 6), stop=StoppingCriteria(max_steps=5))
    done = fit(tmp_path, model, digits(), [ActivationStability()])
    assert [c for c in done.table.columns if c.startswith("activation_stability/")]
