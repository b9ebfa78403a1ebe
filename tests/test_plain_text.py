"""Text from outside is shown as text: no markup, no control characters, no formula."""

from __future__ import annotations

import io
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from lazy_lightning.plain_text import csv_text, printable, rich_text
from lazy_lightning.report.elements import prose

TEXTS = st.text(st.characters(), max_size=30)


@given(TEXTS)
@example("\x1b[2J\u202e\u2028\ud800\x9b")
def test_no_control_character_is_shown(text: str) -> None:
    shown = printable(text)
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in shown)
    shown.encode("utf-8")
    assert printable(shown) == shown


@given(TEXTS)
@example("[/red]")
@example("[link=https://example.org]x[/link]")
@example("\\[")
def test_rich_shows_brackets_as_they_are(text: str) -> None:
    console = Console(file=io.StringIO(), width=500)
    table = Table("name")
    table.add_row(rich_text(text))
    console.print(table)
    console.print(rich_text(text), soft_wrap=True)
    assert rich_text(text).plain == printable(text)
    assert printable(text).strip() in console.file.getvalue()  # type: ignore[attr-defined]


@given(TEXTS)
def test_html_has_no_tag(text: str) -> None:
    assert not set(prose(text)) & set("<>\"'\x00")


@given(st.sampled_from("=@+-\t\r\n"), TEXTS)
def test_no_cell_is_a_formula(start: str, text: str) -> None:
    assert csv_text(start + text).startswith("'")


@pytest.mark.parametrize("text", ["", "runs/version_0", "3e-4", "α"])
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert csv_text(text) == printable(text) == text
