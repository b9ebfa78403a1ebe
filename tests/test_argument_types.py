"""Arguments of public constructors: what is no number raises one ConfigError, and nothing else is raised."""

from __future__ import annotations

import functools
import importlib
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.data import FlowData
from lazy_lightning.errors import ConfigError, LazyLightningError
from lazy_lightning.nn import FC

PACKAGES = ("callbacks", "data", "flow", "modules", "nn", "objective.losses", "objective.weight_decay", "ntk.laziness")
HOSTILE: list[Any] = [
    "x", "0.5", None, float("nan"), float("inf"), -1, 0, 2.5, True, [], {}, [None], ["a"], [float("nan")], [-1.0],
    (1.0, "a"), 10**400, object(),
]  # fmt: skip
NEEDED: dict[str, Any] = {
    "network": functools.partial(FC, width=4, depth=1),
    "factory": functools.partial(FC, width=4, depth=1),
    "input_shape": (4,),
    "num_outputs": 1,
    "path": "data.npz",
    "n_train": 10,
    "n_test": 10,
    "n_kernel": 0,
    "names": ["T1"],
    "d": 4,
    "sphere_dims": 2,
    "r_max": 1e-2,
    "r_grow": 1e-4,
    "mu": 2.0,
    "level": 0.5,
    "t_max": 1.0,
    "max_steps": 3,
    "margin": 1.0,
    "width": 4,
    "in_features": 3,
    "out_features": 3,
    "in_channels": 3,
    "out_channels": 3,
    "kernel_size": 3,
    "beta": 5.0,
}
OWN = {
    "TorchvisionNetwork": {"name": "resnet18", "input_shape": (3, 32, 32)},
    **{name: {"input_shape": (3, 32, 32)} for name in ("CNN", "VGG", "ResNet18", "WideResNet")},
}


def public_classes() -> list[type]:
    found: dict[type, None] = {}
    for package in PACKAGES:
        module = importlib.import_module(f"lazy_lightning.{package}")
        names = getattr(module, "__all__", [name for name in dir(module) if not name.startswith("_")])
        classes = [one for name in names if inspect.isclass(one := getattr(module, name))]
        own = [one for one in classes if one.__module__.startswith("lazy_lightning.")]
        found |= dict.fromkeys(one for one in own if not issubclass(one, Exception))
    return list(found)


def arguments(owner: type) -> dict[str, Any] | None:
    """Arguments with which the class can be built; None if it takes others, such as modules or tensors."""
    parameters = inspect.signature(owner).parameters.values()
    given = {p.name: NEEDED[p.name] for p in parameters if p.name in NEEDED and p.default is p.empty}
    given |= {name: NEEDED[name] for name in ("input_shape",) if name in inspect.signature(owner).parameters}
    given |= OWN.get(owner.__name__, {})
    if issubclass(owner, FlowData):
        given |= {"n_train": 10, "n_test": 10}
    try:
        owner(**given)
    except Exception:
        return None
    return given


@pytest.mark.parametrize("owner", public_classes(), ids=lambda owner: owner.__name__)
def test_a_constructor_raises_no_other_error(owner: type) -> None:
    given = arguments(owner)
    if given is None:
        pytest.skip("takes modules, tensors or files")
    wrong = []
    parameters = {**inspect.signature(owner).parameters}
    if issubclass(owner, FlowData):  # which takes them as options
        parameters |= inspect.signature(FlowData).parameters
    for name, parameter in parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        for value in HOSTILE:
            try:
                owner(**{**given, name: value})
            except LazyLightningError as error:
                if "\n" in str(error):
                    wrong.append(f"{name} = {value!r}: several lines")
            except Exception as error:
                wrong.append(f"{name} = {value!r}: {type(error).__name__}: {error}")
    assert not wrong


class Owner:
    """A class with every annotation that is checked, and one that is not."""

    def __init__(
        self,
        count: int = 1,
        size: float | None = None,
        levels: list[float] | None = None,
        seeds: int | Sequence[int] = 1,  # noqa: F821
        word: str = "",
        other: Other = 0,  # noqa: F821
    ) -> None:
        check_arguments(Owner, locals())


@pytest.mark.parametrize(
    "given",
    [
        {"count": np.int64(3)}, {"size": 3}, {"size": np.float32(0.5)}, {"size": float("nan")}, {"levels": (1, 2.0)},
        {"levels": np.array([0.5, 0.1])}, {"levels": []}, {"seeds": [1, 2]}, {"seeds": 2}, {"word": Path("a")},
        {"other": "x"}, {"count": torch.tensor(3)}, {"size": torch.tensor(0.5)}, {"size": np.array(2)},
    ],
)  # fmt: skip
def test_numbers_pass(given: dict[str, Any]) -> None:
    Owner(**given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"count": 2.0}, "Owner got count = 2.0, expected an integer"),
        ({"count": None}, "expected an integer"),
        ({"size": "1"}, "Owner got size = '1', expected a number or null"),
        ({"size": True}, "expected a number or null"),
        ({"size": 10**400}, "expected a number or null"),
        ({"levels": "0.5"}, "Owner got levels = '0.5', expected a list of numbers or null"),
        ({"levels": 0.5}, "expected a list of numbers or null"),
        ({"seeds": ["a"]}, "expected an integer or a list of integers"),
        ({"word": 3}, "Owner got word = 3, expected a text"),
        ({"size": torch.ones(2)}, "expected a number or null"),
    ],
)
def test_others_are_named(given: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        Owner(**given)
