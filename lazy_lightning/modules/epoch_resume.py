"""Resuming mini-batch training from a checkpoint of the last batch of an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytorch_lightning import Trainer


def begin_epoch_after_last_batch(trainer: Trainer) -> None:
    """Makes a Trainer that resumes from the last batch of an epoch count the next epoch as begun.

    A checkpoint saved in ``on_train_batch_end`` of the last batch holds an epoch that has begun and is not processed.
    Lightning resumes by counting it as processed, and takes the next epoch for the rest of it: neither
    ``epoch_progress.ready`` nor ``started`` grows, and ``on_train_epoch_start`` is not called. A checkpoint saved
    within such an epoch has as many epochs begun as processed, so a second resumption starts counting its batches at
    zero and passes over the observation at its end.

    A checkpoint saved after an epoch has been counted, as at the end of a run, holds the count of its batches. Where
    ``max_steps`` is set, Lightning goes on counting the batches of the next epoch from there, and ends that epoch, with
    a step of the scheduler, after its first batch.

    Args:
        trainer: whose fit loop has been reset, as in ``on_train_start``.
    """
    loop = trainer.fit_loop
    epochs = loop.epoch_progress.total
    if loop.restarted_on_epoch_end:  # saved in on_train_epoch_end, and max_steps is set
        loop.reset_restart_stage()
        loop.epoch_loop.restarting = False
        if epochs.completed < epochs.ready:
            loop.epoch_progress.increment_completed()
        return
    if epochs.completed < epochs.ready:
        return
    if loop.restarted_mid_epoch:
        loop.reset_restart_stage()
    else:
        loop.epoch_loop.restarting = False


def count_epoch_as_begun(checkpoint: Mapping[str, Any]) -> None:
    """Corrects a checkpoint of version 0.2.0 or older that lacks the epoch described above in its counts.

    Within an epoch one more has begun than has been processed; the batch of ``on_train_batch_end`` is not completed.

    Args:
        checkpoint: whose counts are changed in place.
    """
    loop = checkpoint["loops"]["fit_loop"]
    epochs, batches = loop["epoch_progress"], loop["epoch_loop.batch_progress"]["current"]
    if batches["completed"] < batches["ready"] and epochs["total"]["processed"] == epochs["total"]["started"]:
        for counts in (epochs["total"], epochs["current"]):
            counts["ready"] += 1
            counts["started"] += 1
