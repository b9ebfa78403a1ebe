"""Every observer and sink on the device: the host's numbers, and a bounded number of waits an observation."""

import functools

import pytest
import torch
from safetensors.torch import load_file

from emulated.fitting import DEVICE, HOST, ReLUNetwork, assert_same_numbers, fitted, flow, scaled, small
from emulated.waits import counted
from lazy_lightning import callbacks
from lazy_lightning.callbacks import (
    T1,
    ActivationDrift,
    ActivationStability,
    ClosingSummary,
    HParams,
    KernelDrift,
    KernelEvolution,
    KernelSnapshots,
    KernelSpectrum,
    LazinessIndex,
    NeuronPaths,
    OutputsWriter,
    PathDistance,
    PopulationLoss,
    Sharpness,
    TangentDeparture,
    TLazy,
    WeightDisplacement,
)
from lazy_lightning.data import TeacherStudent
from lazy_lightning.modules.observation import Observer
from lazy_lightning.nn import TwoLayer
from lazy_lightning.ntk.laziness import PowerMethod

# By observer: how to build it, and the most waits of an observation after the first (whose kernels, plans and power
# methods are made once). KernelDrift asks which members are due, and names those whose kernel is not finite;
# KernelSpectrum asks the former and checks two decompositions; KernelEvolution, one member after the other, plans three
# kernels and checks a decomposition; PathDistance follows a flow, in at most two bursts here.
OBSERVERS = {
    "ActivationDrift": (lambda: [ActivationDrift(samples=5)], 0),
    "ActivationStability": (lambda: [ActivationStability(samples=5)], 0),
    "KernelDrift": (lambda: [KernelDrift(samples=6)], 2),
    "KernelDrift in tiles": (lambda: [KernelDrift(samples=6, hold=False, tile=4)], 2),
    "KernelEvolution": (lambda: [KernelEvolution(samples=6, test_samples=5)], 30),
    "KernelSpectrum": (lambda: [KernelSpectrum(samples=6, always=True)], 3),
    "LazinessIndex": (lambda: [LazinessIndex(samples=5, method=SHORT)], 0),
    "Sharpness": (lambda: [Sharpness(samples=5, products=3, vectors=2, t_factor=None)], 3),
    "TLazy": (lambda: [TLazy(SHORT)], 0),
    "TangentDeparture": (lambda: [TangentDeparture(samples=5, always=True)], 0),
    "WeightDisplacement": (lambda: [WeightDisplacement()], 0),
    "PathDistance": (lambda: [PathDistance()], 10),
    "PopulationLoss": (lambda: [PopulationLoss(20)], 3),  # new samples each time: two copies, and a look at the labels
    "NeuronPaths": (lambda: [NeuronPaths()], 0),
}
SHORT = PowerMethod(tolerance=0.1, max_iterations=5, starts=1)
OF_A_TEACHER = ("PopulationLoss", "NeuronPaths")


def setting(name, build):
    """The module and the data that an observer has something to measure on."""
    mini_batches, alone = ({"batch_size": 8}, {"companions": []}) if build is scaled else ({}, {})
    if name in OF_A_TEACHER:
        network = functools.partial(TwoLayer, width=5)
        return build(network=network, loss="mse", **alone), TeacherStudent(d=2, n_train=16, n_test=10, **mini_batches)
    network = {"network": ReLUNetwork} if name == "ActivationStability" else {}
    return build(loss="mse", **network, **alone), small(**mini_batches)


def counting(observer):
    """The waits of each observation, in a list that a run fills."""
    found, plain = [], observer.observe

    def observe(*args):
        with counted() as waits:
            columns = plain(*args)
        found.append([str(wait) for wait in waits])
        return columns

    observer.observe = observe
    return found


@pytest.mark.parametrize("build", [flow, scaled])
@pytest.mark.parametrize("name", OBSERVERS)
def test_observer_equals_the_hosts_and_waits_a_bounded_number_of_times(name, build, tmp_path):
    make, most = OBSERVERS[name]
    tables = []
    for device in (HOST, DEVICE):
        observers, (module, data) = make(), setting(name, build)
        waits = [counting(observer) for observer in observers]
        tables.append(fitted(tmp_path, device, module, observers, data)[1])
    assert_same_numbers(*tables)
    for of_observer in waits:
        assert all(len(each) <= most for each in of_observer[1:]), of_observer


def test_every_observer_is_among_them():
    exported = {name for name in callbacks.__all__ if issubclass(getattr(callbacks, name), Observer)}
    assert exported - {"T1"} <= {name.partition(" ")[0] for name in OBSERVERS}  # T1 looks at others: below


def test_t1_by_all_definitions(tmp_path):
    def observers():
        definitions = ["half_loss", "kernel_drift", "tangent_departure"]
        return [KernelDrift(samples=5), TangentDeparture(samples=5, always=True), T1(definitions)]

    tables = [fitted(tmp_path, device, flow(), observers())[1] for device in (HOST, DEVICE)]
    assert_same_numbers(*tables)
    assert {"t1/half_loss", "t1/kernel_drift", "t1/tangent_departure"} <= set(tables[0].columns)


@pytest.mark.parametrize("build", [flow, scaled])
def test_files_of_a_run_equal_the_hosts(build, tmp_path):
    """Outputs and kernels; the summary and the hyperparameters are written without an error."""
    for device in (HOST, DEVICE):
        fitted(tmp_path, device, build(), [OutputsWriter(), KernelSnapshots(5), ClosingSummary(), HParams()])
        assert (tmp_path / device / "summary.json").is_file()
    for name in ("outputs.safetensors", "kernels.safetensors"):
        expected, found = (load_file(tmp_path / device / name) for device in (HOST, DEVICE))
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-8, atol=1e-9, msg=key)


@pytest.mark.parametrize("integrator", ["explicit", "auto"])
def test_members_within_long_steps(integrator, tmp_path):
    """T1 and KernelEvolution read the integrator's interpolants."""

    def observers():
        definitions = ["half_loss", "kernel_drift", "tangent_departure"]
        looked_at = [KernelDrift(samples=5), TangentDeparture(samples=5, always=True), T1(definitions)]
        return [*looked_at, KernelEvolution(samples=5, test_samples=5)]

    tables = [fitted(tmp_path, device, flow(integrator=integrator), observers())[1] for device in (HOST, DEVICE)]
    assert_same_numbers(*tables)
    assert tables[0].duplicated(["member", "tried"]).any()
