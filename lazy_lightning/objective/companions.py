"""The models that a network is compared with when they are trained beside it, from the same start by the same steps.

All have the network's weights, w = w0 + dw, and F = alpha (f - f0), where f is

* ``network``: f(w, x);
* ``linearized``: f(w0, x) + J(w0, x) dw, which is what a lazy network is;
* ``frozen_activations``: the network whose ReLUs and max-pools choose as they did at w0 on the same x, so that only the
  weights of a multilinear map are trained (arXiv:1812.07956).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from lazy_lightning.errors import ConfigError
from lazy_lightning.nn.linearize import tangent_outputs
from lazy_lightning.nn.member_samples import MemberSamples, Samples
from lazy_lightning.nn.members import MemberNetwork
from lazy_lightning.nn.shared_starts import SharedStarts
from lazy_lightning.objective.centering import Centering
from lazy_lightning.objective.full_batch import drop_single_output

Companion = Literal["linearized", "frozen_activations"]
NETWORK = "network"
COMPANIONS: tuple[Companion, ...] = get_args(Companion)


@dataclass(frozen=True)
class ComparisonModels:
    """E members at one start, as any of the models."""

    network: MemberNetwork
    centering: Centering
    w0: Tensor
    """(E, N)"""
    buffers: dict[str, Tensor]
    """(E, *shape) each"""
    shared: SharedStarts
    """Which of them have equal initial weights."""

    @torch.no_grad()
    def start(self, x: Samples) -> Tensor:
        """f(w0, x), (E, n, c), evaluated once a seed where members share the samples."""
        if isinstance(x, MemberSamples):
            return self.network(self.w0, x, self.buffers)
        return self.network(self.w0[self.shared.first], x, self.shared.rows(self.buffers))[self.shared.own]

    def outputs(self, model: str, displacement: Tensor, x: Samples, start: Tensor) -> Tensor:
        """F of one model, (E, n) or (E, n, c), differentiable in the displacement.

        Args:
            model: its name, as above.
            displacement: (E, N) dw.
            x: (n, ...).
            start: from :meth:`start`, of the same x.
        """
        if model == "linearized":
            change = tangent_outputs(lambda w: self.network(w, x, self.buffers), self.w0, displacement)
        elif model == "frozen_activations":
            change = self.network.with_frozen_gates(self.w0 + displacement, self.w0, x, self.buffers) - start
        else:
            change = self.network(self.w0 + displacement, x, self.buffers) - start
        return drop_single_output(self.centering.from_change(change, start))


def check_companions(names: list[Companion]) -> tuple[Companion, ...]:
    """Each once, in the order of :data:`COMPANIONS`.

    >>> check_companions(["frozen_activations", "linearized"])
    ('linearized', 'frozen_activations')

    Raises:
        ConfigError: an unknown name.
    """
    if not isinstance(names, Sequence) or isinstance(names, str):
        raise ConfigError(f"companions is {names!r}, expected a list of some of {' and '.join(COMPANIONS)}")
    unknown = [name for name in names if name not in COMPANIONS]
    if unknown:
        raise ConfigError(f"companions are {' and '.join(COMPANIONS)}, got {', '.join(map(str, unknown))}")
    return tuple(name for name in COMPANIONS if name in names)
