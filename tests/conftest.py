"""One thread a test process, so that two workers share two cores and sums have one order; no deadlines."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from lazy_lightning.callbacks import LearningCurves

torch.set_num_threads(1)

settings.register_profile("suite", deadline=None, max_examples=30)
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def denormals_as_they_are() -> Iterator[None]:
    """The command line flushes denormals in its process; hypothesis, which draws them, refuses to go on there."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test writes does not stay."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def no_figures() -> Iterator[None]:
    """They take longer than all the rest of a small run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LearningCurves, "on_train_end", lambda *args: None)
        yield


REAL = Path(os.environ.get("LAZY_LIGHTNING_TEST_DATA", Path(__file__).parents[1].parent / "shared" / "data"))


@pytest.fixture(scope="session")
def real_file() -> Callable[[str], Path]:
    """The path of a real data file; skips the test where it is absent."""

    def find(name: str) -> Path:
        path = REAL / name
        if not path.is_file():
            pytest.skip(f"{name} is not in {REAL} (set LAZY_LIGHTNING_TEST_DATA to a folder that holds it)")
        return path

    return find
