"""A flow whose training samples are divided among devices, as one of them sees it.

There is one emulated device, so the slice is the whole set and an exchange changes nothing: what is looked at here is
where tensors lie, and that the host does not wait.
"""

import pytest

from emulated.fitting import DEVICE, HOST, assert_same_numbers, fitted, flow
from emulated.memory import NAME
from emulated.waits import forbidden
from lazy_lightning.callbacks import ActivationDrift, KernelDrift, LazinessIndex, TLazy
from lazy_lightning.flow import MomentumFlow
from lazy_lightning.modules import FlowModule
from lazy_lightning.modules.ranks import Ranks
from lazy_lightning.modules.sample_ranks import SampleRanks
from lazy_lightning.ntk.laziness import PowerMethod


class Alone(SampleRanks):
    """The first of two processes, which has all samples."""

    def __init__(self):
        super().__init__(0, 2)

    def rows(self, samples):
        return slice(0, samples)

    def sum(self, x):
        assert x.device.type == NAME
        return x

    def of_first(self, x):
        assert x.device.type == NAME
        return x


@pytest.fixture
def alone(monkeypatch):
    monkeypatch.setattr(FlowModule, "_divided_processes", lambda self: (Ranks(), Alone()))


def observers():
    few = PowerMethod(tolerance=1e-2, max_iterations=3)
    return [KernelDrift(samples=5, split="train"), LazinessIndex(samples=5, method=few), TLazy(few), ActivationDrift()]


def test_a_slice_is_evaluated_and_observed_on_the_device(tmp_path, request):
    expected = fitted(tmp_path, HOST, flow(controller="reference"), observers())[1]
    request.getfixturevalue("alone")
    trainer, found = fitted(tmp_path, DEVICE, flow(controller="reference"), observers())
    assert_same_numbers(expected, found)
    module = trainer.lightning_module
    assert module.train_split.x.device.type == "cpu"
    assert module.objective.own.x.device.type == NAME


@pytest.mark.skipif(NAME == "cuda", reason="no record of synchronisations")
def test_no_wait_in_a_tried_step_with_an_exchange(tmp_path, alone, monkeypatch):
    burst, bursts = MomentumFlow._burst, []

    def without_waits(self, *args, **kwargs):
        bursts.append(self.steps)
        with forbidden():
            return burst(self, *args, **kwargs)

    monkeypatch.setattr(MomentumFlow, "_burst", without_waits)
    fitted(tmp_path, DEVICE, flow(tau=0.1))
    assert max(bursts) > 1
