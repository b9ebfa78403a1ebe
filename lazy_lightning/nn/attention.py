"""Attention by plain products, which every mode of differentiation and ``vmap`` support."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextmanager
def plain_attention() -> Iterator[None]:
    """Evaluates ``scaled_dot_product_attention`` and ``MultiheadAttention`` by plain matrix products.

    The fused kernels have neither a forward-mode derivative nor a rule for ``vmap``, and the fast path of
    ``MultiheadAttention`` has no gradient.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
