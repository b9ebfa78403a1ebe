"""A kernel to compare with, held on the device or computed again tile by tile when it does not fit there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from lazy_lightning.memory import require_bytes, working_bytes
from lazy_lightning.ntk.alignment import KernelComparison
from lazy_lightning.ntk.joint_kernel import joint_kernel
from lazy_lightning.ntk.tangent_model import TangentModel
from lazy_lightning.ntk.tangents import Tangents
from lazy_lightning.ntk.tiles import kernel_tiles

TOTAL = "total"


class KernelReference:
    """Theta_0 of some samples by layer, with which the kernels of later weights are compared.

    Args:
        tangents: the samples, the network and its weights at the start; the contraction is ``full`` or ``trace``.
        hold: keep Theta_0; None keeps it if it takes up to a quarter of the free memory.
        tile: samples a side of what is computed at once.
        labels: of the samples, to align the kernels with.
    """

    def __init__(
        self, tangents: Tangents, *, hold: bool | None = None, tile: int | None = None, labels: Tensor | None = None
    ) -> None:
        self.start = tangents
        self.tile = tile
        outputs = tangents.model.outputs_per_sample(tangents.x)
        self._joined = outputs if tangents.contraction == "full" else 1
        self._labels = None if labels is None else self._joint_labels(labels.to(tangents.model.device), outputs)
        self.holds = self.nbytes <= working_bytes(tangents.model.device) if hold is None else hold
        self._held = self._whole() if self.holds else None

    @property
    def size(self) -> int:
        """Rows of the kernel: samples, times outputs if these are not summed over."""
        return len(self.start) * self._joined

    @property
    def nbytes(self) -> int:
        """What Theta_0 takes by layer."""
        model = self.start.model
        return len(self.start.plan.layers) * model.members * self.size**2 * model.dtype.itemsize

    def compare(self, model: TangentModel, members: Tensor) -> dict[str, KernelComparison]:
        """Theta at the weights of ``model`` against Theta_0, by layer and in ``total``.

        Args:
            model: E' sets of weights of the same network.
            members: (E',) with which of the start's members each is to be compared.
        """
        layers = self.start.plan.layers
        found = {
            name: KernelComparison(self.size, (model.members,), model.device, labels=self._labels)
            for name in (*layers, TOTAL)
        }
        for rows, cols, now, start in self._tiles(model, members):
            now[TOTAL], start[TOTAL] = sum(now.values()), sum(start.values())  # type: ignore[assignment]
            for name, comparison in found.items():
                comparison.add(rows, cols, now[name], start[name])
        return found

    def _tiles(
        self, model: TangentModel, members: Tensor
    ) -> Iterator[tuple[slice, slice, dict[str, Tensor], dict[str, Tensor]]]:
        """Tiles of both kernels; where Theta_0 is not held, its weights go through the network beside the present."""
        both = model if self._held else _stacked(model, self.start.model, members)
        count = model.members
        for tile in kernel_tiles(replace(self.start, model=both), tile=self.tile):
            rows, cols = self._joint_slice(tile.rows), self._joint_slice(tile.cols)
            blocks = {name: self._joint(block) for name, block in tile.by_layer.items()}
            now = {name: block[:count] for name, block in blocks.items()}
            if self._held:
                yield rows, cols, now, {name: held[members, rows, cols] for name, held in self._held.items()}
            else:
                yield rows, cols, now, {name: block[count:] for name, block in blocks.items()}

    def _whole(self) -> dict[str, Tensor]:
        """Theta_0 by layer, (E, size, size), both triangles: later tiles may be cut otherwise."""
        model = self.start.model
        what = f"Theta_0 by layer of {self.size} samples and outputs"
        require_bytes(self.nbytes, model.device, what, "set hold: false, or use fewer samples")
        held = {
            name: torch.zeros(model.members, self.size, self.size, dtype=model.dtype, device=model.device)
            for name in self.start.plan.layers
        }
        for tile in kernel_tiles(self.start, tile=self.tile):
            for name, block in tile.by_layer.items():
                joint = self._joint(block)
                rows, cols = self._joint_slice(tile.rows), self._joint_slice(tile.cols)
                held[name][:, rows, cols] = joint
                if tile.mirrored:
                    held[name][:, cols, rows] = joint.mT
        return held

    def _joint(self, block: Tensor) -> Tensor:
        """(E, r, s, c, c) as (E, r c, s c): rows over samples, then outputs."""
        return block if block.ndim == 3 else joint_kernel(block)

    def _joint_slice(self, samples: slice) -> slice:
        return slice(samples.start * self._joined, samples.stop * self._joined)

    def _joint_labels(self, labels: Tensor, outputs: int) -> Tensor:
        """One target a row of the kernel."""
        if self._joined == 1:
            return labels
        targets = labels if labels.is_floating_point() else torch.nn.functional.one_hot(labels, outputs)
        return targets.reshape(-1).double()


def _stacked(now: TangentModel, start: TangentModel, members: Tensor) -> TangentModel:
    """The members of ``now``, then those of ``start`` that they are compared with."""
    return replace(
        now,
        params={name: torch.cat([p, start.params[name][members]]) for name, p in now.params.items()},
        member_buffers={
            name: torch.cat([b, start.member_buffers[name][members]]) for name, b in now.member_buffers.items()
        },
    )
