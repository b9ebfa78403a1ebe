"""Random streams by purpose and seed.

Each stream is drawn on the CPU from a generator of its own, so what member ``seed`` starts from depends
neither on the device, nor on which members share its batch, nor on what else was drawn before. Data and
initialisation use different purposes: the same integer in both gives unrelated numbers.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch


def derived_seed(purpose: str, seed: int) -> int:
    """A 63-bit seed that depends on both arguments and on nothing else.

    >>> derived_seed("init", 0) == derived_seed("init", 0)
    True
    >>> derived_seed("init", 0) == derived_seed("data/train", 0)
    False
    """
    if seed < 0:
        raise ValueError(f"a seed must be >= 0, got {seed}")
    sequence = np.random.SeedSequence([zlib.crc32(purpose.encode()), seed])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator(purpose: str, seed: int) -> torch.Generator:
    """A CPU generator for one purpose (``"init"``, ``"data/train"``, ...) and one seed."""
    return torch.Generator(device="cpu").manual_seed(derived_seed(purpose, seed))
