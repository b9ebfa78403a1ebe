"""Claims: their verdicts, what they measure on runs of known laws, their page, and eight of them on real networks."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from made_runs import FEATURE_SLOPE, made_kernels, made_sweep
from safetensors.numpy import load_file, save_file

from lazy_lightning import load_runs
from lazy_lightning.claims import (
    CLAIMS,
    EXPERIMENTS,
    Evaluated,
    Expected,
    Measurement,
    Verdict,
    evaluate,
    write_claims,
)
from lazy_lightning.claims.claim import overall
from lazy_lightning.claims.numbers_file import StoredNumbers, read_numbers, with_stored
from lazy_lightning.claims.page import NUMBERS
from lazy_lightning.cli import main
from lazy_lightning.cli.bundled import find_config
from lazy_lightning.errors import DataError
from lazy_lightning.figures.catalogue import EVERY_FIGURE, FIGURES

BY_NAME = {claim.name: claim for claim in CLAIMS}
QUICK = (
    "kernel_drift_lazy",
    "kernel_drift_feature",
    "t1_loss",
    "lazy_time_alpha",
    "displacement_lazy",
    "activation_drift_lazy",
    "linearisation_end",
    "kernel_is_the_limit",
)
KNOWN = {
    "kernel_drift_lazy": -1.0,
    "kernel_drift_feature": FEATURE_SLOPE,
    "kernel_drift_collapse": 0.5,
    "alpha_star": -0.5,
    "t1_loss": 1.0,
    "t1_kernel": 1.0,
    "lazy_time_alpha": 0.0,
    "lazy_time_width": 0.0,
    "t_lazy": 0.0,
    "displacement_lazy": -1.0,
    "activation_drift_lazy": -1.0,
    "weight_changes_inside": -1.0,
    "weight_changes_at_the_ends": -0.5,
    "linearisation_end": -1.0,
    "linearisation_path": -1.0,
    "plateau": 0.0,
    "kernel_is_the_limit": 0.0,
}
"""The laws of tests/made_runs.py."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the experiment ``scaling``, whose columns obey known laws."""
    root = tmp_path_factory.mktemp("claims")
    scales = [10.0 ** (k / 2) for k in range(-6, 9)]
    made_sweep(root / "scaling" / "networks", scales=scales)
    made_kernels(root / "scaling" / "kernels")
    return root


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The experiment ``scaling`` on 30 images with one small width, two seeds, and three points of each side."""
    folder = tmp_path_factory.mktemp("small")
    grid = {
        "data.n_train": 30,
        "data.n_test": 60,
        "data.n_kernel": 20,
        "model.dt": 1e-3,
        "model.network.width": [24],
        "sqrt_h_alpha": [1e-2, 2e-2, 4e-2, 1e2, 3e2, 1e3],
        "seeds": 2,
    }
    (folder / "sweep.yaml").write_text(yaml.safe_dump({"grid": grid, "kernels": ["init"]}))
    configs = ["digits_fc.yaml", "callbacks/t1.yaml", "overlays/auto.yaml"]
    options = [word for config in configs for word in ("--config", config)]
    where = ["--sweep", str(folder / "sweep.yaml"), "--out", str(folder / "runs"), "--workers", "0"]
    assert main(["sweep", *options, *where]) == 0
    return load_runs(folder / "runs")


@pytest.mark.parametrize(
    ("value", "error", "expected"),
    [
        (-1.0, 0.04, Verdict.MET),
        (-1.0, 0.06, Verdict.UNRESOLVED),
        (-1.09, 0.01, Verdict.UNRESOLVED),
        (-1.3, 0.09, Verdict.NOT_MET),
        (-1.3, 0.11, Verdict.UNRESOLVED),
        (-1.0, math.nan, Verdict.UNRESOLVED),
    ],
)
def test_the_interval_of_two_errors_decides(value: float, error: float, expected: Verdict) -> None:
    assert Expected.near(-1, 0.1).verdict(Measurement(value, error)) is expected


@pytest.mark.parametrize(
    ("name", "widths"),
    [("kernel_drift_lazy", 4), ("kernel_drift_feature", 3), ("kernel_drift_collapse", 1), ("alpha_star", 1)],
)
def test_a_width_with_lazy_scales_alone_counts_on_the_lazy_side(tmp_path: Path, name: str, widths: int) -> None:
    made_sweep(tmp_path / "all", widths=[25, 50, 100], scales=[10.0 ** (k / 2) for k in range(-6, 9)])
    made_sweep(tmp_path / "lazy", widths=[400], scales=[1e2, 1e3, 1e4])
    (found,) = evaluate([BY_NAME[name]], {"scaling": load_runs(tmp_path)})
    assert len(found.measured) == widths
    assert found.verdict is Verdict.MET


def test_one_number_that_disagrees_decides_for_the_claim() -> None:
    assert overall([Verdict.MET, Verdict.NOT_MET, Verdict.UNRESOLVED]) is Verdict.NOT_MET
    assert overall([Verdict.MET, Verdict.UNRESOLVED]) is Verdict.UNRESOLVED
    assert overall([Verdict.MET, Verdict.MET]) is Verdict.MET


def test_the_catalogue_is_consistent() -> None:
    assert len(BY_NAME) == len(CLAIMS)
    for claim in CLAIMS:
        assert claim.experiment in EXPERIMENTS
        assert claim.figure is None or claim.figure in EVERY_FIGURE
        assert claim.expected.low < claim.expected.high
    for experiment in EXPERIMENTS.values():
        assert any(EXPERIMENTS[claim.experiment] is experiment for claim in CLAIMS)
        for name in re.findall(r"\S+\.yaml", " ".join(experiment.commands.values())):
            assert find_config(name).is_file()


@pytest.mark.parametrize("name", KNOWN)
def test_known_laws_are_recovered(made: Path, name: str) -> None:
    (found,) = evaluate([BY_NAME[name]], {"scaling": load_runs(made / "scaling")})
    assert found.measured, found.reason
    for one in found.measured:
        assert one.value == pytest.approx(KNOWN[name], abs=0.03 if "collapse" in name or "star" in name else 1e-6)
    assert found.verdict is not Verdict.NOT_MET


@pytest.mark.parametrize("name", QUICK)
def test_claim_on_small_networks(small: pd.DataFrame, name: str) -> None:
    """The number lies in the expected interval; two seeds and three points do not resolve its error."""
    (found,) = evaluate([BY_NAME[name]], {"scaling": small})
    assert found.measured, found.reason
    for one in found.measured:
        assert found.claim.expected.low <= one.value <= found.claim.expected.high, str(one)


def test_page_and_numbers(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = FIGURES["kernel_drift"]  # the others are drawn by tests/figures
    monkeypatch.setattr("lazy_lightning.claims.page._figure", lambda draw, runs: draw(runs) if draw is shown else None)
    assert main(["report", str(made), "--claims", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "met: displacement_lazy (-1.1 to -0.9): h = 30: -1" in printed
    assert "not measured: cnn_prefers_features" in printed
    content = json.loads((tmp_path / "claims.json").read_text())
    numbers = {one["name"]: one for one in content["claims"]}
    assert list(content["experiments"]) == ["scaling"]
    assert list(numbers) == list(BY_NAME)
    assert numbers["displacement_lazy"]["verdict"] == "met"
    assert numbers["ensemble_gain"]["expected"] == [0, None]
    assert numbers["ensemble_gain"]["reason"] == "the experiment ensembles has not been run"
    page = (tmp_path / "claims.md").read_text()
    for claim in CLAIMS:
        assert claim.statement in page
    for image in re.findall(r"\]\((claims/\S+)\)", page):
        assert (tmp_path / image).is_file()
    assert "![scaling-kernel_drift](claims/scaling-kernel_drift.png)" in page


def _ensembles(folder: Path) -> dict[str, pd.DataFrame]:
    """The runs of the experiment ``ensembles``, with made outputs."""
    return {"ensembles": load_runs(made_sweep(folder, widths=(30, 300), scales=(0.1, 1000.0), seeds=10))}


def _students(folder: Path) -> dict[str, pd.DataFrame]:
    """The runs of the experiment ``students``, of the scaling 1/sqrt(m) alone."""
    made_sweep(folder / "narrow", widths=[8], scales=[8**0.5 * 0.08], population__loss=1e-3)
    made_sweep(folder / "wide", widths=[128], scales=[128**0.5 * 0.08], population__loss=1e-1)
    return {"students": load_runs(folder)}


def test_experiments_that_are_not_stored_keep_their_numbers(tmp_path: Path) -> None:
    """The page of the second evaluation has the numbers, runs, machine and figures of the first as well."""
    out = tmp_path / "out"
    first = _ensembles(tmp_path / "ensembles")
    write_claims(evaluate(CLAIMS, first), first, out, "machine one")
    before = read_numbers(out / NUMBERS)
    second = _students(tmp_path / "students")
    found = with_stored(evaluate(CLAIMS, second), second, before)
    page = write_claims(found, second, out, "machine two", before.runs).read_text()
    after = read_numbers(out / NUMBERS)
    assert set(after.runs) == {"ensembles", "students"}
    assert after.runs["ensembles"] == before.runs["ensembles"]
    assert after.runs["students"].machine == "machine two"
    assert before.measured == {name: after.measured[name] for name in before.measured}
    assert "ensemble_gain" in before.measured
    assert set(after.measured) - set(before.measured) == {"wide_lazy_students_fail"}
    assert f"{len(first['ensembles'])} members" in page
    assert page.count(": machine one") == 1  # beside the runs of that machine; machine two is that of the page
    assert "![ensembles-test_error](claims/ensembles-test_error.png)" in page


def test_numbers_that_are_evaluated_again_replace_the_stored_ones(tmp_path: Path) -> None:
    runs = _students(tmp_path / "students")
    old = StoredNumbers({}, {"wide_lazy_students_fail": (Measurement(7.0, 1.0),)})
    found = {one.claim.name: one for one in with_stored(evaluate(CLAIMS, runs), runs, old)}
    assert found["wide_lazy_students_fail"].measured[0].value == pytest.approx(2.0)
    assert {one.claim.name for one in with_stored(evaluate(CLAIMS, {}), {}, old) if one.measured} == set(old.measured)


def test_numbers_of_other_commands_are_dropped(tmp_path: Path) -> None:
    runs = _students(tmp_path / "students")
    write_claims(evaluate(CLAIMS, runs), runs, tmp_path / "out", "a machine")
    path = tmp_path / "out" / NUMBERS
    content = json.loads(path.read_text())
    content["experiments"]["students"]["commands"][0] += " --model.seeds=9"
    path.write_text(json.dumps(content))
    assert read_numbers(path) == StoredNumbers({}, {})


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"experiments": {"students": {}}, "claims": []}'])
def test_a_damaged_file_of_numbers_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / NUMBERS).write_text(text)
    with pytest.raises(DataError, match="is not a file of measured claims of this version"):
        read_numbers(tmp_path / NUMBERS)


def test_the_committed_numbers_belong_to_the_experiments_of_today() -> None:
    """A change of an experiment's command drops its numbers from the page at the next evaluation."""
    committed = read_numbers(Path(__file__).parents[2] / "docs" / NUMBERS)
    content = json.loads((Path(__file__).parents[2] / "docs" / NUMBERS).read_text())
    assert set(committed.runs) == set(content["experiments"])
    assert set(committed.measured) == {one["name"] for one in content["claims"] if one["measured"]}


def test_a_folder_without_experiments_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path), "--claims", "--out", str(tmp_path / "out")]) == 1
    assert "no experiment of the claims in" in capsys.readouterr().err


def test_runs_that_do_not_suffice_give_a_reason(made: Path, tmp_path: Path) -> None:
    runs = load_runs(made / "scaling")
    (found,) = evaluate([BY_NAME["kernel_is_the_limit"]], {"scaling": runs[runs["model"] == "network"]})
    assert found == Evaluated(BY_NAME["kernel_is_the_limit"], reason=found.reason)
    assert found.verdict is None
    assert "kernel at init" in found.reason
    page = write_claims([found], {"scaling": runs}, tmp_path, "no machine").read_text()
    assert f"not measured: {found.reason}" in page


def test_cost_of_laziness_is_paired_over_seeds_and_images(tmp_path: Path) -> None:
    """The made networks have the same outputs at all alphas, so the difference has no error; s/(1 + s) gates stay."""
    alphas = (0.1, 1.0, 100.0, 1000.0)
    runs = load_runs(made_sweep(tmp_path, widths=[30], scales=[30**0.5 * alpha for alpha in alphas]))
    names = ("cnn_prefers_features", "vgg_degrades", "vgg_linearised", "vgg_activations")
    found = evaluate([BY_NAME[name] for name in names], {"cifar_cnn": runs, "cifar_vgg": runs})
    assert [one.measured[0].value for one in found[:3]] == pytest.approx([0, 0, 0], abs=1e-12)
    assert found[0].measured[0].error == 0
    scale = 30**0.5 * 1000
    assert found[3].measured[0].value == pytest.approx(scale / (1 + scale))


@pytest.mark.parametrize("name", ["wide_lazy_students_fail", "wide_mean_field_students_succeed"])
def test_students_are_compared_in_decades(tmp_path: Path, name: str) -> None:
    """Losses of 10^-3 at m = 8, and at m = 128 of 10^-1 with 1/sqrt(m) and 10^-2 with 1/m."""
    made_sweep(tmp_path / "narrow", widths=[8], scales=[8**0.5 * 0.08], population__loss=1e-3)
    made_sweep(tmp_path / "root", widths=[128], scales=[128**0.5 * 0.08], population__loss=1e-1)
    made_sweep(tmp_path / "mean", widths=[128], scales=[0.08], population__loss=1e-2)
    (found,) = evaluate([BY_NAME[name]], {"students": load_runs(tmp_path)})
    assert found.measured[0].value == pytest.approx({"wide_lazy_students_fail": 2.0}.get(name, -1.0))
    assert found.verdict is Verdict.MET


def test_lazy_minus_feature_by_size_against_sums_over_the_files(tmp_path: Path) -> None:
    """Two training sets; in one of them the lazy networks have the other sign on ten samples."""
    parts, differences = [], []
    for number, flipped in enumerate((0, 10)):
        folder = made_sweep(tmp_path / f"set_{number}", widths=[30, 100], scales=[0.1, 1000.0], seeds=3)
        for run in sorted(folder.iterdir()):
            arrays = load_file(run / "outputs.safetensors")
            arrays["test/outputs"][3:, :flipped] *= -1
            save_file(arrays, run / "outputs.safetensors")
            outputs, labels = arrays["test/outputs"], arrays["test/labels"]
            feature, lazy = (part * labels for part in (outputs[:3], outputs[3:]))
            single = (lazy <= 0).mean() - (feature <= 0).mean()
            average = (lazy.mean(axis=0) <= 0).mean() - (feature.mean(axis=0) <= 0).mean()
            differences.append((single, average))
        parts.append(load_runs(folder).assign(**{"data.n_train": 250, "data.train_seed": number}))
    runs = pd.concat(parts, ignore_index=True)
    over_sets = 100 * np.reshape(differences, (2, 2, 2)).mean(axis=0)
    assert over_sets.all()
    for name, expected in zip(("single_networks_by_size", "ensembles_by_size"), over_sets.T, strict=True):
        (found,) = evaluate([BY_NAME[name]], {"fashion_fc": runs})
        assert [one.label for one in found.measured] == ["n = 250, h = 30", "n = 250, h = 100"], found.reason
        assert [one.value for one in found.measured] == pytest.approx(expected, abs=1e-9)
