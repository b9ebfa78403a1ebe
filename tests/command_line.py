"""Driving the real command line in process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lazy_lightning.cli import main
from lazy_lightning.cli.flow_cli import FlowCLI
from lazy_lightning.cli.user_messages import filter_warnings

CONF = Path(__file__).parent / "conf"
TINY = ["fit", "--config", "digits_fc.yaml", "--config", "overlays/tiny.yaml"]
QUIET = [*TINY, "--config", str(CONF / "quiet.yaml")]


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence on stderr of a run that must fail."""
    capsys.readouterr()
    code = main(arguments)
    shown = capsys.readouterr().err
    assert code in (1, 2), shown
    lines = shown.strip().splitlines()
    assert len(lines) == 1, shown
    assert lines[0].startswith("error: ")
    for dump in ("Traceback", "Union", "Subtypes", "NestedArg", "Namespace", "<class"):
        assert dump not in shown
    return lines[0]


def built(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command line with everything instantiated and nothing run."""
    from lazy_lightning.cli.bundled import resolve_configs

    filter_warnings()
    monkeypatch.setattr(FlowCLI, "_run_subcommand", lambda self, subcommand: None)
    return FlowCLI(resolve_configs(arguments)[0])
