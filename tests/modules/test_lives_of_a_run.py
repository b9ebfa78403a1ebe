"""What happens to a FlowModule around a run: fitted twice, ended and resumed, with a member that fails."""

import json

import pytest
import torch
from fits import digits, fit, module

from lazy_lightning.callbacks import ClosingSummary, RunCheckpoint
from lazy_lightning.errors import ConfigError
from lazy_lightning.flow import StopReason
from lazy_lightning.modules import StoppingCriteria
from lazy_lightning.modules.observed_module import without_failed


def test_fitted_twice_starts_again(tmp_path):
    model = module(stop=StoppingCriteria(max_steps=12))
    first = fit(tmp_path / "first", model)
    second = fit(tmp_path / "second", model)
    assert second.table["observation"].tolist() == first.table["observation"].tolist()
    assert second.last("train/loss") == first.last("train/loss")


def test_ended_run_resumed_says_its_summary_again(tmp_path):
    ended = fit(tmp_path / "ended", callbacks=[ClosingSummary(), RunCheckpoint()], stop=StoppingCriteria(max_steps=12))
    again = fit(
        tmp_path / "again",
        callbacks=[ClosingSummary(), RunCheckpoint()],
        stop=StoppingCriteria(max_steps=12),
        ckpt_path=ended.folder / "checkpoint.ckpt",
    )
    one, other = (json.loads((f.folder / "summary.json").read_text()) for f in (ended, again))
    assert one["members"] == other["members"]


def test_limit_raised_without_the_command_line(tmp_path):
    short = fit(tmp_path / "short", callbacks=[RunCheckpoint()], stop=StoppingCriteria(max_steps=12))
    longer = fit(tmp_path / "longer", stop=StoppingCriteria(max_steps=30), ckpt_path=short.folder / "checkpoint.ckpt")
    whole = fit(tmp_path / "whole", stop=StoppingCriteria(max_steps=30))
    assert longer.last("t") == whole.last("t")
    assert longer.last("displacement/total") == whole.last("displacement/total")


@pytest.mark.parametrize("change", [{"loss": "hinge"}, {"centering": False}])
def test_another_objective_is_refused(tmp_path, change):
    short = fit(tmp_path / "short", callbacks=[RunCheckpoint()], stop=StoppingCriteria(max_steps=5))
    with pytest.raises(ConfigError, match="loss or the centering is another"):
        fit(tmp_path / "other", ckpt_path=short.folder / "checkpoint.ckpt", **change)


def test_other_data_is_refused(tmp_path):
    short = fit(tmp_path / "short", callbacks=[RunCheckpoint()], stop=StoppingCriteria(max_steps=5))
    with pytest.raises(ConfigError, match="their content"):
        fit(tmp_path / "other", data=digits(train_seed=1), ckpt_path=short.folder / "checkpoint.ckpt")


def test_failed_members_are_no_part_of_the_ensemble():
    outputs = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    reason = torch.tensor([StopReason.MARGINS_MET, StopReason.DT_UNDERFLOW, StopReason.RUNNING], dtype=torch.int8)
    kept = without_failed(outputs, reason)
    assert kept.isnan().tolist() == [[False, False], [True, True], [False, False]]
