"""One thread a test process, so that two workers share two cores and sums have one order; no deadlines."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)

settings.register_profile("suite", deadline=None, max_examples=30)
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def denormals_as_they_are() -> Iterator[None]:
    """The command line flushes denormals in its process; hypothesis, which draws them, refuses to go on there."""
    yield
    torch.set_flush_denormal(False)
