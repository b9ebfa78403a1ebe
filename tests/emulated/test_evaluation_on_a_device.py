"""Placement is a step of its own: test, validate, predict and calls of a module equal the CPU's, wherever it is."""

import functools

import pytest
import torch

from emulated.fitting import DEVICE, HOST, assert_same_numbers, fitted, flow, kernel, scaled, small, trainer
from emulated.memory import NAME

MODULES = {
    "flow": flow,
    "kernel": kernel,
    "scaled": scaled,
    "kernel of outputs": functools.partial(kernel, kernel_outputs="mean"),
}
of_all_modules = pytest.mark.parametrize("build", MODULES.values(), ids=MODULES)


def data_of(build):
    return small(n_val=9, batch_size=8) if build is scaled else small(n_val=9)


@of_all_modules
@pytest.mark.parametrize("centering", [True, False])
def test_fit_equals_the_hosts(build, centering, tmp_path):
    tables = [fitted(tmp_path, device, build(centering=centering))[1] for device in (HOST, DEVICE)]
    assert len(tables[0]) >= 12
    assert_same_numbers(*tables)


def evaluated(module, data, device):
    """All that test, validate and predict give, by name."""
    run = trainer(None, device, limit_val_batches=1.0)
    tested = run.test(module, datamodule=data, verbose=False)[0]
    validated = run.validate(module, datamodule=data, verbose=False)[0]
    outputs = torch.cat([part.cpu() for part in run.predict(module, datamodule=data)])
    return {name: torch.as_tensor(value) for name, value in {**tested, **validated, "outputs": outputs}.items()}


@of_all_modules
@pytest.mark.parametrize("first", [None, DEVICE])
def test_test_validate_and_predict_equal_the_hosts(build, first, tmp_path):
    """Of a module without a fit, and after a fit on the device; the module goes from device to host and back."""
    module, reference = build(), build()
    if first is not None:
        fitted(tmp_path, first, module)
        fitted(tmp_path / "reference", HOST, reference)
    expected = evaluated(reference, data_of(build), HOST)
    assert {name.partition("/")[0] for name in expected} == {"test", "val", "outputs"}
    for then in (DEVICE, HOST, DEVICE) if first is None else (HOST, DEVICE):
        found = evaluated(module, data_of(build), then)
        assert found.keys() == expected.keys()
        for name, value in found.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-8, atol=1e-9, msg=f"{name} on {then}")


@of_all_modules
def test_module_is_called_wherever_it_lies(build, tmp_path):
    """On the host after a fit on the device, and on the device again after ``to``."""
    expected, x = None, torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for device in (HOST, DEVICE):
        module = build()
        fitted(tmp_path, device, module)
        on_host = module(x)
        assert on_host.device.type == "cpu"
        expected = on_host if expected is None else expected
        torch.testing.assert_close(on_host, expected, rtol=1e-8, atol=1e-9)
        moved = module.to(NAME)(x.to(NAME))
        assert moved.device.type == NAME
        torch.testing.assert_close(moved.cpu(), expected, rtol=1e-8, atol=1e-9)
        module.cpu()


def test_an_evaluation_moves_nothing(tmp_path):
    """Samples that are not where the module is are refused, as by any module of torch."""
    module = flow()
    fitted(tmp_path, DEVICE, module)
    with pytest.raises(RuntimeError, match="same device"):
        module(torch.randn(3, 4).to(NAME))
    assert module.centering.alpha.device.type == "cpu"
    assert all(b.device.type == "cpu" for b in module.network.template.buffers())
