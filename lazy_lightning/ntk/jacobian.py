"""The Jacobian with respect to some parameters, sample by sample: for layers whose structure nobody has told us."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from lazy_lightning.errors import ConfigError
from lazy_lightning.ntk.tangent_model import TangentModel


def jacobian_rows(model: TangentModel, names: Sequence[str], x: Tensor) -> Tensor:
    """d f_k(x_i) / d w for the named parameters, (E, n, c, P), in the order of the names.

    Raises:
        ConfigError: if ``torch.func`` cannot map the network over single samples.
    """

    def of_member(params: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> Tensor:
        fixed = {name: p for name, p in params.items() if name not in names}

        def of_sample(sample: Tensor) -> Tensor:
            def outputs(chosen: dict[str, Tensor]) -> Tensor:
                return model.call({**fixed, **chosen}, buffers, sample.unsqueeze(0))[0]

            blocks = jacrev(outputs)({name: params[name] for name in names})
            return torch.cat([blocks[name].flatten(1) for name in names], dim=1)

        return vmap(of_sample)(x)

    try:
        rows: Tensor = model.over_members(of_member)
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise ConfigError(
            f"{type(model.template).__name__} cannot be differentiated sample by sample for {', '.join(names)} "
            f"({' '.join(str(error).split())[:200]}): use layers that torch.func can map, or leave these layers out"
        ) from error
    return rows.detach()
