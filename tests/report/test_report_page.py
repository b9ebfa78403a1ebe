"""The page as HTML: well formed, complete, for all readers, and nothing in it comes from elsewhere."""

import base64
import re
from datetime import UTC, datetime
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_figures import HOSTILE
from made_runs import made_sweep

from lazy_lightning.analysis.number_format import duration
from lazy_lightning.plain_text import printable
from lazy_lightning.report.account import account, listed, subject, versions
from lazy_lightning.report.elements import MOST_ROWS, frame_table, picture, prose
from lazy_lightning.report.page import Section, render
from lazy_lightning.runs import load_runs

VOID = {"meta", "img", "link", "br"}


class Page(HTMLParser):
    """Tags in order, and whether each is closed where it should be."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style",):
            self.words.append(data)

    def of(self, *names):
        return [attrs for tag, attrs in self.tags if tag in names]


@pytest.fixture(scope="module")
def text(made):
    return made.page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_it_is_well_formed(text, page):
    assert text.startswith("<!DOCTYPE html>")
    assert page.open == []
    assert page.of("html") == [{"lang": "en"}]
    assert len(page.of("title", "main", "h1")) == 3
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_headings_go_down_by_one_level_at_a_time(page):
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert max(np.diff(levels)) == 1


def test_nothing_comes_from_elsewhere(text, page):
    assert not page.of("script", "iframe", "object")
    images = page.of("img")
    assert len(images) == 2
    assert all(image["src"].startswith("data:image/png;base64,") and image["alt"] for image in images)
    assert "url(" not in text
    assert "@import" not in text
    links = [attrs["href"] for attrs in page.of("a", "link")]
    assert not [href for href in links if re.match(r"[a-z]+:", href) and not href.startswith("data:,")]


def test_images_are_those_beside_the_page(made, page):
    data = base64.b64decode(page.of("img")[0]["src"].split(",")[1])
    assert data == (made.page.parent / "plain_figure.png").read_bytes()


def test_links_lead_somewhere(made, page):
    ids = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    targets = [attrs["href"] for attrs in page.of("a")]
    assert len(targets) == 2 * 3 + 1  # the findings of one figure
    for target in targets:
        assert target[1:] in ids if target.startswith("#") else (made.page.parent / target).is_file()


def test_tables_have_captions_and_headings(page):
    names = [tag for tag, _ in page.tags]
    assert names.count("table") == names.count("caption") == 4  # findings, two of numbers, failed members
    assert all(attrs.get("scope") in ("row", "col") for attrs in page.of("th"))


def test_text_is_text_whatever_it_holds(text):
    assert HOSTILE not in text
    assert unescape(text).count(HOSTILE) == 4  # a finding's name and value, a caption, a failure


def test_everything_is_told(page, runs):
    words = " ".join(" ".join(page.words).split()).replace("\xa0", " ")
    for sentence in (
        "FC on Digits",
        "8 networks and 4 flows of frozen kernels at initialisation, in 4 runs: h = 30 and 100",
        "(sqrt(h) alpha from 0.1 to 10), 2 seeds. 10 have finished and 2 failed. The runs took 4 s in all.",
        "slope, h = 100 −1.00 ± 0.01",
        "refused figure: kernel_drift/total was not observed: stack callbacks/ntk.yaml",
        "failed figure: failed because of a bug in the program. ZeroDivisionError",
        "2 of 12 members have no result",
        "non_finite",
        "The first 300 of 1000 rows",
    ):
        assert sentence in words


def test_configurations_are_there_to_the_letter(text, runs):
    shown = [unescape(code) for code in re.findall(r"<code>(.*?)</code>", text, flags=re.DOTALL)]
    assert sorted(shown) == sorted((Path(path) / "config.yaml").read_text() for path in runs["path"].unique())


def test_a_configuration_that_has_gone_is_told(tmp_path):
    runs = load_runs(made_sweep(tmp_path / "runs", widths=(30,), scales=(1.0,), seeds=1, arrays=False))
    gone = runs.assign(path=str(tmp_path / "gone"))
    text = render([Section("", gone, tmp_path)], tmp_path, datetime(2026, 1, 2, 3, 4, tzinfo=UTC))
    assert "config.yaml cannot be read" in text
    assert "Written on 2026-01-02 at 03:04 UTC with lazy-lightning" in unescape(text)


def test_several_settings_are_told_apart(tmp_path):
    runs = load_runs(made_sweep(tmp_path / "runs", widths=(30,), scales=(1.0,), seeds=1, arrays=False))
    sections = [Section(f"data.n_train = {n}", runs, tmp_path, refused={"variance": "why"}) for n in (10, 20)]
    text = render(sections, tmp_path, datetime(2026, 1, 2, tzinfo=UTC)).replace("\xa0", " ")
    for n in (10, 20):
        assert f"<h3>data.n_train = {n}</h3>" in text
        assert f"<li>variance (data.n_train = {n}): why</li>" in text


def test_a_picture_has_half_its_pixels():
    header = (
        b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + b"IHDR" + (640).to_bytes(4, "big") + (481).to_bytes(4, "big")
    )
    assert 'width="320" height="240"' in picture(header, "a < b")
    assert 'alt="a &lt; b"' in picture(header, "a < b")


def test_long_tables_are_cut_and_say_so():
    short = frame_table(pd.DataFrame({"x": np.arange(float(MOST_ROWS))}), "All.")
    assert short.count("<tr>") == MOST_ROWS + 1
    assert "first" not in short
    long = frame_table(pd.DataFrame({"x": np.arange(MOST_ROWS + 1.0)}), "All.")
    assert long.count("<tr>") == MOST_ROWS + 1
    assert f"The first {MOST_ROWS} of {MOST_ROWS + 1} rows" in long


def test_cells():
    cells = frame_table(pd.DataFrame({"x": [1 / 3, np.nan], "s": ["a<b", None], "b": [True, False]}), "")
    assert re.findall(r"<td[^>]*>(.*?)</td>", cells) == ["0.333333", "a&lt;b", "True", "–", "–", "False"]


def test_prose_has_minus_signs_and_unbroken_equations():
    assert prose("-1 to 1e-05, h^-1, a-b, 2-3, (-4)") == "−1 to 1e-05, h^−1, a-b, 2-3, (−4)"
    assert prose("h = 30") == "h\xa0=\xa030"


# ---------------------------------------------------------------------- what was run


def table(**columns):
    common = {"model": "network", "alpha": 1.0, "seed": [0, 1], "h": 30, "status": "finished", "path": "a", "run": "a"}
    return pd.DataFrame(common | columns)


def test_account_of_a_plain_run():
    assert account(table(wall_seconds=75.0)) == (
        "2 networks, in 1 run: h = 30, alpha = 1, 2 seeds. All have finished. The runs took 1 min 15 s in all."
    )


def test_account_without_widths_or_times():
    assert account(table(h=np.nan)) == "2 networks, in 1 run: alpha = 1, 2 seeds. All have finished."


def test_account_of_many_alphas_and_unfinished_members():
    runs = table(alpha=np.arange(1.0, 21.0), seed=0, status=["unfinished"] + ["finished"] * 19)
    assert account(runs) == (
        "20 networks, in 1 run: h = 30, 20 values from 1 to 20 of alpha, 1 seed. "
        "19 have finished, 0 failed and 1 are unfinished (still running, or interrupted)."
    )


def test_subject():
    assert subject(table()) == "Networks"
    assert subject(table(**{"data": "Digits"})) == "Networks on Digits"
    assert subject(table(**{"model.network": ["FC", "CNN"], "data": "Digits"})) == "CNN and FC on Digits"


def test_versions_of_the_runs(tmp_path):
    for name, version in (("a", "2.11"), ("b", "2.12")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(f"# torch=={version}\nmodel: 1\n# not==a==version\n")
    said = versions(table(path=[str(tmp_path / "a"), str(tmp_path / "b")]), datetime(2026, 1, 2, tzinfo=UTC))
    assert said.endswith("The runs were made with torch 2.11, torch 2.12.")


def test_durations_and_lists():
    assert duration(0.0) == "0 s"
    assert duration(59.6) == "60 s"
    assert duration(3599.7) == "1 h 0 min"
    assert listed([]) == ""
    assert listed(["a"]) == "a"
    assert listed([str(i) for i in range(9)]) == "9 values from 0 to 8"


# ---------------------------------------------------------------------- untrusted text


@pytest.mark.parametrize("given", [HOSTILE, "a\x1b[31mb", "'\"><img src=x onerror=y>", "{{ 7 * 7 }}{% raw %}"])
def test_every_text_of_a_page_is_escaped(tmp_path, given):
    """By the templates, wherever it stands: titles, names, reasons, values, columns, captions, configurations."""
    runs = load_runs(made_sweep(tmp_path / "runs", widths=(30,), scales=(1.0,), seeds=1, arrays=False))
    sections = [Section(given, runs, tmp_path, refused={given: given}, failed={given: given}) for _ in range(2)]
    text = render(sections, tmp_path, datetime(2026, 1, 2, tzinfo=UTC))
    text += str(frame_table(pd.DataFrame({given: [given]}), given))
    assert "\x1b" not in text
    assert [tag for tag, _ in Page(text).tags if tag in ("script", "img")] == []
    assert unescape(text).count(printable(given)) == 2 + 2 * 6 + 3  # headings, what was not drawn, the table
