"""One thread a test process, so that two workers share two cores and sums have one order; no deadlines."""

import torch
from hypothesis import settings

torch.set_num_threads(1)

settings.register_profile("suite", deadline=None, max_examples=30)
settings.load_profile("suite")
