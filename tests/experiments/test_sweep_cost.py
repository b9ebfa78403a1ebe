"""What a member costs: counted against closed forms, and what is made of it."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from fits import digits
from problems import problem
from torch.autograd.graph import saved_tensors_hooks

from lazy_lightning.data import TeacherStudent
from lazy_lightning.data.flow_data import FlowData
from lazy_lightning.errors import ConfigError
from lazy_lightning.experiments import costs
from lazy_lightning.experiments.batching import Batch
from lazy_lightning.experiments.config_group import ConfigGroup
from lazy_lightning.experiments.costs import CostModel, StepCost, step_cost
from lazy_lightning.experiments.evaluation_count import expected_evaluations
from lazy_lightning.modules import FlowModule, KernelModule, MiniBatchModule, StoppingCriteria
from lazy_lightning.nn import FC

CPU = torch.device("cpu")


def measured(
    width: int = 50, depth: int = 3, samples: int = 400, dtype: torch.dtype = torch.float64, **options: Any
) -> StepCost:
    data = digits(n_train=samples, n_test=100)
    data.setup()
    return step_cost(FlowModule(functools.partial(FC, width=width, depth=depth), **options), data, CPU, dtype)


def weights(width: int, depth: int) -> int:
    return 64 * width + (depth - 1) * width**2 + width


def closed_form(width: int, depth: int, samples: int, size: int = 8) -> float:
    """Each hidden layer keeps its preactivation and its output; w, its gradient, velocity and the like come on top."""
    kept = 2 * depth * samples * width
    return size * (2 * kept + 12 * weights(width, depth))


@pytest.mark.parametrize(("width", "depth", "samples"), [(50, 3, 400), (200, 2, 300), (20, 5, 1000)])
def test_memory_of_a_member(width: int, depth: int, samples: int) -> None:
    cost = measured(width, depth, samples)
    assert cost.weights == weights(width, depth)
    assert 0.5 < cost.bytes / closed_form(width, depth, samples) < 2


def test_memory_grows_with_samples_and_precision() -> None:
    one, two, three = (measured(samples=n).bytes for n in (400, 800, 1200))
    assert three - two == pytest.approx(two - one, rel=0.01)
    assert measured(dtype=torch.float32).bytes == pytest.approx(one / 2, rel=0.01)
    assert measured(samples=1200, chunk_size=50).bytes < 0.5 * three


def kept_bytes(members: int, **options: Any) -> int:
    """Of distinct tensors that autograd keeps, in a batch."""
    base = problem(seeds=range(members), **options)
    seen: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    w = base.w0.clone().requires_grad_()
    with saved_tensors_hooks(note, lambda tensor: tensor):
        base.objective.backward(w)
    seen.pop(base.objective.x.untyped_storage().data_ptr(), None)
    return sum(seen.values())


def test_a_batch_takes_as_much_as_its_members() -> None:
    """Which is how batches are sized."""
    options = {"samples": 300, "width": 30, "depth": 3}
    alone = kept_bytes(1, **options)
    for members in (2, 5, 10):
        assert kept_bytes(members, **options) == pytest.approx(members * alone, rel=0.05)


def test_time_grows_with_the_network() -> None:
    small, large = measured(width=4).seconds, measured(width=600).seconds
    assert 0 < 3 * small < large  # which has twenty thousand times as many weights


def of_batches(companions: list[str], n_train: int = 400, **data_options: Any) -> StepCost:
    data = digits(n_train=n_train, n_test=20, batch_size=50, **data_options)
    data.setup()
    network = functools.partial(FC, width=50, depth=3, activation="relu")
    module = MiniBatchModule(network, "cross_entropy" if data_options else "hinge", companions=companions)
    return step_cost(module, data, CPU, torch.float64)


def test_mini_batches_cost_their_size_and_what_is_trained_beside() -> None:
    """Of the whole training set only outputs are held: four numbers a sample."""
    alone, both = of_batches([]), of_batches(["linearized", "frozen_activations"])
    outputs = 8 * 4 * 420
    assert both.bytes - outputs == pytest.approx(4 * (alone.bytes - outputs))
    assert of_batches([], n_train=800).bytes - alone.bytes == 8 * 4 * 400
    assert 0.5 < alone.bytes / closed_form(50, 3, 50) < 2.5


def test_classes_and_real_targets_have_a_cost_too() -> None:
    assert of_batches([], labels="multiclass").seconds > 0
    data = TeacherStudent(d=4, n_train=30, n_test=10)
    data.setup()
    module = FlowModule(functools.partial(FC, width=4), loss="mse", stop=StoppingCriteria(max_steps=1))
    assert step_cost(module, data, CPU, torch.float64).seconds > 0


def test_a_frozen_kernel_is_counted_and_not_tried() -> None:
    data = digits(n_train=200, n_test=100)
    data.setup()
    module = KernelModule(functools.partial(FC, width=10**6), at="end", checkpoint="is/not/there.ckpt")
    cost = step_cost(module, data, CPU, torch.float64)
    assert cost.weights == 200
    assert cost.bytes >= 8 * 200 * (200 + 100)  # features of both sets
    assert cost.seconds > 0


# ---------------------------------------------------------------------- estimates

CONFIG: dict[str, Any] = {
    "trainer": {"precision": "64-true"},
    "model": {"class_path": "x.FlowModule", "init_args": {"network": {"class_path": "FC", "init_args": {"width": 4}}}},
    "data": {"class_path": "Digits", "init_args": {"n_train": 40}},
}


EXPECTED = expected_evaluations(2.0, CONFIG["data"]["init_args"]["n_train"])
"""Steps of a member of width 4 and alpha 1 before any run has finished."""


def group(width: int = 4, **arguments: Any) -> ConfigGroup:
    config = copy.deepcopy(CONFIG)
    config["model"]["init_args"]["network"]["init_args"]["width"] = width
    config["model"]["init_args"] |= arguments
    return ConfigGroup.of(config, {"width": width}, [(1.0, 0)])


def build(config: Mapping[str, Any]) -> tuple[FlowModule, FlowData]:
    width = config["model"]["init_args"]["network"]["init_args"]["width"]
    return FlowModule(functools.partial(FC, width=width)), digits()


def counted(steps: float) -> float:
    """Evaluations of steps and of the training and test sets at each observation."""
    return steps + 2 * costs.observations(steps)


def row(one: ConfigGroup, tried: float | None, status: str = "finished") -> dict[str, Any]:
    return {"family": one.key, "tried": tried, "status": status}


@pytest.fixture
def evaluations(monkeypatch: pytest.MonkeyPatch) -> list[FlowModule]:
    """Each takes two seconds."""
    seen: list[FlowModule] = []

    def step(module: FlowModule, *args: Any) -> StepCost:
        seen.append(module)
        return StepCost(7, 100.0, 2.0)

    monkeypatch.setattr(costs, "step_cost", step)
    return seen


def test_steps_are_those_of_runs_that_have_finished(evaluations: list[FlowModule]) -> None:
    one, other, known = group(4), group(5), CostModel(build, CPU)
    assert known.of([])(one).seconds == 2.0 * counted(EXPECTED)  # nothing is known
    rows = [row(one, 10), row(one, 30), row(group(6), 80), row(group(6), None)]
    assert known.of(rows)(one).seconds == 2.0 * counted(20)  # its own
    assert known.of(rows)(other).seconds == 2.0 * counted(40)  # those of all
    assert "40 steps a member" in known.steps_are
    assert len(evaluations) == 2  # each network is timed once


def test_a_limit_of_steps_is_heeded(evaluations: list[FlowModule]) -> None:
    assert CostModel(build, CPU).of([])(group(stop={"max_steps": 60})).seconds == 2.0 * counted(60)


def test_observers_and_the_start_of_a_batch_are_counted(evaluations: list[FlowModule]) -> None:
    """Each callback is an evaluation at each observation; a batch of two members starts once."""
    plain = group(4)
    config = copy.deepcopy(dict(plain.config))
    config["trainer"]["callbacks"] = [{"class_path": "x.One"}, {"class_path": "x.Other"}]
    watched = ConfigGroup.of(config, {}, [(1.0, 0), (1.0, 1)])
    known = CostModel(build, CPU)
    cost = known.of([])
    assert cost(watched).seconds - cost(plain).seconds == 2.0 * 2 * costs.observations(EXPECTED)
    assert Batch(watched, (1.0,), (0, 1), cost(watched)).seconds == known.start + 2 * cost(watched).seconds


def test_kernels_that_observers_compute_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """One is timed, on the samples of the observers, and only where there is such an observer."""
    plain = group(4)
    config = copy.deepcopy(dict(plain.config))
    config["trainer"]["callbacks"] = [{"class_path": "lazy_lightning.callbacks.KernelDrift"}]
    watched = ConfigGroup.of(config, {}, [(1.0, 0)])
    data = digits(n_train=40, n_test=30)
    data.setup()
    module = FlowModule(functools.partial(FC, width=4))
    assert step_cost(module, data, CPU, torch.float64).kernel == 0
    assert step_cost(module, data, CPU, torch.float64, 20).kernel > 0

    def step(module: FlowModule, *args: Any) -> StepCost:
        return StepCost(7, 100.0, 2.0, 5.0 if args[-1] else 0.0)

    monkeypatch.setattr(costs, "step_cost", step)
    cost = CostModel(build, CPU, imports=3.0).of([])
    more = cost(watched).seconds - cost(plain).seconds
    assert more == 2.0 * costs.observations(EXPECTED) + 5.0 * 28
    assert 0 < cost(plain).start < 3.0
    config["trainer"]["callbacks"] = [{"class_path": "x.LazinessIndex"}, {"class_path": "x.PathDistance"}]
    both = cost(ConfigGroup.of(config, {}, [(1.0, 0)])).seconds - cost(plain).seconds
    assert both == pytest.approx(2.0 * (2 * costs.observations(EXPECTED) + 600 + EXPECTED / 2) + 5.0)


def test_what_cannot_be_timed_does_not_stop_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its run will tell why; a wrong configuration is told now."""

    def fails(error: Exception) -> Any:
        def step(*args: Any) -> StepCost:
            raise error

        return step

    monkeypatch.setattr(costs, "step_cost", fails(torch.OutOfMemoryError("no")))
    cost = CostModel(build, CPU).of([])(group())
    assert (cost.weights, cost.bytes, cost.seconds) == (0, 0.0, 0.0)
    monkeypatch.setattr(costs, "step_cost", fails(ConfigError("no such loss")))
    with pytest.raises(ConfigError, match="no such loss"):
        CostModel(build, CPU).of([])(group())
