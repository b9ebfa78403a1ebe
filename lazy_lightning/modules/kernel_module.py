"""KernelModule: the same flow on a frozen tangent kernel, in place of the network that it is the kernel of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from lazy_lightning.checkpoints import KEY, read_checkpoint
from lazy_lightning.errors import ConfigError
from lazy_lightning.flow.controllers import Band, ConstantStep
from lazy_lightning.flow.events import MarginsMet
from lazy_lightning.flow.schedule import Schedule
from lazy_lightning.losses import Loss
from lazy_lightning.modules.flow_module import FlowModule
from lazy_lightning.modules.kernel_objective import KernelObjective, kernel_outputs
from lazy_lightning.modules.stop import Stop
from lazy_lightning.ntk.empirical import empirical_ntk
from lazy_lightning.ntk.features import KernelFeatures
from lazy_lightning.objective import drop_single_output

At = Literal["init", "end"]
Outputs = Literal["full", "mean"]


class KernelModule(FlowModule):
    """Trains F' = -(1/n) Theta ell'(F, y) with a frozen kernel Theta, by the flow, losses, steps and stops of
    :class:`FlowModule`.

    The kernel is a linear model in n c features (see :class:`~lazy_lightning.ntk.features.KernelFeatures`); its
    weights v move as far, and at the same steps, as those of the linearised network would. Its outputs do not depend
    on alpha, which only weighs the loss.

    Args:
        network: as for FlowModule, and so are all other arguments up to ``chunk_size``.
        loss: likewise.
        alpha: likewise.
        seeds: likewise.
        centering: likewise; False starts from alpha f(w0, x).
        tau: likewise.
        mu: likewise.
        controller: likewise.
        dt: likewise.
        stop: likewise.
        schedule: likewise.
        chunk_size: likewise.
        at: the weights whose kernel it is: ``init`` the initial ones, ``end`` those of ``checkpoint``.
        checkpoint: of a run of the same members.
        layers: the part of some layers alone; ``last`` is the kernel of the features before the output layer.
        kernel_outputs: ``full`` couples the outputs as the network does, ``mean`` gives each the mean kernel, n c
            times cheaper to decompose.

    Raises:
        ConfigError: as for FlowModule, for ``end`` without a checkpoint, and for one of other members.
    """

    trains_network = False

    def __init__(
        self,
        network: Callable[[], nn.Module],
        loss: str | Loss = "softhinge(20)",
        alpha: float | list[float] = 1.0,
        seeds: int | list[int] = 1,
        centering: bool = True,
        tau: float = 0.0,
        mu: float | None = None,
        controller: str | Band | ConstantStep = "slides",
        dt: float = 1.0,
        stop: Stop | None = None,
        schedule: Schedule | None = None,
        chunk_size: int | None = None,
        at: At = "init",
        checkpoint: str | None = None,
        layers: list[str] | str | None = None,
        kernel_outputs: Outputs = "full",
    ) -> None:
        super().__init__(network, loss, alpha, seeds, centering, tau, mu, controller, dt, stop, schedule, chunk_size)
        if at == "end" and checkpoint is None:
            raise ConfigError(
                "the kernel at the end of training needs a run that has ended: fit first, then give its checkpoint.ckpt"
            )
        self.at = at
        self.checkpoint = checkpoint
        self.layers = layers
        self.kernel_outputs = kernel_outputs
        self._features: KernelFeatures | None = None

    @property
    def title(self) -> str:
        """What has been trained, for the closing summary."""
        when = {"init": "at initialisation", "end": f"at the end of {self.checkpoint}"}[self.at]
        part = "" if self.layers is None else f", of the layers {self.layers} alone"
        return f"flow on the tangent kernel {when}{part}"

    # ------------------------------------------------------------------ building

    def setup(self, stage: str) -> None:
        """Builds the networks, keeps the weights whose kernel is wanted, and puts the kernel's own in their place."""
        if hasattr(self, "w"):
            return
        super().setup(stage)
        initial = self.w0
        self.register_buffer("frozen", self._weights_of_checkpoint(initial) if self.checkpoint else initial)
        if not self.centering.enabled:
            self.register_buffer("initial", initial)
        size = len(self.data.train.y) * self.data.num_outputs
        self.w = nn.Parameter(initial.new_zeros(len(initial), size))
        self.w0 = initial.new_zeros(len(initial), size)

    def _weights_of_checkpoint(self, initial: Tensor) -> Tensor:
        path = Path(cast(str, self.checkpoint))
        saved = read_checkpoint(path)
        members = saved[KEY]
        if (tuple(members["alphas"]), tuple(members["seeds"])) != (self.roster.alphas, self.roster.seeds):
            raise ConfigError(
                f"{path} holds members of alpha {sorted(set(members['alphas']))} and seeds "
                f"{sorted(set(members['seeds']))}, other than this configuration's: give the config.yaml in its folder"
            )
        weights = saved["state_dict"].get("w" if self.at == "end" else "w0")
        if weights is None or weights.shape != initial.shape:
            raise ConfigError(
                f"{path} holds weights of shape {None if weights is None else tuple(weights.shape)}, the networks of "
                f"this configuration have {tuple(initial.shape)}: give the config.yaml in its folder"
            )
        return cast(Tensor, weights.to(initial.dtype))

    def _identity(self) -> str:
        return f"{super()._identity()} kernel {self.at} {self.layers} {self.kernel_outputs}"

    # ------------------------------------------------------------------ the kernel

    def _kernel(self, x: Tensor, train: Tensor | None) -> Tensor:
        """(E, rows, rows) between samples and the training samples; members of equal weights share the work."""
        weights, positions = torch.unique(cast(Tensor, self.frozen), dim=0, return_inverse=True)
        buffers = self.member_buffers()
        if buffers:
            weights, positions = cast(Tensor, self.frozen), torch.arange(len(self.w0), device=x.device)
        outputs = self.data.num_outputs
        full = self.kernel_outputs == "full" and outputs > 1
        kernel = empirical_ntk(
            self.network,
            weights,
            x,
            train,
            output="full" if full else "mean",
            layers=cast(Any, self.layers),
            buffers=buffers,
        )
        if full:
            kernel = kernel.transpose(2, 3).reshape(len(weights), len(x) * outputs, -1)
        return kernel[positions]

    def _decomposed(self, x: Tensor) -> KernelFeatures:
        """Of the training samples, once."""
        if self._features is None:
            kernel = self._kernel(x, None)
            if not bool(kernel.isfinite().all()):
                raise ConfigError("the tangent kernel has entries that are not finite: look at weights and data")
            self._features = KernelFeatures.of(kernel)
        return self._features

    def _check_ends(self, features: KernelFeatures) -> None:
        """Refuses to wait for margins that a kernel of low rank may never let the flow meet."""
        stop = self.stop
        if any(limit is not None for limit in (stop.t_max, stop.max_steps, stop.max_wall, stop.loss)):
            return
        rank, size = int(features.rank.min()), features.train.shape[-1]
        if rank < size:
            raise ConfigError(
                f"the {self.title} has rank {rank} for {size} outputs, so all margins may never be met: set one of "
                "model.stop.t_max, model.stop.max_steps, model.stop.max_wall or model.stop.loss"
            )

    def _start_outputs(self, x: Tensor) -> Tensor | None:
        """F(0) = alpha f(w0, x) without centering, else None for zero."""
        if self.centering.enabled:
            return None
        f0 = self.raw_outputs(cast(Tensor, self.initial), x)
        return f0 * self.centering.to(x.device).column(x.dtype)

    # ------------------------------------------------------------------ what the flow asks for

    def _build_objective(self) -> KernelObjective:
        self.centering = self.centering.to(self.device)
        features = self._decomposed(self.train_split.x)
        self._check_ends(features)
        return KernelObjective(
            features=features.train,
            start=self._start_outputs(self.train_split.x),
            alpha=self.centering.alpha,
            loss=self.loss,
            y=self.train_split.y,
            outputs=self.data.num_outputs,
            reports_margins=any(isinstance(event, MarginsMet) for event in self.flow.dynamics.events),
        )

    def _prepare_held_out(self) -> None:
        x = self.test_split.x
        cross = self._kernel(x, self.train_split.x)
        self._held_out_features = self._decomposed(self.train_split.x).of_others(cross)
        self._held_out_start = self._start_outputs(x)

    def _held_out(self) -> Tensor:
        return self._outputs(self._held_out_features, self._held_out_start)

    def centered_outputs(self, x: Tensor, f0: Tensor | None = None) -> Tensor:
        """F at the present weights of the kernel's model, (E, n) for one output and (E, n, c) for more."""
        train = self._resident(self.data.train).x
        features = self._decomposed(train).of_others(self._kernel(x, train))
        return self._outputs(features, self._start_outputs(x))

    def _outputs(self, features: Tensor, start: Tensor | None) -> Tensor:
        alpha = self.centering.to(self.device).alpha.to(features.dtype)
        return drop_single_output(kernel_outputs(features, self.w.detach(), alpha, start, self.data.num_outputs))
