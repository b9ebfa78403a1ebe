"""The campaign at small numbers; ``make faults`` runs it at large ones."""

from __future__ import annotations

from pathlib import Path

import arrays
import pytest
from campaign import KINDS, run

COUNTS = {"configurations": 0, "checkpoints": 14, "arrays": 63, "stores": 21}  # configurations have a test of their own


@pytest.mark.parametrize("kind", [kind for kind, count in COUNTS.items() if count])
def test_no_malformed_file_is_a_violation(kind: str, tmp_path: Path) -> None:
    if kind == "checkpoints":
        pytest.importorskip("lazy_lightning.runs.checkpoint_validation", reason="nothing checks their content")
    result = run(tmp_path, {kind: COUNTS[kind]}, seed=1)
    assert sum(sum(counts.values()) for counts in result.counts.values()) == COUNTS[kind]
    assert result.violations == []


def test_the_campaign_is_seeded(tmp_path: Path) -> None:
    from canary import canary

    with canary():
        names = [[trial.name for trial in arrays.trials(tmp_path, 60, seed)] for seed in (0, 0, 1)]
    assert names[0] == names[1] != names[2]
    assert set(COUNTS) == set(KINDS)
