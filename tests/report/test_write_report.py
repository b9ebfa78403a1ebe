"""The folder that a report leaves: files, their numbers, and what it does when figures or the disk fail."""

import csv
import io
import logging

import pandas as pd
import pytest
from made_figures import HOSTILE, MADE, NUMBERS, failed_figure, plain_figure, refused_figure
from made_runs import made_sweep
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lazy_lightning.errors import AnalysisError, RunError
from lazy_lightning.figures.catalogue import FIGURES
from lazy_lightning.report import write_report
from lazy_lightning.report.own_folder import MARKER
from lazy_lightning.report.report import folder_name
from lazy_lightning.runs import load_runs


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_every_figure_leaves_three_files_and_nothing_else_is_left(made):
    found = names(made.page.parent)
    events = [name for name in found if name.startswith("events.out.tfevents.")]
    figures = [f"{stem}.{kind}" for stem in ("plain_figure", "wide_figure") for kind in ("csv", "pdf", "png")]
    assert len(events) == 1
    assert sorted(set(found) - set(events)) == sorted([*figures, "index.html", MARKER])
    assert (made.page.parent / "plain_figure.png").read_bytes().startswith(b"\x89PNG")
    assert (made.page.parent / "plain_figure.pdf").read_bytes().startswith(b"%PDF")


def test_numbers_come_back_to_the_last_bit(made):
    with (made.page.parent / "plain_figure.csv").open(newline="") as file:
        assert [float(row["value"]) for row in csv.DictReader(file)] == NUMBERS.tolist()


def test_what_was_not_drawn_is_told_and_costs_nothing_else(runs, tmp_path, caplog):
    with caplog.at_level(logging.ERROR):
        report = write_report(runs, tmp_path, tensorboard=False, figures=MADE)
    assert [drawn.name for drawn in report.drawn] == ["plain_figure", "wide_figure"]
    assert report.refused == {
        "refused_figure": "kernel_drift/total was not observed: stack callbacks/ntk.yaml on the sweep"
    }
    assert report.failed == {"failed_figure": f"ZeroDivisionError: our mistake {HOSTILE}"}
    (record,) = caplog.records
    assert record.exc_info[0] is ZeroDivisionError  # with its traceback
    assert "failed_figure" in record.getMessage()


def test_images_are_in_tensorboard(made):
    events = EventAccumulator(str(made.page.parent), size_guidance={"images": 0}).Reload()
    assert events.Tags()["images"] == ["plain_figure", "wide_figure"]
    (image,) = events.Images("plain_figure")
    assert image.encoded_image_string == (made.page.parent / "plain_figure.png").read_bytes()
    with Image.open(io.BytesIO(image.encoded_image_string)) as shown:
        assert (image.width, image.height) == shown.size


def test_a_second_report_replaces_the_first(runs, tmp_path):
    write_report(runs, tmp_path, figures={"plain_figure": plain_figure, "other": plain_figure})
    (tmp_path / "mine.txt").write_text("not the report's")
    first = names(tmp_path)
    again = write_report(runs, tmp_path, figures={"plain_figure": refused_figure})
    events = [name for name in names(tmp_path) if name.startswith("events")]
    assert len(events) == 1
    assert events[0] not in first  # the new one
    assert sorted(set(names(tmp_path)) - set(events)) == [MARKER, "index.html", "mine.txt"]  # no stale picture
    assert "A plain figure" not in again.page.read_text(encoding="utf-8")


def test_settings_have_folders(tmp_path):
    runs = load_runs(made_sweep(tmp_path / "runs", widths=(30,), scales=(1.0,), seeds=2, arrays=False))
    both = pd.concat([runs.assign(**{"model.network.depth": depth}) for depth in (3, 2)], ignore_index=True)
    report = write_report(both, tmp_path / "out", figures={"plain_figure": plain_figure, "refused": refused_figure})
    assert sorted(report.refused) == ["model.network.depth-2/refused", "model.network.depth-3/refused"]
    assert len(report.drawn) == 2
    assert "model.network.depth-2/plain_figure.png" in names(tmp_path / "out")
    events = EventAccumulator(str(tmp_path / "out")).Reload()
    assert events.Tags()["images"] == ["model.network.depth-2/plain_figure", "model.network.depth-3/plain_figure"]


def test_folder_names_are_safe_and_bounded():
    assert folder_name("") == ""
    assert folder_name("data.root = ../../etc") == "data.root-..-..-etc"
    assert len(folder_name("x" * 500)) <= 80
    assert not folder_name("../..").strip("-.")


def test_long_titles_that_begin_alike_do_not_share_a_folder(tmp_path):
    runs = load_runs(made_sweep(tmp_path / "runs", widths=(30,), scales=(1.0,), seeds=1, arrays=False))
    long = "a" * 100
    both = pd.concat([runs.assign(**{"data.name": f"{long}{i}"}) for i in range(2)], ignore_index=True)
    write_report(both, tmp_path / "out", tensorboard=False, figures={"plain_figure": plain_figure})
    assert len([name for name in names(tmp_path / "out") if name.endswith("plain_figure.png")]) == 2


def test_without_a_finished_member_nothing_is_written(runs, tmp_path):
    with pytest.raises(AnalysisError, match=r"none of the 12 members has finished"):
        write_report(runs.assign(status="failed"), tmp_path / "out", figures=MADE)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_told(runs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write"):
        write_report(runs, tmp_path / "file" / "out", figures={"plain_figure": plain_figure})


def test_only_failures_still_make_a_page(runs, tmp_path):
    report = write_report(runs, tmp_path, figures={"failed_figure": failed_figure})
    assert report.drawn == []
    assert "None could be drawn" in report.page.read_text(encoding="utf-8")


def test_the_figures_of_the_catalogue_are_drawn(tmp_path, monkeypatch):
    def drawn_only(figure, stem):
        """Two formats of eleven figures take ten seconds; saving is tested with others."""
        figure.draw_without_rendering()
        stem.parent.mkdir(exist_ok=True)
        stem.with_suffix(".png").write_bytes(bytes(32))

    monkeypatch.setattr("lazy_lightning.report.report.save", drawn_only)
    runs = load_runs(made_sweep(tmp_path / "runs", widths=(30, 50, 100, 200), scales=(0.1, 1.0, 10.0), seeds=2))
    report = write_report(runs, tmp_path / "out", tensorboard=False)
    refused = ["best_in_training", "coordinate_check"]  # of synthetic tasks, and of mini-batch training
    assert (list(report.refused), report.failed) == (refused, {})
    assert [drawn.name for drawn in report.drawn] == [name for name in FIGURES if name not in report.refused]
    assert all(drawn.caption and drawn.title and len(drawn.table) for drawn in report.drawn)
