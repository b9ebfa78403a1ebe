"""The benchmarks run at tiny sizes, keep what they have measured, and the committed tables are those of their JSON."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
RESULTS = BENCHMARKS / "results"
CPU = torch.device("cpu")

pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the tests do not lie in a checkout")


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


def load(name: str) -> ModuleType:
    return importlib.import_module(name)


def given(out: Path | None = None, **options: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"out": out, "resume": False, "seconds": float("inf"), **options})


# ---------------------------------------------------------------------- rows


def test_rows_are_written_at_once_and_measured_once(tmp_path: Path) -> None:
    timing, file, calls = load("timing"), tmp_path / "rows.json", []

    def measure() -> dict[str, float]:
        calls.append(1)
        return {"seconds": 1.5}

    head = {"device": "here", "load": 0.1}
    rows = timing.Rows(given(file), head, ("h",))
    rows.add({"h": 30}, measure)
    assert json.loads(file.read_text())["rows"] == [{"h": 30, "seconds": 1.5}]
    again = timing.Rows(given(file, resume=True), {"device": "here", "load": 7.0}, ("h",))
    again.add({"h": 30}, measure)
    assert len(calls) == 1
    for elsewhere in (given(file, resume=False), given(file, resume=True)):
        fresh = timing.Rows(elsewhere, {"device": "here" if not elsewhere.resume else "there", "load": 0.1}, ("h",))
        assert fresh.rows == []


def test_no_row_is_begun_after_the_time(tmp_path: Path) -> None:
    timing = load("timing")
    rows = timing.Rows(given(tmp_path / "rows.json", seconds=-1.0), {}, ("h",))
    with pytest.raises(SystemExit) as ended:
        rows.add({"h": 30}, lambda: pytest.fail("measured"))
    assert ended.value.code == 3


# ---------------------------------------------------------------------- all in turn


def test_rows_of_a_part_out_of_time_are_kept_and_the_next_call_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench, called = load("bench"), []
    head = {"date": "2000-01-01", "load": 0.5, "peak_mib": 10.0}

    def run(command: list[str], limit: float) -> tuple[int | None, str, float]:
        out, name = Path(command[command.index("--out") + 1]), Path(command[1]).stem
        called.append(name)
        row = {"h": 30, "E": 1, "bare_ms": 1.0, "fit_over_bare": 1.01, "trainer_share": 0.01}
        if name == "trainer_overhead":
            out.write_text(json.dumps({**head, "rows": [row]}))
        return (None if called.count(name) == 1 and name == "trainer_overhead" else 0), "", 1.0

    monkeypatch.setattr(bench, "run", run)
    options = given(tmp_path, quick=True, minutes=10.0, work=tmp_path, only=["trainer_overhead", "devices"])
    options.images = options.cifar = options.neural_tangents = None
    file = tmp_path / "bench_cpu.json"
    found = bench.run_all(options, file)
    assert called == ["trainer_overhead"]  # the quick form leaves devices out
    part = found["parts"]["trainer_overhead"]
    assert (part["outcome"], len(part["rows"])) == ("out of time after these rows", 1)
    assert "| out of time after these rows |" in file.with_suffix(".md").read_text()
    options.resume = True
    assert bench.run_all(options, file)["parts"]["trainer_overhead"]["outcome"] == "passed"
    bench.run_all(options, file)
    assert called == ["trainer_overhead"] * 2
    options.minutes, options.only = 0.0, ["growth"]
    assert bench.run_all(options, file)["parts"]["growth"]["outcome"] == "left out: no time left"
    capsys.readouterr()


def test_parts_are_scripts_with_lines_in_the_table() -> None:
    bench, tables = load("bench"), load("bench_tables")
    assert list(bench.PLANS) == list(tables.LINES)
    for name in bench.PLANS:
        source = (BENCHMARKS / f"{name}.py").read_text()
        assert "output_options(parser)" in source, name
    assert "benchmarks/bench.py $(ARGS)" in (ROOT / "Makefile").read_text()


# ---------------------------------------------------------------------- the benchmarks themselves


def test_a_plain_program_of_the_published_rule_gives_the_same_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    convergence = load("convergence")
    monkeypatch.setattr(convergence, "WIDTH", 20)
    monkeypatch.setattr(convergence, "WAYS", {"reference": convergence.WAYS["reference"]})
    row = convergence.compare(8, 10.0, 1, 1)
    assert row["difference"] < 1e-9
    assert row["reference_tried"] > 100
    assert row["reference_ratio"] > 0


def test_the_truth_agrees_with_scipy_in_the_space_of_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    integrators = load("integrators")
    monkeypatch.setitem(integrators.TRUTH, "explicit", 1e-6)
    row = integrators.check_against_scipy(samples=8, width=4, alpha=10.0)
    assert max(row["error"], row["error_train"], row["error_drift"]) < 1e-5


@pytest.mark.parametrize("integrator", ["explicit", "implicit"])
def test_errors_and_costs_of_integrators_on_network_and_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, integrator: str
) -> None:
    integrators, timing = load("integrators"), load("timing")
    small = {"WIDTH": 10, "TRUTH": {integrator: 1e-5}, "SCIPY": {"LSODA": (1e-3,)}, "TEST": 50, "DRIFT": 20}
    for name, value in small.items():
        monkeypatch.setattr(integrators, name, value)
    rows = timing.Rows(given(tmp_path / "rows.json"), {}, integrators.KEYS)
    truths = integrators.Truths(tmp_path / "truths.npz", integrator)
    settings = [("euler", "gradient_change"), ("implicit", 1e-3), ("implicit", 1e-4)]
    for flow, measure in (("network", integrators.measure_network), ("kernel", integrators.measure_kernel)):
        case = integrators.Case(flow, "digits", 12, 100.0)
        data = integrators.Files(None, None).datamodule("digits", 12)
        measure(rows, truths, case, data, settings)
    by = {(row["flow"], row["integrator"], row["setting"]): row for row in rows.rows}
    for flow in ("network", "kernel"):
        errors = [by[flow, *each]["error"] for each in settings]
        assert errors[2] < errors[1] < 0.02
        assert by[flow, "implicit", 1e-3]["evaluations"] < by[flow, "euler", "gradient_change"]["evaluations"]
    assert by["network", "implicit", 1e-4]["error_drift"] < 1e-2
    assert by["kernel", "check", 1e-10]["error"] < 1e-5


def test_a_file_of_truths_keeps_those_of_both_integrators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    integrators = load("integrators")
    followed: list[str] = []
    outputs = torch.zeros(2).numpy()

    def follow(_flow: object, integrator: str, _setting: object, _end: object) -> object:
        followed.append(integrator)
        return integrators.Run(len(followed), 0.0, 0.0, 1.0, outputs, outputs, 0.0)

    monkeypatch.setattr(integrators, "follow", follow)
    case = integrators.Case("network", "digits", 12, 100.0)
    for name, evaluations in (("explicit", 2), ("implicit", 4), ("explicit", 2), ("implicit", 4)):
        truths = integrators.Truths(tmp_path / "truths.npz", name)
        assert truths.of(case, None).evaluations == evaluations
    assert followed == ["auto", "explicit", "auto", "implicit"]


def test_a_mini_batch_step_and_a_loop_over_networks_run() -> None:
    mini_batch = load("mini_batch")
    build, shape = mini_batch.NETWORKS["FC, h = 100, L = 3"]
    x, y = torch.randn(4, *shape), torch.randint(10, (4,))
    initial = mini_batch.InitialMembers(build, range(2), shape, 10)
    mini_batch.Ours(initial, x, y, [mini_batch.NETWORK, *mini_batch.COMPANIONS])()
    mini_batch.Loop(build, shape, 2, x, y)()


def test_operations_are_those_that_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    flow_step = load("flow_step")
    flow, objective = flow_step.make(8, 2, torch.float64, CPU, 20, 3)
    with FlopCounterMode(display=False) as counter:
        objective.backward(flow.rows.parameters[0])
    assert counter.get_total_flops() == pytest.approx(flow_step.flops(8, 2, 20, 3), rel=0.02)


def test_exponents_of_exact_power_laws_and_of_operations() -> None:
    growth = load("growth")
    rows = [
        {
            "what": "step",
            "axis": "h",
            **growth.Size(h=h)._asdict(),
            "seconds": 2.0 * h**1.5,
            "mib": 3.0 * h,
            "gflop": h**2,
        }
        for h in (10, 20, 40, 80)
    ]
    (line,) = growth.exponents(rows)
    assert (line["from"], line["to"]) == (10, 80)
    assert (line["time"], line["memory"], line["operations"]) == pytest.approx((1.5, 1.0, 2.0))
    assert line["time_error"] < 1e-6


# ---------------------------------------------------------------------- tables and page


def test_least_cost_is_of_runs_as_exact_as_asked() -> None:
    tables = load("bench_tables")
    case = {"flow": "network", "data": "digits", "n": 1000, "alpha": 100.0}
    runs = [
        ("euler", "gradient_change", 1e-3, 1000),
        ("implicit", 1e-2, 2e-3, 50),
        ("implicit", 1e-3, 5e-4, 200),
        ("implicit", 1e-5, 5e-5, 600),
        ("explicit", 1e-3, 1e-4, 3000),
        ("auto", 1e-3, 9e-4, 240),
    ]
    rows = [
        {**case, "integrator": name, "setting": setting, "error": error, "evaluations": count, "cpu": count / 100}
        for name, setting, error, count in runs
    ]
    (line,) = tables.cost_table(rows, 1.0)
    assert (line["implicit"], line["auto"], line["fewest evaluations"]) == ("200, 2 s", "240, 2.4 s", "implicit")
    (tenth,) = tables.cost_table(rows, 0.1)
    assert (tenth["euler"], tenth["implicit"]) == ("not reached", "600, 6 s")
    (goal,) = tables.goals_of_integrators(rows)
    assert (goal["measured"], goal["met"]) == ("0.20 (implicit), 0.20 of its time", "yes")
    (part,) = tables.cost_table(rows[:-1], 1.0)
    assert (part["auto"], part["explicit"]) == ("not measured", "3000, 30 s")
    assert tables.cost_table(rows[:1], 1.0) == []  # there is nothing to compare Euler's method with


def test_committed_tables_are_those_of_their_json() -> None:
    tables = load("bench_tables")
    files = tables.rendered()
    assert len(files) >= 2
    for path, text in files.items():
        assert path.read_text() == text, f"{path.name} differs: python benchmarks/bench_tables.py"


def test_page_includes_the_tables_and_figures() -> None:
    tables, page = load("bench_tables"), (ROOT / "docs" / "performance.md").read_text()
    for path in tables.rendered():
        assert f'--8<-- "benchmarks/results/{path.name}"' in page, path.name
    for which in load("work_precision_figure").FIGURES:
        assert f"performance/work_precision_{which}.png" in page
        assert (ROOT / "docs" / "performance" / f"work_precision_{which}.png").is_file()
    assert "performance.md" in (ROOT / "mkdocs.yml").read_text()
    assert "(performance.md)" in (ROOT / "docs" / "design.md").read_text()


def test_names_of_curves_do_not_overlap() -> None:
    figures = load("work_precision_figure")
    rows = json.loads((RESULTS / "work_precision_cpu.json").read_text())["rows"]
    drawn = figures.draw(rows, "evaluations")
    drawn.canvas.draw()
    for axis in drawn.axes:
        boxes = [text.get_window_extent() for text in axis.texts]
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
