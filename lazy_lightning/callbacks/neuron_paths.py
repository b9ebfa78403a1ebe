"""Paths of the neurons of a two-layer network with two-dimensional inputs, recorded and drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from pytorch_lightning import Trainer
from safetensors.torch import save_file
from torch import Tensor

from lazy_lightning.callbacks.unwritten import warn_if_unwritten
from lazy_lightning.errors import RunError
from lazy_lightning.figures.neuron_paths import Paths, Teacher, neuron_paths
from lazy_lightning.figures.style import save
from lazy_lightning.modules.observation import NetworkObserver, Observation
from lazy_lightning.modules.ranks import Ranks
from lazy_lightning.runs.atomic import written_atomically

if TYPE_CHECKING:
    from lazy_lightning.modules.observable_module import ObservableModule

NEURONS = "neurons.safetensors"
SCHEMA = 1
_RECORDED = ("places", "signs", "t")
_HIDDEN, _HEAD = "hidden.weight", "head.weight"


class NeuronPaths(NetworkObserver):
    """Observer of positions alpha s |b_j| a_j and signs of b_j of the neurons of F = alpha s sum_j b_j phi(a_j . x).

    The position is a neuron's contribution on the scale of the teacher's neurons (arXiv:1812.07956, figure 1). The
    first seed of each alpha is recorded. At the end of the run the observer writes ``neurons.safetensors`` with
    ``places`` (M, K, m, 2), ``signs`` (M, K, m), ``t`` (M, K), ``alpha`` and ``seed`` (M,), and the arrays of the
    teacher if there is one, and ``figures/neuron_paths.png`` and ``.pdf``. It applies to
    :class:`~lazy_lightning.nn.TwoLayer` and to any network with parameters ``hidden.weight`` (m, 2) and
    ``head.weight`` (1, m); it ignores others.
    """

    state_by_member = False

    needs_shared_inputs = False

    def __init__(self) -> None:
        self._places: list[Tensor] = []
        self._signs: list[Tensor] = []
        self._t: list[Tensor] = []
        self._restored: dict[str, Tensor] = {}
        self._ranks = Ranks()
        self._members: list[int] = []

    def applies_to(self, module: ObservableModule) -> bool:
        """Returns whether the network has the parameters ``hidden.weight`` (m, 2) and ``head.weight`` (1, m)."""
        if not super().applies_to(module):
            return False
        shapes = dict(zip(module.network.names, module.network.shapes, strict=True))
        hidden, head = shapes.get(_HIDDEN, ()), shapes.get(_HEAD, ())
        return len(hidden) == 2 and hidden[1] == 2 and tuple(head) == (1, hidden[0])

    def check(self, module: ObservableModule) -> None:
        """Determines which of the recorded members this process trains, and continues their restored paths."""
        self._ranks, self._members = module.ranks, _first_seeds(module)
        if self._restored:
            places, _ = self._ranks.own_of(self._members)
            parts = [self._restored[name][places] for name in _RECORDED]
            self._places, self._signs, self._t = (list(part.unbind(1)) for part in parts)
            self._restored = {}

    @torch.no_grad()
    def observe(self, module: ObservableModule, observation: Observation) -> Mapping[str, Tensor]:
        """Records the positions and signs of the neurons; returns no columns."""
        if observation.index == 0:
            self._places, self._signs, self._t = [], [], []
        _, rows = self._ranks.own_of(self._members)
        weights = module.network.unpack(_chosen(module.w.detach(), rows))
        a, b = weights[_HIDDEN], weights[_HEAD].squeeze(1)
        factor = float(getattr(module.network.template.head, "scale", 1.0))
        scale = _chosen(module.centering.alpha, rows).to(a.dtype) * factor
        self._places.append((scale.view(-1, 1, 1) * b.abs().unsqueeze(-1) * a).double())
        self._signs.append(b.sign().double())
        self._t.append(_chosen(observation.state.t, rows))
        return {}

    @torch.no_grad()
    def on_train_end(self, trainer: Trainer, pl_module: ObservableModule) -> None:  # type: ignore[override]
        """Writes the arrays and draws the figure, also after a signal."""
        if trainer.log_dir is None:
            return
        rows, paths = _first_seeds(pl_module), self._arrays()
        if not paths or not trainer.is_global_zero:
            return
        arrays = paths | {
            "alpha": pl_module.ensemble.alpha_tensor()[rows],
            "seed": torch.tensor(pl_module.ensemble.seeds)[rows],
        }
        teacher = _teacher(pl_module)
        if teacher is not None:
            arrays |= {f"teacher_{name}": torch.from_numpy(part) for name, part in teacher._asdict().items()}
        path = Path(trainer.log_dir) / NEURONS
        with warn_if_unwritten(pl_module, path), written_atomically(path) as temporary:
            save_file(arrays, str(temporary), metadata={"schema": str(SCHEMA)})
        members = [
            Paths(float(arrays["alpha"][i]), arrays["places"][i].numpy(), arrays["signs"][i].numpy())
            for i in range(len(rows))
        ]
        figure = path.parent / "figures" / "neuron_paths"
        with warn_if_unwritten(pl_module, figure):
            width = getattr(pl_module.network.template, "width", None)
            save(neuron_paths(members, teacher, float("nan") if width is None else float(width)), figure)

    def _arrays(self) -> dict[str, Tensor]:
        """Returns the paths of the first seeds of all ranks, as arrays; nothing if none have been recorded.

        Raises:
            RunError: the observer has failed on one of the ranks, so that its paths are shorter.
        """
        lengths = self._ranks.union([str(len(self._places))])
        if len(lengths) > 1:
            raise RunError(f"the devices have recorded paths of different lengths: {', '.join(lengths)} observations")
        if not self._places:
            return {}
        parts = dict(zip(_RECORDED, (self._places, self._signs, self._t), strict=True))
        own = self._ranks.on_all(
            lambda: {name: torch.stack([x.cpu() for x in part], dim=1).contiguous() for name, part in parts.items()}
        )
        return self._ranks.gather_some(own, self._members)

    def state_dict(self) -> dict[str, Any]:
        """Returns the paths for the checkpoint, so that a resumed run draws complete paths."""
        return self._arrays()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the paths from a checkpoint."""
        if state_dict:
            self._restored = {name: state_dict[name] for name in _RECORDED}


def _first_seeds(module: ObservableModule) -> list[int]:
    alphas = module.ensemble.alphas
    return [alphas.index(alpha) for alpha in dict.fromkeys(alphas)]


def _chosen(values: Tensor, rows: list[int]) -> Tensor:
    """Selects rows without an index tensor, which would have to be transferred to the device."""
    return torch.stack([values[row] for row in rows]) if rows else values[:0]


def _teacher(module: ObservableModule) -> Teacher | None:
    seeds = module.ensemble.data_seeds  # the first members of all alphas have the same data seed
    data = cast(Any, module.data_sets.data_of(module.data, None if seeds is None else seeds[0]))
    if getattr(data, "teacher_weights", None) is None:
        return None
    return Teacher((data.teacher_scale * data.teacher_weights).numpy(), data.teacher_signs.numpy())
