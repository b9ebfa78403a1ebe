"""Spectra of the kernel on images and on noise, against the singular values of the Jacobian."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from closeness import assert_close
from fits import digits, module
from observed import watch

from lazy_lightning import load_runs
from lazy_lightning.callbacks import ClosingSummary, KernelSnapshots
from lazy_lightning.errors import AnalysisError
from lazy_lightning.figures.image_spectra import PIXELS, image_spectra
from lazy_lightning.modules import StoppingCriteria
from lazy_lightning.report import write_report

SAMPLES = 20


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    found = {}
    for noise in (False, True):
        model = module(seeds=2, stop=StoppingCriteria(max_steps=1))
        callbacks = [ClosingSummary(), KernelSnapshots(SAMPLES, "train", seeds=2)]
        found[noise] = watch(folder / str(noise), *callbacks, model=model, data=digits(random_pixels=noise)).module
    return found, load_runs(folder)


def singular_values(fit, member: int) -> np.ndarray:
    """Squares of the singular values of the Jacobian (n, N) at w0 over their sum, in descending order."""
    x, w0 = fit.data.train.x[:SAMPLES], fit.w0[member : member + 1]
    jacobian = torch.func.jacrev(lambda w: fit.network(w, x)[0, :, 0])(w0)[:, 0]
    squares = torch.linalg.svdvals(jacobian).square()
    return (squares / squares.sum()).numpy()


def test_spectra_are_those_of_the_jacobian(fitted):
    fits, runs = fitted
    drawn = image_spectra(runs)
    for noise, name in ((False, "images"), (True, "noise")):
        values = np.stack([singular_values(fits[noise], member) for member in range(2)])
        table = drawn.table[drawn.table["inputs"] == name]
        assert_close(table["mean"].to_numpy(copy=True), np.exp(np.log(values).mean(axis=0)), rtol=1e-7)
        rank = np.mean(1 / (values**2).sum(axis=1))
        assert float(drawn.findings[f"effective rank, {name}"].split(" ")[0]) == pytest.approx(rank, rel=0.05)
        condition = np.mean(values[:, 0] / values[:, -1])
        assert float(drawn.findings[f"condition number, {name}"].split(" ")[0]) == pytest.approx(condition, rel=0.5)
    assert set(drawn.table["seeds"]) == {2}
    assert "on 20 images and on as many of independent uniform pixels" in drawn.caption


def test_a_report_draws_them_across_images_and_noise(fitted, tmp_path):
    _, runs = fitted
    drawn = write_report(runs, tmp_path, tensorboard=False, figures={}).drawn
    assert [figure.name for figure in drawn] == ["image_spectra"]
    assert (tmp_path / "pixels/image_spectra.png").is_file()
    assert not write_report(runs[~runs[PIXELS]], tmp_path, tensorboard=False, figures={}).drawn


def test_both_kinds_of_inputs_are_needed(fitted):
    _, runs = fitted
    with pytest.raises(AnalysisError, match=r"no kernels of one size were kept on noise: add the callback"):
        image_spectra(runs[~runs[PIXELS]])
