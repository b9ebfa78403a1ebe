"""The Jacobian with respect to some parameters, sample by sample: for layers without a known structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from lazy_lightning.errors import ConfigError
from lazy_lightning.ntk.tangent_model import TangentModel, gradients_of, gradients_on


def jacobian_rows(model: TangentModel, names: Sequence[str], x: Tensor, *, mapped: bool = True) -> Tensor:
    """d f_k(x_i) / d w for the named parameters, (E, n, c, P), in the order of the names.

    All samples at once if ``torch.func`` can map the network over them. There is much that it cannot (LSTM, PReLU,
    branches on values): then one backward pass for each sample and output, slow but good for any network.

    Args:
        model: the network.
        names: of the parameters.
        x: (n, ...)
        mapped: False where mapping is known to give wrong numbers.
    """
    with gradients_on():
        try:
            if mapped:
                return mapped_rows(model, names, x)
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ConfigError):
            pass  # a network that cannot be evaluated at all raises in the next lines
        return torch.stack([_rows_one_by_one(model, member, names, x) for member in range(model.members)])


def mapped_rows(model: TangentModel, names: Sequence[str], x: Tensor) -> Tensor:
    """The same by ``torch.func`` alone.

    Raises:
        RuntimeError: if it cannot map the network over single samples.
        ConfigError: if it cannot map it over members.
    """

    def of_member(params: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> Tensor:
        fixed = {name: p for name, p in params.items() if name not in names}

        def of_sample(sample: Tensor) -> Tensor:
            def outputs(chosen: dict[str, Tensor]) -> Tensor:
                return model.call({**fixed, **chosen}, buffers, sample.unsqueeze(0))[0]

            blocks = jacrev(outputs)({name: params[name] for name in names})
            return torch.cat([blocks[name].unsqueeze(-1).flatten(1) for name in names], dim=1)

        return vmap(of_sample)(x)

    rows: Tensor = model.over_members(of_member)
    return rows.detach()


def _rows_one_by_one(model: TangentModel, member: int, names: Sequence[str], x: Tensor) -> Tensor:
    """(n, c, P) of one member."""
    buffers = {**model.shared_buffers, **{name: b[member] for name, b in model.member_buffers.items()}}
    params = {name: p[member].clone().requires_grad_(name in names) for name, p in model.params.items()}
    wanted = [params[name] for name in names]
    values = [value for sample in x for value in model.call(params, buffers, sample.unsqueeze(0))[0]]
    rows = torch.stack([torch.cat([g.flatten() for g in gradients_of(value, wanted)]) for value in values])
    return rows.reshape(len(x), -1, rows.shape[1])
