"""One option states scales as alpha, sqrt(h) alpha or the richness gamma = 1/(sqrt(h) alpha) in figures and tables."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_runs import STAR, WIDTHS, made_sweep

from lazy_lightning.claims import CLAIMS, EXPERIMENTS, evaluate, write_claims
from lazy_lightning.cli import main
from lazy_lightning.errors import ConfigError
from lazy_lightning.figures.flow_curves import flow_curves
from lazy_lightning.figures.generalization_error import generalization_error
from lazy_lightning.figures.learning_curves import learning_curves
from lazy_lightning.figures.loss_by_width import loss_by_width
from lazy_lightning.figures.neuron_paths import Paths, neuron_paths
from lazy_lightning.figures.phase_diagram import phase_diagram
from lazy_lightning.figures.scale import mark_richness, scale_words, span_words
from lazy_lightning.figures.stated_scale import stated_scale, with_richness
from lazy_lightning.report import write_report
from lazy_lightning.runs import load_runs


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two widths."""
    return made_sweep(tmp_path_factory.mktemp("sweep"), widths=(25, 100), scales=(0.1, 1.0, 10.0), seeds=2)


def test_legends_state_gamma(sweep: Path) -> None:
    """The legend of a network of one width holds the numbers 1/(sqrt(h) alpha) in place of sqrt(h) alpha."""
    runs = load_runs(sweep)

    def legend() -> tuple[str, list[str]]:
        (drawn,) = flow_curves(runs).figure.legends
        return drawn.get_title().get_text(), [text.get_text() for text in drawn.get_texts()]

    assert legend() == (r"$\sqrt{h}\,\alpha$", ["$0.1$", "$1$", "$10$"])
    with stated_scale("gamma"):
        assert legend() == (r"$\gamma = 1/(\sqrt{h}\,\alpha)$", ["$10$", "$1$", "$0.1$"])
    with stated_scale("alpha"):
        assert legend() == (r"$\alpha$", ["$0.01$", "$0.1$", "$1$"])


def test_a_run_s_learning_curves_state_gamma() -> None:
    """The legend of one run's curves needs the width, which its table does not contain."""
    curves = pd.DataFrame({"alpha": 0.05, "seed": 0, "t": [1.0, 2.0], "test/loss": [1.0, 0.5], "train/loss": 0.5})
    with stated_scale("gamma"):
        legend = learning_curves(curves, 100.0).axes[0].get_legend()
        without_width = learning_curves(curves).axes[0].get_legend()
    assert legend is not None
    assert legend.get_texts()[0].get_text() == r"$\gamma = 2$"
    assert without_width is not None
    assert without_width.get_texts()[0].get_text() == r"$\alpha = 0.05$"


def test_curves_against_width_state_gamma(tmp_path: Path) -> None:
    """A fixed sqrt(h) alpha is a fixed gamma; a fixed alpha is none, and stays."""
    runs = load_runs(made_sweep(tmp_path, widths=(4, 16, 64, 256), scales=(0.5,), seeds=1))
    with stated_scale("gamma"):
        assert list(loss_by_width(runs).findings) == ["test error, gamma = 2"]
    with stated_scale("alpha"):
        assert list(loss_by_width(runs).findings) == ["test error, sqrt(h) alpha = 0.5"]


def test_panels_against_the_scale_have_an_axis_of_gamma(sweep: Path) -> None:
    """The axis above a panel is the inverse of that below; other panels have none."""
    with stated_scale("gamma"):
        figure = generalization_error(load_runs(sweep)).figure
        mark_richness(figure)
    by_alpha, by_scale = figure.axes
    assert not by_alpha.child_axes
    (above,) = by_scale.child_axes
    figure.draw_without_rendering()
    for scale in (0.2, 3.0):
        at, below = above.transData.transform((1 / scale, 0.5)), by_scale.transData.transform((scale, 5.0))
        assert at[0] == pytest.approx(below[0], abs=1e-6)  # in pixels


def test_tables_have_a_column_of_gamma() -> None:
    """The column follows the scale it is computed of; without the option tables are unchanged."""
    table = pd.DataFrame({"h": [100.0, 25.0], "alpha": [0.05, 0.4], "mean": [1.0, 2.0]})
    assert with_richness(table) is table
    with stated_scale("gamma"):
        found = with_richness(table)
    assert list(found) == ["h", "alpha", "gamma", "mean"]
    assert found["gamma"].tolist() == [2.0, 0.5]


def test_words() -> None:
    """The richest end comes last, where sqrt(h) alpha is smallest."""
    with stated_scale("gamma"):
        assert scale_words(100.0, 0.05) == "gamma = 2"
        assert scale_words(float("nan"), 0.05) == "alpha = 0.05"
        assert span_words(0.1, 100.0) == "gamma from 0.01 to 10"
    with (
        pytest.raises(ConfigError, match="'richness', expected one of alpha, sqrt_h_alpha, gamma"),
        stated_scale("richness"),
    ):
        pass


def test_a_report_states_gamma(sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`report --scale gamma` reaches the page, the captions and the CSV files."""
    names = ("kernel_drift", "flow_curves")
    from lazy_lightning.figures.catalogue import FIGURES

    written = write_report(
        load_runs(sweep), tmp_path / "out", figures={name: FIGURES[name] for name in names}, scale="gamma",
        tensorboard=False,
    )  # fmt: skip
    assert not written.refused
    assert not written.failed
    page = written.page.read_text(encoding="utf-8")
    assert "gamma from 0.1 to 10" in page
    drift = pd.read_csv(tmp_path / "out" / "kernel_drift.csv")
    assert (drift["gamma"] * drift["sqrt_h_alpha"]).tolist() == pytest.approx([1.0] * len(drift), rel=1e-12)


def test_the_command_line_states_gamma(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`runs list --scale gamma` has the range of gamma in place of that of alpha."""
    assert main(["runs", "list", str(sweep), "--scale", "gamma"]) == 0
    shown = capsys.readouterr().out
    assert "gamma" in shown
    assert "alpha" not in shown
    assert "0.1 .. 10 (3)" in shown


def test_the_phase_diagram_states_gamma(tmp_path: Path) -> None:
    """Cells, crossings and exponent are those of gamma: alpha* = 2 h^(-1/2) is gamma* = 1/2 at every width."""
    runs = load_runs(made_sweep(tmp_path, arrays=False))
    with stated_scale("gamma"):
        drawn = phase_diagram(runs)
    axis = drawn.figure.axes[0]
    assert axis.get_ylabel() == r"$\gamma = 1/(\sqrt{h}\,\alpha)$"
    low, high = axis.get_ylim()
    assert (low < 1e-3, high > 1e3) == (True, True)
    assert list(drawn.findings) == [*(f"gamma*, h = {h}" for h in WIDTHS), "exponent of gamma* against h"]
    for h in WIDTHS:
        assert float(drawn.findings[f"gamma*, h = {h}"].split()[0]) == pytest.approx(1 / STAR, rel=0.05)
    assert abs(float(drawn.findings["exponent of gamma* against h"].split()[0])) < 0.05
    assert "alpha*" not in drawn.caption
    colours = [np.ma.getdata(mesh.get_array()).ravel() for mesh in axis.collections if hasattr(mesh, "get_coordinates")]
    assert all(column[0] < column[-1] for column in colours)  # the drift grows with gamma
    with stated_scale("sqrt_h_alpha"):
        words = list(phase_diagram(runs).findings)
    assert words[0] == f"(sqrt(h) alpha)*, h = {WIDTHS[0]}"
    assert next(iter(phase_diagram(runs).findings)) == f"alpha*, h = {WIDTHS[0]}"


def test_titles_of_neuron_paths_state_gamma() -> None:
    """They are those of alpha without the option, or without a width."""
    member = Paths(0.05, np.ones((2, 3, 2)), np.ones((2, 3)))

    def title(h: float) -> str:
        return neuron_paths([member], None, h).axes[0].get_title()

    assert title(100.0) == r"$\alpha = 0.05$"
    with stated_scale("gamma"):
        assert (title(100.0), title(float("nan"))) == (r"$\gamma = 2$", r"$\alpha = 0.05$")


def test_an_export_has_a_column_of_gamma(sweep: Path, tmp_path: Path) -> None:
    """`runs export --scale gamma`, of members and of curves."""
    for options in ([], ["--curves"]):
        out = tmp_path / "members.csv"
        assert main(["runs", "export", str(sweep), "--out", str(out), "--scale", "gamma", *options]) == 0
        table = pd.read_csv(out)
        assert (table["gamma"] * table["sqrt_h_alpha"]).tolist() == pytest.approx([1.0] * len(table))
        assert main(["runs", "export", str(sweep), "--out", str(out), *options]) == 0
        assert "gamma" not in pd.read_csv(out)


def test_a_page_of_claims_states_gamma(tmp_path: Path) -> None:
    """Labels and the axes of figures state it, and the page how exponents change."""
    runs = load_runs(made_sweep(tmp_path / "runs", widths=(30, 300), scales=(0.1, 1000.0), seeds=10))
    claims = [one for one in CLAIMS if one.experiment == "ensembles"]
    assert set(EXPERIMENTS) >= {"ensembles"}
    with stated_scale("gamma"):
        page = write_claims(evaluate(claims, {"ensembles": runs}), {"ensembles": runs}, tmp_path / "out", "a machine")
    text = page.read_text(encoding="utf-8")
    assert "an exponent p against sqrt(h) alpha is the exponent -p" in text
    assert "gamma = 0.001: " in text
    assert "sqrt(h) alpha = 1000: " not in text


def test_a_fit_states_gamma(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`fit --scale gamma` reaches the closing table and the run's own figures."""
    titles: list[str] = []
    monkeypatch.setattr(
        "lazy_lightning.callbacks.learning_curves.save",
        lambda figure, path: titles.extend(text.get_text() for text in figure.axes[0].get_legend().get_texts()),
    )
    monkeypatch.chdir(tmp_path)
    command = [
        "fit", "--config", "digits_fc.yaml", "--data.n_train=20", "--data.n_test=20", "--model.network.width=4",
        "--model.seeds=1", "--model.alpha=[0.25]", "--model.stop.max_steps=3", "--trainer.logger.save_dir=out",
    ]  # fmt: skip
    assert main([*command, "--scale", "gamma"]) == 0
    assert titles == [r"$\gamma = 2$"]
    shown = capsys.readouterr().out
    assert "gamma" in shown
    assert load_runs("out")["id"].nunique() == 1
    assert main(command) == 0
    assert titles[1:] == [r"$\sqrt{h}\,\alpha = 0.5$"] or titles[1:] == [r"$\alpha = 0.25$"]
    assert load_runs("out", duplicates=True)["id"].nunique() == 1  # the quantity is no part of an identity
