"""KernelModule: the same flow on a frozen tangent kernel, in place of the network that it is the kernel of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from lazy_lightning.data.split import Split
from lazy_lightning.errors import ConfigError
from lazy_lightning.modules.flow_module import FlowModule
from lazy_lightning.modules.kernel_objective import KernelObjective, kernel_outputs
from lazy_lightning.nn.shared_starts import SharedStarts
from lazy_lightning.ntk.features import KernelFeatures, require_decomposable
from lazy_lightning.ntk.frozen_kernel import OutputMode, frozen_kernels
from lazy_lightning.ntk.kernel_plan import LayerChoice
from lazy_lightning.ntk.sharing import Sharing
from lazy_lightning.objective.full_batch import drop_single_output
from lazy_lightning.runs.checkpoints import KEY, read_checkpoint, require_digest

At = Literal["init", "end"]


class KernelModule(FlowModule):
    """Trains F' = -(1/n) Theta ell'(F, y) with a frozen kernel Theta, by the flow, losses, steps and stops of
    :class:`FlowModule`.

    The kernel is a linear model in n c features (see :class:`~lazy_lightning.ntk.features.KernelFeatures`); its
    weights v move as far, and at the same steps, as those of the linearised network would. Alpha only weighs the loss:
    with the kernel at initialisation, centred outputs do not depend on it.

    Args:
        args: the arguments of :class:`FlowModule` by position. Without centering, F starts at alpha f(w0, x).
        at: the weights whose kernel it is: ``init`` the initial ones, ``end`` those of ``checkpoint``.
        checkpoint: of a run that has these members.
        layers: the part of some layers alone; ``last`` is the kernel of the features before the output layer.
        kernel_outputs: ``full`` couples the outputs as the network does, ``mean`` gives each the mean kernel, n c
            times cheaper to decompose.
        kwargs: the arguments of :class:`FlowModule` by name.

    Raises:
        ConfigError: as for FlowModule, for ``end`` without a checkpoint, for one of other members, and for a kernel
            that is not finite or not the one that a checkpoint was trained on.
        RunError: if the kernel does not fit in memory.
    """

    trains_network = False

    def __init__(
        self,
        *args: Any,
        at: At = "init",
        checkpoint: str | None = None,
        layers: list[str] | str | None = None,
        kernel_outputs: OutputMode = "full",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if self.decay.rate > 0:
            raise ConfigError(
                f"decay_rate is {self.decay.rate}, but a frozen kernel is followed by its outputs, without weights: "
                "set decay_rate to 0"
            )
        if self.ensemble.data_seeds is not None:
            raise ConfigError(
                "model.data_seeds gives members training sets of their own, but a frozen kernel is that of one "
                "training set: leave data_seeds out, and run once for each data.train_seed"
            )
        for name, value, known in (("at", at, get_args(At)), ("kernel_outputs", kernel_outputs, get_args(OutputMode))):
            if value not in known:
                raise ConfigError(f"{name} is {value!r}, expected {' or '.join(known)}")
        if self.paired:
            raise ConfigError(
                "model.paired is for networks; the model of a frozen kernel is linear and loses no digits without it: "
                "set model.paired to false"
            )
        if at == "end" and checkpoint is None:
            raise ConfigError(
                "the kernel at the end of training needs a run that has ended: fit first, then give its "
                "checkpoint.ckpt as --ckpt_path"
            )
        self.at = at
        self.checkpoint = checkpoint
        self.layers = layers
        self.kernel_outputs = kernel_outputs
        self._awaited = checkpoint
        """The file that the frozen weights are still to be read from."""
        self._features: KernelFeatures | None = None
        self._train_x: Tensor | None = None
        self._distinct: Tensor | None = None

    @property
    def title(self) -> str:
        """What has been trained, for the closing summary."""
        return f"flow on {self._kernel_name}"

    @property
    def _kernel_name(self) -> str:
        when = {"init": "at initialisation", "end": f"at the end of {self.checkpoint}"}[self.at]
        if self.layers is None:
            return f"the tangent kernel {when}"
        names = [self.layers] if isinstance(self.layers, str) else self.layers
        part = f"layer{'s' * (len(names) > 1)} {', '.join(names)}"
        return f"the part of {'the last layer' if self.layers == 'last' else part} in the tangent kernel {when}"

    # ------------------------------------------------------------------ building

    def _resident_training_set(self) -> Split:
        """All of it: processes that divide the samples compute tiles of the kernel in turn, and hold all of it."""
        return self.resident(self._observed_training_set())

    def setup(self, stage: str) -> None:
        """Builds the networks, whose initial weights stay in ``w0``, and the weights ``w`` of the kernel's model."""
        built = hasattr(self, "w")
        super().setup(stage)
        if built:
            return
        self.register_buffer("frozen", self.w0.clone())  # a checkpoint is read into it
        samples, outputs = len(self.data.train.y), self.data.num_outputs
        rows = samples * (outputs if self.kernel_outputs == "full" else 1)
        self.register_buffer("row_sums", self.w0.new_zeros(len(self.w0), rows))
        self.w = nn.Parameter(self.w0.new_zeros(len(self.w0), samples * outputs))
        self.register_buffer("zero", torch.zeros_like(self.w.detach()), persistent=False)

    @property
    def flow_origin(self) -> Tensor:
        """(E, n c) zeros, where the flow of the kernel's model starts."""
        return cast(Tensor, self.zero)

    def _saved_origin(self, weights: Mapping[str, Tensor]) -> Tensor:
        return torch.zeros_like(weights["w"])

    def on_fit_start(self) -> None:
        """As any flow; the samples and the precision may be others than in a fit before."""
        self._forget()
        cast(Tensor, self.row_sums).zero_()
        super().on_fit_start()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Also forgets the kernel, and the file of the frozen weights: a checkpoint of our own holds them."""
        self._restore_initial_weights(checkpoint.get("state_dict"))
        super().on_load_checkpoint(checkpoint)
        self._forget()
        self._awaited = None

    def _restore_initial_weights(self, state: Any) -> None:
        """Puts the networks' w0 into a state of 0.1.0, where w0 was zeros, and ``initial`` w0 without centering."""
        if not isinstance(state, dict):
            return
        w, w0 = state.get("w"), state.get("w0")
        if isinstance(w, Tensor) and isinstance(w0, Tensor) and w0.shape == w.shape and not bool(w0.any()):
            state["w0"] = state.pop("initial", self.w0.detach().cpu().clone())

    def _forget(self) -> None:
        self._features, self._train_x, self._distinct = None, None, None

    def _frozen_weights(self) -> Tensor:
        frozen = cast(Tensor, self.frozen)
        if self._awaited is not None:
            frozen.copy_(self._weights_of_checkpoint(Path(self._awaited), frozen.shape))
            self._awaited = None
        return frozen

    def _weights_of_checkpoint(self, path: Path, shape: torch.Size) -> Tensor:
        saved = read_checkpoint(path)
        members, state = saved[KEY], saved["state_dict"]
        if "frozen" in state:
            raise ConfigError(
                f"{path} is of a flow on a kernel, and has no trained network: give the checkpoint of a fit, or go on "
                "with fit and the config.yaml in its folder"
            )
        saved_rows = {who: i for i, who in enumerate(zip(members["alphas"], members["seeds"], strict=True))}
        own = list(zip(self.own_members.alphas, self.own_members.seeds, strict=True))
        if any(who not in saved_rows for who in own):
            raise ConfigError(
                f"{path} holds members of alpha {sorted(set(members['alphas']))} and seeds "
                f"{sorted(set(members['seeds']))}, other than this configuration's: give the config.yaml in its folder"
            )
        weights = state.get("w" if self.at == "end" else "w0")
        if weights is not None and len(weights) == len(saved_rows):
            weights = weights[[saved_rows[who] for who in own]]  # some of its members, or all
        if weights is None or weights.shape != shape:
            raise ConfigError(
                f"{path} holds weights of shape {None if weights is None else tuple(weights.shape)}, the networks of "
                f"this configuration have {tuple(shape)}: give the config.yaml in its folder"
            )
        require_digest(saved, path)
        return cast(Tensor, weights)

    def _identity(self) -> str:
        return f"{super()._identity()} kernel {self.at} {self.layers} {self.kernel_outputs}"

    # ------------------------------------------------------------------ the kernel

    def _kernel(self, x: Tensor, train: Tensor | None) -> Tensor:
        """The kernel of each distinct set of weights."""
        weights, buffers = self._frozen_weights(), self.member_buffers()
        if self._distinct is None or self._distinct.device != weights.device:
            starts = SharedStarts.of_weights(weights, buffers)
            self._distinct, self._sharing = starts.first, Sharing.of(starts.own)
        return frozen_kernels(
            self.network,
            weights[self._distinct],
            {name: b[self._distinct] for name, b in buffers.items()},
            x,
            train,
            outputs=self.data.num_outputs,
            kernel_outputs=self.kernel_outputs,
            layers=cast("LayerChoice", self.layers),
            ranks=self.sample_ranks,
        )

    def _train_inputs(self) -> Tensor:
        """The samples that v belongs to: those of the fit, even if other data are evaluated since."""
        if self._train_x is None:
            self._train_x = self.resident(self.data.train).x
        return self._train_x.to(self.w.device)

    def _decomposed(self) -> KernelFeatures:
        """The features of the training samples, computed once a device."""
        if self._features is None or self._features.train.device != self.w.device:
            self._require_memory()
            kernel = self._kernel(self._train_inputs(), None)
            if not bool(kernel.isfinite().all()):
                raise ConfigError("the tangent kernel has entries that are not finite: look at weights and data")
            self._check_same(kernel.sum(dim=-1)[self._sharing.own])
            self._features = KernelFeatures.of(kernel)
        return self._features

    def _require_memory(self) -> None:
        members, rows = cast(Tensor, self.row_sums).shape
        remedy = "use fewer samples, seeds or alphas" + (", or kernel_outputs mean" if self._is_full else "")
        require_decomposable(members, rows, self.device, remedy)

    def _check_same(self, sums: Tensor) -> None:
        """Refuses weights that were trained on another kernel: v means nothing there."""
        trained = cast(Tensor, self.row_sums)
        if not bool(trained.any()):
            trained.copy_(sums)
            return
        slack = torch.finfo(sums.dtype).eps ** 0.5 * trained.abs().amax(dim=1)  # another machine rounds otherwise
        if not bool(((sums - trained).abs().amax(dim=1) <= slack).all()):
            raise ConfigError(
                "the tangent kernel is another than the one that the checkpoint was trained on, so its training "
                "samples or layers are others: use the config.yaml in its folder, with the same files"
            )

    @property
    def _is_full(self) -> bool:
        return self.kernel_outputs == "full" and self.data.num_outputs > 1

    def _check_ends(self, features: KernelFeatures) -> None:
        """Refuses to wait for margins that a kernel of low rank may never let the flow meet."""
        stop = self.stop
        if self.events or any(limit is not None for limit in (stop.t_max, stop.max_steps, stop.max_wall, stop.loss)):
            return
        rank, size = int(features.rank.min()), features.train.shape[-1]
        if rank < size:
            raise ConfigError(
                f"{self._kernel_name} has rank {rank} for {size} outputs, so all margins may never be met: set one of "
                "model.stop.t_max, model.stop.max_steps, model.stop.max_wall or model.stop.loss"
            )

    def _start_outputs(self, x: Tensor) -> Tensor | None:
        """F(0), (E, n, c), the outputs of the networks at w0; None for zero."""
        return self.centering.offset(lambda: self.raw_outputs(self.w0, x))

    # ------------------------------------------------------------------ what the flow needs

    def _build_objective(self) -> KernelObjective:
        features = self._decomposed()
        self._check_ends(features)
        return KernelObjective(
            features=features.train,
            start=self._start_outputs(self.train_split.x),
            centering=self.centering,
            loss=self.loss,
            y=self.train_split.y,
            outputs=self.data.num_outputs,
            reports_margins=any(event.needs_margins for event in self.flow.dynamics.events),
            sharing=self._sharing,
        )

    def _prepare_held_out(self) -> None:
        self._held_out = self._evaluator(self.test_split.x)

    def _evaluator(self, x: Tensor) -> Callable[[], Tensor]:
        features, start = self._features_of(x), self._start_outputs(x)
        return lambda: self._outputs(features, start)

    def held_out(self) -> Tensor:
        """F on the test set."""
        return self._held_out()

    def centered_outputs(self, x: Tensor, f0: Tensor | None = None) -> Tensor:
        """F at the present weights of the kernel's model, (E, n) for one output and (E, n, c) for more."""
        return self._outputs(self._features_of(x), self._start_outputs(x))

    def _features_of(self, x: Tensor) -> Tensor:
        return self._decomposed().of_others(self._kernel(x, self._train_inputs()))

    def _outputs(self, features: Tensor, start: Tensor | None) -> Tensor:
        return drop_single_output(
            kernel_outputs(features, self.w.detach(), self.centering, start, self.data.num_outputs, self._sharing)
        )
