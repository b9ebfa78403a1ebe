"""The trainer of the command line, and the configuration that it saves: a run is one folder, never two runs in one."""

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
    """A Trainer that writes nothing where nobody has asked for it."""

    default_root_dir_given = False
    shares_its_folder = True
    """All processes of a run know the folder of the first."""
    _shared_folder: str | None = None
    chooses_precision = True
    """Its default is float64, so float32 has been asked for."""

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
            model: the KernelModule that the command line has made of the configuration's model.
            datamodule: the data.
            at: the weights whose kernel it is, initial or those of the checkpoint; by default those of the checkpoint
                if one is given.
            layers: the part of some layers alone; ``last`` is the kernel of the features before the output layer.
            kernel_outputs: couple the outputs as the network does (the default), or give each the mean kernel.
            ckpt_path: the checkpoint of a run of the same configuration.
            weights_only: load it without running code from it.
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
    ) -> None:
        """Trains a grid of configurations, scales and seeds; the same command goes on where it was stopped.

        Args:
            model: the configuration's.
            datamodule: the configuration's.
            sweep: a YAML file that declares the grid: a path, or a bundled one such as ``sweeps/phase_diagram.yaml``.
            out: folder of the sweep; by default its name, in the logger's ``save_dir``.
            dry_run: show the plan with an estimate of time and memory, and train nothing.
            retry_failed: train members again that have failed.
            workers: processes that train batches at a time; 0 trains in this one.
            max_members: members of a batch, at most; by default as many as fit into memory.
        """
        raise NotImplementedError("a sweep has no trainer of its own: it is run by the command line")

    @property
    def log_dir(self) -> str | None:
        """The run's folder; None without a logger, unless ``default_root_dir`` has been given."""
        if not (self.loggers or self.default_root_dir_given):
            return None
        if self.world_size == 1 or not torch.distributed.is_initialized():
            return super().log_dir
        if self._shared_folder is None:  # asked for once, by all ranks together
            self._shared_folder = super().log_dir
        return self._shared_folder


class SaveConfig(SaveConfigCallback):
    """Saves ``config.yaml`` in the run's folder, if there is one, and never over that of another run."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Saves.

        Raises:
            RunError: the folder holds a run.
        """
        if trainer.log_dir is None or self.already_saved:
            return
        path = Path(trainer.log_dir) / self.config_filename
        if trainer.is_global_zero and path.is_file() and not self.overwrite:
            raise RunError(
                f"{path} is there already: its folder holds another run, so choose another --trainer.logger.version "
                "or --trainer.logger.save_dir"
            )
        super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Writes it whole or not at all: the stock callback does not, and a sweep may be killed at any time."""
        assert trainer.log_dir is not None  # setup has seen to that
        with written_atomically(Path(trainer.log_dir) / self.config_filename) as temporary:
            self.parser.save(self.config, temporary, skip_none=False, overwrite=True, multifile=self.multifile)
