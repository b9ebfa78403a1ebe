"""A run interrupted at any observation goes on to the same table."""

import pytest
import torch
from fits import assert_same_curves, digits, fit, module
from pytorch_lightning import Callback

from lazy_lightning.callbacks import RunCheckpoint, TangentDeparture
from lazy_lightning.errors import ConfigError
from lazy_lightning.flow import StopReason
from lazy_lightning.modules import StoppingCriteria

MEMBERS = {"alpha": [0.1, 10.0], "seeds": 2}


class StopAt(Callback):
    """Asks the trainer to stop after some bursts."""

    def __init__(self, bursts):
        self.left = bursts

    def on_train_batch_end(self, trainer, *args):
        self.left -= 1
        trainer.should_stop = trainer.should_stop or self.left == 0


class SaveAt(StopAt):
    """Saves midway, and lets the run go on."""

    def on_train_batch_end(self, trainer, *args):
        self.left -= 1
        if self.left == 0:
            trainer.save_checkpoint(f"{trainer.log_dir}/checkpoint.ckpt")


def options(rule):
    # The margin lets the members end apart.
    return {**MEMBERS, **rule, "stop": StoppingCriteria(margin=0.3, margin_share=0.9, max_steps=200)}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return {
        name: fit(tmp_path_factory.mktemp("whole"), **options(rule), precision=precision).table
        for name, (rule, precision) in CASES.items()
    }


CASES = {
    "gradient flow": ({}, "64-true"),
    "momentum": ({"tau": 0.5}, "64-true"),
    "mu/t": ({"mu": 3.0}, "64-true"),
    "float32": ({}, "32-true"),
}


@pytest.mark.parametrize("bursts", [1, 9])
@pytest.mark.parametrize("how", [StopAt, SaveAt])
@pytest.mark.parametrize("case", CASES)
def test_resumed_run_has_the_undisturbed_table(tmp_path, undisturbed, case, how, bursts):
    rule, precision = CASES[case]
    callbacks = [how(bursts)] + [RunCheckpoint()] * (how is StopAt)
    fit(tmp_path / "first", callbacks=callbacks, precision=precision, **options(rule))
    second = fit(
        tmp_path / "second", precision=precision, ckpt_path=tmp_path / "first/checkpoint.ckpt", **options(rule)
    )
    assert undisturbed[case].observation.max() > 9
    assert undisturbed[case]["t1/half_loss"].notna().any()
    assert_same_curves(second.table, undisturbed[case])


def test_run_that_has_ended_stays_as_it_is(tmp_path):
    first = fit(tmp_path / "a", callbacks=[RunCheckpoint()], **MEMBERS)
    second = fit(tmp_path / "b", ckpt_path=tmp_path / "a/checkpoint.ckpt", **MEMBERS)
    assert_same_curves(second.table, first.table)
    assert torch.equal(second.module.w, first.module.w)


def test_checkpoint_loads_without_pickled_code(tmp_path):
    run = fit(tmp_path, callbacks=[RunCheckpoint()], **MEMBERS)
    saved = torch.load(tmp_path / "checkpoint.ckpt", weights_only=True)
    assert torch.equal(saved["state_dict"]["w"], run.module.w)
    assert saved["lazy_lightning"]["alphas"] == [0.1, 0.1, 10.0, 10.0]


def test_wall_time_goes_on(tmp_path):
    first = fit(tmp_path / "a", callbacks=[StopAt(5), RunCheckpoint()])
    second = fit(tmp_path / "b", ckpt_path=tmp_path / "a/checkpoint.ckpt")
    assert second.table.wall.is_monotonic_increasing
    assert second.module.wall > first.module.wall


@pytest.mark.parametrize("other", [{"alpha": [0.1, 1.0]}, {"seeds": 3}, {"seeds": [5, 6]}], ids=str)
def test_other_members_are_refused(tmp_path, other):
    fit(tmp_path / "a", callbacks=[StopAt(2), RunCheckpoint()], **MEMBERS)
    with pytest.raises(ConfigError, match="the checkpoint holds members of alpha"):
        fit(tmp_path / "b", ckpt_path=tmp_path / "a/checkpoint.ckpt", **{**MEMBERS, **other})


def test_evaluated_from_a_checkpoint(tmp_path):
    run = fit(tmp_path, callbacks=[RunCheckpoint()], **MEMBERS)
    fresh = module(**MEMBERS)
    (values,) = run.trainer.test(fresh, datamodule=digits(), ckpt_path=tmp_path / "checkpoint.ckpt", verbose=False)
    assert values["test/loss/alpha=10"] == pytest.approx(sum(run.last("test/loss")[2:]) / 2)


def test_stopped_for_a_reason_of_the_host_is_over(tmp_path):
    fit(tmp_path / "a", callbacks=[RunCheckpoint()], stop=StoppingCriteria(margin=1e9, max_wall=0.1))
    second = fit(
        tmp_path / "b", ckpt_path=tmp_path / "a/checkpoint.ckpt", stop=StoppingCriteria(margin=1e9, max_wall=0.1)
    )
    assert second.module.flow.reasons == [StopReason.MAX_WALL]


def test_departures_of_ended_members_are_resumed_to_the_bit(tmp_path):
    """They are kept from the observation after their last step, and not evaluated again in other company."""
    stop = StoppingCriteria(margin=0.3, margin_share=0.9, max_steps=200)

    def run(name, *callbacks, **more):
        watched = TangentDeparture(samples=10, always=True)
        return fit(tmp_path / name, module(**MEMBERS, stop=stop), None, [watched, *callbacks], **more)

    whole = run("whole")
    ended = whole.table.groupby("observation")["reason"].apply(lambda reasons: int((reasons != 0).sum()))
    bursts = int(ended[ended > 0].index[0]) + 1
    assert 0 < ended[bursts] < 4
    run("part", StopAt(bursts), RunCheckpoint())
    resumed = run("resumed", ckpt_path=tmp_path / "part/checkpoint.ckpt")
    assert_same_curves(resumed.table, whole.table)
