"""``fit --resume RUN``: resumes an interrupted run in its own folder with its own configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lazy_lightning.errors import ConfigError
from lazy_lightning.runs.configuration import ADDED_SINCE_0_1_0, flatten, load_config
from lazy_lightning.runs.run_files import CHECKPOINT, CONFIG, SUMMARY

OPTION = "--resume"
_MAY_CHANGE = (
    "model.stop",
    "model.events",
    "model.schedule",
    "model.chunk_size",
    "model.cuda_graphs",
    "model.shard",
    "data.root",
    "data.download",
)
"""Keys that determine the length and the memory of a run but not its result, so a resumed run may change them."""


def split_resume(arguments: Sequence[str]) -> tuple[list[str], Path | None]:
    """Replaces ``--resume`` in a ``fit`` command by the run's configuration; returns the command and the run's folder.

    >>> split_resume(["fit", "--config", "digits_fc.yaml"])
    (['fit', '--config', 'digits_fc.yaml'], None)

    Raises:
        ConfigError: the option has no value or is given twice, the folder holds no run that can be resumed, or a
            checkpoint is given too.
    """
    rest, named = _separated(arguments)
    if not named:
        return rest, None
    if len(named) > 1:
        raise ConfigError(f"{OPTION} is given {len(named)} times ({', '.join(named)}): a command resumes one run")
    if any(argument.split("=")[0] == "--ckpt_path" for argument in rest):
        raise ConfigError(f"{OPTION} resumes from the checkpoint in the run's folder: leave --ckpt_path out")
    folder = Path(named[0])
    _require_run(folder)
    return [rest[0], "--config", str(folder / CONFIG), *rest[1:]], folder


def require_same_run(config: Mapping[str, Any], folder: Path) -> None:
    """Checks that the configuration of a resumed run agrees with the one in its folder.

    Raises:
        ConfigError: they differ in a key that determines what is trained.
    """
    saved, given = flatten(load_config(folder)), flatten(config)
    for key in (*saved, *(key for key in given if key not in saved)):
        if _may_change(key) or _agree(key, saved, given):
            continue
        before, now = saved.get(key), given.get(key)
        raise ConfigError(
            f"{key} is {now} but the run in {folder} has {before}: a resumed run trains what it trained before, so "
            "leave the option out, or start another run"
        )


def _may_change(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in _MAY_CHANGE)


def _agree(key: str, saved: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    """Whether two flattened configurations agree in a key.

    A key that one of them lacks is an argument that another version of a class does not have, or belongs to a mapping
    such as ``layer_rates``, whose keys must be the same.
    """
    if key in saved and key in given:
        return str(given[key]) == str(saved[key])
    value = saved.get(key, given.get(key))
    owner, _, name = key.rpartition(".")
    if value is None or owner == "trainer" or (name in ADDED_SINCE_0_1_0 and value == ADDED_SINCE_0_1_0[name]):
        return True
    return owner in saved and owner in given and name not in ADDED_SINCE_0_1_0


def _separated(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    rest: list[str] = []
    named: list[str] = []
    waiting = False
    for argument in arguments:
        if waiting:
            named.append(argument)
            waiting = False
        elif argument == OPTION:
            waiting = True
        elif argument.startswith(f"{OPTION}="):
            named.append(argument.removeprefix(f"{OPTION}="))
        else:
            rest.append(argument)
    if waiting:
        raise ConfigError(f"{OPTION} needs the folder of a run: {OPTION} runs/digits_fc/version_0")
    return rest, named


def _require_run(folder: Path) -> None:
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder}: give {OPTION} the folder of a run, which holds its {CONFIG}")
    if not (folder / CONFIG).is_file():
        raise ConfigError(
            f"{folder} holds no {CONFIG}, so it is not the folder of a run: give one that `runs list` shows"
        )
    if not (folder / CHECKPOINT).is_file() and (folder / SUMMARY).is_file():
        raise ConfigError(f"the run in {folder} has ended and has no {CHECKPOINT} to resume from: start another run")
