"""Random number generators derived from a purpose and a seed.

Each stream is drawn on the CPU from its own generator, so the initial weights of member ``seed`` depend
neither on the device, nor on the other members of its batch, nor on numbers drawn before. Data and
initialisation use different purposes, so the same integer in both gives unrelated numbers.
"""

from __future__ import annotations

import zlib

import numpy as np
import torch

from lazy_lightning.errors import ConfigError


def derived_seed(purpose: str, seed: int) -> int:
    """Returns a 63-bit seed that depends only on the two arguments.

    >>> derived_seed("init", 0) == derived_seed("init", 0)
    True
    >>> derived_seed("init", 0) == derived_seed("data/train", 0)
    False
    """
    if seed < 0:
        raise ConfigError(f"a seed is {seed}, expected an integer >= 0")
    sequence = np.random.SeedSequence([zlib.crc32(purpose.encode()), seed])
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def generator(purpose: str, seed: int) -> torch.Generator:
    """Returns a CPU generator for one purpose (``"init"``, ``"data/train"``, ...) and one seed."""
    return torch.Generator(device="cpu").manual_seed(derived_seed(purpose, seed))
