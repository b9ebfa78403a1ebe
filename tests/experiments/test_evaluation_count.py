"""The expected number of evaluations against the counts of runs that have been measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lazy_lightning.experiments.evaluation_count import expected_evaluations

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def measured() -> list[tuple[str, float, int, float]]:
    """(integrator, sqrt(h) alpha, n, evaluations) of the committed benchmarks; all networks have h = 100."""
    if not RESULTS.is_dir():
        return []
    parts = json.loads((RESULTS / "gpu_nvidia_h200.json").read_text())["parts"]
    rows = [(row, 8000) for row in parts["mnist"]["rows"]] + [(row, 1000) for row in parts["digits"]["gpu"]["rows"]]
    found = [("euler", row["sqrt_h_alpha"], samples, row["tried"]) for row, samples in rows]
    files = ("work_precision_cpu.json", "work_precision_1000_cpu.json")
    on_cpu = [row for name in files for row in json.loads((RESULTS / name).read_text())["rows"]]
    usual = [
        r
        for r in on_cpu
        if (r["flow"], r["data"]) == ("network", "digits") and r["setting"] in ("gradient_change", 1e-3)
    ]
    found += [(row["integrator"], 10 * row["alpha"], row["n"], row["evaluations"]) for row in usual]
    return found


@pytest.mark.skipif(not RESULTS.is_dir(), reason="the tests do not lie in a checkout")
def test_the_fits_hold_within_a_factor_of_two() -> None:
    rows = measured()
    assert len(rows) > 20
    for integrator, scale, samples, count in rows:
        expected = expected_evaluations(scale, samples, integrator)
        assert 0.5 < expected / count < 2, (integrator, scale, samples, count, expected)


def test_an_unknown_integrator_counts_as_euler() -> None:
    assert expected_evaluations(1.0, 500, "users.Own") == expected_evaluations(1.0, 500, "euler")


def test_the_regimes_are_limits() -> None:
    assert expected_evaluations(1e-8, 200) == pytest.approx(404)
    assert expected_evaluations(1e8, 200) == pytest.approx(492)
