"""A few random SIGKILLs; ``make faults`` runs fifty."""

from __future__ import annotations

from pathlib import Path

import pytest
from kills import KINDS, differences, installed, run

SHORT = ["fit", "fit on 2 ranks"]


def test_killed_and_resumed_runs_equal_undisturbed_ones_to_the_bit(tmp_path: Path) -> None:
    result = run(tmp_path, kills=2, seed=0, kinds=SHORT)
    assert result.violations == []
    assert 2 <= result.kills <= 4
    assert set(SHORT) <= set(KINDS)


@pytest.mark.parametrize("wrong", [{"a": b"2"}, {}, {"a": b"1", "b": b"1"}])
def test_results_that_differ_are_named(wrong: dict[str, bytes]) -> None:
    assert differences({"a": b"1"}, wrong)
    assert not differences({"a": b"1"}, {"a": b"1"})


def test_what_is_not_installed_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said: list[str] = []
    assert installed(list(KINDS), said.append) == [name for name, kind in KINDS.items() if not kind.needs]
    assert said == ["sweep on Ray: left out, because ray is not installed (pip install 'lazy-lightning[cluster]')"]
