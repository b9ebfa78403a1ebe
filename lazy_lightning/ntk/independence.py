"""Whether a network's output for a sample depends on that sample and the weights alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lazy_lightning.errors import ConfigError
from lazy_lightning.ntk.tangent_model import TangentModel, gradients_on

AGREEMENT = {torch.float64: 1e-8, torch.float32: 1e-3}
"""Relative: far over rounding, far under any mistake of a rule or any mixing of samples."""
COARSE = 1e-2
"""For other dtypes."""


def check_independence(near: TangentModel, x: Tensor) -> None:
    """Compares the output for a sample alone with that in batches of several sizes and orders.

    Args:
        near: of one member; what :meth:`TangentModel.nearby` gives, so that no zero weight hides anything.
        x: some samples that are not zero.

    Raises:
        ConfigError: if they differ by more than rounding, or evaluating the network has other effects.
    """
    held = {**near.shared_buffers, **near.member_buffers, **near.params}
    versions, state = {name: t._version for name, t in held.items()}, _random_state(near.device)
    alone = torch.cat([_outputs(near, sample.unsqueeze(0)) for sample in x], dim=1)
    batches = [(rows, _outputs(near, x[rows])) for rows in _batches(len(x), near.device)]
    if not torch.equal(state, _random_state(near.device)):
        raise ConfigError(
            f"{type(near.template).__name__} draws random numbers, so it is no function of its weights: call "
            "model.eval(), or remove the layer that draws"
        )
    changed = [name for name, t in held.items() if t._version != versions[name]]
    if changed:
        raise ConfigError(
            f"{type(near.template).__name__} changes {', '.join(changed)} at each evaluation: call model.eval(), or "
            "remove the layer that does so"
        )
    if not bool(alone.isfinite().all()):
        return  # nothing can be compared; the kernel is not finite either, which raises later
    require_same([(together, alone[:, rows]) for rows, together in batches], near)


def check_batch(near: TangentModel, x: Tensor) -> None:
    """The same on one batch as it will be evaluated, of which three samples are also evaluated alone.

    Raises:
        ConfigError: if their outputs in the batch are others.
    """
    together = _outputs(near, x)
    alone = [(together[:, [i]], _outputs(near, x[i : i + 1])) for i in looked_at(len(x))]
    require_same(alone, near)


def looked_at(samples: int) -> list[int]:
    """First, middle and last."""
    return sorted({0, samples // 2, samples - 1}) if samples else []


def require_same(pairs: Sequence[tuple[Tensor, Tensor]], model: TangentModel) -> None:
    """Lets pass what samples give in a batch if it is what they give alone; what is not finite cannot be compared.

    Raises:
        ConfigError: otherwise.
    """
    tolerance = AGREEMENT.get(model.dtype, COARSE)
    differ = [(a - b).norm() > tolerance * (a.norm() + b.norm()) for a, b in pairs]
    if differ and bool(torch.stack(differ).any()):
        raise ConfigError(
            f"{type(model.template).__name__} gives another output for a sample when others are in the batch, so the "
            "tangent kernel of a pair of samples is not defined: replace the layer that mixes samples"
        )


def _batches(samples: int, device: torch.device) -> Iterator[Tensor]:
    """In order, in reverse, the last ones, and one that is larger than the others."""
    every = torch.arange(samples, device=device)
    yield every
    yield every.flip(0)
    yield every[-2:]
    yield every.repeat(4)[: 3 * samples + 1]


def _outputs(model: TangentModel, x: Tensor) -> Tensor:
    with gradients_on():  # some networks differentiate inside of their forward
        return model.outputs(x).detach()


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()
