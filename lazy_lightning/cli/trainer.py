"""The trainer of the command line, and the callback that saves a run's configuration in its folder."""

from __future__ import annotations

from pathlib import Path

import torch
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.cli import SaveConfigCallback

from lazy_lightning.errors import RunError
from lazy_lightning.modules.kernel_module import At
from lazy_lightning.ntk.frozen_kernel import OutputMode
from lazy_lightning.runs.atomic import written_atomically


class FlowTrainer(Trainer):
    """Trainer that writes no files unless a logger or ``default_root_dir`` is given."""

    default_root_dir_given = False
    shares_its_folder = True
    """All processes of a run use the folder of rank 0."""
    _shared_folder: str | None = None
    chooses_precision = True
    """The default precision is float64, so float32 was chosen by the user."""

    def kernel(
        self,
        model: LightningModule,
        datamodule: LightningDataModule | None = None,
        at: At | None = None,
        layers: list[str] | str | None = None,
        kernel_outputs: OutputMode | None = None,
        ckpt_path: str | None = None,
        weights_only: bool = True,
    ) -> None:
        """Follows the same flow on the frozen tangent kernel of the network, instead of the network.

        Args:
            model: the KernelModule that the command line has built from the configuration's model.
            datamodule: the datamodule of the configuration.
            at: the weights at which the kernel is computed: the initial ones, or those of the checkpoint, which are the
                default if one is given.
            layers: use only the contribution of these layers; ``last`` is the kernel of the features before the output
                layer.
            kernel_outputs: use the full kernel between the outputs (the default), or its mean over outputs for each
                output.
            ckpt_path: the checkpoint of a run of the same configuration.
            weights_only: whether to load the checkpoint without running code from it.
        """
        self.fit(model, datamodule=datamodule)

    def sweep(
        self,
        model: LightningModule,
        datamodule: LightningDataModule | None = None,
        sweep: str | None = None,
        out: str | None = None,
        dry_run: bool = False,
        retry_failed: bool = False,
        workers: int = 1,
        max_members: int | None = None,
        executor: str | None = None,
        retries: int | None = None,
        cpus: int | None = None,
        gpus: float | None = None,
        address: str | None = None,
        partition: str | None = None,
        time: int | str | None = None,
        gres: str | None = None,
        mem: float | None = None,
        account: str | None = None,
    ) -> None:
        """Trains a grid of configurations, scales and seeds; the same command resumes a stopped sweep.

        Args:
            model: the model of the configuration.
            datamodule: the datamodule of the configuration.
            sweep: a YAML file that declares the grid: a path, or a bundled one such as ``sweeps/phase_diagram.yaml``.
            out: the folder of the sweep; by default the sweep's name, in the logger's ``save_dir``.
            dry_run: print the plan with estimates of time and memory, and train nothing.
            retry_failed: train failed members again.
            workers: number of processes or jobs that train batches in parallel; 0 trains in this process.
            max_members: largest number of members in a batch; by default as many as fit into memory.
            executor: what trains the batches: local (processes of this machine, the default), ray or slurm.
            retries: how often a batch whose process has died is resumed before it is divided; by default once.
            cpus: number of cores of a batch, with ray and slurm; by default 1.
            gpus: GPUs of a batch with ray; 0.25 lets four batches share one.
            address: address of a running Ray cluster, or auto; by default Ray is started on this machine.
            partition: partition of SLURM.
            time: time limit of a job of SLURM, in minutes or as HH:MM:SS; by default an hour.
            gres: generic resources of a job of SLURM, such as gpu:1.
            mem: memory of a job of SLURM in GB.
            account: account of SLURM.
        """
        raise NotImplementedError("a sweep is run by the command line, not by a Trainer")

    @property
    def log_dir(self) -> str | None:
        """The run's folder; None without a logger, unless ``default_root_dir`` has been given."""
        if not (self.loggers or self.default_root_dir_given):
            return None
        if self.world_size == 1 or not torch.distributed.is_initialized():
            return super().log_dir
        if self._shared_folder is None:  # determined once, by a collective of all ranks
            self._shared_folder = super().log_dir
        return self._shared_folder


class SaveConfig(SaveConfigCallback):
    """Callback that saves ``config.yaml`` in the run's folder, if there is one, and never overwrites another run's."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Saves the configuration when the trainer starts.

        Raises:
            RunError: the folder already holds a run.
        """
        if trainer.log_dir is None or self.already_saved:
            return
        path = Path(trainer.log_dir) / self.config_filename
        if trainer.is_global_zero and path.is_file() and not self.overwrite:
            raise RunError(
                f"{path} exists already: its folder holds another run, so choose another --trainer.logger.version "
                "or --trainer.logger.save_dir"
            )
        super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes the file atomically, which the stock callback does not, because a sweep may be killed at any time."""
        assert trainer.log_dir is not None  # checked by setup
        with written_atomically(Path(trainer.log_dir) / self.config_filename) as temporary:
            self.parser.save(self.config, temporary, skip_none=False, overwrite=True, multifile=self.multifile)
