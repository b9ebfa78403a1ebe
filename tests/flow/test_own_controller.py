"""A controller of a user's own steers flows from Python and from a configuration."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import problem

from lazy_lightning.cli import main
from lazy_lightning.errors import ConfigError
from lazy_lightning.flow import Change, Controller, Decision, FlowState, MarginsMet, MomentumFlow, StepsTried
from lazy_lightning.flow.controllers import controller
from lazy_lightning.modules import FlowModule, KernelModule

PACKAGE = """
import torch
from torch import Tensor
from lazy_lightning.flow import Change, Controller, Decision


class Proportional(Controller):
    growth = 1.5

    def __init__(self, target: float = 1e-3) -> None:
        self.target = target

    def __call__(self, dt: Tensor, change: Change) -> Decision:
        accept = change.gradient < 4 * self.target
        factor = (self.target / change.gradient).sqrt().clamp(0.2, self.growth)
        return Decision(accept, dt * torch.where(factor.isfinite(), factor, 0.2))
"""
CONFIGURATION = """
trainer: {{accelerator: cpu, logger: false, enable_progress_bar: false, callbacks: []}}
model:
  class_path: {model}
  init_args:
    network: {{class_path: FC, init_args: {{width: 5, depth: 1}}}}
    controller: {{class_path: own_controllers.Proportional, init_args: {{target: 2.0e-3}}}}
    stop: {{max_steps: 6}}
data: {{class_path: Digits, init_args: {{n_train: 20, n_test: 10}}}}
"""


class Proportional(Controller):
    """Aims at one gradient change in each step."""

    growth = 1.5

    def __init__(self, target: float = 1e-3) -> None:
        self.target = target

    def __call__(self, dt: torch.Tensor, change: Change) -> Decision:
        """Steps ahead by the square root of what r lacks."""
        accept = change.gradient < 4 * self.target
        factor = (self.target / change.gradient).sqrt().clamp(0.2, self.growth)
        return Decision(accept, dt * torch.where(factor.isfinite(), factor, 0.2))


def run(rows: list[int]) -> FlowState:
    setting = problem((0.1, 1.0, 30.0), (0, 1), samples=8).member(rows)
    events = [MarginsMet(0.5), StepsTried(120)]
    return setting.to_end(controller=Proportional(), dt=0.1, events=events, compact=True).flow_state


@settings(max_examples=5)
@given(rows=st.permutations(range(6)).flatmap(lambda p: st.integers(1, 6).map(lambda k: p[:k])))
def test_members_do_not_depend_on_one_another(rows: list[int]) -> None:
    alone, together = run(rows), run(list(range(6)))
    assert torch.equal(alone.accepted, together.accepted[rows])
    torch.testing.assert_close(alone.displacement, together.displacement[rows], rtol=1e-9, atol=0)


@pytest.mark.parametrize("model", [FlowModule, KernelModule])
def test_by_configuration(model: type, own_folder: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_controllers.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    used: list[dict[str, Any]] = []
    plain = MomentumFlow.__init__

    def noting(self: MomentumFlow, *args: Any, **options: Any) -> None:
        used.append(options)
        plain(self, *args, **options)

    monkeypatch.setattr(MomentumFlow, "__init__", noting)
    Path("own.yaml").write_text(CONFIGURATION.format(model=model.__name__))
    assert main(["fit", "--config", "own.yaml"]) == 0
    assert [type(options["integrator"].controller).__name__ for options in used] == ["Proportional"]
    assert used[0]["integrator"].controller.target == 2e-3


def test_what_is_no_controller_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected one of gradient_change, reference, or a Controller"):
        controller(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="abstract"):
        Controller()  # type: ignore[abstract]
