"""MiniBatchModule: mini-batch training of alpha-centred networks, beside what they are compared with."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim import Optimizer

from lazy_lightning.argument_types import check_arguments
from lazy_lightning.data.flow_data import FlowData
from lazy_lightning.data.member_batches import MemberBatches
from lazy_lightning.data.mini_batches import MiniBatches
from lazy_lightning.data.split import Split
from lazy_lightning.errors import ConfigError
from lazy_lightning.flow.stop_reason import StopReason
from lazy_lightning.modules.data_sets import SetName
from lazy_lightning.modules.ensemble import DataSeeds
from lazy_lightning.modules.epoch_resume import begin_epoch_after_last_batch, count_epoch_as_begun
from lazy_lightning.modules.layer_rates import LayerRates, check_layer_rates, layer_factors, scale_steps
from lazy_lightning.modules.learning_rates import LearningRateSearch, format_rates
from lazy_lightning.modules.member_groups import (
    Rates,
    Rows,
    clip_each,
    default_rate,
    optimizer_of,
    present_rates,
    probe,
    require_schedule,
)
from lazy_lightning.modules.observation import Observation, Record
from lazy_lightning.modules.observed_module import ObservedModule
from lazy_lightning.modules.row_checkpoint import split_rows, stack_rows
from lazy_lightning.modules.stored_members import REASONS
from lazy_lightning.modules.training_state import TrainingState
from lazy_lightning.nn.member_samples import MemberSamples, OwnSets
from lazy_lightning.objective.companions import NETWORK, Companion, ComparisonModels, check_companions
from lazy_lightning.objective.full_batch import Objective, chunks
from lazy_lightning.objective.loss_over_sets import own_sample_losses
from lazy_lightning.objective.losses import Loss
from lazy_lightning.objective.weight_decay import DecayTo, WeightDecay
from lazy_lightning.runs.checkpoint_validation import CheckpointContent
from lazy_lightning.runs.checkpoints import KEY

BatchSeed = int | Literal["weights"] | None
"""The seed of the order of the mini-batches: one number, that of each member's weights, or the data's train_seed."""


class MiniBatchModule(ObservedModule):
    """Trains F = alpha (f(w, x) - f(w0, x)) on mini-batches, by any optimizer of torch (arXiv:1812.07956).

    A step descends L = 1/(alpha^2 b) sum_i ell(F(w, x_i), y_i) over a batch of b samples, which all members share
    unless they have orders of batches (``batch_seed``) or training sets (``data_seeds``) of their own.
    Every pair of an alpha and a seed is a member; beside the network of each, its ``companions`` are trained from the
    same start, by the same optimizer and batches. Nothing that happens to one member or model changes another.

    What the optimizer moves is dw = w - w0, a parameter for each member, so small displacements keep their digits; all
    of torch's rules give the same steps as on w, but for their own ``weight_decay``, which draws to w0; ``decay_rate``
    is a penalty in the objective and draws to zero or to w0. Each member has a parameter
    group with its own learning rate. ``t`` is the sum of the learning rates: without momentum it is flow time.

    Observed are w0, the steps 1, 2, 4, ... of the first epoch, and the end of every epoch.

    Args:
        network: as of :class:`~lazy_lightning.modules.FlowModule`.
        loss: likewise.
        alpha: likewise.
        seeds: likewise.
        centering: subtract f(w0, x), evaluated by the frozen start on each batch; False trains alpha f.
        optimizer: a class of ``torch.optim`` with its options; SGD with momentum 0.9 and lr 0.1 by default.
        lr_scheduler: a class of ``torch.optim.lr_scheduler``, or
            :class:`~lazy_lightning.modules.inverse_decay.InverseDecay`;
            null for a constant rate.
        lr_interval: step the scheduler once an epoch or once a step.
        learning_rates: of each alpha, instead of the optimizer's.
        search: find the rate of each alpha, of the network and of each companion, by short trials first.
        companions: ``linearized`` (by forward mode), ``frozen_activations`` (ReLUs and max-pools as at w0).
        observed_samples: how many training samples are evaluated at observations; null for all.
        chunk_size: samples evaluated at once at observations; null for all.
        decay_rate: weight decay, adds (decay_rate/2) norm(w - c)^2 to L; 0 for none. Reported losses do not contain it.
        decay_to: the point c that weight decay draws to, ``zero`` or the ``start`` w0.
        data_seeds: as of :class:`~lazy_lightning.modules.FlowModule`: training sets of the members' own, and with them
            orders of batches and augmentations, all as in a run with this ``data.train_seed``.
        data_seed_keys: likewise; ``batch_seed`` among them sets the seed of the order of mini-batches.
        batch_seed: draws the order of the mini-batches, and the augmentations, apart from the training set: a number,
            or ``weights``, by which each member has an order of its own, drawn by the seed of its weights. Null draws
            one order by ``data.train_seed``.
        stop_margin: a member ends at the first observation at which all training margins are at least this; its
            learning rate is zero from then on, so it stays where it is. Null trains all members to the end of the run.
        init: as of :class:`~lazy_lightning.modules.FlowModule`.
        init_alpha: likewise.
        init_fresh: likewise.
        layer_rates: factors of the learning rate by the name of a layer or parameter, 1 for those not named; ``mup``
            for those with which a step changes activations by as much at any width, see
            :func:`~lazy_lightning.modules.layer_rates.layer_factors`.

    Raises:
        ConfigError: for a value out of range, a loss that does not fit the labels, or an optimizer or a schedule that
            would couple members.
    """

    follows_flow: ClassVar[bool] = False

    def __init__(
        self,
        network: Callable[[], nn.Module],
        loss: str | Loss = "cross_entropy",
        alpha: float | list[float] = 1.0,
        seeds: int | list[int] = 1,
        centering: bool = True,
        optimizer: OptimizerCallable = lambda rows: torch.optim.SGD(rows, lr=0.1, momentum=0.9),
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["epoch", "step"] = "epoch",
        learning_rates: list[float] | None = None,
        search: LearningRateSearch | None = None,
        companions: list[Companion] | None = None,
        observed_samples: int | None = None,
        chunk_size: int | None = 500,
        decay_rate: float = 0.0,
        decay_to: DecayTo = "zero",
        data_seeds: DataSeeds = None,
        data_seed_keys: list[str] | None = None,
        batch_seed: BatchSeed = None,
        stop_margin: float | None = None,
        init: str | None = None,
        init_alpha: float | None = None,
        init_fresh: list[str] | None = None,
        layer_rates: LayerRates | None = None,
    ) -> None:
        given = {"observed_samples": observed_samples, "stop_margin": stop_margin, "learning_rates": learning_rates}
        check_arguments(MiniBatchModule, {**given, "decay_rate": decay_rate})
        target = 1.0 if stop_margin is None else stop_margin
        super().__init__(
            network, loss, alpha, seeds, centering, target, chunk_size, data_seeds, data_seed_keys, init, init_alpha,
            init_fresh,
        )  # fmt: skip
        self.batch_seed = _checked_batch_seed(batch_seed)
        if self.data_sets.set_batches and batch_seed == "weights":
            raise ConfigError(
                "data_seed_keys has batch_seed, but model.batch_seed is weights, by which each member has an order of "
                "its own: leave one of the two out"
            )
        self.stop_margin = stop_margin
        self.decay = WeightDecay(decay_rate, decay_to)
        self.companions = check_companions(companions or [])
        self.models: tuple[str, ...] = (NETWORK, *self.companions)
        self._optimizer, self._scheduler, self._interval = optimizer, lr_scheduler, lr_interval
        found = probe(optimizer)
        self._default_rate = default_rate(found)
        check_layer_rates(layer_rates, found)
        self.layer_rates = layer_rates
        if lr_scheduler is not None:
            if not callable(lr_scheduler):
                raise ConfigError(f"lr_scheduler is {lr_scheduler!r:.60}, expected a class of torch.optim.lr_scheduler")
            require_schedule(lr_scheduler(found))
        self._chosen_rates = self._rates = self._given_rates(learning_rates, search)
        self._search = search
        if observed_samples is not None and observed_samples < 1:
            raise ConfigError(f"observed_samples must be >= 1, or null for all, got {observed_samples}")
        self.observed_samples = observed_samples
        self._check_stop_margin()
        self._own_batches: OwnSets | None = None
        self._sets_of_batches = torch.zeros(0, dtype=torch.int64)
        self._whole_train: Split | None = None
        self.steps = 0
        self._goes_on = False
        self._t: dict[str, NDArray[np.float64]] = {}
        self._state: TrainingState | None = None
        self._loss_start: Tensor | None = None
        self._starts_of_all: Tensor | None = None
        self._reasons_of_all: Tensor | None = None
        self._reasons_before: list[int] = []

    def _given_rates(
        self, learning_rates: Sequence[float] | None, search: LearningRateSearch | None
    ) -> dict[str, list[float]] | None:
        if learning_rates is None:
            return None
        alphas = list(dict.fromkeys(self.ensemble.alphas))
        if search is not None:
            raise ConfigError("learning_rates and search were both given: leave one of them out")
        if len(learning_rates) != len(alphas) or min(learning_rates) <= 0:
            raise ConfigError(
                f"learning_rates must be one number > 0 for each of the {len(alphas)} alphas, got {learning_rates}"
            )
        of_alpha = dict(zip(alphas, learning_rates, strict=True))
        return {name: [of_alpha[alpha] for alpha in self.ensemble.alphas] for name in self.models}

    def _check_stop_margin(self) -> None:
        if self.stop_margin is None:
            return
        if not (self.loss.has_margin_stop and 0 < self.stop_margin < np.inf):
            raise ConfigError(
                f"stop_margin is {self.stop_margin} with the loss {self.loss.name}, expected a number > 0 with a "
                "loss of the hinge family: change one of the two, or set stop_margin to null"
            )
        for name, given in (
            ("companions", bool(self.companions)),
            ("lr_scheduler", self._scheduler is not None),
            ("observed_samples", self.observed_samples is not None),
        ):
            if given:
                raise ConfigError(
                    f"stop_margin is {self.stop_margin}, which is not implemented with model.{name}: set one of the "
                    "two to null"
                )

    @property
    def title(self) -> str:
        """What is trained, for the closing summary."""
        names = " and ".join(name.replace("_", " ") for name in self.companions)
        return f"mini-batch training of the network{f' beside {names}' if names else ''}"

    # ------------------------------------------------------------------ batches of the members' own

    def setup(self, stage: str) -> None:
        """Builds the members, and tells the datamodule whose batches to make."""
        super().setup(stage)
        self._whole_train = None
        sources = self._batch_sources()
        distinct = list(dict.fromkeys(sources))
        own = torch.tensor([distinct.index(source) for source in sources])
        self._own_batches = OwnSets(own.to(self.w0.device)) if len(distinct) > 1 else None
        self._sets_of_batches = self.data_sets.positions([seed for seed, _ in distinct]).to(self.w0.device)
        self.data.member_batches = functools.partial(self._train_batches, self.data, distinct)

    def _place(self, device: torch.device) -> None:
        super()._place(device)
        if self._own_batches is not None:
            self._own_batches = OwnSets(self._own_batches.own.to(device))
        self._sets_of_batches = self._sets_of_batches.to(device)

    def _batch_sources(self) -> list[tuple[int | None, int | None]]:
        """The data seed and the batch seed of each member of this process."""
        members = self.own_members
        data = members.data_seeds or (None,) * len(members)
        orders: Sequence[int | None] = (self.batch_seed,) * len(members)  # type: ignore[assignment]
        if self.batch_seed == "weights":
            orders = members.seeds
        elif self.data_sets.set_batches:
            orders = members.data_seeds or orders
        return list(zip(data, orders, strict=True))

    def _train_batches(self, data: FlowData, sources: Sequence[tuple[int | None, int | None]]) -> MiniBatches:
        loaders = [self.data_sets.data_of(data, own).mini_batches(seed) for own, seed in sources]
        return loaders[0] if len(loaders) == 1 else MemberBatches(loaders)

    def _resident_training_set(self) -> Split:
        """What is observed; part of the whole set on the device where members gather their batches from it."""
        if self._own_batches is None:
            return super()._resident_training_set()
        return self._observed(self._gathered_set())

    def _gathered_set(self) -> Split:
        """The whole training set on the device, brought there once a fit."""
        if self._whole_train is None:
            self._whole_train = self.resident(self.split("train"))
        return self._whole_train

    def _gathered(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The inputs and targets (K, b, ...) at positions (K, b) of the training sets."""
        train, sets = self._gathered_set(), self._sets_of_batches.unsqueeze(1)
        x, y = (part.sets[sets, rows] if isinstance(part, MemberSamples) else part[rows] for part in train[:2])
        return x, y

    # ------------------------------------------------------------------ weights

    def _hold_weights(self) -> None:
        """A parameter for each member of each model: dw, from zero."""
        self.displacements = nn.ModuleDict(
            {name: nn.ParameterList(nn.Parameter(row) for row in torch.zeros_like(self.w0)) for name in self.models}
        )

    @torch.no_grad()
    def _return_to_start(self) -> None:
        """dw = 0, by the rates that were chosen, or as they are found anew.

        Raises:
            ConfigError: the trainer has trained before, and would go on counting its epochs.
        """
        if self.trainer.global_step > 0:
            raise ConfigError(
                f"this Trainer has taken {self.trainer.global_step} steps already and goes on counting: make a new "
                "Trainer to fit again from w0, with ckpt_path=... to go on"
            )
        for row in self.displacements.parameters():
            row.zero_()
        self._rates, self._state, self._goes_on = self._chosen_rates, None, False
        self._reasons_of_all, self._reasons_before = None, []

    def displacement(self, model: str = NETWORK) -> Tensor:
        """(E, N) the displacement dw = w - w0."""
        return torch.stack(tuple(self._rows(model)))

    def _rows(self, model: str) -> nn.ParameterList:
        return cast(nn.ParameterList, self.displacements[model])

    @property
    def w(self) -> Tensor:  # type: ignore[override]
        """(E, N) the networks' weights."""
        return self.w0 + self.displacement()

    # ------------------------------------------------------------------ the objective

    @property
    def comparison_models(self) -> ComparisonModels:
        """The models on the present device."""
        return ComparisonModels(self.network, self.centering, self.w0, self.member_buffers(), self.shared_starts)

    def on_device(self, *batch: Tensor) -> tuple[Tensor, Tensor]:
        """The inputs and targets of a batch on the device, in the run's precision; each member's own if they differ.

        Args:
            batch: ``(x, y)``, or what :class:`~lazy_lightning.data.member_batches.MemberBatches` yields.
        """
        x, y = self._gathered(batch[0].to(self.device)) if len(batch) == 1 else batch
        y = y.to(self.device)
        x, y = x.to(self.device, self.w0.dtype), y.to(self.w0.dtype) if y.is_floating_point() else y
        if self._own_batches is None:
            return x, y
        return cast(Tensor, MemberSamples(x, self._own_batches)), cast(Tensor, MemberSamples(y, self._own_batches))

    def losses(self, displacements: Mapping[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Mean ell(F, y) over a batch, (E,) by model."""
        models = self.comparison_models
        start = models.start(x)
        return {
            name: own_sample_losses(self.loss, models.outputs(name, dw, x, start), y).mean(dim=-1)
            for name, dw in displacements.items()
        }

    def total(self, losses: Mapping[str, Tensor], displacements: Mapping[str, Tensor]) -> Tensor:
        """What is descended: the sum of ell/alpha^2 and weight decay over members and models; gradients do not mix."""
        weight = self.centering.loss_weight(1)
        total = torch.stack([(loss * weight.to(loss.dtype)).sum() for loss in losses.values()]).sum()
        if self.decay.rate == 0:
            return total
        return total + torch.stack([self.decay.penalty(dw, self.w0) for dw in displacements.values()]).sum()

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        """The loss of a batch; Lightning does the rest."""
        self.within_step = True
        x, y = self.on_device(*batch)
        displacements = {name: self.displacement(name) for name in self.models}
        return self.total(self.losses(displacements, x, y), displacements)

    # ------------------------------------------------------------------ the optimizer

    def optimizer_of(self, rows: Rows, rates: Rates) -> Optimizer:
        """The configured optimizer over other rows than the module's own, for trials."""
        optimizer = optimizer_of(self._optimizer, rows, rates)
        factors = layer_factors(self.network, self.layer_rates, optimizer)
        if factors is not None:
            scale_steps(optimizer, [row for members in rows.values() for row in members], factors)
        return optimizer

    def configure_optimizers(self) -> Any:
        """The optimizer, after the search for learning rates if there is one, and its scheduler.

        Raises:
            ConfigError: nothing would end the run.
        """
        self._require_an_end()
        if self._rates is None and self._search is not None:
            self._rates = self._search.search(self)
            self.print(format_rates(self._rates, self.ensemble))
        chosen = self._rates or {name: [self._default_rate] * len(self.ensemble) for name in self.models}
        rates = {name: [values[i] for i in self.own_rows] for name, values in chosen.items()}
        optimizer = self.optimizer_of({name: list(self._rows(name)) for name in self.models}, rates)
        if self._scheduler is None:
            return optimizer
        schedule = {"scheduler": self._scheduler(optimizer), "interval": self._interval}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips each member's gradient by itself."""
        if gradient_clip_val:
            clip_each(self.displacements.parameters(), gradient_clip_val, gradient_clip_algorithm)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """A step, and what is to be observed after it; the end of an epoch comes before its scheduler's step."""
        rates = self.rates()
        super().optimizer_step(*args, **kwargs)
        self.steps += 1
        self.within_step = False
        for name in self.models:
            self._t[name] = self._t[name] + rates[name]
        if self._is_due():
            self._observe()
        self.trainer.should_stop = self.ranks.any(self.stop_requested or self.trainer.should_stop)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Puts a stop off until the step is taken for which gradients have been accumulated: no checkpoint has them."""
        if self.within_step and self.trainer.should_stop:
            self.trainer.should_stop, self.stop_requested = False, True

    def rates(self) -> dict[str, NDArray[np.float64]]:
        """The present learning rates, (E,) by model."""
        return present_rates(cast(Optimizer, self.optimizers(use_pl_optimizer=False)), self.models)

    # ------------------------------------------------------------------ fitting

    def on_fit_start(self) -> None:
        """Brings the data to the device, and computes f0 there."""
        super().on_fit_start()
        train = self.train_split
        self._train_f0 = self.initial_outputs(train.x)
        self.objective = Objective(
            self.network, self.loss, self.centering, train.x, train.y, self._train_f0, self.member_buffers(),
            self.chunk_size, reports_margins=False,
        )  # fmt: skip

    def _observed_training_set(self) -> Split:
        return self._observed(self.split("train"))

    def whole_split(self, name: SetName) -> Split:
        """A set of the members of all ranks, (E, n, ...) with data seeds; of the training set the observed samples."""
        split = super().whole_split(name)
        if name != "train" or self.observed_samples is None:
            return split
        if self.ensemble.data_seeds is None:
            return self._observed(split)
        return Split(*(part[:, : self.observed_samples] for part in split))

    def _observed(self, train: Split) -> Split:
        return train if self.observed_samples is None else Split(*(part[: self.observed_samples] for part in train))

    def on_train_start(self) -> None:
        """Observes w0, unless the run goes on."""
        self.begin_session(anew=not self._goes_on)
        if self._goes_on:
            self._goes_on = False  # a module may be fitted again
            begin_epoch_after_last_batch(self.trainer)
            self.trainer.should_stop = self.trainer.should_stop or self.steps >= self._ends()
            return
        self.steps = 0
        self._t = {name: np.zeros(len(self.w0)) for name in self.models}
        self._loss_start = self._starts_of_all = None
        self._observe()

    def _require_an_end(self) -> None:
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        if min(self._limits()) == np.inf and not any(isinstance(c, Timer) for c in callbacks):
            raise ConfigError(
                "nothing would stop this run: set --trainer.max_epochs (or --trainer.max_steps, --trainer.max_time)"
            )

    def _limits(self) -> tuple[float, float]:
        """The epochs and the steps after which the trainer ends the run."""
        epochs, steps = self.trainer.max_epochs, self.trainer.max_steps
        return np.inf if epochs in (None, -1) else float(epochs), np.inf if steps == -1 else float(steps)

    def _ends(self) -> float:
        """The same in steps, whichever comes first."""
        trainer, (epochs, steps) = self.trainer, self._limits()
        per_epoch = -(-trainer.num_training_batches // trainer.accumulate_grad_batches)
        return min(epochs * per_epoch, steps)

    def _is_due(self) -> bool:
        early = self.trainer.current_epoch == 0 and self.steps & (self.steps - 1) == 0
        return early or bool(self.trainer.is_last_batch) or self.steps >= self._ends()

    # ------------------------------------------------------------------ observing

    @property
    def reasons(self) -> list[StopReason]:
        """Why each member has ended, if it has."""
        return [] if self._reasons_of_all is None else [StopReason(code) for code in self._reasons_of_all.tolist()]

    @property
    def train_outputs(self) -> Tensor:
        """F on the observed training samples at the last observation."""
        assert self._state is not None  # w0 has been observed
        return self._state.outputs

    @property
    def loss_start(self) -> Tensor:
        """(E,) the loss at w0, with its factor 1/alpha^2."""
        assert self._loss_start is not None  # w0 has been observed, here or before the checkpoint
        return self._loss_start

    @property
    def whole_loss_start(self) -> Tensor:
        """(E,) of the members of all ranks."""
        assert self._starts_of_all is not None  # w0 has been observed, here or before the checkpoint
        return self._starts_of_all

    def shares_done(self, record: Record) -> NDArray[np.float64]:
        """(E,): the share of the steps, or of the margins met if a member ends by these."""
        shares = np.full(len(self.ensemble), min(1.0, self.steps / self._ends()))
        return shares if self.stop_margin is None else np.fmax(shares, record.columns["train/margin_met"])

    def _observe(self) -> None:
        with torch.no_grad():
            self._state = self._present_state()
            self._reasons_of_all = self.whole({"reason": self._state.reason})["reason"]
            if self._starts_of_all is None:
                self._starts_of_all = self.whole({"loss": self.loss_start})["loss"]
            final = bool((self._reasons_of_all != int(StopReason.RUNNING)).all())
            columns: dict[str, Tensor] = {}
            observation = Observation(self.observations, self._state, self._state.as_trace(), None, final, columns)
            self.observe(observation, columns)
        if self.stop_margin is not None:
            self._hold_ended(self._state.reason)
        self.trainer.should_stop = self.trainer.should_stop or final

    def _hold_ended(self, reason: Tensor) -> None:
        """Sets the learning rate of members that have met their margins to zero, which the checkpoint keeps."""
        groups = cast(Optimizer, self.optimizers(use_pl_optimizer=False)).param_groups
        for group, code in zip(groups, reason.tolist(), strict=True):  # no companions, so a group is a member
            if code == StopReason.MARGINS_MET:
                group["lr"] = 0.0

    def _present_state(self) -> TrainingState:
        outputs = self._evaluated(NETWORK, train=True)
        loss = self.loss.per_sample(outputs, self.train_split.y).mean(dim=-1).double()
        loss = loss / self.centering.loss_divisor(1)
        self._loss_start = loss if self._loss_start is None else self._loss_start.to(loss.device)
        over = StopReason.MAX_STEPS if self.steps >= self._ends() else StopReason.RUNNING
        reason = torch.full_like(loss, int(over), dtype=torch.int8)
        numbers = {"t": self._t[NETWORK], "dt": self.rates()[NETWORK]}
        if self.stop_margin is not None:
            met = (self.loss.margins(outputs, self.train_split.y) >= self.stop_margin).all(dim=-1)
            reason = reason.masked_fill(met | (self._uploaded(numbers["dt"]) == 0), int(StopReason.MARGINS_MET))
        return TrainingState(
            origin=self.w0,
            displacement=self.displacement(),
            outputs=outputs,
            loss=loss,
            loss_start=self._loss_start,
            reason=reason.masked_fill(~loss.isfinite(), int(StopReason.NON_FINITE)),
            steps=torch.full_like(loss, self.steps, dtype=torch.int64),
            **{name: self._uploaded(value) for name, value in numbers.items()},
        )

    def _uploaded(self, values: NDArray[np.float64]) -> Tensor:
        """A few numbers of the host on the device, without waiting for it."""
        return torch.from_numpy(values).to(self.device, non_blocking=True)

    def _evaluated(self, model: str, *, train: bool) -> Tensor:
        """F on the observed training samples or on the test set, (E, n) or (E, n, c)."""
        x = (self.train_split if train else self.test_split).x
        f0 = self._train_f0 if train else self._test_f0
        models, dw = self.comparison_models, self.displacement(model)
        with torch.no_grad():
            parts = [
                models.outputs(model, dw, x[part], self._start_of(x, f0, part))
                for part in chunks(len(x), self.chunk_size)
            ]
        return torch.cat(parts, dim=1)

    def _start_of(self, x: Tensor, f0: Tensor, part: slice) -> Tensor:
        """f(w0, x[part]): kept since the fit began with centering, else evaluated."""
        return self.centering.initial_outputs(f0[:, part], lambda: self.comparison_models.start(x[part]))

    def _own_columns(self, observation: Observation) -> dict[str, Tensor]:
        columns = super()._own_columns(observation)
        columns["lr"] = columns["dt"]
        for name in self.companions:
            columns |= self._companion_columns(name)
        return columns

    def _companion_columns(self, name: Companion) -> dict[str, Tensor]:
        outputs = self._evaluated(name, train=True)
        distance = (outputs.double() - self.train_outputs.double()).flatten(1).square().mean(dim=1).sqrt()
        return {
            f"{name}/lr": self._uploaded(self.rates()[name]),
            f"{name}/distance": distance,
            **self.measured("fitted", outputs, self.train_split.y, f"{name}/train"),
            **self.measured("held_out", self._evaluated(name, train=False), self.test_split.y, f"{name}/test"),
        }

    # ------------------------------------------------------------------ resuming

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the clocks, the learning rates found, and what was subtracted as the loss at w0."""
        super().on_save_checkpoint(checkpoint)
        clocks = self.whole({name: torch.from_numpy(t) for name, t in self._t.items()})
        checkpoint[KEY] |= {
            "steps": self.steps,
            "t": {name: t.tolist() for name, t in clocks.items()},
            "rates": self._rates,
            "loss_start": self._starts_of_all,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Goes on with them.

        Raises:
            ConfigError: the checkpoint is of another kind of training, or as of any module.
        """
        saved = checkpoint.get(KEY)
        if isinstance(saved, dict) and "rates" not in saved:
            raise ConfigError(
                "the checkpoint is of a flow, not of mini-batch training: use the config.yaml in its folder"
            )
        super().on_load_checkpoint(checkpoint)
        saved = checkpoint[KEY]
        if not self.trainer.training:  # its weights are evaluated, a fit begins anew
            return
        count_epoch_as_begun(checkpoint)
        self._goes_on = True
        self.steps, self._rates, starts = saved["steps"], saved["rates"], saved["loss_start"]
        self._starts_of_all, self._loss_start = starts, None if starts is None else starts[self.own_rows]
        self._t = {name: np.array(t, dtype=np.float64)[self.own_rows] for name, t in saved["t"].items()}
        self._reasons_before = saved.get(REASONS, [])

    def _check_state(self, content: CheckpointContent, saved: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        members = len(self.ensemble)
        content.count(saved, "steps")
        clocks, rates = content.entry(saved, "t", dict), content.entry(saved, "rates", (dict, type(None)))
        for name in self.models:
            content.numbers(clocks.get(name), f"t of the {name}", members, 0)
            if rates is not None:
                content.numbers(rates.get(name), f"the learning rates of the {name}", members, 0)
        if saved.get(REASONS):  # a checkpoint of an older version has none
            content.numbers(saved[REASONS], REASONS, members, 0)
        start = content.entry(saved, "loss_start", (Tensor, type(None)))
        if start is not None:
            content.tensor(start, "loss_start", (members,), torch.float64)
        if self.trainer.training:
            content.steps_of_optimizer([row for name in self.models for row in self._rows(name)])
            self._check_scheduler(content)

    def stack_members(self, checkpoint: dict[str, Any], members: int) -> dict[str, Any]:
        """Returns a checkpoint in which the rows of each model are one tensor, with their optimizer's state."""
        return stack_rows(checkpoint, self.models, members)

    def split_members(self, checkpoint: dict[str, Any], members: int) -> dict[str, Any]:
        """Returns a checkpoint with a parameter for each member of each model."""
        return split_rows(checkpoint, self.models, members)

    def _check_scheduler(self, content: CheckpointContent) -> None:
        held = len(content.content["lr_schedulers"])
        if held != (self._scheduler is not None):
            content.refuse(f"it holds {held} learning-rate schedules, the configuration {int(not held)}")

    def _reason_codes(self) -> list[int]:
        """Those of the last observation, which may have been made before a checkpoint that the run goes on from."""
        codes = super()._reason_codes() or self._reasons_before
        limit = StopReason.MAX_STEPS if self.steps >= self._ends() else StopReason.RUNNING
        return [int(limit) if code in (StopReason.RUNNING, StopReason.MAX_STEPS) else code for code in codes]

    def _settings(self) -> dict[str, Any]:
        rates = self.layer_rates
        named = {str(name): float(factor) for name, factor in rates.items()} if isinstance(rates, Mapping) else rates
        return {
            "batch_seed": self.batch_seed,
            "companions": list(self.companions),
            "decay_rate": float(self.decay.rate),
            "decay_to": self.decay.to if self.decay.rate > 0 else None,
            "layer_rates": named,
            "stop_margin": None if self.stop_margin is None else float(self.stop_margin),
        }

    def _identity(self) -> str:
        order = "" if self.batch_seed is None else f" batch_seed {self.batch_seed}"
        return f"{super()._identity()} {self.models}{order}"


def _checked_batch_seed(seed: BatchSeed) -> BatchSeed:
    """Refuses what is no seed."""
    if seed is None or seed == "weights":
        return seed
    if isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**63:
        return seed
    raise ConfigError(f"batch_seed is {seed!r}, expected an integer >= 0 and below 2^63, weights, or null")
