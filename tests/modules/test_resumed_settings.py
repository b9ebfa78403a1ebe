"""A resumed run refuses settings other than those of its checkpoint, and names both."""

import functools
from pathlib import Path

import pytest
import torch
import yaml
from modules.test_scaled_module import scaled, train
from observed import StopAt, small, watch

from lazy_lightning.callbacks import RunCheckpoint
from lazy_lightning.cli.resume import require_same_run
from lazy_lightning.errors import ConfigError
from lazy_lightning.modules import FlowModule, StoppingCriteria
from lazy_lightning.nn import FC

CHANGED = {
    "batch_seed": ({"batch_seed": 3}, {"batch_seed": 4}, "batch_seed is 4 here, but 3 in the checkpoint"),
    "companions": ({"companions": ["linearized"]}, {}, r"companions is \[\] here, but \['linearized'\]"),
    "decay_rate": ({"decay_rate": 0.1}, {"decay_rate": 0.2}, "decay_rate is 0.2 here, but 0.1"),
    "decay_to": (
        {"decay_rate": 0.1, "decay_to": "zero"}, {"decay_rate": 0.1, "decay_to": "start"}, "is start here, but zero"
    ),
    "layer_rates": ({"layer_rates": {"head": 0.5}}, {"layer_rates": "mup"}, r"is mup here, but \{'head': 0.5\}"),
    "stop_margin": ({"stop_margin": 1.0}, {}, "stop_margin is None here, but 1.0"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGED)
def test_mini_batch_training_refuses_another_setting(tmp_path, name):
    before, after, message = CHANGED[name]
    common = {"loss": "hinge", "optimizer": functools.partial(torch.optim.SGD, lr=1e-3), "alpha": 1.0, "seeds": 1}
    train(tmp_path / "a", scaled(**common, **before), RunCheckpoint(), max_steps=2)
    path = tmp_path / "a" / "checkpoint.ckpt"
    train(tmp_path / "b", scaled(**common, **before), max_steps=3, ckpt_path=path)
    with pytest.raises(ConfigError, match=message):
        train(tmp_path / "c", scaled(**common, **after), max_steps=3, ckpt_path=path)


def test_a_flow_refuses_another_weight_decay(tmp_path):
    def flow(rate: float) -> FlowModule:
        return FlowModule(functools.partial(FC, width=4, depth=1), decay_rate=rate, stop=StoppingCriteria(max_steps=9))

    watch(tmp_path / "a", StopAt(2), RunCheckpoint(), model=flow(0.1), data=small())
    with pytest.raises(ConfigError, match=r"decay_rate is 0.0 here, but 0.1 in the checkpoint"):
        watch(tmp_path / "b", model=flow(0.0), data=small(), ckpt_path=tmp_path / "a" / "checkpoint.ckpt")


def configured(**arguments: object) -> dict[str, object]:
    """A configuration as of the command line."""
    network = {"class_path": "lazy_lightning.nn.FC", "init_args": {"width": 4}}
    model = {"class_path": "lazy_lightning.modules.MiniBatchModule", "init_args": {"network": network, **arguments}}
    return {"model": model, "data": {"class_path": "lazy_lightning.data.Digits", "init_args": {"n_train": 9}}}


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ({"layer_rates": None}, {"layer_rates": {"head": 0.1}}, "layer_rates.head is 0.1 but the run .* has None"),
        ({"layer_rates": {"head": 0.1}}, {"layer_rates": None}, "layer_rates.head is None but the run .* has 0.1"),
        ({"layer_rates": {"a": 1.0}}, {"layer_rates": {"a": 1.0, "b": 2.0}}, "layer_rates.b is 2.0 but .* has None"),
        ({"layer_rates": "mup"}, {"layer_rates": {"a": 1.0}}, "layer_rates is None but the run .* has mup"),
        ({"stop_margin": 1.0}, {"stop_margin": None}, "stop_margin is None but the run in .* has 1.0"),
        ({}, {"decay_rate": 0.1}, "decay_rate is 0.1 but the run in .* has None"),
        ({"decay_rate": 0.1}, {"decay_rate": 0.2}, "decay_rate is 0.2 but the run in .* has 0.1"),
    ],
)
def test_the_command_line_names_the_key(tmp_path: Path, before: dict, after: dict, message: str) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(configured(**before)))
    require_same_run(configured(**before), tmp_path)
    with pytest.raises(ConfigError, match=message):
        require_same_run(configured(**after), tmp_path)


@pytest.mark.parametrize(
    "given",
    [
        {"decay_rate": 0.0, "layer_rates": None, "of_a_later_version": 3},
        {"stop": {"max_steps": 3}, "schedule": {"per_decade": 2}, "chunk_size": 3},
    ],
)
def test_what_a_later_version_adds_and_what_may_change_is_accepted(tmp_path: Path, given: dict) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(configured(stop={"max_steps": 2})))
    require_same_run(configured(**{"stop": {"max_steps": 2}, **given}), tmp_path)
